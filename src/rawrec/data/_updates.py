"""New content for items that a dataset has: columns of items.lance written anew, every row in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance.fragment import write_fragments
from numpy.typing import NDArray

from rawrec.data.arrays import pc, present_in
from rawrec.data.digest import ContentDigest
from rawrec.data.meta import Fields
from rawrec.data.parts import first_of_each


class ItemUpdates:
    """Rows that replace others: `stage` puts them aside in the folder `place`, `replace` makes the version with them.

    items: of the dataset; ids: theirs. An empty value replaces nothing. Memory: one table, and the largest fragment of
    items. count: items to replace so far. digest: of their rows.
    """

    def __init__(self, items: lance.LanceDataset, ids: pa.Array, place: Path, fields: Fields) -> None:
        self._items, self._ids, self._place = items, ids, str(place)
        self._names = fields.names() + [name for name in ("launched",) if name in items.schema.names]
        self._fragments: list[Any] = []
        self._rows: list[NDArray[np.int64]] = []
        self._fields: set[str] = set()
        self._updated = np.zeros(len(ids), bool)
        self.digest = ContentDigest()

    @property
    def count(self) -> int:
        return int(self._updated.sum())

    def stage(self, table: pa.Table) -> pa.Array:
        """Put rows aside, all of items that are there; the ids of rows that came after one of the same item, which do
        not count."""
        ids = table.column("item_id").combine_chunks()
        rows = pc.index_in(ids, value_set=self._ids).to_numpy().astype(np.int64)
        first = first_of_each(ids) & ~self._updated[rows]
        table, rows = table.filter(pa.array(first)), rows[first]
        if len(rows):
            self._updated[rows] = True
            self._rows.append(rows)
            self._fields |= {name for name in self._names if present_in(table.column(name), len(rows)).any()}
            self.digest.update("items", table)
            settings: dict[str, Any] = {
                "data_storage_version": self._items.data_storage_version,
                "enable_stable_row_ids": True,
            }
            self._fragments += write_fragments(table, self._place, schema=table.schema, mode="create", **settings)
        return ids.filter(pa.array(~first))

    def replace(self) -> lance.LanceDataset:
        """Write the columns of the fragments that hold updated items anew, and commit them."""
        items = self._items
        operation = lance.LanceOperation.Overwrite(items.schema, self._fragments)
        source = lance.LanceDataset.commit(self._place, operation, enable_stable_row_ids=True)
        rows = np.concatenate(self._rows)
        order = np.argsort(rows)
        rows, start = rows[order], 0
        changed: list[Any] = []
        modified: set[int] = set()
        offsets: dict[int, bytes] = {}
        for fragment in items.get_fragments():
            stop = start + fragment.count_rows()
            here = slice(*np.searchsorted(rows, [start, stop]).tolist())
            if here.start < here.stop:
                new = self._merged(source, order[here], fragment, rows[here] - start)
                written: Any = fragment.update_columns(new, "item_id", "item_id", with_offsets=True)
                changed.append(written[0])
                modified |= set(written[1])
                offsets[fragment.fragment_id] = written[2]
            start = stop
        operation = lance.LanceOperation.Update(
            updated_fragments=changed,
            fields_modified=sorted(modified),
            update_mode="rewrite_columns",
            updated_fragment_offsets=offsets,
        )
        return lance.LanceDataset.commit(items.uri, operation, read_version=items.version)

    def _merged(
        self, source: lance.LanceDataset, at: NDArray[np.int64], fragment: Any, rows: NDArray[np.int64]
    ) -> pa.Table:
        """The updated columns of rows of a fragment: of `source` where it has a value, else as they are."""
        schema = self._items.schema
        columns = {
            name: [n for n in (name, f"count/{name}", f"bytes/{name}") if n in schema.names]
            for name in sorted(self._fields)
        }
        wanted = ["item_id", *(n for names in columns.values() for n in names)]
        old, new = fragment.take(rows.tolist(), columns=wanted), source.take(at.tolist(), columns=wanted)
        new = new.take(pc.index_in(old.column("item_id"), value_set=new.column("item_id").combine_chunks()))
        each = np.arange(len(rows))
        merged = {"item_id": old.column("item_id")}
        for field, names in columns.items():
            chosen = pa.array(np.where(present_in(new.column(field), len(rows)), each, each + len(rows)))
            for name in names:
                both = pa.chunked_array([*new.column(name).chunks, *old.column(name).chunks])
                merged[name] = both.take(chosen)
        return pa.table(merged, schema=pa.schema([schema.field(name) for name in wanted]))
