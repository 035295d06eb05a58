"""`rawrec import NAME` for a source of your own: its rows, as it gives them, through what every table goes through."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rawrec import plugins
from rawrec.config.sources import SourceEntry, SourceOptions, options_of, source_entry, source_names
from rawrec.config.wording import short, unknown
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.errors import UserError
from rawrec.shown import listed, several
from rawrec.sources.catalogue import Catalogue
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.table import import_sources
from rawrec.sources.tables import Batch, Source
from rawrec.sources.tables.columnar import plain, rows_at_once
from rawrec.sources.tables.in_memory import arrow_table
from rawrec.sources.tables.label_columns import Positive
from rawrec.sources.tables.vector_files import vector_files
from rawrec.sources.users import Users

END: Any = object()


@dataclass(kw_only=True)
class SourceTables:
    """What a source of your own gives: interactions and items in batches, and what their columns are.

    interactions, items, users: a list, or what a generator function gives, of batches: a table or a record batch of
    pyarrow, a data frame of polars, or a dict of columns. All of them have the columns of the first, in its types. Each
    is gone through once. items: None where there is no catalogue; the items are those of the interactions then. users:
    None where they have no attributes.

    All else is as for `import_table`: user, item, time, labels, extra, context_category, context_numeric, query and
    session are columns of the interactions, without labels every row is a positive; positive and rated say more of
    labels, time_format of times; user_id (default: as `user`), user_category and user_numeric are columns of the users;
    item_id (default: as `item`), text, category, numeric, feature, image_column, image_url and launched are columns of
    the items.
    vectors: feature -> a file. image_dir: a folder of pictures called `image_name`, the field `image_field`, or
    of those that the columns image_path name; with
    frames so many of each item's folder or video there. encoding: of files of vectors that are text.
    """

    interactions: Iterable[Any]
    items: Iterable[Any] | None = None
    user: str = "user_id"
    item: str = "item_id"
    time: str | None = None
    time_format: str | None = None
    labels: Sequence[str] = ()
    positive: Positive | None = None
    rated: str | None = None
    extra: Sequence[str] = ()
    context_category: Sequence[str] = ()
    context_numeric: Sequence[str] = ()
    query: str | None = None
    session: str | None = None
    users: Iterable[Any] | None = None
    user_id: str | None = None
    user_category: Sequence[str] = ()
    user_numeric: Sequence[str] = ()
    item_id: str | None = None
    text: Sequence[str] = ()
    category: Sequence[str] = ()
    numeric: Sequence[str] = ()
    feature: Sequence[str] = ()
    vectors: Mapping[str, str | Path] = field(default_factory=dict)
    image_column: Sequence[str] = ()
    image_dir: str | Path | None = None
    image_path: Sequence[str] = ()
    image_name: str = "{item}.jpg"
    image_field: str = "image"
    frames: int | None = None
    image_url: Sequence[str] = ()
    encoding: str | None = None
    launched: str | None = None


def import_own(
    name: str,
    options: SourceOptions | Mapping[str, Any],
    *,
    out: str | Path,
    split: SplitSpec | None = None,
    pictures: UrlPictures | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import from a source that was registered, or that an installed package brings, into a dataset folder.

    options: its record, or the values of it. split, pictures, allow_empty, overwrite: as of `import_table`. Raises
    UserError for an unknown source, for options that it does not take, for what `import_table` refuses, and where the
    source's own code fails.

    >>> import_own("till", {"journal": "monday.log"}, out="data/till")
    """
    entry = source_entry(name)
    if entry is None:
        raise UserError(unknown("source", name, source_names()))
    if entry.record is None:
        raise UserError(f"source {name!r} is one of rawrec's own: use {entry.place.replace(':', '.')}")
    if not isinstance(options, entry.record):
        options = options_of(name, entry.record, dict(options))
    report = ImportReport(source=_described(name, entry, options))
    with plugins.own_code("source", name):
        tables = entry.load()(options, report)
    if not isinstance(tables, SourceTables):
        raise UserError(f"source {name!r} gave {type(tables).__name__}: its function has to give a rawrec.SourceTables")
    rows = Given(name, "interactions", tables.interactions, report)
    items = None if tables.items is None else Given(name, "items", tables.items, report)
    item_id = tables.item_id or tables.item
    users = None if tables.users is None else Given(name, "users", tables.users, report)
    people = Users(report, users, tables.user_id or tables.user, tables.user_category, tables.user_numeric)
    catalogue = Catalogue(
        report, items, item_id, text=tables.text, category=tables.category, numeric=tables.numeric,
        feature=tables.feature, vectors=vector_files(tables.vectors, item_id, tables.encoding),
        image_column=tables.image_column, image_dir=tables.image_dir, image_path=tables.image_path,
        image_name=tables.image_name,
        image_field=tables.image_field, frames=tables.frames, image_url=tables.image_url, pictures=pictures,
        launched=tables.launched,
    )  # fmt: skip
    return import_sources(
        rows, tables.user, tables.item, catalogue, out=out, time=tables.time, time_format=tables.time_format,
        labels=tables.labels, positive=tables.positive, rated=tables.rated, extra=tables.extra,
        context_category=tables.context_category, context_numeric=tables.context_numeric, query=tables.query,
        session=tables.session, users=people, split=split, needed=(), allow_empty=allow_empty, overwrite=overwrite,
        progress=progress,
    )  # fmt: skip


def _described(name: str, entry: SourceEntry, options: SourceOptions) -> str:
    """The source, its options that are not as usual, and the package that brings it."""
    given = options.model_dump(exclude_defaults=True)
    words = [f"{key}={short(value.name if isinstance(value, Path) else value)}" for key, value in given.items()]
    package = plugins.package_of(entry.module)
    return " ".join([name, *words, *([f"({package})"] if package else [])])


class Given(Source):
    """The batches of a source of another package as one table, which can be looked at before it is read."""

    format = "arrow"
    holds_bytes = True
    rereadable = False

    def __init__(self, name: str, what: str, batches: Iterable[Any], report: ImportReport) -> None:
        super().__init__(Path(f"{name}:{what}"), report)
        self._stream, self._looks = _Stream(name, what, batches, report), False
        first = self._stream.at(0)
        if first is None:
            reasons = [f"{entry.count} skipped because: {reason}" for reason, entry in report.skipped.items()]
            raise UserError(several([f"source {name!r} gave no {what}", *reasons], "; "))
        self.columns = first.column_names

    @property
    def lies_in(self) -> None:
        return None

    def again(self) -> Given:
        other = copy.copy(self)
        other.report, other._looks = ImportReport(), True
        return other

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        self.single(columns)
        number = 1
        for at in itertools.count():
            table = self._stream.at(at) if self._looks else self._stream.take()
            if table is None:
                return
            wanted = table.select(list(dict.fromkeys(columns)))
            for part in wanted.combine_chunks().to_batches(rows_at_once(wanted.schema.types)):
                rows = np.arange(number, number + part.num_rows)
                number += part.num_rows
                yield Batch(self.name, rows, {name: plain(part.column(name)) for name in columns})


class _Stream:
    """Batches as tables, each of which is made once; those that were looked at are held until they are taken."""

    def __init__(self, name: str, what: str, batches: Iterable[Any], report: ImportReport) -> None:
        self.name, self.what, self.report = name, what, report
        with plugins.own_code("source", name):
            self._left = iter(batches)
        self._held: deque[pa.Table] = deque()
        self._count = 0
        self._types: dict[str, pa.DataType] = {}

    def at(self, place: int) -> pa.Table | None:
        """Of those that were not taken yet; None past the end."""
        while len(self._held) <= place:
            if (table := self._next()) is None:
                return None
            self._held.append(table)
        return self._held[place]

    def take(self) -> pa.Table | None:
        return self._held.popleft() if self._held else self._next()

    def _next(self) -> pa.Table | None:
        with plugins.own_code("source", self.name):
            batch = next(self._left, END)
        if batch is END:
            return None
        self._count += 1
        where = f"source {self.name!r}: batch {self._count} of its {self.what}"
        table, index = arrow_table(batch, where)
        if index:
            self.report.note(f"source {self.name!r}: its {self.what} have an index, which is left out")
        types = {column.name: _kind(column.type) for column in table.schema}
        self._types = self._types or types
        if types.keys() != self._types.keys():
            found, first = (listed(kinds) for kinds in (types, self._types))
            raise UserError(f"{where} has the columns {found}, and the first one has {first}")
        for column, kind in types.items():
            if kind == (first := self._types[column]):
                continue
            if not pa.types.is_null(kind):
                raise UserError(
                    f"{where} has {kind} in column {column!r}, and the first one {first}: give all of them one type, "
                    "for example by the schema of a pyarrow.table"
                )
            table = table.set_column(table.column_names.index(column), column, pa.nulls(len(table), first))
        return table


def _kind(kind: pa.DataType) -> pa.DataType:
    """A type without the differences that `plain` takes away."""
    kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind
