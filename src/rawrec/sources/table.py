"""`rawrec import table`: any table of interactions, with or without a table of items and pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from rawrec.arguments import checked
from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import MILLISECOND, Columns
from rawrec.data.splits import SplitSpec, keeping_lists
from rawrec.data.writer import DatasetWriter
from rawrec.sources.catalogue import Catalogue
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.tables import Source, Table, open_table, table_name
from rawrec.sources.tables.amounts import Numbers
from rawrec.sources.tables.convert import row_name
from rawrec.sources.tables.fields import columns_of
from rawrec.sources.tables.label_columns import Positive, label_columns, rated_as
from rawrec.sources.tables.rows import Rows, asked_columns, further_types, has_fractions, times_of, written_labels
from rawrec.sources.tables.source import look_at
from rawrec.sources.tables.vector_files import vector_files
from rawrec.sources.users import Users, open_users


@checked()
def import_table(
    interactions: Table,
    user: str,
    item: str,
    *,
    out: str | Path,
    columns: Sequence[str] = (),
    time: str | None = None,
    time_format: str | None = None,
    labels: Sequence[str] = (),
    positive: Positive | None = None,
    rated: str | None = None,
    items: Table | None = None,
    item_id: str | None = None,
    item_columns: Sequence[str] = (),
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
    extra: Sequence[str] = (),
    context_category: Sequence[str] = (),
    context_numeric: Sequence[str] = (),
    query: str | None = None,
    session: str | None = None,
    users: Table | None = None,
    user_id: str | None = None,
    user_category: Sequence[str] = (),
    user_numeric: Sequence[str] = (),
    encoding: str | None = None,
    split: SplitSpec | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import a table of interactions into a dataset folder, with or without tables of items and users.

    Each table is a file (CSV, TSV, JSON lines, Parquet; text also gzipped) or stands in memory: a data frame of pandas
    or polars, a table, record batch or stream of pyarrow. The index of a data frame is not read.

    >>> data = rawrec.import_table(clicks, "user", "item", items=films, text=["title"], out="data/x")
    >>> print(data.report)

    columns, item_columns: the names of all columns, of a text without a header. user, item, time, labels, extra:
    columns of the interactions; without labels every row is a positive. A label is
    named as "column" or "column=name". positive: a number, from which on a label is positive, or words:
    "column>=number", or "column=value" for a value that is a positive, repeated for several. A label that is made so is
    called `label` where it is the only one and has no name, and its column is kept beside it. rated: `seen`, whatever
    a user rated counts as taken, or `unseen`, the label says; default: `seen` where a label is made of numbers by
    `positive`. time_format: what the times are, where
    that is not to be judged: `s`, `ms`, `us`, `ns`, `order`, or a form of `datetime.strptime`.
    Columns that become fields may have names of their own, as "COLUMN=FIELD": labels, extra, context_category and
    context_numeric, text, category, numeric, feature and image_column, user_category and user_numeric.
    context_category, context_numeric: further columns of them, which a ranker may read as the context of an impression.
    query, session: columns of what was asked for, as it was typed, and of what was shown together (any id, of one
    user); an empty one is none. A split that could tear a session apart keeps it whole.
    items: table of the items, whose column `item_id` (default: the same name as `item`) holds the id; text, category,
    numeric, image_column: its columns. Without it the items are those of the rows kept. Categories are lists, or
    several values between "|". feature: columns of vectors, which are lists of numbers or texts of them, as "column" or
    "column=field". vectors: feature -> a file of vectors with item ids (a table, .npz, .npy). A feature is as wide as
    its first vector that is all numbers. image_column: bytes, of Parquet. image_dir: a folder of pictures named
    `image_name`, stored as the field `image_field`. image_path: columns of the paths of pictures, "column" or
    "column=field", within image_dir, or else the
    folder of the table. frames: there an item has a folder of frames, a video or an
    animation, of which so many frames, evenly sampled, are its pictures. image_url: the addresses of pictures, one or
    several in a value.
    pictures: how these are downloaded; or a table of addresses. launched: when each item began to exist, before which
    it is no negative.
    users: table of users, whose column `user_id` (default: the same name as `user`) holds the id; user_category,
    user_numeric: its columns, which a ranker may read. Users without an interaction are left out.
    encoding: of the tables that are text (default: UTF-8, else as each is found to be).
    allow_empty: keep a field that no item has, instead of refusing it.
    split: default by time per user where there are times, else at random per user. A `column` split names a column of
    the interactions.

    Raises UserError for absent files and columns, files that cannot be read, and when nothing is left to import.
    """
    report = ImportReport(source=f"table {table_name(interactions)}")
    rows = open_table(interactions, report, "interactions", encoding, columns)
    source = open_table(items, report, "items", encoding, item_columns) if items is not None else None
    people = Users(report, open_users(users, report, encoding), user_id or user, user_category, user_numeric)
    catalogue = Catalogue(
        report, source, item_id or item, text=text, category=category, numeric=numeric, feature=feature,
        vectors=vector_files(vectors, item_id or item, encoding), image_column=image_column, image_dir=image_dir,
        image_path=image_path,
        image_name=image_name, image_field=image_field, frames=frames, image_url=image_url, pictures=pictures,
        launched=launched,
    )  # fmt: skip
    return import_sources(
        rows, user, item, catalogue, out=out, time=time, time_format=time_format, labels=labels, positive=positive,
        rated=rated, extra=extra, context_category=context_category, context_numeric=context_numeric, query=query,
        session=session, users=people, split=split, allow_empty=allow_empty,
        overwrite=overwrite, progress=progress,
    )  # fmt: skip


def import_sources(
    rows: Source,
    user: str,
    item: str,
    catalogue: Catalogue,
    *,
    out: str | Path,
    time: str | None,
    time_format: str | None = None,
    labels: Sequence[str],
    positive: Positive | None = None,
    rated: str | None = None,
    extra: Sequence[str],
    context_category: Sequence[str] = (),
    context_numeric: Sequence[str] = (),
    query: str | None = None,
    session: str | None = None,
    users: Users | None = None,
    split: SplitSpec | None,
    needed: Collection[str] | None = None,
    allow_empty: bool = False,
    overwrite: bool,
    progress: bool,
) -> Dataset:
    """Import the interactions of an open table and the items of a catalogue; needed: the fields that were
    asked for; None: all. All else as `import_table`."""
    report = rows.report
    catalogue.check_time(time)
    rows.require("user", [user])
    rows.require("item", [item])
    rows.require("time", [time])
    targets = label_columns(rows, labels, positive)
    asked = asked_columns(rows, query, session)
    split = split or SplitSpec.model_validate({"kind": "time_user" if time else "random_user"})
    if split.kind == "column" and split.column is not None:
        rows.require("split column", [split.column])
        extra = [*extra, split.column]
    if session is not None:
        split = keeping_lists(split, "session")
    fields: dict[str, str] = {}
    extra = columns_of(rows, "extra", extra, fields)
    context_category = columns_of(rows, "context_category", context_category, fields)
    context_numeric = columns_of(rows, "context_numeric", context_numeric, fields)
    types = further_types(rows, extra, context_category, context_numeric, targets, asked, fields)
    times = times_of(report, [rows], time, time_format)
    read = {name: Numbers(report, "interactions", name, look_at([rows], name)) for name in context_numeric}
    written = written_labels(report, rows, targets)
    fine = has_fractions(rows, time, time_format, [*fields.values(), *map(row_name, types)])
    cleaner = Rows(
        report, user, item, time, targets, types, asked=asked, times=times, fields=fields, numbers=read,
        written=written, fine=fine,
    )  # fmt: skip
    names = cleaner.names
    if split.kind == "column" and split.column is not None:
        split = split.model_copy(update={"column": names[split.column]})
    with (
        DatasetWriter(
            out,
            fields=catalogue.fields,
            source=report.source,
            labels=[label.name for label in cleaner.labels],
            label_rule=", ".join(label.rule for label in targets),
            extra={names[name]: kind for name, kind in types.items()} | ({MILLISECOND: pa.int16()} if fine else {}),
            context=Columns(
                categorical=[names[name] for name in context_category],
                numeric=[names[name] for name in context_numeric],
            ),
            users=users.fields if users else None,
            has_time=time is not None,
            has_launched=catalogue.launched is not None,
            needed=needed,
            allow_empty=allow_empty,
            overwrite=overwrite,
            pictures=catalogue.pictures,
            asked=asked.values(),
            rated=rated_as(rated, targets),
        ) as writer,
        Bar(progress) as bar,
    ):
        writer.take_vectors(catalogue.vectors, report)
        if catalogue.source is not None:
            catalogue.write(writer, bar)
        if users is not None:
            users.write(writer, bar)
        for batch in bar.track("interactions", rows, cleaner.columns):
            writer.add_interactions(cleaner.clean(batch))
        cleaner.finish(str(rows.path))
        if catalogue.source is None:
            catalogue.write_met(writer)
        return writer.finish(split, report)
