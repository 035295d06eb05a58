"""The items of a dataset: ids, media, texts, columns, features; by dense index, from `items.lance`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.data.arrays import lists_of_codes, present_in
from rawrec.data.meta import again, each
from rawrec.data.names import known, lookup, row_numbers
from rawrec.data.opened import Opened
from rawrec.forks import check_not_forked


class Items(Opened):
    """What is read of the items."""

    @cached_property
    def item_ids(self) -> NDArray[np.object_]:
        """Original ids, `[n_items]`, by dense index."""
        return self._item_column("item_id").to_numpy(zero_copy_only=False)

    def item_rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Dense indices of item ids. Raises UserError that names the first unknown id and close matches."""
        return lookup("item", ids, self._item_lookup, self._name())

    @cached_property
    def _item_lookup(self) -> dict[str, int]:
        return dict(zip(self.item_ids.tolist(), range(self.n_items), strict=True))

    @property
    def has_launched(self) -> bool:
        """Whether it is known since when each item existed."""
        return "launched" in self._table.schema.names

    def item_table(self, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
        """Columns (default: all) of the items `start` to `stop`, media included."""
        check_not_forked()
        with again(self.path):
            return self._table.to_table(columns=columns, offset=start, limit=stop - start)

    def item_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Columns of the items in their order, some thousands at a time."""
        check_not_forked()
        yield from each(self.path, self._table.to_batches(columns=columns, batch_size=4096))

    def images(self, field: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[list[bytes]]:
        """Raw bytes of an image field for the items `rows`, in that order (repeats allowed); no image: empty list."""
        known("image field", field, self.fields.image, self.path)
        return self._take(field, rows)

    def texts(self, field: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[list[str]]:
        """Strings of a text field for the items `rows`, in that order (repeats allowed); no text: empty list."""
        known("text field", field, self.fields.text, self.path)
        return self._take(field, rows)

    def counts(self, field: str) -> NDArray[np.int32]:
        """Images or texts that each item has in a field, `[n_items]`, without reading media."""
        known("image or text field", field, self.fields.image + self.fields.text, self.path)
        return self._item_column(f"count/{field}").to_numpy()

    def image_bytes(self, field: str) -> NDArray[np.int64]:
        """Bytes of each item's images in a field, `[n_items]`, without reading media."""
        known("image field", field, self.fields.image, self.path)
        return self._item_column(f"bytes/{field}").to_numpy()

    def present(self, field: str) -> NDArray[np.bool_]:
        """Items with a non-empty value of an image, text, categorical or numeric field or a feature, `[n_items]`."""
        if field in self.fields.image + self.fields.text:
            return self.counts(field) > 0
        known("field", field, self.fields.names(), self.path)
        return present_in(self._item_column(field), self.n_items)

    def categorical(self, field: str) -> tuple[NDArray[np.int64], NDArray[np.int32], list[str]]:
        """A categorical field: `ptr [n_items + 1]`, `codes [values]` into the sorted vocabulary, the vocabulary."""
        known("categorical field", field, self.fields.categorical, self.path)
        return lists_of_codes(self._item_column(field))

    def numeric(self, field: str) -> NDArray[np.float64]:
        """A numeric field, `[n_items]`; nan where it is missing."""
        known("numeric field", field, self.fields.numeric, self.path)
        return self._item_column(field).to_numpy(zero_copy_only=False).astype(np.float64)

    def feature(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A ready-made feature, `[n_items, width]` (zeros where missing), and which items have it, `[n_items]`."""
        known("feature", name, list(self.fields.feature), self.path)
        values = np.zeros((self.n_items, self.fields.feature[name]), np.float32)
        valid = np.zeros(self.n_items, bool)
        start = 0
        self._check_reading()
        for batch in each(self.path, self._table.to_batches(columns=[name])):
            column = batch.column(name)
            stop = start + len(column)
            valid[start:stop] = column.is_valid().to_numpy(zero_copy_only=False)
            values[start:stop][valid[start:stop]] = column.drop_null().flatten().to_numpy().reshape(-1, values.shape[1])
            start = stop
        return values, valid

    def _item_column(self, name: str) -> pa.Array:
        self._check_reading()
        with again(self.path):
            column = self._table.to_table(columns=[name]).column(name)
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    def _take(self, field: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[list[Any]]:
        index = row_numbers(rows, self.n_items)
        if not len(index):
            return []
        unique, inverse = np.unique(index, return_inverse=True)
        self._check_reading()
        with again(self.path):
            values = self._table.take(unique.tolist(), columns=[field]).column(field).to_pylist()
        return [list(values[i] or []) for i in inverse.tolist()]
