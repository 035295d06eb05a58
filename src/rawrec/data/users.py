"""Attributes of users: rows by user id on their way into `users.parquet`, which has one row per user of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from rawrec.data.arrays import Values, present_in
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import Columns
from rawrec.data.names import unknown_name
from rawrec.data.parts import Counted, as_array, as_ids, check_column, first_of_each, without_empty
from rawrec.errors import UserError
from rawrec.lazily import Lazily

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazily("polars")

pc: Any = pyarrow.compute  # its functions are made at import, where a type checker does not see them


def user_schema(columns: Columns) -> pa.Schema:
    kinds = [(name, pa.list_(pa.string())) for name in columns.categorical]
    return pa.schema([("user_id", pa.string()), *kinds, *((name, pa.float64()) for name in columns.numeric)])


class UserRows:
    """Takes rows of users in any order: of users with the same id the first is kept.

    Memory: all of them.
    """

    def __init__(self, columns: Columns) -> None:
        for at, name in enumerate(columns.names()):
            check_column("user column", name, columns.names()[:at], ("user_id", "user"))
        self.columns, self.schema = columns, user_schema(columns)
        self._parts: list[pa.Table] = []

    def add(self, batch: Mapping[str, Values]) -> None:
        """`user_id` and, per column, one value per user (None: missing; an absent column: all missing): lists of texts
        of a category, floats of a number, where one that is not finite is missing."""
        for name in batch:
            if name not in self.schema.names:
                raise UserError(unknown_name("users: column", name, self.schema.names))
        ids = as_ids("user", batch["user_id"])
        columns = [ids]
        for kind in list(self.schema)[1:]:
            values = batch.get(kind.name)
            column = pa.nulls(len(ids), kind.type) if values is None else as_array(kind.name, values, kind.type)
            if pa.types.is_list(kind.type):
                column = without_empty(column)
            else:
                column = pc.if_else(pc.is_finite(column), column, None)
            columns.append(column)
        self._parts.append(pa.table(columns, schema=self.schema))

    def aligned(self, user_ids: pa.Array, report: ImportReport) -> pa.Table:
        """A row per user of the dataset, empty where none was given; rows of others are counted in the report."""
        table = pa.concat_tables([self.schema.empty_table(), *self._parts]).combine_chunks()
        ids = table.column("user_id").combine_chunks()
        repeated = ~first_of_each(ids)
        unknown = pc.invert(pc.is_in(ids, value_set=user_ids)).to_numpy(zero_copy_only=False)
        for reason, bad in (
            ("users: duplicate user id (the first row is kept)", repeated),
            ("users: without any interaction (left out)", unknown & ~repeated),
        ):
            if bad.any():
                counted = Counted()
                counted.add(ids.filter(pa.array(bad)))
                report.skip(reason, counted.examples, counted.count)
        found = table.take(pc.index_in(user_ids, value_set=ids))
        return found.set_column(0, "user_id", user_ids)


def merged(old: pa.Table, new: pa.Table, update: bool, report: ImportReport) -> pa.Table:
    """Attributes of the same users: what `old` lacks is filled, and with `update` what `new` has replaces it."""
    each, columns, kept = np.arange(len(old)), [old.column("user_id")], 0
    for name in old.schema.names[1:]:
        had, has = (present_in(table.column(name), len(old)) for table in (old, new))
        both = np.flatnonzero(had & has)
        kept += int((_words(old.column(name), both) != _words(new.column(name), both)).sum()) * (not update)
        chosen = np.where(has & (update | ~had), each + len(old), each)
        columns.append(pa.chunked_array([*old.column(name).chunks, *new.column(name).chunks]).take(pa.array(chosen)))
    if kept:
        report.skip("users: a value is there already (kept as it is; --update replaces it)", count=kept)
    return pa.table(columns, schema=old.schema)


def _words(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pl.Series:
    values = pl.Series(column.take(pa.array(rows)))
    return values.list.join("|") if isinstance(values.dtype, pl.List) else values


def bare_users(table: pa.Table) -> int:
    """How many users have no attribute."""
    present = [present_in(table.column(name), len(table)) for name in table.schema.names[1:]]
    return int((~np.logical_or.reduce(present)).sum())


def account(table: pa.Table, report: ImportReport) -> None:
    """Tell how many users have each attribute, and how many have none."""
    counts = {name: int(present_in(table.column(name), len(table)).sum()) for name in table.schema.names[1:]}
    shares = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    report.note(f"attributes of {len(table):,} users: {shares}")
    report.kept["users without attributes"] = bare_users(table)
