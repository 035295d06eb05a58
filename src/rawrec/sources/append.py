"""`rawrec append`: tables of new interactions and items into a dataset that is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.arguments import checked
from rawrec.data.appender import Appender
from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import MILLISECOND
from rawrec.errors import UserError
from rawrec.sources.append_columns import (
    NamedColumns,
    check_features,
    downloads,
    field_of_folder,
    interaction_columns,
    user_columns,
)
from rawrec.sources.append_columns import item_columns as columns_of_items
from rawrec.sources.catalogue import Catalogue
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.tables import Batch, Table, open_table, table_name
from rawrec.sources.tables.amounts import Numbers
from rawrec.sources.tables.convert import ids
from rawrec.sources.tables.label_columns import Positive
from rawrec.sources.tables.rows import Rows, times_of, written_labels
from rawrec.sources.tables.source import look_at
from rawrec.sources.tables.times import SINCE
from rawrec.sources.tables.vector_files import vector_files
from rawrec.sources.users import open_users

ITEMS_AT_ONCE = 4096


@checked()
def append(
    path: str | Path,
    interactions: Table | None = None,
    user: str = "user_id",
    item: str = "item_id",
    *,
    columns: Sequence[str] = (),
    time: str | None = None,
    time_format: str | None = None,
    labels: Sequence[str] = (),
    positive: Positive | None = None,
    extra: Sequence[str] = (),
    query: str | None = None,
    session: str | None = None,
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
    image_field: str | None = None,
    frames: int | None = None,
    image_url: Sequence[str] = (),
    launched: str | None = None,
    pictures: UrlPictures | None = None,
    users: Table | None = None,
    user_id: str | None = None,
    user_category: Sequence[str] = (),
    user_numeric: Sequence[str] = (),
    update: bool = False,
    part: str = "train",
    moved: Mapping[str, str] | None = None,
    encoding: str | None = None,
    progress: bool = True,
) -> Dataset:
    """Append interactions, items, or vectors of items, or all of them, to the dataset at `path`, as its next version.

    Tables and their columns are as for `import_table`; the fields are those of the dataset. A column with the name of
    a field is that field; others are named as "column" or "column=field". time_format, query, session: as there; by
    default the columns so called. positive: as there; a label from a number on becomes 1, else 0. feature: columns of
    vectors, which are lists of numbers or texts of them. vectors: feature -> a file of vectors with item ids (a table,
    .npz, .npy), for the items of the table of items; without one for those of the interactions; without these for its
    own. image_path: columns of paths of pictures, as there. image_field: needed where the
    dataset has several. frames: as there.
    image_url: columns of addresses of pictures; pictures: how they are downloaded, or a table of addresses. users:
    table of users, with the id in `user_id` (default: the same name as `user`). update: replace the content of items
    and the attributes of users that are there. part: of the new interactions in the default split. moved: part -> part,
    of all earlier ones there. encoding: as for `import_table`.

    Users, items and interactions that were there keep their numbers; further splits have the new interactions in no
    part. Raises UserError for what `import_table` does, fields that the dataset has not, and where nothing is new.

    >>> append("data/x", "monday.tsv", "user", "item", time="when", part="test", moved={"test": "train"})
    """
    data = Dataset.open(path)
    vectors = dict(vectors or {})
    if interactions is None and items is None and users is None and not vectors:
        raise UserError("name what to append: interactions, items, users or vectors")
    if interactions is None and items is None and (image_dir is not None or pictures):
        raise UserError("pictures go to items of tables, not of vectors alone: name a table of items")
    named = [f"table {table_name(table)}" for table in (interactions, items, users) if table is not None]
    report = ImportReport(source=", ".join(named + [f"vectors {Path(file).name}" for file in vectors.values()]))
    rows, table, found = None, None, None
    if interactions is not None:
        source = open_table(interactions, report, "interactions", encoding, columns)
        source.require("user", [user])
        source.require("item", [item])
        names, asked = {"user_id": user, "item_id": item}, {"query": query, "session": session}
        rows = interaction_columns(data, source, names, time, labels, positive, extra, asked)
    check_features(data, vectors)
    named = {"text": text, "category": category, "numeric": numeric, "feature": feature}
    named["image_column"] = image_column
    if image_path and (items is None or image_field is not None):
        raise UserError("image_path: these are columns of the table of items, COLUMN or COLUMN=FIELD; no image_field")
    folder_field = field_of_folder(data, image_field, None if image_path else image_dir)
    if image_url or pictures:
        pictures = downloads(data, pictures or UrlPictures(), folder_field)
    if items is not None:
        found = open_table(items, report, "items", encoding, item_columns)
        found.require("item_id", [item_id or item])
        found.require("image_url", image_url)
        elsewhere = {folder_field} | ({pictures.field} if pictures else set())
        table, named = columns_of_items(
            data, found, item_id or item, named, image_url, elsewhere, vectors, launched, image_path
        )
        launched = "launched" if "launched" in table.columns else None
    catalogue = Catalogue(
        report, table, "item_id", text=named["text"], category=named["category"], numeric=named["numeric"],
        feature=named["feature"], vectors=vector_files(vectors, item_id or item, encoding),
        widths=data.fields.feature, image_column=named["image_column"], image_dir=image_dir, image_name=image_name,
        image_path=named.get("image_path", ()),
        image_field=folder_field, frames=frames, image_url=image_url, pictures=pictures, launched=launched,
    )  # fmt: skip
    people = user_columns(data, open_users(users, report, encoding), user_id or user, user_category, user_numeric)
    with Appender(path, part, moved, update, pictures) as target, Bar(progress) as bar:
        target.take_vectors(catalogue.vectors, report)
        people.write(target, bar)
        if table is not None:
            if not update:
                table.refuse = lambda batch: _new_items(batch, target, report)
            catalogue.write(target, bar)
        if rows is not None:
            _add_interactions(rows, target, bar, time_format)
            if table is None and (catalogue.folder or pictures or catalogue.vectors):
                catalogue.write_met(target, None if update else target.known)
        if table is None and rows is None and vectors:
            _add_items_with_vectors(target, update)
        return target.finish(report)


def _add_items_with_vectors(target: Appender, update: bool) -> None:
    """Add all items that have a vector, the known ones only where they are updated."""
    items = pl.concat([vectors.ids for vectors in target.vectors.files]).unique(maintain_order=True)
    if not update:
        items = items.filter(~pl.Series(target.known(items.to_arrow().cast(pa.string())), dtype=pl.Boolean))
    for part in items.to_frame().iter_slices(ITEMS_AT_ONCE):
        found = {vectors.field: vectors.of(part.to_series().to_list()) for vectors in target.vectors.files}
        some = np.logical_or.reduce([np.isfinite(values).all(1) for values in found.values()])
        ids = part.to_series().filter(pl.Series(some)).to_list()
        target.add_items({"item_id": ids, **{name: values[some] for name, values in found.items()}})


def _add_interactions(rows: NamedColumns, target: Appender, bar: Bar, time_format: str | None) -> None:
    meta, types = target.data.meta, target.column_types()
    time = "timestamp" if meta.has_time else None
    asked = {name: name for name in meta.asked if name in rows.names}
    known = target.data.timestamps is not None and bool((target.data.timestamps >= SINCE).any())
    times = times_of(rows.report, [rows], time, time_format, known)
    context = [name for name in meta.context.numeric if name in rows.names]
    read = {name: Numbers(rows.report, "interactions", name, look_at([rows], name)) for name in context}
    cleaner = Rows(
        rows.report,
        "user_id",
        "item_id",
        time,
        rows.labels,
        rows.types,
        asked=asked,
        times=times,
        numbers=read,
        written=written_labels(rows.report, rows, rows.labels),
        fine=MILLISECOND in meta.extra and meta.has_time,
    )
    made = [MILLISECOND] if cleaner.fine else []
    absent = [name for name in [*meta.extra, *meta.asked] if name not in (*rows.names, *made)]
    for batch in bar.track("interactions", rows, cleaner.columns):
        clean = cleaner.clean(batch)
        target.add_interactions(clean | {name: pa.nulls(len(clean["user_id"]), types[name]) for name in absent})
    cleaner.finish(str(rows.path))


def _new_items(batch: Batch, target: Appender, report: ImportReport) -> Batch:
    """The rows of a catalogue whose items the dataset has not; the others are counted."""
    found, _ = ids(batch.columns["item_id"], f"{batch.file}: item_id")
    known = target.known(found) & batch.readable("item_id")
    if known.any():
        report.add_read("items", int(known.sum()))
        reason = "item is in the dataset already (kept as it is; --update replaces its content)"
        report.skip(reason, batch.examples(known, "item_id"), int(known.sum()))
    return batch.keep(~known)
