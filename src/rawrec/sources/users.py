"""The table of the users: their attributes on the way into a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from rawrec.data.bar import Bar
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import Columns
from rawrec.data.users import UserRows
from rawrec.errors import UserError
from rawrec.sources.tables import Batch, Source, Table, open_table
from rawrec.sources.tables.amounts import Numbers
from rawrec.sources.tables.convert import string_lists
from rawrec.sources.tables.fields import Named, fields_of
from rawrec.sources.tables.rows import read_ids
from rawrec.sources.tables.source import look_at

NONE: Mapping[str, str] = {}


def open_users(table: Table | None, report: ImportReport, encoding: str | None = None) -> Source | None:
    """The table of users, if one is named."""
    return None if table is None else open_table(table, report, "users", encoding)


class Target(Protocol):
    """What takes users: the writer of a dataset, or what appends to one."""

    users: UserRows


class Users:
    """Attributes of users from a table, whose column `user_id` holds the id. None: there is no table.

    category, numeric: its columns, each as "COLUMN" or "COLUMN=FIELD"; several categories of a user stand between "|"
    or are a list. `fields`: what becomes of them. separators: of columns that have another than "|".
    """

    def __init__(
        self,
        report: ImportReport,
        source: Source | None,
        user_id: str,
        category: Sequence[str] = (),
        numeric: Sequence[str] = (),
        separators: Mapping[str, str] = NONE,
    ) -> None:
        self.report, self.source, self.user_id, self.separators = report, source, user_id, separators
        wanted = [*category, *numeric]
        named: dict[str, list[Named]] = {"user_category": [], "user_numeric": []}
        if source is None:
            if wanted:
                raise UserError(f"column {wanted[0]!r} describes users: name the table of the users that holds it")
        else:
            if not wanted:
                raise UserError(f"name the columns of {source.path} to keep (user_category, user_numeric)")
            source.require("user_id", [user_id])
            words = {"user_category": list(dict.fromkeys(category)), "user_numeric": list(dict.fromkeys(numeric))}
            named = fields_of(source, words)
        self.category, self.numeric = named["user_category"], named["user_numeric"]
        look = [source] if source is not None else []
        self._numbers = {to: Numbers(report, "users", name, look_at(look, name)) for name, to in self.numeric}
        self.fields = Columns(
            categorical=[one.field for one in self.category], numeric=[one.field for one in self.numeric]
        )

    def write(self, target: Target, bar: Bar) -> None:
        """Read all users; rows without an id are left out and counted."""
        if self.source is None:
            return
        for batch in bar.track("users", self.source, self._columns()):
            target.users.add(self._clean(batch, self.source.format == "jsonl"))
        for numbers in self._numbers.values():
            numbers.finish()

    def _columns(self) -> list[str]:
        return list(dict.fromkeys([self.user_id, *(one.column for one in (*self.category, *self.numeric))]))

    def _clean(self, batch: Batch, is_json: bool) -> dict[str, Any]:
        self.report.add_read("users", len(batch.rows))
        found, good = read_ids(batch, self.user_id, self.report, "users")
        if not good.all():
            found, batch = found.filter(pa.array(good)), batch.keep(good)
        columns: dict[str, Any] = {"user_id": found}
        for name, field in self.category:
            values, separator = batch.columns[name], self.separators.get(name, "|")
            where = f"{batch.file}: {name}"
            columns[field] = string_lists(values, where, json_lists=is_json, separator=separator)
        for _, field in self.numeric:
            columns[field] = self._numbers[field](batch)
        return columns
