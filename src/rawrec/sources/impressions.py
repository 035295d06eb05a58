"""`rawrec import impressions`: a table of shown lists, each with its items and the clicks among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.arguments import checked
from rawrec.arguments import shown as written
from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import Columns
from rawrec.data.splits import SplitSpec, keeping_lists
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.sources.catalogue import Catalogue
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.tables import Batch, open_source
from rawrec.sources.tables.amounts import Numbers
from rawrec.sources.tables.convert import numbers
from rawrec.sources.tables.fields import columns_of
from rawrec.sources.tables.lists import ListReader, Lists
from rawrec.sources.tables.rows import UNREADABLE_ID, Rows, asked_columns, check_kinds, further_types, times_of
from rawrec.sources.tables.source import look_at
from rawrec.sources.tables.vector_files import vector_files
from rawrec.sources.users import Users, open_users

CLICKS = ("ids", "flags")
LABEL = "click"
OWN = ("session", "query", "position", LABEL)
"""Interaction columns of this importer; other columns of these names are stored as `source_<name>`."""


@checked()
def import_impressions(
    impressions: str | Path,
    user: str,
    items_shown: str,
    clicks: str,
    *,
    out: str | Path,
    clicks_are: str | None = None,
    query: str | None = None,
    session: str | None = None,
    time: str | None = None,
    time_format: str | None = None,
    extra: Sequence[str] = (),
    context_category: Sequence[str] = (),
    context_numeric: Sequence[str] = (),
    users: str | Path | None = None,
    user_id: str | None = None,
    user_category: Sequence[str] = (),
    user_numeric: Sequence[str] = (),
    separator: str | None = None,
    items: str | Path | None = None,
    item_id: str = "item_id",
    text: Sequence[str] = (),
    category: Sequence[str] = (),
    numeric: Sequence[str] = (),
    feature: Sequence[str] = (),
    vectors: Mapping[str, str | Path] | None = None,
    image_dir: str | Path | None = None,
    image_path: Sequence[str] = (),
    image_name: str = "{item}.jpg",
    image_column: Sequence[str] = (),
    image_field: str = "image",
    frames: int | None = None,
    image_url: Sequence[str] = (),
    launched: str | None = None,
    pictures: UrlPictures | None = None,
    encoding: str | None = None,
    split: SplitSpec | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import a table with a row per shown list (formats as `import_table`) into a dataset with a row per shown item.

    items_shown, clicks: columns of lists: Parquet's own, JSON, or strings with `separator` between the values (default:
    as the first rows say, which is noted). clicks_are: `ids` of the items clicked, or `flags`, as many 0 and 1 as items
    shown; None: what fits more of the first lists, which is noted. The label is `click`. session, query: columns of the
    sessions and queries; without a session it is the number of the row. `position` is the place in the list, from 0.
    user, time, time_format, extra, context_category, context_numeric, all about users and about items: as in
    `import_table`, but item_id; `position`, `session` and `query` are of the context where they are named there.
    encoding: as there. split: default by time per user where there are times, else at random per user. A split that
    could tear a list apart keeps sessions whole. A `column` split names a column of the table.

    Raises UserError for absent files and columns, files that cannot be read, clicks that can be read either way, and
    when nothing is left to import.
    """
    if clicks_are not in (None, *CLICKS):
        raise UserError(f"clicks_are={written(clicks_are)}: use {' or '.join(CLICKS)}")
    report = ImportReport(source=f"impressions {Path(impressions).name}")
    source = open_source(Path(impressions), report, encoding)
    split = split or SplitSpec.model_validate({"kind": "time_user" if time else "random_user"})
    if split.column is not None and split.column not in [session, query]:
        extra = [*extra, split.column]
    for setting, names in (("user", user), ("items_shown", items_shown), ("clicks", clicks), ("time", time)):
        source.require(setting, [names])
    asked = asked_columns(source, query, session)
    own = {name: name for name in ("session", "position") if name not in source.columns}
    if texts := [name for name in context_numeric if own.get(name, "position") != "position"]:
        raise UserError(f"context_numeric: {texts[0]!r} is kept as text: name it in context_category")
    fields: dict[str, str] = {}
    extra = columns_of(source, "extra", extra, fields)
    context_category, context_numeric = (
        [name if name in own else columns_of(source, setting, [name], fields)[0] for name in dict.fromkeys(names)]
        for setting, names in (("context_category", context_category), ("context_numeric", context_numeric))
    )
    check_kinds("context", context_category, context_numeric)
    category_in, numeric_in = ([n for n in names if n not in own] for names in (context_category, context_numeric))
    types = further_types(source, extra, category_in, numeric_in, asked=asked, fields=fields)
    times = times_of(report, [source], time, time_format)
    read = {name: Numbers(report, "lists", name, look_at([source], name)) for name in numeric_in}
    cleaner = Rows(
        report, user, None, time, (), types, what="lists", asked=asked, times=times, fields=fields, numbers=read
    )
    own |= asked
    cleaner.names |= {name: f"source_{stored}" for name, stored in cleaner.names.items() if stored in OWN} | asked
    if split.column is not None:
        split = split.model_copy(update={"column": cleaner.names[split.column]})
    split = keeping_lists(split, "session")
    catalogue = Catalogue(
        report, open_source(Path(items), report, encoding) if items is not None else None, item_id, text=text,
        category=category, numeric=numeric, feature=feature, vectors=vector_files(vectors, item_id, encoding),
        image_column=image_column, image_dir=image_dir, image_path=image_path,
        image_name=image_name, image_field=image_field, frames=frames, image_url=image_url, pictures=pictures,
        launched=launched,
    )  # fmt: skip
    catalogue.check_time(time)
    people = Users(report, open_users(users, report, encoding), user_id or user, user_category, user_numeric)
    shown = _Shown(report, items_shown, clicks, clicks_are, separator)
    with (
        DatasetWriter(
            out,
            fields=catalogue.fields,
            source=report.source,
            labels=[LABEL],
            label_rule=f"clicked, by column {clicks}",
            extra={"position": pa.int32()} | {cleaner.names[name]: kind for name, kind in types.items()},
            context=Columns(
                categorical=[own.get(name) or cleaner.names[name] for name in dict.fromkeys(context_category)],
                numeric=[own.get(name) or cleaner.names[name] for name in dict.fromkeys(context_numeric)],
            ),
            users=people.fields,
            has_time=time is not None,
            has_launched=launched is not None,
            allow_empty=allow_empty,
            overwrite=overwrite,
            pictures=catalogue.pictures,
            asked={"session", *asked.values()},
        ) as writer,
        Bar(progress) as bar,
    ):
        writer.take_vectors(catalogue.vectors, report)
        if catalogue.source is not None:
            catalogue.write(writer, bar)
        people.write(writer, bar)
        for batch in bar.track("lists", source, [*cleaner.columns, items_shown, clicks]):
            columns, good = cleaner.check(batch)
            if session is None:
                columns["session"] = pa.array(batch.rows.astype(str), pa.string())
            for rows in shown.rows(batch, columns, good):
                writer.add_interactions(rows)
        if session is None:
            report.note("session is the number of the row, for no column is named")
        cleaner.finish(str(impressions))
        if not shown.positives:
            report.note(f"no positive label: no click of column {clicks!r} is on an item shown")
        if catalogue.source is None:
            catalogue.write_met(writer)
        return writer.finish(split, report)


class _Shown:
    """Makes a row per shown item of batches of lists; what does not fit is counted."""

    def __init__(
        self, report: ImportReport, items: str, clicks: str, clicks_are: str | None, separator: str | None
    ) -> None:
        self.report, self.items, self.clicks, self.clicks_are = report, items, clicks, clicks_are
        self.read = ListReader(report, separator)
        self.positives = 0

    def rows(self, batch: Batch, columns: dict[str, Any], good: np.ndarray) -> Iterator[dict[str, Any]]:
        """Interactions, in parts of bounded size. columns: those of the lists; good: which lists to use `[n]`."""
        shown, shown_fits = self.read(batch, self.items)
        clicked, clicked_fits = self.read(batch, self.clicks)
        for column in (self.items, self.clicks):
            good = self._leave_out(batch, good, batch.readable(column), column, UNREADABLE_ID)
        good = self._leave_out(batch, good, shown_fits, self.items, "no list of items can be read")
        good = self._leave_out(batch, good, shown.lengths > 0, self.items, "no items shown")
        good = self._leave_out(batch, good, clicked_fits, self.clicks, "no list of clicks can be read")
        if self.clicks_are is None and good.any():
            self.clicks_are = self._judge(batch.file, shown.keep(good), clicked.keep(good))
        if self.clicks_are == "flags":
            reason = "not as many clicks as items shown"
            good = self._leave_out(batch, good, clicked.lengths == shown.lengths, self.clicks, reason)
            odd = np.zeros(len(good), dtype=bool)
            odd[clicked.owners[~_are_flags(clicked)]] = True
            good = self._leave_out(batch, good, ~odd, self.clicks, "clicks that are neither 0 nor 1")
        keep = pa.array(good)
        columns = {n: v[good] if isinstance(v, np.ndarray) else v.filter(keep) for n, v in columns.items()}
        shown, clicked, batch = shown.keep(good), clicked.keep(good), batch.keep(good)
        for at in shown.spans():
            yield self._part(batch.places[at], shown.part(at), clicked.part(at), {n: v[at] for n, v in columns.items()})

    def _part(self, where: np.ndarray, shown: Lists, clicked: Lists, columns: dict[str, Any]) -> dict[str, Any]:
        """Interactions of some lists; where: the file and row of each `[n]`."""
        owners, positions = shown.owners, shown.positions
        self.report.add_read("interactions", len(owners))
        keys, click_keys = _keys(shown, clicked)
        distinct, places = np.unique(keys, return_index=True)
        if self.clicks_are == "flags":
            click_keys = keys[numbers(clicked.values, self.clicks) > 0]
        else:
            lost = ~_among(click_keys, distinct)
            self._count("clicked item that was not shown (left out)", lost, where, clicked)
        labels = _among(keys, np.sort(click_keys))
        named = (pl.Series(shown.values) != "").to_numpy()
        first = np.zeros(len(keys), dtype=bool)
        first[places] = True
        self._count("empty item id in a list", ~named, where, shown)
        self._count("item shown twice in a list (the first place is kept)", named & ~first, where, shown)
        at = np.flatnonzero(named & first)
        owners = owners[at]
        self.positives += int(labels[at].sum())
        rows = {n: v[owners] if isinstance(v, np.ndarray) else v.take(pa.array(owners)) for n, v in columns.items()}
        item_ids = shown.values.take(pa.array(at))
        return rows | {"item_id": item_ids, "position": positions[at], LABEL: labels[at].astype(np.float32)}

    def _leave_out(self, batch: Batch, good: np.ndarray, fits: np.ndarray, column: str, reason: str) -> np.ndarray:
        bad = good & ~fits
        if bad.any():
            self.report.skip(f"{reason} (list left out)", batch.examples(bad, column), int(bad.sum()))
        return good & fits

    def _count(self, reason: str, bad: np.ndarray, where: np.ndarray, lists: Lists) -> None:
        """Count the values where `bad` holds."""
        if bad.any():
            self.report.skip(reason, lists.examples(bad, where), int(bad.sum()))

    def _judge(self, file: str, shown: Lists, clicked: Lists) -> str:
        """What the clicks are: what more lists can be. UserError for a tie."""
        n = len(shown.lengths)
        some = clicked.lengths > 0

        def fit(values: np.ndarray) -> np.ndarray:
            return some & (np.bincount(clicked.owners[~values], minlength=n) == 0)

        keys, click_keys = _keys(shown, clicked)
        as_ids = int(fit(_among(click_keys, np.sort(keys))).sum())
        as_flags = int((fit(_are_flags(clicked)) & (clicked.lengths == shown.lengths)).sum())
        if as_ids == as_flags and as_ids:
            raise UserError(
                f"{file}: the clicks in column {self.clicks!r} can be ids of items or flags 0 and 1: say which, "
                "with clicks_are (--clicks-are)"
            )
        kind = "flags" if as_flags > as_ids else "ids"
        what = "0 and 1, as many as items shown" if kind == "flags" else "ids of the items clicked"
        self.report.note(
            f"clicks are read as {kind} ({what}): this fits {max(as_ids, as_flags):,} of the first {n:,} lists, of "
            f"which {n - int(some.sum()):,} have none; set it with --clicks-are"
        )
        return kind


def _are_flags(clicked: Lists) -> np.ndarray:
    """Where a value is 0 or 1, false or true `[values]`."""
    return np.isin(numbers(clicked.values, "clicks"), (0, 1))


def _keys(shown: Lists, clicked: Lists) -> tuple[np.ndarray, np.ndarray]:
    """A number for each pair of list and value, of the items shown and of the clicks."""
    codes = pa.concat_arrays([shown.values, clicked.values]).dictionary_encode()
    count = len(codes.dictionary)
    code = codes.indices.to_numpy().astype(np.int64)
    n = len(shown.values)
    return shown.owners * count + code[:n], clicked.owners * count + code[n:]


def _among(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Where a value is one of those in ascending order `[values]`."""
    at = np.searchsorted(ordered, values)
    return np.append(ordered, -1)[at] == values
