"""The items of an import: columns of a table, or merely the ids that were seen; with the pictures of a folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.data.bar import Bar
from rawrec.data.checked import Checked
from rawrec.data.dataset import Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.parts import PartWriter
from rawrec.errors import UserError
from rawrec.sources.download.urls import UrlPictures, column_addresses
from rawrec.sources.media.frames import DEFAULT_NAME, media_folder
from rawrec.sources.media.pictures import WORKERS, PathFolder, Pictures, check_many, spans
from rawrec.sources.tables import Batch, Source
from rawrec.sources.tables.amounts import Numbers
from rawrec.sources.tables.convert import binary_lists, missing, string_lists
from rawrec.sources.tables.fields import Named, fields_of
from rawrec.sources.tables.rows import read_ids, times_of
from rawrec.sources.tables.source import look_at
from rawrec.sources.tables.vector_columns import VectorColumn, column_width
from rawrec.sources.tables.vector_files import VectorFile, vector_width

ITEMS_AT_ONCE = 4096
OBJECT = r'^\{\s*"(?:[^"\\]|\\.)*"\s*:'
"""How an object of JSON begins."""
T = TypeVar("T")


class Catalogue:
    """The items and their fields.

    source: the table of the items, whose column `item_id` holds the id; None: those of the interactions. text,
    category, numeric, image_column, feature: its columns, each as "COLUMN" or "COLUMN=FIELD". Categories are lists, or
    several values between "|"; features are vectors. vectors: files of vectors by item id, which the writer is to take.
    widths: of features; without it as the columns and files have them.
    image_dir: a folder of pictures named `image_name`, stored as the field `image_field`. frames: so many of each item,
    of folders of frames, videos and animations there, see `media_folder`. image_path: columns of paths of pictures,
    "COLUMN" or "COLUMN=FIELD", within image_dir or the folder of the table, lists or several between "|". image_url:
    columns of the addresses of pictures. pictures: how they are downloaded, or a table of addresses. launched: column
    of the times from which the items existed.

    Raises UserError for columns that do not exist, for columns where there is no table, and for files of vectors that
    cannot be used.
    """

    def __init__(
        self,
        report: ImportReport,
        source: Source | None,
        item_id: str,
        *,
        text: Sequence[str] = (),
        category: Sequence[str] = (),
        numeric: Sequence[str] = (),
        feature: Sequence[str] = (),
        vectors: Sequence[VectorFile] = (),
        widths: Mapping[str, int] | None = None,
        image_column: Sequence[str] = (),
        image_dir: str | Path | None = None,
        image_path: Sequence[str] = (),
        image_name: str = "{item}.jpg",
        image_field: str = "image",
        frames: int | None = None,
        image_url: Sequence[str] = (),
        pictures: UrlPictures | None = None,
        launched: str | None = None,
    ) -> None:
        self.report, self.source, self.item_id, self.image_field = report, source, item_id, image_field
        self.image_url, self.pictures = image_url, pictures or (UrlPictures() if image_url else None)
        words = {
            "text": text,
            "category": category,
            "numeric": numeric,
            "feature": feature,
            "image_column": image_column,
            "image_path": image_path,
        }
        named: dict[str, list[Named]] = {setting: [] for setting in words}
        if source is not None:
            source.require("item_id", [item_id])
            named = fields_of(source, words)
            source.require("image_url", image_url)
            source.require("launched", [launched])
            if image_column and not source.holds_bytes:
                raise UserError(
                    f"image_column: pictures in a column need a Parquet table, {source.path} is none; "
                    "of paths of pictures name the column as image_path (--image-path)"
                )
        elif wanted := [*itertools.chain(*words.values()), *image_url, *filter(None, [launched])]:
            raise UserError(f"column {wanted[0]!r} describes items: name the table of the items that holds it")
        self.text, self.category, self.numeric = named["text"], named["category"], named["numeric"]
        self.image_column = named["image_column"]
        look = [source] if source is not None else []
        self._numbers = {to: Numbers(report, "items", name, look_at(look, name)) for name, to in self.numeric}
        self.launched, self._times = launched, times_of(report, look, launched)
        self._late = 0  # items without a time of launch
        self.vectors, self.feature = vectors, self._vector_columns(named["feature"], vectors, widths)
        self.image_path = named["image_path"]
        if self.image_path:
            if image_name != DEFAULT_NAME or frames is not None or image_field not in ("", "image"):
                raise UserError(
                    "image_path: the column names the files, as COLUMN=FIELD also their field: leave image_name, "
                    "image_field and frames out"
                )
            base = Path(image_dir) if image_dir is not None else source.lies_in if source is not None else None
            if base is None:
                raise UserError("image_path: the items are a table in memory: name the folder of the paths (image_dir)")
            self.folder, self._of_folder = (
                PathFolder(base, report, len(image_path)),
                [one.field for one in self.image_path],
            )
        else:
            self.folder = media_folder(image_dir, image_name, frames, report)
            self._of_folder = [image_field] if self.folder else []
        self.fields = Fields(
            image=[one.field for one in self.image_column] + self._of_folder,
            text=[one.field for one in self.text],
            categorical=[one.field for one in self.category],
            numeric=[one.field for one in self.numeric],
            feature={column.field: column.width for column in self.feature}
            | {file.field: vector_width(file) if widths is None else widths[file.field] for file in self.vectors},
        )

    def _vector_columns(
        self, named: Sequence[Named], files: Sequence[VectorFile], widths: Mapping[str, int] | None
    ) -> list[VectorColumn]:
        """Columns for features that are of no file."""
        of_files = {file.field: file.path for file in files}
        found: list[VectorColumn] = []
        for name, field in named:
            assert self.source is not None
            if field in of_files:
                raise UserError(
                    f"feature {field!r} comes from the file {of_files[field]} and from column {name!r}: name one"
                )
            width = column_width(self.source, name) if widths is None else widths[field]
            advice = ", or rename the column if it holds something else"
            found.append(VectorColumn(self.source, name, field, width, advice))
        return found

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        fields = [
            one.column for one in (*self.text, *self.category, *self.numeric, *self.image_column, *self.image_path)
        ]
        fields += [column.name for column in self.feature]
        return list(dict.fromkeys([self.item_id, *fields, *self.image_url, *filter(None, [self.launched])]))

    def check_time(self, time: str | None) -> None:
        """UserError for times of launch beside interactions without times."""
        if self.launched is not None and time is None:
            raise UserError(
                f"launched {self.launched!r}: items are launched before some interactions and after others: name the "
                "column of their times (time)"
            )

    def write(self, writer: PartWriter, bar: Bar) -> None:
        """Add the items of the table; rows without an id are left out and counted."""
        assert self.source is not None
        batches = bar.track("items", self.source, self.columns)
        with ThreadPoolExecutor(WORKERS) as pool:
            for some in _early(self._clean(batch, self.source, pool, writer.checked) for batch in batches):
                self._add(writer, *some)
        self._finish()

    def write_met(self, writer: PartWriter, known: Callable[[pa.Array], np.ndarray] | None = None) -> None:
        """Add the items of the interactions that `writer` has got, less those that are `known`: by their ids alone."""
        met = writer.items_met()
        ids = (met if known is None else met.filter(pa.array(~known(met)))).to_pylist()
        self.report.add_read("items", len(ids))
        for at in range(0, len(ids), ITEMS_AT_ONCE):
            self._add(writer, ids[at : at + ITEMS_AT_ONCE], {}, {})
        self._finish()

    def _add(
        self,
        writer: PartWriter,
        item_ids: list[str],
        columns: dict[str, Any],
        pictures_of: dict[str, Callable[[], Pictures]],
        paths: list[list[list[str]]] | None = None,
    ) -> None:
        columns |= {name: checked() for name, checked in pictures_of.items()}
        by, n = item_ids, 1  # what the folder finds pictures by, and of how many fields for an item
        if paths:
            by, n = [some for row in zip(*paths, strict=True) for some in row], len(paths)
        for part, pictures in spans(by, self.folder, writer.checked):
            rows = slice(part.start // n, part.stop // n)
            batch = {"item_id": item_ids[rows], **{name: values[rows] for name, values in columns.items()}}
            found = {} if pictures is None else {field: pictures[at::n] for at, field in enumerate(self._of_folder)}
            writer.add_items(batch | found)

    def _finish(self) -> None:
        for read in [*self._numbers.values(), *filter(None, [self._times])]:
            read.finish()
        if self._late:
            self.report.note(f"{self._late:,} items have no time of launch: they count from their first interaction on")
        if self.folder is not None:
            self.folder.count_unused()

    def _clean(
        self, batch: Batch, source: Source, pool: ThreadPoolExecutor, checked: Checked
    ) -> tuple[list[str], dict[str, Any], dict[str, Callable[[], Pictures]], list[list[list[str]]]]:
        """The ids, every field's values by its stored name, of columns of pictures, which are being checked, what gives
        their values, and the paths of columns of paths; rows without an id are left out and counted."""
        self.report.add_read("items", len(batch.rows))
        found, good = read_ids(batch, self.item_id, self.report)
        if not good.all():
            found, batch = found.filter(pa.array(good)), batch.keep(good)
        columns: dict[str, Any] = {}
        is_json = source.format == "jsonl"
        if is_json:
            self._note_objects(batch)
        for named, separator in ((self.text, None), (self.category, "|")):
            for name, field in named:
                columns[field] = string_lists(
                    batch.columns[name], f"{batch.file}: {name}", json_lists=is_json, separator=separator
                )
        if self.launched is not None:
            columns["launched"] = self._launches(batch, self.launched)
        for _, field in self.numeric:
            columns[field] = self._numbers[field](batch)
        for column in self.feature:
            columns[column.field] = self._finite(column, batch)
        pictures_of: dict[str, Callable[[], Pictures]] = {}
        for name, field in self.image_column:
            pictures, alone = binary_lists(batch.columns[name], f"{batch.file}: {name}")
            if alone.any():
                self.report.add_read("images", int(alone.sum()))
                reason = "image: the column holds its path, not the picture (use image_path)"
                self.report.skip(reason, batch.examples(alone > 0), int(alone.sum()))
            where = [f"{batch.file}:{row}" for row in batch.rows.tolist()]
            pictures_of[field] = check_many(pictures, where, self.report, pool, checked)
        if self.pictures is not None and self.image_url:
            columns[self.pictures.column] = column_addresses(batch, self.image_url)
        paths = [
            string_lists(_paths(batch.columns[name]), f"{batch.file}: {name}", json_lists=is_json, separator="|")
            for name, _ in self.image_path
        ]
        return found.to_pylist(), columns, pictures_of, paths

    def _note_objects(self, batch: Batch) -> None:
        """Note columns of JSON whose values are objects, which would be one text each."""
        for name, _ in [*self.text, *self.category]:
            column = batch.columns[name]
            if pa.types.is_string(column.type) and pl.Series(column).str.contains(OBJECT).any():
                within = f"name what is in them, {name}.KEY"
                self.report.note(f"items: column {name!r} holds objects, kept as JSON: {within}")

    def _launches(self, batch: Batch, name: str) -> pa.Array:
        """The times of launch, null where there is none."""
        assert self._times is not None
        column = batch.columns[name]
        found = self._times(column, f"{batch.file}: {name}")
        lost = ~found.good & ~missing(column)
        if lost.any():
            reason = f"items: no usable time of launch in column {name!r} (kept, without one)"
            self.report.skip(reason, batch.examples(lost, name), int(lost.sum()))
        self._late += int((~found.good).sum())
        return pa.array(found.seconds, mask=~found.good)

    def _finite(self, column: VectorColumn, batch: Batch) -> np.ndarray:
        """Vectors `[n, width]`; those that are not finite, which are counted, are missing."""
        values, there = column.read(batch)
        lost = there & ~np.isfinite(values).all(1)
        if lost.any():
            reason = f"feature {column.field}: a value is not finite (missing)"
            self.report.skip(reason, batch.examples(lost), int(lost.sum()))
        return values


def _paths(column: pa.Array) -> pa.Array:
    """Of pictures as structs, what these say of their path."""
    is_struct = pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0
    return column.field("path") if is_struct else column


def _early(things: Iterable[T]) -> Iterator[T]:
    """The same things; each is made before the one before it is used."""
    iterator = iter(things)
    for last in iterator:
        for following in iterator:
            yield last
            last = following
        yield last
