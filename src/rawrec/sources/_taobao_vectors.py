"""Vectors of the items of Taobao-MM: arrays that are looked into, or a table that is read for the items needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.data.bar import Bar
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.tables.parquet import Parquet

VECTORS = "scl"
"""The feature that they become."""
ID, VALUES = "205", "205_c"
SCALE = 127
"""What an int8 is divided by: vectors of length 1 were multiplied by it, and cut."""
ROWS = 1 << 14


class Vectors(Protocol):
    """width: of a vector."""

    width: int

    def read(self, ids: NDArray[np.int64], bar: Bar) -> None: ...
    def of(self, ids: NDArray[np.int64]) -> NDArray[np.float32]: ...


def open_vectors(places: Sequence[Path], report: ImportReport) -> Vectors | None:
    """The vectors in the first of the folders that has some; None, which is noted, where none has.

    Raises UserError for files that cannot be used.
    """
    for place in places:
        for keys in sorted(place.glob("scl_emb*_keys.npy")):
            values = keys.with_name(keys.name.replace("_keys.npy", "_values.npy"))
            if values.is_file():
                return _Arrays(keys, values)
        for table in sorted(place.glob("scl_embedding*.parquet")):
            return _Table(table, report)
    report.note(
        "there are no vectors of items (feature_map/scl_emb_int8_p90_keys.npy and _values.npy, or "
        "raw/scl_embedding_int8_p90.parquet): items have categories alone"
    )
    return None


class _Arrays:
    """Ids `[n]` and vectors `[n, width]`, of which only those that are asked for are read."""

    def __init__(self, keys: Path, values: Path) -> None:
        try:
            self.keys = np.load(keys, mmap_mode="r", allow_pickle=False)
            self.values = np.load(values, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{values} or its keys cannot be read: {str(error).splitlines()[0]}") from None
        if self.values.ndim != 2 or self.keys.shape != self.values.shape[:1]:
            shapes = f"{list(self.keys.shape)} and {list(self.values.shape)}"
            raise UserError(f"{values}: ids and vectors have the shapes {shapes}; they must be [n] and [n, width]")
        if self.keys.dtype.kind not in "iu" or self.values.dtype.kind not in "if":
            raise UserError(f"{values}: ids are {self.keys.dtype}, vectors {self.values.dtype}: numbers are needed")
        self.width = int(self.values.shape[1])
        self._order: NDArray[np.int64] | None = None
        if (self.keys[1:] < self.keys[:-1]).any():
            self._order = np.argsort(self.keys, kind="stable")
            self.keys = self.keys[self._order]

    def read(self, ids: NDArray[np.int64], bar: Bar) -> None:
        """Nothing to be done before."""

    def of(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of items, `[n, width]`; nan where there is none."""
        found = np.full((len(ids), self.width), np.nan, np.float32)
        at = np.searchsorted(self.keys, ids)
        known = np.flatnonzero(at < len(self.keys))
        known = known[self.keys[at[known]] == ids[known]]
        rows = at[known] if self._order is None else self._order[at[known]]
        order = np.argsort(rows)  # of a file in its order
        found[known[order]] = _as_floats(self.values[rows[order]])
        return found


class _Table:
    """A table of ids and lists; `read` keeps the vectors of the items that are needed."""

    def __init__(self, path: Path, report: ImportReport) -> None:
        self.source = Parquet(path, report, ROWS)
        self.source.require("vectors", [ID, VALUES])
        kind = self.source.schema.field(VALUES).type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            raise UserError(f"{path}: column {VALUES} holds {kind}, and no lists of numbers")
        first = next(self.source.again().batches([VALUES]), None)
        lengths = [] if first is None else [len(row) for row in first.columns[VALUES][:100].to_pylist() if row]
        if not lengths:
            raise UserError(f"{path}: the first rows of column {VALUES} hold no vector")
        self.width = max(set(lengths), key=lengths.count)
        self._ids, self._values = np.zeros(0, np.int64), np.zeros((0, self.width), np.float32)

    def read(self, ids: NDArray[np.int64], bar: Bar) -> None:
        """Go through the table for these items; rows of another width are counted and left out."""
        wanted = np.sort(ids)
        found, vectors = [], []
        for batch in bar.track("vectors", self.source, [ID, VALUES]):
            keys = batch.columns[ID].cast(pa.int64()).fill_null(0).to_numpy()
            lists = batch.columns[VALUES]
            lists = lists.cast(pa.large_list(lists.type.value_type))
            lengths = lists.value_lengths().fill_null(0).to_numpy()
            at = np.searchsorted(wanted, keys)
            needed = at < len(wanted)
            needed[needed] = wanted[at[needed]] == keys[needed]
            odd = needed & (lengths != self.width)
            if odd.any():
                reason = f"vector that has not {self.width} numbers (left out)"
                self.source.report.skip(reason, batch.examples(odd, ID), int(odd.sum()))
            keep = needed & ~odd
            if keep.any():
                kept = lists.filter(pa.array(keep)).flatten()
                found.append(keys[keep])
                vectors.append(kept.fill_null(0).to_numpy().reshape(-1, self.width))
        if found:
            self._ids, first = np.unique(np.concatenate(found), return_index=True)
            self._values = np.concatenate(vectors)[first]

    def of(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of items, `[n, width]`; nan where there is none."""
        result = np.full((len(ids), self.width), np.nan, np.float32)
        at = np.searchsorted(self._ids, ids)
        known = np.flatnonzero(at < len(self._ids))
        known = known[self._ids[at[known]] == ids[known]]
        result[known] = _as_floats(self._values[at[known]])
        return result


def _as_floats(values: NDArray) -> NDArray[np.float32]:
    """int8 as the numbers that they stand for; floats as they are."""
    return np.asarray(values, np.float32) / np.float32(SCALE if values.dtype.kind in "iu" else 1)
