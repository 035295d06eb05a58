"""Columns of tables that are appended, under the names that the dataset has for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import MILLISECOND, ROWS, check_asked
from rawrec.data.names import unknown_name
from rawrec.errors import UserError
from rawrec.shown import listed
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.tables import Batch, Source
from rawrec.sources.tables.convert import as_text, row_name, stored_name
from rawrec.sources.tables.label_columns import LabelColumn, Positive, Rule, parse_positive
from rawrec.sources.tables.rows import asked_columns
from rawrec.sources.users import Users

IMPORT_ANEW = (
    ". An append adds no field: for a further feature import the dataset anew, with --vectors FIELD=FILE or "
    "--feature COLUMN=FIELD"
)


class NamedColumns(Source):
    """A table under the names of a dataset: `names` maps a field to the column that holds it.

    types: the types of further columns, which the values are brought to. labels: the dataset's, under its names.
    refuse: leaves rows out of a batch.
    """

    def __init__(self, source: Source, names: Mapping[str, str], types: Mapping[str, pa.DataType] | None = None):
        super().__init__(source.path, source.report)
        self.source, self.names, self.types = source, dict(names), dict(types or {})
        self.labels: list[LabelColumn] = []
        self.format, self.holds_bytes, self.columns = source.format, source.holds_bytes, list(names)
        self.refuse: Callable[[Batch], Batch] = lambda batch: batch

    @property
    def lies_in(self) -> Path | None:
        return self.source.lies_in

    def again(self) -> NamedColumns:
        other = super().again()
        assert isinstance(other, NamedColumns)
        other.source = self.source.again()
        return other

    def name_in_file(self, column: str) -> str:
        return self.names[column]

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        for batch in self.source.batches(list(dict.fromkeys(self.names[name] for name in columns))):
            self.fraction = self.source.fraction
            values = {name: batch.columns[self.names[name]] for name in columns}
            bad = {name: batch.unreadable[of] for name in columns if (of := self.names[name]) in batch.unreadable}
            for name in self.types.keys() & values.keys():
                values[name] = _fitted(values[name], self.types[name], f"{batch.file}: {self.names[name]}")
            composite = None if batch.composite is None else partial(self._composite, batch.composite)
            yield self.refuse(Batch(batch.file, batch.rows, values, bad, composite))

    def _composite(self, of: Callable[[str], np.ndarray], name: str) -> np.ndarray:
        return of(self.names[name])


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


def interaction_columns(
    data: Dataset,
    source: Source,
    names: dict[str, str],
    time: str | None,
    labels: Sequence[str],
    positive: Positive | None,
    extra: Sequence[str],
    asked: Mapping[str, str | None],
) -> NamedColumns:
    """The table of interactions under the names of the dataset; `names` are those of the ids, asked: of `query` and
    `session`, where they are named."""
    meta, path = data.meta, source.path
    source.seek([*(["timestamp"] if meta.has_time and time is None else []), *meta.asked])
    if meta.has_time:
        if time is None and "timestamp" not in source.columns:
            raise UserError(f"{data.path} has times: name the column of {path} that holds them (time)")
        source.require("time", [time])
        names = names | {"timestamp": time or "timestamp"}
    elif time is not None:
        raise UserError(f"time {time!r}: {data.path} was imported without times; leave it out, or import all anew")
    if positive is not None and not meta.labels:
        raise UserError(f"positive: {data.path} has no labels, every interaction is a positive; leave it out")
    assigned = _assigned("label", labels, meta.labels, source, row_name)
    least, rules = parse_positive(source, positive)
    missing = [name for name in meta.labels if name not in assigned]
    if len(missing) == 1 and len(spare := [column for column in rules if column not in assigned.values()]) == 1:
        assigned[missing[0]] = spare[0]
    names |= assigned
    for column in rules:
        if column not in assigned.values():
            raise UserError(f"positive: column {column!r} is no label: name it (label {column}=FIELD)")
    for name in meta.labels:
        if name not in names:
            rule = f" ({meta.label_rule})" if meta.label_rule else ""
            raise UserError(
                f"{data.path} has the label {name!r}{rule}: name the column of {path} that holds it (label {name}, or "
                f"COLUMN={name})"
            )
    names |= _asked(data, source, asked)
    more = _assigned("extra", extra, meta.extra, source, row_name)
    for name in [*meta.extra, *meta.asked]:
        if name not in more and name not in names and not (name == MILLISECOND and meta.has_time):
            source.report.note(f"{source.name} has no column {name!r}: it is empty in the rows appended")
    schema = pq.read_schema(data.path / ROWS)
    table = NamedColumns(source, names | more, {name: schema.field(name).type for name in more})
    table.labels = [LabelColumn(name, name, *rules.get(assigned[name], Rule(least))) for name in meta.labels]
    return table


def _asked(data: Dataset, source: Source, given: Mapping[str, str | None]) -> dict[str, str]:
    """Of `query` and `session` those that the dataset and the table have -> column: as given, or so called."""
    for name, column in given.items():
        if column is not None:
            check_asked(data.path, data.meta, name)
    named = {name: given.get(name) or name for name in data.meta.asked}
    found = {name: column for name, column in named.items() if given.get(name) or column in source.columns}
    asked_columns(source, found.get("query"), found.get("session"))
    return found


def item_columns(
    data: Dataset,
    source: Source,
    item_id: str,
    columns: Mapping[str, Sequence[str]],
    addresses: Sequence[str],
    elsewhere: set[str],
    files: Collection[str],
    launched: str | None = None,
    image_path: Sequence[str] = (),
) -> tuple[NamedColumns, dict[str, Sequence[str]]]:
    """The table of items under the names of the dataset, and its fields by setting.

    launched: the column of the times of launch (default: the one so called, where the dataset has such times).
    addresses: columns that are read as they are. image_path: columns of paths of pictures. elsewhere: image fields that
    do not come from the table; files: features that do not.
    """
    fields = data.fields
    paths: dict[str, str] = {}
    for word in image_path:
        column, field = source.column_and_field("image_path", word, stored_name)
        if field not in fields.image or field in elsewhere | paths.keys():
            raise UserError(unknown_name(f"image_path {word!r}: the dataset's image field", field, fields.image))
        paths[field] = column
    elsewhere = elsewhere | paths.keys()
    images = [name for name in fields.image if name not in elsewhere and source.holds_bytes]
    features = [name for name in fields.feature if name not in files]
    known = {"text": fields.text, "category": fields.categorical, "numeric": fields.numeric, "feature": features}
    known["image_column"] = images
    found = {name: _assigned(name, columns[name], known[name], source, stored_name) for name in known}
    names = {field: column for columns in found.values() for field, column in columns.items()}
    names = {**{name: name for name in addresses}, "item_id": item_id, **names, **paths}
    if launched is not None and not data.has_launched:
        raise UserError(
            f"launched {launched!r}: the items of {data.path} have no time of launch: import it anew with it"
        )
    source.require("launched", [launched])
    if data.has_launched and (launched is not None or "launched" in source.columns):
        names["launched"] = launched or "launched"
    found["image_path"] = paths
    return NamedColumns(source, names), {name: list(columns) for name, columns in found.items()}


def user_columns(
    data: Dataset, source: Source | None, user_id: str, category: Sequence[str], numeric: Sequence[str]
) -> Users:
    """The table of users under the names of the dataset."""
    if source is None:
        return Users(ImportReport(), None, user_id, category, numeric)
    source.require("user_id", [user_id])
    known = data.meta.users
    if not known.names():
        raise UserError(f"{data.path} has no attributes of users: import it anew, with users (--users)")
    words = _assigned("user_category", category, known.categorical, source, stored_name)
    numbers = _assigned("user_numeric", numeric, known.numeric, source, stored_name)
    table = NamedColumns(source, {"user_id": user_id} | words | numbers)
    return Users(source.report, table, "user_id", list(words), list(numbers))


def check_features(data: Dataset, names: Collection[str]) -> None:
    """UserError for a feature that the dataset lacks."""
    known = list(data.fields.feature)
    for name in names:
        if name not in known:
            raise UserError(unknown_name(f"vectors: {data.path}: feature", name, known) + IMPORT_ANEW)


def field_of_folder(data: Dataset, name: str | None, image_dir: str | Path | None) -> str:
    """The image field that a folder of pictures is for, "" where there is none."""
    known = data.fields.image
    if name is not None and name not in known:
        raise UserError(unknown_name(f"{data.path}: image field", name, known))
    if image_dir is None:
        if name is not None:
            raise UserError(f"image_field {name!r} says what a folder of pictures is for: give image_dir, too")
        return ""
    if name is None and len(known) != 1:
        raise UserError(f"{data.path} has the image fields {listed(known)}: say which (image_field)")
    return name or known[0]


def downloads(data: Dataset, pictures: UrlPictures, folder_field: str) -> UrlPictures:
    """How pictures are downloaded, for an image field of the dataset."""
    known = data.fields.image
    if pictures.field not in known and pictures.field == UrlPictures.field and len(known) == 1:
        pictures = replace(pictures, field=known[0])
    if pictures.field not in known:
        raise UserError(unknown_name(f"{data.path}: image field of the addresses", pictures.field, known))
    if pictures.field == folder_field:
        raise UserError(f"image field {folder_field!r} comes from a folder and from addresses: choose one")
    return pictures


def _assigned(
    setting: str, given: Sequence[str], fields: Sequence[str], source: Source, stored: Callable[[str], str]
) -> dict[str, str]:
    """Field -> column: as given ("column" or "column=field"), and for other fields the column of their name."""
    found: dict[str, str] = {}
    for word in given:
        column, field = source.column_and_field(setting, word, stored)
        if field not in fields:
            hint = f". Give a column of another name as {column}=FIELD" if fields else ""
            hint += IMPORT_ANEW if setting == "feature" else ""
            raise UserError(unknown_name(f"{setting} {word!r}: the dataset's field", field, fields) + hint)
        if field in found:
            raise UserError(f"{setting}: {found[field]!r} and {column!r} are both to be the field {field!r}: name one")
        found[field] = column
    source.seek([field for field in fields if field not in found])
    for column in source.columns:
        field = stored(column)
        if field in fields and field not in found:
            found[field] = column
    return found
