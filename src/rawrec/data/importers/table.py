"""`rawrec import table`: any table of interactions, with or without a table of items and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rawrec.data.dataset import Dataset, Fields
from rawrec.data.importers._convert import binary_lists, ids, numbers, stored_name, string_lists
from rawrec.data.importers._media import WORKERS, ImageFolder, check_many, spans
from rawrec.data.importers._read import Bar, Batch, Source, open_source
from rawrec.data.importers._rows import Rows, extra_types
from rawrec.data.importers.report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError

ITEMS_AT_ONCE = 4096


def import_table(
    interactions: str | Path,
    user: str,
    item: str,
    *,
    out: str | Path,
    time: str | None = None,
    labels: Sequence[str] = (),
    items: str | Path | None = None,
    item_id: str | None = None,
    text: Sequence[str] = (),
    category: Sequence[str] = (),
    numeric: Sequence[str] = (),
    image_dir: str | Path | None = None,
    image_name: str = "{item}.jpg",
    image_column: Sequence[str] = (),
    image_field: str = "image",
    extra: Sequence[str] = (),
    split: SplitSpec | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import a table of interactions (CSV, TSV, JSON lines, Parquet; text also gzipped) into a dataset folder.

    user, item, time, labels, extra: columns of the interactions; without labels every row is a positive.
    items: table of the items, whose column `item_id` (default: the same name as `item`) holds the id; text, category,
    numeric, image_column: its columns. Without it the catalogue is the set of items seen. Categories are lists, or
    several values between "|". image_column: bytes, of Parquet. image_dir: a folder of pictures named `image_name`,
    stored as the field `image_field`.
    split: default by time per user where there are times, else at random per user. A `column` split names a column of
    the interactions.

    Raises UserError for absent files and columns, files that cannot be read, and when nothing is left to import.
    """
    report = ImportReport(source=f"table {Path(interactions).name}")
    rows = open_source(Path(interactions), report)
    rows.require("user", [user])
    rows.require("item", [item])
    rows.require("time", [time])
    rows.require("label", labels)
    rows.require("extra", extra)
    split = split or SplitSpec.model_validate({"kind": "time_user" if time else "random_user"})
    extra = list(dict.fromkeys(extra))
    if split.kind == "column" and split.column is not None:
        rows.require("split column", [split.column])
        extra = [*extra, split.column] if split.column not in extra else extra
    both = [name for name in extra if name in labels]
    if both:
        raise UserError(f"column {both[0]!r} is named as a label and as an extra column: name it once")

    catalogue = None
    if items is not None:
        item_id = item_id or item
        catalogue = open_source(Path(items), report)
        catalogue.require("item_id", [item_id])
        for setting, columns in (("text", text), ("category", category), ("numeric", numeric)):
            catalogue.require(setting, columns)
        catalogue.require("image_column", image_column)
        if image_column and catalogue.format != "parquet":
            raise UserError(f"image_column: pictures in a column need a Parquet table, {items} is none; use image_dir")
    elif wanted := [*text, *category, *numeric, *image_column]:
        raise UserError(f"column {wanted[0]!r} describes items: name the table of the items that holds it")
    folder = ImageFolder(Path(image_dir), image_name, report) if image_dir is not None else None
    fields = Fields(
        image=[stored_name(name) for name in image_column] + ([image_field] if folder else []),
        text=[stored_name(name) for name in text],
        categorical=[stored_name(name) for name in category],
        numeric=[stored_name(name) for name in numeric],
        feature={},
    )
    types = extra_types(rows, extra)
    cleaner = Rows(report, user, item, time, labels, types)
    names = cleaner.names
    if split.kind == "column" and split.column is not None:
        split = split.model_copy(update={"column": names[split.column]})
    with (
        DatasetWriter(
            out,
            fields=fields,
            source=report.source,
            labels=[names[name] for name in labels],
            label_rule=", ".join(f"column {name}" for name in labels),
            extra={names[name]: kind for name, kind in types.items()},
            has_time=time is not None,
            overwrite=overwrite,
        ) as writer,
        Bar(progress) as bar,
    ):
        if catalogue is not None and item_id is not None:
            reader = _Items(report, item_id, text, category, numeric, image_column)
            for batch in bar.track("items", catalogue, reader.columns):
                _add_items(writer, *reader.clean(batch, catalogue), folder, image_field)
        else:
            seen = _items_seen(bar, Path(interactions), item)
            report.add_read("items", len(seen))
            for at in range(0, len(seen), ITEMS_AT_ONCE):
                _add_items(writer, seen[at : at + ITEMS_AT_ONCE], {}, folder, image_field)
        if folder is not None:
            folder.count_unused()
        for batch in bar.track("interactions", rows, cleaner.columns):
            writer.add_interactions(cleaner.clean(batch))
        cleaner.finish(str(interactions))
        return writer.finish(split, report)


def _items_seen(bar: Bar, path: Path, item: str) -> list[str]:
    """Distinct item ids of the interactions, by first appearance."""
    source = open_source(path, ImportReport())
    seen: dict[str, None] = {}
    for batch in bar.track("items", source, [item]):
        found, good = ids(batch.columns[item], f"{batch.file}: {item}")
        seen.update(dict.fromkeys(found.filter(pa.array(good)).unique().to_pylist()))
    return list(seen)


def _add_items(
    writer: DatasetWriter, item_ids: list[str], columns: dict[str, Any], folder: ImageFolder | None, image_field: str
) -> None:
    for part, pictures in spans(item_ids, folder):
        batch = {"item_id": item_ids[part], **{name: values[part] for name, values in columns.items()}}
        writer.add_items(batch | ({} if pictures is None else {image_field: pictures}))


class _Items:
    """Cleans batches of the items' table."""

    def __init__(
        self,
        report: ImportReport,
        item_id: str,
        text: Sequence[str],
        category: Sequence[str],
        numeric: Sequence[str],
        image_column: Sequence[str],
    ) -> None:
        self.report = report
        self.item_id = item_id
        self.text, self.category, self.numeric, self.image_column = text, category, numeric, image_column
        self.columns = list(dict.fromkeys([item_id, *text, *category, *numeric, *image_column]))

    def clean(self, batch: Batch, source: Source) -> tuple[list[str], dict[str, Any]]:
        """The ids, and every field's values by its stored name; rows without an id are left out and counted."""
        self.report.add_read("items", len(batch.rows))
        found, good = ids(batch.columns[self.item_id], f"{batch.file}: {self.item_id}")
        if not good.all():
            self.report.skip("items: empty item id", batch.examples(~good, self.item_id), int((~good).sum()))
            found, batch = found.filter(pa.array(good)), batch.keep(good)
        columns: dict[str, Any] = {}
        is_json = source.format == "jsonl"
        for names, separator in ((self.text, None), (self.category, "|")):
            for name in names:
                columns[stored_name(name)] = string_lists(
                    batch.columns[name], f"{batch.file}: {name}", json_lists=is_json, separator=separator
                )
        for name in self.numeric:
            columns[stored_name(name)] = self._numbers(batch, name)
        for name in self.image_column:
            pictures = binary_lists(batch.columns[name], f"{batch.file}: {name}")
            where = [f"{batch.file}:{row}" for row in batch.rows.tolist()]
            with ThreadPoolExecutor(WORKERS) as pool:
                columns[stored_name(name)] = check_many(pictures, where, self.report, pool)
        return found.to_pylist(), columns

    def _numbers(self, batch: Batch, name: str) -> np.ndarray:
        column = batch.columns[name]
        values = numbers(column, f"{batch.file}: {name}")
        lost = np.isnan(values) & column.is_valid().to_numpy(zero_copy_only=False)
        if pa.types.is_string(column.type) and lost.any():
            lost &= np.asarray(column.to_numpy(zero_copy_only=False) != "", dtype=bool)
            if lost.any():
                self.report.skip(
                    f"items: {name} is no number (kept, empty)", batch.examples(lost, name), int(lost.sum())
                )
        return values
