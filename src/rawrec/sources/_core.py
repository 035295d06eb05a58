"""The k-core of interactions: everybody and everything that is left has at least k of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.data.import_report import ImportReport
from rawrec.data.numbering import Numbering

ROWS_AT_ONCE = 1 << 20


class Core:
    """Collects interactions as `Rows.clean` makes them, then gives back those of the k-core, in their order.

    Rows that repeat the user, item and time of an earlier one are left out first. Then users and items with fewer than
    k rows go, again and again until none is left that has fewer. Both are counted in the report. Memory: the ids, and
    some 30 bytes per row.
    """

    def __init__(self, k: int, report: ImportReport) -> None:
        self.k = k
        self.report = report
        self._user_codes, self._item_codes = Numbering(), Numbering()
        self._buffer: list[pa.Table] = []
        self._buffered = 0
        self._parts: list[pa.Table] = []

    def add(self, rows: dict[str, Any]) -> None:
        """Take a batch: `user_id`, `item_id`, `timestamp` and further columns of numbers."""
        self._buffer.append(pa.table(rows))
        self._buffered += len(rows["user_id"])
        if self._buffered >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if not self._buffer:
            return
        table = pa.concat_tables(self._buffer)
        self._buffer, self._buffered = [], 0
        for name, codes in (("user_id", self._user_codes), ("item_id", self._item_codes)):
            table = table.set_column(table.column_names.index(name), name, codes.encode(table.column(name)))
        self._parts.append(table)

    def finish(self) -> tuple[pa.Array, Iterator[dict[str, Any]]]:
        """The ids of the items that are left, and the rows that are left, in batches."""
        self._flush()
        if not self._parts:
            return pa.array([], pa.string()), iter([])
        table = pa.concat_tables(self._parts)
        self._parts = []
        users, items = table.column("user_id").to_numpy(), table.column("item_id").to_numpy()
        rows = _first_of_each(users, items, table.column("timestamp").to_numpy())
        if repeated := len(users) - len(rows):
            self.report.skip("repeats the user, item and time of an earlier row", count=repeated)
        distinct = len(rows)
        rows = _k_core(users, items, rows, self.k)
        if distinct > len(rows):
            self.report.skip(f"user or item with too few rows: not in the {self.k}-core", count=distinct - len(rows))
        left = self._item_codes.ids.take(pa.array(np.unique(items[rows])))
        return left, self._rows(table, rows)

    def _rows(self, table: pa.Table, rows: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        for at in range(0, len(rows), ROWS_AT_ONCE):
            part = table.take(pa.array(rows[at : at + ROWS_AT_ONCE]))
            columns: dict[str, Any] = dict(zip(part.column_names, part.columns, strict=True))
            columns["user_id"] = self._user_codes.ids.take(columns["user_id"].combine_chunks())
            columns["item_id"] = self._item_codes.ids.take(columns["item_id"].combine_chunks())
            yield columns


def _first_of_each(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """The first row of every distinct combination of keys, ascending."""
    order = np.lexsort(keys)
    new = np.ones(len(order), bool)
    new[1:] = np.logical_or.reduce([key[order[1:]] != key[order[:-1]] for key in keys])
    return np.sort(order[new])


def _k_core(users: NDArray[Any], items: NDArray[Any], rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Those of `rows` that are in the k-core."""
    while True:
        kept = rows[(np.bincount(users[rows])[users[rows]] >= k) & (np.bincount(items[rows])[items[rows]] >= k)]
        if len(kept) == len(rows):
            return rows
        rows = kept
