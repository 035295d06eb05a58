"""Interactions as they were read -> interactions as the dataset holds them; the rows that do not fit are counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from rawrec.data.import_report import ImportReport
from rawrec.data.meta import MILLISECOND
from rawrec.errors import UserError
from rawrec.sources.tables import Batch, Source
from rawrec.sources.tables.amounts import Numbers
from rawrec.sources.tables.convert import as_text, extra, ids, missing, row_name
from rawrec.sources.tables.extra_types import extra_types
from rawrec.sources.tables.fields import check_distinct
from rawrec.sources.tables.label_columns import SEEN_VALUES, LabelColumn, kept
from rawrec.sources.tables.source import look_at
from rawrec.sources.tables.times import Times

IN_WORDS = {"double": "number", "float": "number", "int64": "whole number", "bool": "true or false"}
"""What types of Arrow are called in a message."""


COMPOSITE_ID = "id that is a list or an object, no single value (name a key within an object as COLUMN.KEY)"
UNREADABLE_ID = "id with bytes that are not of the file's encoding (see --encoding)"


def read_ids(
    batch: Batch, column: str, report: ImportReport, what: str = "items", empty: str | None = None, show: str = ""
) -> tuple[pa.Array, np.ndarray]:
    """Ids of a column without surrounding white space, and which rows have one `[n]`; the others are counted.

    what: what the ids are of. empty: the reason where a row has none, show: the column told of such a row. Where an id
    has bytes that cannot be read, there is none: ids that differ in such bytes alone must not become one. Nor is a list
    or an object of JSON an id.
    """
    found, there = ids(batch.columns[column], f"{batch.file}: {column}")
    readable, single = batch.readable(column), batch.single(column)
    for reason, bad, shown in (
        (empty or f"{what}: empty {what.removesuffix('s')} id", ~there, show or column),
        (f"{what}: {UNREADABLE_ID}", there & ~readable, column),
        (f"{what}: {COMPOSITE_ID}", there & readable & ~single, column),
    ):
        if bad.any():
            report.skip(reason, batch.examples(bad, shown), int(bad.sum()))
    return found, there & readable & single


NONE: Mapping[str, str] = {}


class Rows:
    """Cleans batches of interactions. A row is left out if it has no user, no item, no time where a column of times is
    named, or no label; it counts once, under the first of these reasons. Of several labels some may be empty.

    labels: of these columns. item: None where a row is no single interaction. what: what a row is called in the
    report. extra: further columns and the types they get; a value that does not fit becomes empty and is counted.
    asked: see `asked_columns`. times: how those of `time` are read, see `times_of`. numbers: how further columns of
    numbers are read, if not as plain numbers; written: the same of labels. fields: what further columns are called,
    where that was said. names: further columns, and those of queries and sessions -> the names under which they are
    stored. fine: with the thousandths of the second in `MILLISECOND`.
    """

    def __init__(
        self,
        report: ImportReport,
        user: str,
        item: str | None,
        time: str | None = None,
        labels: Sequence[LabelColumn] = (),
        extra: Mapping[str, pa.DataType] | None = None,
        what: str = "interactions",
        asked: Mapping[str, str] | None = None,
        times: Times | None = None,
        numbers: Mapping[str, Numbers] | None = None,
        fields: Mapping[str, str] = NONE,
        written: Mapping[str, Numbers] | None = None,
        fine: bool = False,
    ) -> None:
        self.fine = fine
        self.report = report
        self.what = what
        self.user, self.item, self.time = user, item, time
        self.extra = dict(extra or {})
        self.asked = dict(asked or {})
        taken = {*self.asked.values()}
        self.labels = [replace(one, name=f"source_{one.name}") if one.name in taken else one for one in labels]
        taken |= {label.name for label in self.labels}
        stored = {name: row_name(name) for name in self.extra}
        self.names = {name: f"source_{s}" if s in taken else s for name, s in stored.items()}
        self.names |= {name: field for name, field in fields.items() if name in self.extra} | self.asked
        check_distinct("further columns", self.names)
        self.times = times or (Times(report, time) if time is not None else None)
        self.numbers = dict(numbers or {})
        self.written = dict(written or {})
        self.kept = 0
        self.untimely: dict[str, None] = {}
        self.positive = {label.name: 0 for label in self.labels}
        self.empty = {label.name: 0 for label in self.labels}
        self.found: dict[str, dict[str, None]] = {label.name: {} for label in self.labels}

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        further = [*(label.column for label in self.labels), *self.extra, *self.asked]
        return list(dict.fromkeys([self.user, *filter(None, [self.item, self.time]), *further]))

    def clean(self, batch: Batch) -> dict[str, Any]:
        """`user_id`, `item_id`, `timestamp` if there is one, labels and extra columns under their stored names."""
        result, good = self.check(batch)
        if not good.all():
            mask = pa.array(good)
            result = {n: v[good] if isinstance(v, np.ndarray) else v.filter(mask) for n, v in result.items()}
        for label in self.labels:
            self.positive[label.name] += int((result[label.name] > 0).sum())
            self.empty[label.name] += int(np.isnan(result[label.name]).sum())
        return result

    def check(self, batch: Batch) -> tuple[dict[str, Any], np.ndarray]:
        """The columns of all rows, and which rows are good `[n]`."""
        self.report.add_read(self.what, len(batch.rows))
        good = np.ones(len(batch.rows), dtype=bool)
        result: dict[str, Any] = {}

        def leave_out(column: str, reason: str, fits: np.ndarray) -> None:
            bad = good & ~fits
            if bad.any():
                self.report.skip(reason, batch.examples(bad, column), int(bad.sum()))
                np.logical_and(good, fits, out=good)

        def take(name: str, column: str, reason: str, values: Any, fits: np.ndarray) -> None:
            leave_out(column, reason, fits)
            result[name] = values

        columns, several = batch.columns, len(self.labels) > 1
        for column, what in ((self.user, "user"), (self.item, "item")):
            if column is not None:
                leave_out(column, f"{what} {UNREADABLE_ID}", batch.readable(column))
                leave_out(column, f"{what} {COMPOSITE_ID}", batch.single(column))
        take("user_id", self.user, "empty user id", *ids(columns[self.user], f"{batch.file}: {self.user}"))
        if self.item is not None:
            take("item_id", self.item, "empty item id", *ids(columns[self.item], f"{batch.file}: {self.item}"))
        if self.time is not None and self.times is not None:
            found = self.times(columns[self.time], f"{batch.file}: {self.time}")
            for reason, rows in found.odd.items():
                leave_out(self.time, reason, ~rows)
            take("timestamp", self.time, f"no usable time in column {self.time!r}", found.seconds, found.good)
            if self.fine:
                result[MILLISECOND] = found.thousandths
            self.untimely |= dict.fromkeys([*found.odd, f"no usable time in column {self.time!r}"])
        plain = {name: read.plain(batch) for name, read in self.written.items()}
        for label in self.labels:
            where = f"{batch.file}: {label.column}"
            values, fits = label.read(plain.get(label.column, columns[label.column]), where)
            if several:
                fits = fits | missing(columns[label.column])
            take(label.name, label.column, label.unusable(), values, fits)
            if len(found := self.found[label.name]) < SEEN_VALUES:
                found |= dict.fromkeys(label.some_values(columns[label.column], where))
        if several:
            some = np.logical_or.reduce([np.isfinite(result[label.name]) for label in self.labels])
            named = ", ".join(label.column for label in self.labels)
            leave_out(self.labels[0].column, f"no label in any of the columns {named}", some)
        for name, kind in self.extra.items():
            if name in self.numbers and pa.types.is_string(columns[name].type):
                result[self.names[name]] = pa.array(self.numbers[name](batch, good), kind, from_pandas=True)
                continue
            values, lost = extra(plain.get(name, columns[name]), kind)
            lost &= good
            if lost.any():
                what = IN_WORDS.get(str(kind), str(kind))
                reason = f"value of column {name!r} is no {what} (row kept, the value left empty)"
                self.report.skip(reason, batch.examples(lost, name), int(lost.sum()))
            result[self.names[name]] = values
        for name, stored in self.asked.items():
            result[stored] = as_text(columns[name], f"{batch.file}: {name}")
        self.kept += int(good.sum())
        return result, good

    def finish(self, file: str) -> None:
        """UserError if no row was left for want of times; a note for a label that is never positive."""
        for read in [*filter(None, [self.times]), *self.numbers.values(), *self.written.values()]:
            read.finish()
        if not self.kept and (reasons := [reason for reason in self.untimely if reason in self.report.skipped]):
            found = ", ".join(self.report.skipped[reasons[0]].examples[:3])
            further = "" if reasons[0].startswith("no usable time") else f": {reasons[0]}"
            raise UserError(
                f"{file}: no usable time in column {self.time!r} of any row ({found}){further}. Name another column, "
                "say how times are written (time_format), or import without times"
            )
        for label in self.labels:
            if count := self.empty[label.name]:
                self.report.note(
                    f"no label in column {label.column!r} of {count:,} rows, which are kept for their other labels"
                )
        for label in self.labels:
            if self.kept and not self.positive[label.name]:
                self.report.note(label.never(list(self.found[label.name])[:SEEN_VALUES]))


def has_fractions(source: Source, column: str | None, form: str | None, others: Collection[str]) -> bool:
    """Whether the first rows of a table that can be read again have times with a fraction of a second, which is kept in
    a column of its own then; `others`: names that are taken."""
    look = None if column is None else look_at([source], column)
    first = None if look is None else next(look(), None)
    if column is None or first is None or MILLISECOND in others:
        return False
    times = times_of(ImportReport(), [source], column, form)
    return times is not None and bool(times(first, column).thousandths.any())


def times_of(
    report: ImportReport, sources: Sequence[Source], column: str | None, form: str | None = None, known: bool = False
) -> Times | None:
    """How the times in `column` of these tables are read, see `Times`; a table that can be read again is looked at
    where some rows alone do not tell. None without a column. UserError for a `form` that is none, or has no column."""
    if column is None:
        if form is not None:
            raise UserError(f"time_format {form!r}: name the column of the times (time)")
        return None

    return Times(report, column, form, look_at(sources, column), known)


def written_labels(report: ImportReport, source: Source, labels: Sequence[LabelColumn]) -> dict[str, Numbers]:
    """How labels that are numbers are read where people wrote them, "4,5": `written` of `Rows`."""
    columns = [label.column for label in labels if not label.values]
    return {name: Numbers(report, "interactions", name, look_at([source], name)) for name in columns}


def asked_columns(source: Source, query: str | None, session: str | None) -> dict[str, str]:
    """The columns of queries and sessions -> `query` and `session`, as which they are stored. UserError for an absent
    column, and for one that is to be both."""
    source.require("query", [query])
    source.require("session", [session])
    if query is not None and query == session:
        raise UserError(f"column {query!r} is named as query and as session: name it once")
    return {column: name for column, name in ((query, "query"), (session, "session")) if column is not None}


def further_types(
    source: Source,
    extra: Sequence[str],
    category: Sequence[str] = (),
    numeric: Sequence[str] = (),
    labels: Sequence[LabelColumn] = (),
    asked: Collection[str] = (),
    fields: Mapping[str, str] = NONE,
) -> dict[str, pa.DataType]:
    """Further columns of the interactions and their types: text of a category, float64 of a number of the context, else
    as `extra_types` says. asked: columns of queries and sessions, which may be categories of the context, too, and are
    stored once. fields: as of `Rows`. UserError for an absent column, and for one that is named for two purposes."""
    source.require("extra", extra)
    source.require("context_category", category)
    source.require("context_numeric", numeric)
    stored = {label.name: label.column for label in labels}
    for name in dict.fromkeys([*extra, *category, *numeric, *asked]):
        if (column := stored.get(fields.get(name) or row_name(name))) is not None:
            what = "" if column == name else f" (of column {column!r})"
            raise UserError(
                f"column {name!r} is named as a label{what} and as a further column: name it once, or call the label "
                f"otherwise (label {column}=NAME)"
            )
    for name in {*extra} & {*asked}:
        raise UserError(f"column {name!r} is to be kept twice: name it once")
    for name in {*numeric} & {*asked}:
        raise UserError(f"context_numeric: {name!r} is kept as text: name it in context_category")
    check_kinds("context", category, numeric)
    category = [name for name in category if name not in asked]
    context = dict.fromkeys(category, pa.string()) | dict.fromkeys(numeric, pa.float64())
    known = {name: kind for name, kind in kept(labels).items() if name not in context}
    further = [name for name in dict.fromkeys(extra) if name not in {*context, *known}]
    return extra_types(source, further) | context | known


def check_kinds(what: str, category: Sequence[str], numeric: Sequence[str]) -> None:
    """UserError for a column that is to be both."""
    for name in numeric:
        if name in category:
            raise UserError(f"column {name!r} is named as {what}_category and as {what}_numeric: name it once")
