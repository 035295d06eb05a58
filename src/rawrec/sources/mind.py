"""`rawrec import mind`: Microsoft's news, `behaviors.tsv` and `news.tsv`, as one folder or as train, dev and test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.arguments import checked
from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.numbering import Numbering
from rawrec.data.splits import SplitSpec, keeping_lists
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.shown import listed
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.tables import Batch, Source, open_delimited
from rawrec.sources.tables.convert import ids, string_lists
from rawrec.sources.tables.lists import Lists, words
from rawrec.sources.tables.rows import UNREADABLE_ID, read_ids

BEHAVIORS = ["impression", "user", "time", "history", "shown"]
NEWS = ["item", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities"]
TEXTS, CATEGORIES = ("title", "abstract"), ("category", "subcategory")
SHOWN = r"^(.+)-([01])$"
TIME = "%m/%d/%Y %I:%M:%S %p"
DAY = 86_400
PARTS = {"train": ("train",), "dev": ("dev", "valid"), "test": ("test",)}
"""Role of a subfolder -> what its name may hold."""
PART = "part"
ITEMS_AT_ONCE = 4096


@dataclass
class _Part:
    """One folder with both files. role: train, dev or test, "" where the folder has none. last: its last time; first:
    by the number of a row, whether it holds the first impression of a user."""

    role: str
    folder: Path
    encoding: str | None
    last: int = 0
    first: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


@checked()
def import_mind(
    folder: str | Path,
    *,
    out: str | Path,
    history: bool = True,
    pictures: UrlPictures | None = None,
    encoding: str | None = None,
    split: SplitSpec | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import MIND: behaviors.tsv and news.tsv in `folder`, or in its subfolders of train, dev and test.

    Each news item shown is an interaction, `click` its label, `session` the impression. history: the clicks that a
    user's first impression lists as earlier are added once per user as positives with `given` = 1, in their order, one
    second apart, before the first impression of all; they are in no part and make histories only. Items: text `title`
    and `abstract`, categorical `category` and `subcategory`. pictures: a table of addresses of pictures, to be
    downloaded.
    encoding: of the tables that are text (default: UTF-8, else as each is found to be).
    split: default as the folders say (of two, the other one is test and the last day of train is valid); for one folder
    by global time. A split that could tear an impression apart keeps it whole. A folder without clicks is left out.
    allow_empty: as of `import_table`.

    Raises UserError for absent files, files that cannot be read and when nothing is left to import.
    """
    folder = Path(folder)
    report = ImportReport(source=f"MIND {folder.name}")
    parts = _parts(folder, report, encoding)
    several = len(parts) > 1
    if split is None:
        kind = {"kind": "column", "column": PART} if several else {"kind": "time_global"}
        split = SplitSpec.model_validate(kind)
    split = keeping_lists(split, "session")
    if history and split.history is None:
        split = split.model_copy(update={"history": "given"})
    extra = {"given": pa.int8()} | ({PART: pa.int64()} if several else {})
    with (
        DatasetWriter(
            out,
            fields=Fields(text=list(TEXTS), categorical=list(CATEGORIES)),
            source=report.source,
            labels=["click"],
            label_rule="clicked when shown",
            extra=extra,
            has_time=True,
            needed=(),
            allow_empty=allow_empty,
            overwrite=overwrite,
            pictures=pictures,
            asked=["session"],
        ) as writer,
        Bar(progress) as bar,
    ):
        _write_news(writer, bar, parts, report)
        reader = _Behaviors(report, parts, bar)
        for rows in reader.rows(history):
            names = ["user_id", "item_id", "timestamp", "click", "session", *extra]
            writer.add_interactions({name: rows[name] for name in names})
        report.note("entities, embeddings and addresses of the news are not read")
        return writer.finish(split, report)


def _parts(folder: Path, report: ImportReport, encoding: str | None) -> list[_Part]:
    """The folders to read, train first; one without clicks is left out and noted."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist or is not a folder")
    roles: dict[str, Path] = {}
    if (folder / "behaviors.tsv").is_file():
        roles[""] = folder
    else:
        inside = [path.parent for path in sorted(folder.glob("*/behaviors.tsv"))]
        for role, names in PARTS.items():
            found = [path for path in inside if any(name in path.name.lower() for name in names)]
            if len(found) > 1:
                raise UserError(f"{folder} has several folders of {role}: {listed(path.name for path in found)}")
            if found:
                roles[role] = found[0]
    if not roles:
        found = listed(sorted(path.name for path in folder.iterdir()), none="nothing")
        raise UserError(f"{folder} holds no behaviors.tsv, nor do subfolders named train, dev or test; found: {found}")
    parts = []
    for role, path in roles.items():
        tried = ImportReport()
        first = next(_open(_Part(role, path, encoding), "behaviors.tsv", BEHAVIORS, tried).batches(["shown"]), None)
        if tried.skipped and (first is None or not len(first.rows)):
            example = next(iter(tried.skipped.values())).examples[0]
            raise UserError(
                f"{path / 'behaviors.tsv'}: rows have not the {len(BEHAVIORS)} columns {', '.join(BEHAVIORS)}, as in "
                f"{example}"
            )
        if first is not None and not np.isnan(_clicks(words(first.columns["shown"]))[1]).all():
            parts.append(_Part(role, path, encoding))
        else:
            report.note(f"{path.name}: left out, the impressions do not say what was clicked (N1-0 N2-1)")
    if not parts:
        raise UserError(f"{folder}: no impression says what was clicked, as in N1-0 N2-1")
    if len(parts) > 1 and parts[0].role != "train":
        raise UserError(f"{folder} has no subfolder named train; found: {listed(p.folder.name for p in parts)}")
    if len(parts) == 2:
        report.note(f"the last day of train is valid, {parts[1].role} is test")
    return parts


def _open(part: _Part, name: str, columns: list[str], report: ImportReport) -> Source:
    path = part.folder / name
    source = open_delimited(path, report, "\t", columns=list(columns), quotes=False, encoding=part.encoding)
    source.name = f"{part.folder.name}/{name}"
    return source


def _write_news(writer: DatasetWriter, bar: Bar, parts: list[_Part], report: ImportReport) -> None:
    """Add the news of all parts; what is in several is stored as the first of them has it."""
    known: set[str] = set()
    for part in parts:
        source = _open(part, "news.tsv", NEWS, report)
        new: set[str] = set()
        for batch in bar.track(f"news {part.role}", source, ["item", *TEXTS, *CATEGORIES]):
            report.add_read("items", len(batch.rows))
            found, good = read_ids(batch, "item", report, empty="items: empty news id")
            good &= ~np.fromiter((i in known for i in found.to_pylist()), bool, len(found))
            batch = batch.keep(good)
            item_ids = found.filter(pa.array(good)).to_pylist()
            new.update(item_ids)
            columns: dict[str, Any] = {"item_id": item_ids}
            for name in (*TEXTS, *CATEGORIES):
                columns[name] = string_lists(batch.columns[name], name, json_lists=False, separator=None)
            for at in range(0, len(item_ids), ITEMS_AT_ONCE):
                writer.add_items({name: values[at : at + ITEMS_AT_ONCE] for name, values in columns.items()})
        known |= new


class _Behaviors:
    """Makes interactions of the impressions of all parts."""

    def __init__(self, report: ImportReport, parts: list[_Part], bar: Bar) -> None:
        self.report, self.parts, self.bar = report, parts, bar

    def rows(self, history: bool) -> Iterator[dict[str, Any]]:
        """The interactions, in pieces of bounded size: what was shown, and before it, where wanted, the histories."""
        start = self._first_impressions()
        for part in self.parts:
            columns = [name for name in BEHAVIORS if history or name != "history"]
            source = _open(part, "behaviors.tsv", BEHAVIORS, self.report)
            for batch in self.bar.track(f"impressions {part.role}", source, columns):
                batch, times = self._good(batch, count=True)
                if history:
                    yield from self._given(batch.keep(part.first[batch.rows]), start)
                yield from self._shown(batch, times, part)
        if history:
            self.report.note(
                "clicks that impressions list as earlier have no times: once per user, from the first impression, they "
                "are added as clicks with given=1, in their order, before the first impression of all; they make "
                "histories only"
            )

    def _first_impressions(self) -> int:
        """The first time of all. Sets `last` and `first` of each part."""
        codes = Numbering()
        times, places = np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
        earliest = np.iinfo(np.int64).max
        for number, part in enumerate(self.parts):
            source, rows = _open(part, "behaviors.tsv", BEHAVIORS, ImportReport()), 0
            for batch in self.bar.track(f"users {part.role}", source, BEHAVIORS[:3]):
                rows = max(rows, int(batch.rows.max(initial=0)))
                batch, moments = self._good(batch, count=False)
                if not len(batch.rows):
                    continue
                part.last = max(part.last, int(moments.max()))
                earliest = min(earliest, int(moments.min()))
                users = codes.encode(pa.chunked_array([batch.columns["user"]])).to_numpy()
                more = len(codes) - len(times)
                times = np.concatenate([times, np.full(more, np.iinfo(np.int64).max)])
                places = np.concatenate([places, np.zeros((more, 2), np.int64)])
                order = np.lexsort((batch.rows, moments, users))
                one = order[np.unique(users[order], return_index=True)[1]]
                one = one[moments[one] < times[users[one]]]
                times[users[one]] = moments[one]
                places[users[one]] = np.stack([np.full(len(one), number), batch.rows[one]], 1)
            part.first = np.zeros(rows + 1, bool)
        for number, part in enumerate(self.parts):
            part.first[places[places[:, 0] == number, 1]] = True
        return earliest

    def _good(self, batch: Batch, *, count: bool) -> tuple[Batch, np.ndarray]:
        """The impressions with a user and a time, the user's id stripped, and their times in seconds `[n]`."""
        users, good = ids(batch.columns["user"], f"{batch.file}: user")
        told = [(column, batch.readable(column)) for column in ("user", "shown", "history")]
        moments = pl.Series(batch.columns["time"]).str.strptime(pl.Datetime("us"), TIME, strict=False).dt.epoch("s")
        timed = ((moments >= 0).fill_null(False)).to_numpy()
        if count:
            self.report.add_read("impressions", len(batch.rows))
            left = np.ones(len(good), bool)
            for column, what, fits in (
                ("user", "empty user id", good),
                ("time", "time is not like 11/15/2019 8:55:22 AM", timed),
                *((column, UNREADABLE_ID, fits) for column, fits in told),
            ):
                if (bad := left & ~fits).any():
                    self.report.skip(f"{what} (impression left out)", batch.examples(bad, column), int(bad.sum()))
                    left &= fits
        good = np.logical_and.reduce([good, timed, *(fits for _, fits in told)])
        batch = Batch(batch.file, batch.rows, batch.columns | {"user": users}).keep(good)
        return batch, moments.fill_null(0).to_numpy()[good]

    def _given(self, batch: Batch, start: int) -> Iterator[dict[str, Any]]:
        lists = words(batch.columns["history"])
        for at in lists.spans():
            part = lists.part(at)
            owners = part.owners
            n = len(owners)
            self.report.add_read("earlier clicks", n)
            self.report.add_read("interactions", n)
            yield {
                "user_id": batch.columns["user"][at].take(pa.array(owners)),
                "item_id": part.values,
                "timestamp": start - np.repeat(part.lengths, part.lengths) + part.positions,
                "click": np.ones(n, np.float32),
                "session": pa.nulls(n, pa.string()),
                "given": np.ones(n, np.int8),
                PART: np.full(n, -1),
            }

    def _shown(self, batch: Batch, times: np.ndarray, part: _Part) -> Iterator[dict[str, Any]]:
        lists = words(batch.columns["shown"])
        if (lists.lengths == 0).any():
            none = lists.lengths == 0
            self.report.skip("no news shown (impression left out)", batch.examples(none, "impression"), int(none.sum()))
        sessions, _ = ids(batch.columns["impression"], f"{batch.file}: impression")
        if part.role:
            sessions = (f"{part.role}-" + pl.Series(sessions)).to_arrow().cast(pa.string())
        for at in lists.spans():
            piece = lists.part(at)
            owners = piece.owners
            self.report.add_read("interactions", len(owners))
            items, clicks = _clicks(piece)
            bad = np.isnan(clicks)
            if bad.any():
                examples = piece.examples(bad, batch.places[at])
                self.report.skip("news shown without -0 or -1 behind its id", examples, int(bad.sum()))
            owners, moments = owners[~bad], times[at]
            yield {
                "user_id": batch.columns["user"][at].take(pa.array(owners)),
                "item_id": items.filter(pa.array(~bad)),
                "timestamp": moments[owners],
                "click": clicks[~bad],
                "session": sessions[at].take(pa.array(owners)),
                "given": np.zeros(len(owners), np.int8),
                PART: self._number(part, moments)[owners],
            }

    def _number(self, part: _Part, times: np.ndarray) -> np.ndarray:
        """The part that impressions of these times belong to: 0 train, 1 valid, 2 test `[n]`."""
        if part.role == "train":
            return ((times >= part.last // DAY * DAY) & (len(self.parts) == 2)).astype(np.int64)
        return np.full(len(times), 1 if part.role == "dev" and len(self.parts) == 3 else 2)


def _clicks(shown: Lists) -> tuple[pa.Array, np.ndarray]:
    """Of `N1-0` the id and the click, float32 `[values]`, nan where it does not end so."""
    text = pl.Series(shown.values)
    clicks = text.str.extract(SHOWN, 2).cast(pl.Float32).fill_null(np.nan).to_numpy()
    return text.str.extract(SHOWN, 1).fill_null("").to_arrow().cast(pa.string()), clicks
