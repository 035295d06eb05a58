"""What is known of the items of Taobao-MM, and its columns of whole numbers, of which 0 is none."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.errors import UserError
from rawrec.sources.tables import Batch

OF_ITEMS = {"206": "category", "213": "item_213", "214": "item_214"}
Int64 = NDArray[np.int64]


class Items:
    """What is known of items: the first value of each that is not 0. Memory: 32 bytes an item."""

    MOST = 1 << 22

    def __init__(self) -> None:
        self.ids, self.values = np.zeros(0, np.int64), np.zeros((0, len(OF_ITEMS)), np.int64)
        self._waiting: list[tuple[Int64, Int64]] = []
        self._count = 0

    def add(self, batch: Batch, columns: list[str]) -> None:
        ids, *values = (numbers(batch, name) for name in columns)
        self.take(ids, dict(zip(columns[1:], values, strict=True)))

    def take(self, ids: Int64, values: dict[str, Int64]) -> None:
        none = np.zeros(len(ids), np.int64)
        self._waiting.append((ids, np.stack([values.get(name, none) for name in OF_ITEMS], 1)))
        self._count += len(ids)
        if self._count > self.MOST:
            self._merge()

    def _merge(self) -> None:
        ids = np.concatenate([self.ids, *(ids for ids, _ in self._waiting)])
        values = np.concatenate([self.values, *(values for _, values in self._waiting)])
        self._waiting, self._count = [], 0
        self.ids = np.unique(ids)
        self.values = np.zeros((len(self.ids), len(OF_ITEMS)), np.int64)
        for at in range(len(OF_ITEMS)):
            said = np.flatnonzero(values[:, at])
            of, first = np.unique(ids[said], return_index=True)
            self.values[np.searchsorted(self.ids, of), at] = values[said[first], at]

    def of(self, ids: Int64) -> dict[str, list[list[str]]]:
        """Categories of items, which are known ones."""
        if self._waiting:
            self._merge()
        found = self.values[np.searchsorted(self.ids, ids)]
        return {stored: categories(found[:, at]) for at, stored in enumerate(OF_ITEMS.values())}


def numbers(batch: Batch, column: str) -> Int64:
    """Ids, 0 where there is none. UserError for other values than whole numbers."""
    try:
        return batch.columns[column].cast(pa.int64()).fill_null(0).to_numpy().astype(np.int64)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{batch.file}: column {column} holds no whole numbers: {reason}") from None


def texts(batch: Batch, column: str) -> pa.Array:
    return pa.array(numbers(batch, column)).cast(pa.string())


def lists(batch: Batch, column: str) -> tuple[Int64, Int64]:
    """The values of all lists one after another, and their lengths. UserError for what is no list of whole numbers."""
    values = batch.columns[column]
    try:
        values = values.cast(pa.list_(pa.int64()))
    except pa.ArrowException as error:
        raise UserError(f"{batch.file}: column {column} holds no lists of whole numbers: {error}") from None
    lengths = pl.Series(values).list.len().fill_null(0).to_numpy().astype(np.int64)
    return values.flatten().fill_null(0).to_numpy(), lengths


def categories(values: Int64) -> list[list[str]]:
    return [[str(value)] if value else [] for value in values.tolist()]
