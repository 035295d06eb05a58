"""`rawrec append`: tables of new interactions and items into a dataset that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rawrec.data.appender import Appender
from rawrec.data.dataset import ROWS, Dataset, unknown_name
from rawrec.data.importers._catalogue import Catalogue
from rawrec.data.importers._convert import as_text, ids, row_name, stored_name
from rawrec.data.importers._read import Bar, Batch, Source, open_source
from rawrec.data.importers._rows import Rows
from rawrec.data.importers.report import ImportReport
from rawrec.data.importers.urls import UrlPictures
from rawrec.errors import UserError


def append(
    path: str | Path,
    interactions: str | Path | None = None,
    user: str = "user_id",
    item: str = "item_id",
    *,
    time: str | None = None,
    labels: Sequence[str] = (),
    positive: float | None = None,
    extra: Sequence[str] = (),
    items: str | Path | None = None,
    item_id: str | None = None,
    text: Sequence[str] = (),
    category: Sequence[str] = (),
    numeric: Sequence[str] = (),
    image_dir: str | Path | None = None,
    image_name: str = "{item}.jpg",
    image_column: Sequence[str] = (),
    image_field: str | None = None,
    image_url: Sequence[str] = (),
    pictures: UrlPictures | None = None,
    update: bool = False,
    part: str = "train",
    moved: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Dataset:
    """Append a table of interactions, a table of items, or both, to the dataset at `path`, as its next version.

    Tables and their columns are as for `import_table`; the fields are those of the dataset. A column with the name of
    a field is that field; others are named as "column" or "column=field". positive: a label from here on becomes 1,
    else 0. image_field: needed where the dataset has several. image_url: columns of addresses of pictures; pictures:
    how they are downloaded, or a table of addresses. update: replace the content of items that are there.
    part: of the new interactions in the default split. moved: part -> part, of all earlier ones there.

    Users, items and interactions that were there keep their numbers; further splits have the new interactions in no
    part. Raises UserError for what `import_table` does, fields that the dataset has not, and where nothing is new.

    >>> append("data/x", "monday.tsv", "user", "item", time="when", part="test", moved={"test": "train"})
    """
    data = Dataset.open(path)
    if interactions is None and items is None:
        raise UserError("name a table to append: interactions, items, or both")
    report = ImportReport(source=", ".join(f"table {Path(name).name}" for name in (interactions, items) if name))
    rows = None
    if interactions is not None:
        found = open_source(Path(interactions), report)
        found.require("user", [user])
        found.require("item", [item])
        rows = _interactions(data, found, {"user_id": user, "item_id": item}, time, labels, positive, extra)
    table, columns = None, {"text": text, "category": category, "numeric": numeric, "image_column": image_column}
    folder_field = _image_field(data, image_field, image_dir)
    if image_url or pictures:
        pictures = _downloaded(data, pictures or UrlPictures(), folder_field)
    if items is not None:
        found = open_source(Path(items), report)
        found.require("item_id", [item_id or item])
        found.require("image_url", image_url)
        elsewhere = {folder_field} | ({pictures.field} if pictures else set())
        table, columns = _items(data, found, item_id or item, columns, image_url, elsewhere)
    catalogue = Catalogue(
        report, table, "item_id", text=columns["text"], category=columns["category"], numeric=columns["numeric"],
        image_column=columns["image_column"], image_dir=image_dir, image_name=image_name, image_field=folder_field,
        image_url=image_url, pictures=pictures,
    )  # fmt: skip
    with Appender(path, part, moved, update, pictures) as target, Bar(progress) as bar:
        if table is not None:
            if not update:
                table.refuse = lambda batch: _new_items(batch, target, report)
            catalogue.write(target, bar)
        if rows is not None:
            _add_interactions(rows, target, bar, positive)
            if table is None and (catalogue.folder or pictures):
                catalogue.write_met(target, None if update else target.known)
        return target.finish(report)


def _add_interactions(rows: _Columns, target: Appender, bar: Bar, positive: float | None) -> None:
    meta, types = target.data.meta, target.column_types()
    time = "timestamp" if meta.has_time else None
    cleaner = Rows(rows.report, "user_id", "item_id", time, meta.labels, rows.types)
    absent = [name for name in meta.extra if name not in rows.types]
    for batch in bar.track("interactions", rows, cleaner.columns):
        clean = cleaner.clean(batch)
        if positive is not None:
            clean |= {name: (clean[name] >= positive).astype(np.float32) for name in meta.labels}
        target.add_interactions(clean | {name: pa.nulls(len(clean["user_id"]), types[name]) for name in absent})
    cleaner.finish(str(rows.path))


class _Columns(Source):
    """A table under the names of a dataset: `names` maps a field to the column that holds it.

    types: the types of further columns, which the values are brought to. refuse: leaves rows out of a batch.
    """

    def __init__(self, source: Source, names: Mapping[str, str], types: Mapping[str, pa.DataType] | None = None):
        super().__init__(source.path, source.report)
        self.source, self.names, self.types = source, dict(names), dict(types or {})
        self.format, self.holds_bytes, self.columns = source.format, source.holds_bytes, list(names)
        self.refuse: Callable[[Batch], Batch] = lambda batch: batch

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        for batch in self.source.batches(list(dict.fromkeys(self.names[name] for name in columns))):
            self.fraction = self.source.fraction
            values = {name: batch.columns[self.names[name]] for name in columns}
            for name in self.types.keys() & values.keys():
                values[name] = _fitted(values[name], self.types[name], f"{batch.file}: {self.names[name]}")
            yield self.refuse(Batch(batch.file, batch.rows, values))


def _fitted(column: pa.Array, kind: pa.DataType, where: str) -> pa.Array:
    """A further column as the dataset has it; texts that become numbers are left to `Rows`, which counts what fails."""
    if column.type == kind or (pa.types.is_string(column.type) and (pa.types.is_floating(kind) or kind == pa.int64())):
        return column
    if pa.types.is_string(kind):
        return as_text(column, where)
    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{where} holds {column.type}, the dataset {kind}, and not all fits ({reason})") from None


def _new_items(batch: Batch, target: Appender, report: ImportReport) -> Batch:
    """The rows of a catalogue whose items the dataset has not; the others are counted."""
    found, _ = ids(batch.columns["item_id"], f"{batch.file}: item_id")
    known = target.known(found)
    if known.any():
        report.add_read("items", int(known.sum()))
        reason = "item is in the dataset already (kept as it is; --update replaces its content)"
        report.skip(reason, batch.examples(known, "item_id"), int(known.sum()))
    return batch.keep(~known)


# ------------------------------------------------------------------------------------------------------------- columns
def _assigned(
    setting: str, given: Sequence[str], fields: Sequence[str], source: Source, stored: Callable[[str], str]
) -> dict[str, str]:
    """Field -> column: as given ("column" or "column=field"), and for other fields the column of their name."""
    found: dict[str, str] = {}
    for word in given:
        column, field = word, stored(word)
        if word not in source.columns and "=" in word:
            column, _, field = word.rpartition("=")
        source.require(setting, [column])
        if field not in fields:
            hint = f". Give a column of another name as {column}=FIELD" if fields else ""
            raise UserError(unknown_name(f"{setting} {word!r}: the dataset's field", field, fields) + hint)
        if field in found:
            raise UserError(f"{setting}: {found[field]!r} and {column!r} are both to be the field {field!r}: name one")
        found[field] = column
    for column in source.columns:
        field = stored(column)
        if field in fields and field not in found:
            found[field] = column
    return found


def _interactions(
    data: Dataset,
    source: Source,
    names: dict[str, str],
    time: str | None,
    labels: Sequence[str],
    positive: float | None,
    extra: Sequence[str],
) -> _Columns:
    """The table of interactions under the names of the dataset; `names` are those of the ids."""
    meta, path = data.meta, source.path
    if meta.has_time:
        if time is None and "timestamp" not in source.columns:
            raise UserError(f"{data.path} has times: name the column of {path} that holds them (time)")
        source.require("time", [time])
        names = names | {"timestamp": time or "timestamp"}
    elif time is not None:
        raise UserError(f"time {time!r}: {data.path} was imported without times; leave it out, or import all anew")
    if positive is not None and not meta.labels:
        raise UserError(f"positive: {data.path} has no labels, every interaction is a positive; leave it out")
    names |= _assigned("label", labels, meta.labels, source, row_name)
    for name in meta.labels:
        if name not in names:
            rule = f" ({meta.label_rule})" if meta.label_rule else ""
            raise UserError(
                f"{data.path} has the label {name!r}{rule}: name the column of {path} that holds it (label {name}, or "
                f"COLUMN={name})"
            )
    more = _assigned("extra", extra, meta.extra, source, row_name)
    for name in meta.extra:
        if name not in more:
            source.report.note(f"{source.name} has no column {name!r}: it is empty in the rows appended")
    schema = pq.read_schema(data.path / ROWS)
    return _Columns(source, names | more, {name: schema.field(name).type for name in more})


def _items(
    data: Dataset,
    source: Source,
    item_id: str,
    columns: Mapping[str, Sequence[str]],
    addresses: Sequence[str],
    elsewhere: set[str],
) -> tuple[_Columns, dict[str, Sequence[str]]]:
    """The table of items under the names of the dataset, and its fields by setting.

    addresses: columns that are read as they are. elsewhere: image fields that do not come from the table.
    """
    fields = data.fields
    images = [name for name in fields.image if name not in elsewhere and source.holds_bytes]
    known = {"text": fields.text, "category": fields.categorical, "numeric": fields.numeric, "image_column": images}
    found = {name: _assigned(name, columns[name], known[name], source, stored_name) for name in known}
    names = {field: column for columns in found.values() for field, column in columns.items()}
    names = {**{name: name for name in addresses}, "item_id": item_id, **names}
    return _Columns(source, names), {name: list(columns) for name, columns in found.items()}


def _image_field(data: Dataset, name: str | None, image_dir: str | Path | None) -> str:
    """The image field that a folder of pictures is for, "" where there is none."""
    known = data.fields.image
    if name is not None and name not in known:
        raise UserError(unknown_name(f"{data.path}: image field", name, known))
    if image_dir is None:
        if name is not None:
            raise UserError(f"image_field {name!r} says what a folder of pictures is for: give image_dir, too")
        return ""
    if name is None and len(known) != 1:
        raise UserError(f"{data.path} has the image fields {', '.join(known) or 'none'}: say which (image_field)")
    return name or known[0]


def _downloaded(data: Dataset, pictures: UrlPictures, folder_field: str) -> UrlPictures:
    """How pictures are downloaded, for an image field of the dataset."""
    known = data.fields.image
    if pictures.field not in known and pictures.field == UrlPictures.field and len(known) == 1:
        pictures = replace(pictures, field=known[0])
    if pictures.field not in known:
        raise UserError(unknown_name(f"{data.path}: image field of the addresses", pictures.field, known))
    if pictures.field == folder_field:
        raise UserError(f"image field {folder_field!r} comes from a folder and from addresses: choose one")
    return pictures
