"""Videos by cover, title and who watched them in which order, on their way into a dataset: MicroLens, PixelRec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.shown import listed
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.media.pictures import ImageFolder, spans
from rawrec.sources.tables import Batch, Source
from rawrec.sources.tables.convert import numbers, string_lists
from rawrec.sources.tables.lists import words
from rawrec.sources.tables.rows import UNREADABLE_ID, Rows, read_ids, times_of

USERS = ("user", "user_id", "userid")
ITEMS = ("item", "item_id", "itemid", "video", "video_id", "videoid")
TIMES = ("timestamp", "time")
COVER = "cover"
ITEMS_AT_ONCE = 4096


@dataclass
class ItemTable:
    """A table of items: its column of ids, and the kind of field (text, categorical, numeric) that columns become."""

    source: Source
    item: str
    kinds: dict[str, str]


@dataclass
class Videos:
    """What an import reads.

    pairs: the interactions, a row being a user, an item and a time; with `lists` a user and the items in order.
    catalogue: the table of the items. beside: smaller ones, held in memory. covers: a folder of `<item>.jpg`;
    needs_covers: it was named.
    """

    pairs: Source
    catalogue: ItemTable | None
    covers: Path | None
    lists: bool = False
    needs_covers: bool = False
    beside: list[ItemTable] = field(default_factory=list)


def write_videos(
    videos: Videos,
    report: ImportReport,
    out: str | Path,
    split: SplitSpec | None,
    allow_empty: bool,
    overwrite: bool,
    progress: bool,
    pictures: UrlPictures | None,
) -> Dataset:
    """The dataset: interactions, all positives, and items, those of the catalogue first. split: default leave one out.

    Raises UserError for absent columns and folders, files that cannot be read and when nothing is left to import.
    """
    tables = [*filter(None, [videos.catalogue]), *videos.beside]
    kinds = {name: kind for table in tables for name, kind in table.kinds.items()}
    covers = ImageFolder(videos.covers, "{item}.jpg", report) if videos.covers is not None else None
    timed = videos.lists or any(name.lower() in TIMES for name in videos.pairs.columns)
    with (
        DatasetWriter(
            out,
            fields=Fields(
                image=[COVER] if covers else [],
                text=[name for name, kind in kinds.items() if kind == "text"],
                categorical=[name for name, kind in kinds.items() if kind == "categorical"],
                numeric=[name for name, kind in kinds.items() if kind == "numeric"],
            ),
            source=report.source,
            labels=[],
            label_rule="every interaction is positive",
            has_time=timed,
            has_launched=videos.lists,
            needed=[COVER] if videos.needs_covers else [],
            allow_empty=allow_empty,
            overwrite=overwrite,
            pictures=pictures,
        ) as writer,
        Bar(progress) as bar,
    ):
        seen: dict[str, None] = {}
        for rows in _ordered(videos.pairs, report, bar) if videos.lists else _timed(videos.pairs, report, bar, timed):
            writer.add_interactions(rows)
            seen.update(dict.fromkeys(rows["item_id"].unique().to_pylist()))
        _Items(writer, report, videos, covers).write(bar, seen)
        return writer.finish(split or SplitSpec.model_validate({"kind": "leave_one_out"}), report)


def _timed(source: Source, report: ImportReport, bar: Bar, timed: bool) -> Iterator[dict[str, Any]]:
    """Rows of user, item and, if there is one, time."""
    time = _column(source, "times", TIMES) if timed else None
    user, item = _column(source, "users", USERS), _column(source, "items", ITEMS)
    cleaner = Rows(report, user, item, time, times=times_of(report, [source], time))
    for batch in bar.track("interactions", source, cleaner.columns):
        yield cleaner.clean(batch)
    cleaner.finish(str(source.path))


def _column(source: Source, what: str, names: Sequence[str]) -> str:
    found = [name for name in source.columns if name.lower() in names]
    if not found:
        raise UserError(
            f"{source.path} has no column of {what} ({', '.join(names)}). Columns found: "
            f"{listed(source.columns, names[0])}"
        )
    return found[0]


def _ordered(source: Source, report: ImportReport, bar: Bar) -> Iterator[dict[str, Any]]:
    """Rows of a user and the items in order; the place in the list is the time."""
    report.note(f"{source.name} has no times: the place in a user's list, from 1, stands for the time")
    cleaner = Rows(report, "user", None, what="lists")
    for batch in bar.track("interactions", source, ["user", "items"]):
        columns, good = cleaner.check(batch)
        if (bad := good & ~batch.readable("items")).any():
            report.skip(f"item {UNREADABLE_ID}", batch.examples(bad, "items"), int(bad.sum()))
            good &= ~bad
        lists = words(pl.Series(batch.columns["items"]).str.replace_all(",", " ", literal=True).to_arrow())
        if (empty := good & (lists.lengths == 0)).any():
            report.skip("user without items", batch.examples(empty, "user"), int(empty.sum()))
        lists, users = lists.keep(good), columns["user_id"].filter(pa.array(good))
        for at in lists.spans():
            part = lists.part(at)
            report.add_read("interactions", len(part.values))
            user_ids = users[at].take(pa.array(part.owners))
            yield {"user_id": user_ids, "item_id": part.values, "timestamp": part.positions + 1}


class _Items:
    """Writes the items: those of the catalogue, then those of the interactions that it lacks."""

    def __init__(self, writer: DatasetWriter, report: ImportReport, videos: Videos, covers: ImageFolder | None) -> None:
        self.writer, self.report, self.catalogue, self.covers = writer, report, videos.catalogue, covers
        self.beside = [self._whole(table) for table in videos.beside]
        # Times that are mere places say nothing of when an item appeared: all are there from the start.
        self.launched = 0 if videos.lists else None

    def write(self, bar: Bar, seen: dict[str, None]) -> None:
        """seen: the ids of the interactions; those of the catalogue are taken out."""
        if (table := self.catalogue) is not None:
            for batch in bar.track("items", table.source, [table.item, *table.kinds]):
                self.report.add_read("items", len(batch.rows))
                item_ids, fields = self._read(batch, table)
                self._add(item_ids, fields)
                for item in item_ids:
                    seen.pop(item, None)
            if seen:
                self.report.note(f"items of the interactions that {table.source.name} lacks: {len(seen):,}")
        self.report.add_read("items", len(seen))
        self._add(list(seen), {})
        if self.covers is not None:
            self.covers.count_unused()

    def _read(self, batch: Batch, table: ItemTable) -> tuple[list[str], dict[str, Any]]:
        """The ids of items and their fields; rows without an id are left out and counted."""
        found, good = read_ids(batch, table.item, self.report)
        if not good.all():
            found, batch = found.filter(pa.array(good)), batch.keep(good)
        fields: dict[str, Any] = {}
        for name, kind in table.kinds.items():
            column = batch.columns[name]
            if kind != "numeric":
                fields[name] = string_lists(column, name, json_lists=False, separator=None)
                continue
            values = numbers(column, name)
            bad = ~np.isfinite(values) & (pl.Series(column).str.strip_chars() != "").to_numpy()
            if bad.any():
                reason = f"items: {name} is no number (kept, empty)"
                self.report.skip(reason, batch.examples(bad, name), int(bad.sum()))
            fields[name] = np.where(np.isfinite(values), values, np.nan)
        return found.to_pylist(), fields

    def _whole(self, table: ItemTable) -> pl.DataFrame:
        """A small table in memory, one row per item, the first."""
        parts = [pl.DataFrame(schema={"item_id": pl.String})]
        for batch in table.source.batches([table.item, *table.kinds]):
            item_ids, fields = self._read(batch, table)
            parts.append(pl.DataFrame({"item_id": item_ids} | fields))
        return pl.concat(parts, how="diagonal").unique("item_id", keep="first", maintain_order=True)

    def _add(self, item_ids: list[str], fields: dict[str, Any]) -> None:
        for start in range(0, len(item_ids), ITEMS_AT_ONCE):
            few = item_ids[start : start + ITEMS_AT_ONCE]
            columns = {name: values[start : start + ITEMS_AT_ONCE] for name, values in fields.items()}
            for table in self.beside:
                joined = pl.DataFrame({"item_id": few}).join(table, "item_id", "left", maintain_order="left")
                columns |= {name: joined[name].to_list() for name in joined.columns[1:]}
            if self.launched is not None:
                columns["launched"] = [self.launched] * len(few)
            for part, pictures in spans(few, self.covers, self.writer.checked):
                rows: dict[str, Any] = {"item_id": few[part]} | {name: v[part] for name, v in columns.items()}
                self.writer.add_items(rows | ({COVER: pictures} if pictures is not None else {}))
