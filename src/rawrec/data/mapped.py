"""A dataset whose interactions are memory-mapped, for those that are larger than memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawrec.data.dataset import Dataset
from rawrec.data.flat import Array, FlatStore, spans
from rawrec.data.labels import binary, is_positive
from rawrec.data.meta import MILLISECOND, split_file
from rawrec.errors import UserError
from rawrec.files import create

BUCKET = 1 << 22
"""Rows of some users that are sorted at once; of a user who has more, all."""
BUCKETS = 200
"""Most of them: each is a file while rows are dealt out."""


class MappedDataset(Dataset):
    """The same dataset; columns of interactions are flat files in `store`, made when they are first asked for."""

    store: FlatStore
    _arrays: dict[str, Array]

    @classmethod
    def of(cls, data: Dataset, places: list[Path]) -> MappedDataset:
        """`data` as it is, with flat files in the first of `places` that can be written."""
        if isinstance(data, MappedDataset):
            return data
        made = cls(data.path, data.meta, data._table, data.newest)
        made.store, made._arrays = FlatStore(*places), {}
        return made

    @cached_property
    def key(self) -> str:
        """What the interactions are: changes whenever they do."""
        files = [(entry.file, self._sum(entry.file), entry.moved) for entry in self.meta.versions]
        return json.dumps([self.fingerprint(), files], default=str)

    def key_of(self, split: str) -> str:
        """The same of a split."""
        name = split_file(split)
        made = [] if split == "default" else [self._sum(name)]
        return json.dumps([self.key, split, self.meta.splits[split], made], default=str)

    def _sum(self, name: str) -> str:
        found = (self.path / name).stat()
        return self.meta.sums.get(name) or f"{found.st_size} {found.st_mtime_ns}"

    # -------------------------------------------------------------------------------------------------------- columns
    @cached_property
    def users(self) -> NDArray[np.int32]:
        return self._whole_numbers("user", self.n_users)

    @cached_property
    def items(self) -> NDArray[np.int32]:
        return self._whole_numbers("item", self.n_items)

    @cached_property
    def timestamps(self) -> NDArray[np.int64] | None:
        return self._flat("timestamp", np.int64) if self.meta.has_time else None

    @cached_property
    def thousandths(self) -> NDArray[np.int16] | None:
        if not self.meta.has_time or MILLISECOND not in self.meta.extra:
            return None
        return self._flat(MILLISECOND, np.int16, np.nan_to_num)

    def label(self, name: str = "label") -> NDArray[np.float32]:
        if self.positive_only:
            return np.broadcast_to(np.float32(1), self.n_interactions)
        self.check_label(name)
        return self._flat(name, np.float32)

    def positive(self, label: str = "label") -> NDArray[np.bool_]:
        if self.positive_only:
            return np.broadcast_to(np.True_, self.n_interactions)
        return self.made(f"positive|{label}", np.bool_, lambda at: is_positive(self.label(label)[at]))

    def binary(self, label: str = "label") -> NDArray[np.float32]:
        if self.positive_only:
            return self.label(label)
        return self.made(f"binary|{label}", np.float32, lambda at: binary(self.label(label)[at]))

    def split(self, name: str = "default") -> NDArray[np.int8]:
        if name == "default":
            return self._flat("split", np.int8)
        whole: list[NDArray[np.int8]] = []

        def part(at: slice) -> Array:  # a byte a row, once
            if not whole:
                whole.append(super(MappedDataset, self).split(name))
            return whole[0][at]

        if name not in self.meta.splits:
            return super().split(name)
        return self.made(f"split|{self.key_of(name)}", np.int8, part)

    def history_rows(self, split: str = "default") -> NDArray[np.bool_]:
        if self.meta.splits.get(split, {}).get("history") is None:
            return np.broadcast_to(np.False_, self.n_interactions)
        whole: list[NDArray[np.bool_]] = []

        def part(at: slice) -> Array:
            if not whole:
                whole.append(super(MappedDataset, self).history_rows(split))
            return whole[0][at]

        return self.made(f"history|{self.key_of(split)}", np.bool_, part)

    @cached_property
    def launched(self) -> NDArray[np.int64] | None:
        if not self.has_launched:
            return None
        column = self._item_column("launched")
        if not column.null_count:
            return column.to_numpy()
        there = column.is_valid().to_numpy(zero_copy_only=False)
        return np.where(there, column.fill_null(0).to_numpy(), self.first_times())

    def first_times(self) -> NDArray[np.int64]:
        """The time of each item's first interaction, `[n_items]`; the largest number where there is none."""
        first, times = np.full(self.n_items, np.iinfo(np.int64).max), self.timestamps
        for at in spans(self.n_interactions if times is not None else 0):
            assert times is not None
            np.minimum.at(first, self.items[at], times[at])
        return first

    # -------------------------------------------------------------------------------------------------------- by users
    def by_user(self, chosen: Callable[[slice], Array]) -> Iterator[Array]:
        """The `chosen` rows (bool of a span of them) dealt out to pieces: all rows of some users, users in their order,
        rows in theirs. Records of `row`, `user`, `item`, and of `time` and `part` of its second where there are times.

        Memory: a piece, see BUCKET; disk: 16 to 26 bytes for each row, while it lasts.
        """
        counts = np.zeros(self.n_users, np.int64)
        for at in spans(self.n_interactions):
            counts += np.bincount(self.users[at][chosen(at)], minlength=self.n_users)
        total = int(counts.sum())
        size = max(BUCKET, -(-total // BUCKETS))
        piece = ((np.cumsum(counts) - counts) // size).astype(np.int32)
        kind = [("row", "<i8"), ("user", "<i4"), ("item", "<i4")]
        more = {"time": self.timestamps, "part": self.thousandths}
        more = {name: values for name, values in more.items() if values is not None}
        record = np.dtype([*kind, *((name, values.dtype.str) for name, values in more.items())])
        number = int(piece.max(initial=0)) + 1
        with self.store.scratch() as folder:
            files = [create(folder / str(k)) for k in range(number)]
            try:
                for at in spans(self.n_interactions):
                    rows = np.flatnonzero(chosen(at)) + at.start
                    found = np.empty(len(rows), record)
                    found["row"], found["user"], found["item"] = rows, self.users[rows], self.items[rows]
                    for name, values in more.items():
                        found[name] = values[rows]
                    where = piece[found["user"]]
                    order = np.argsort(where, kind="stable")
                    found, edges = found[order], np.searchsorted(where[order], np.arange(number + 1))
                    for k in np.flatnonzero(np.diff(edges)).tolist():
                        files[k].write(found[edges[k] : edges[k + 1]].tobytes())
            finally:
                for file in files:
                    file.close()
            for k in range(number):
                found = np.fromfile(folder / str(k), record)
                yield found[np.argsort(found["user"], kind="stable")]

    # --------------------------------------------------------------------------------------------------------- reading
    def _whole_numbers(self, name: str, count: int) -> NDArray[np.int32]:
        def checked(values: Array) -> Array:
            if len(values) and not (values.dtype == np.int32 and 0 <= values.min() <= values.max() < count):
                raise UserError(
                    f"{self.path} is damaged, import it again: an interaction has a {name} that is not there"
                )
            return values

        return self._flat(name, np.int32, checked)

    def _flat(self, name: str, kind: Any, change: Callable[[Array], Array] = lambda values: values) -> Array:
        """A column as it is stored."""

        def made() -> Iterator[Array]:
            for batch in self.interaction_batches([name]):
                yield change(batch.column(0).to_numpy(zero_copy_only=False)).astype(kind, copy=False)

        return self._kept(f"column|{name}", lambda: self.store.array(f"{self.key}|column|{name}", kind, made))

    def made(self, key: str, kind: Any, make: Callable[[slice], Array]) -> Array:
        """What is made of other columns, a span of rows at a time. key: of what, and how."""

        def parts() -> Iterator[Array]:
            return (make(at) for at in spans(self.n_interactions))

        return self._kept(key, lambda: self.store.array(f"{self.key}|{key}", kind, parts))

    def _kept(self, key: str, make: Callable[[], Array]) -> Array:
        if key not in self._arrays:
            self._arrays[key] = make()
        return self._arrays[key]
