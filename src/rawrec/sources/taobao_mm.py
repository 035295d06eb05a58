"""`rawrec import taobao-mm`: Taobao-MM, advertisements shown by Alibaba, with long histories and vectors of the items.

As the authors of MUSE (arXiv 2512.07216) publish it, of which two layouts hold the same:

raw/    `train_samples.parquet` and `test_samples.parquet` (label_0, user 129_1, item 205),
        `train_user_features.parquet` and `test_user_features.parquet` (129_1, 130_1 to 130_5, the history 150_2_180 and
        its categories 151_2_180), `item_features.parquet` (205, category 206, 213, 214)
train/, test/    shards in which all of this stands in one row

Vectors: `feature_map/scl_emb_int8_p90_keys.npy` and `_values.npy`, or `scl_embedding*.parquet` (205, 205_c), 128 int8
each, 127 times what they stand for, or floats as they are. Ids are numbers, 0 is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.arguments import checked
from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import Columns
from rawrec.data.numbering import Numbering
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.shown import listed
from rawrec.sources._taobao_items import OF_ITEMS, Int64, Items, categories, lists, numbers, texts
from rawrec.sources._taobao_vectors import VECTORS, open_vectors
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.tables import Batch
from rawrec.sources.tables.parquet import Parquet

LABEL, USER, ITEM = "label_0", "129_1", "205"
PAST, PAST_CATEGORY = "150_2_180", "151_2_180"
OF_USERS = {f"130_{i}": f"user_130_{i}" for i in range(1, 6)}
PARTS = ("train", "test")
PART = "part"
ROWS, ITEMS_AT_ONCE = 2048, 4096
HELD = 10
"""One in so many users of train is in valid."""


@checked()
def import_taobao_mm(
    folder: str | Path,
    *,
    out: str | Path,
    history: int = 50,
    rows: int | None = None,
    pictures: UrlPictures | None = None,
    split: SplitSpec | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import Taobao-MM from a folder with `raw`, or with `train` and `test`, or with what `raw` holds.

    A row per advertisement shown, `click` its label. history: of the products that a user's row lists as met earlier,
    so many, the latest, are added once per user as positives with `given` = 1; they are in no part and make histories
    only. rows: of each part at most so many that were shown, the first. There are no times: `timestamp` is an order, in
    which a user's history comes first, item by item, then all that was shown in train at one moment, then test.
    Items: categories `category`, `item_213`, `item_214`, and the feature `scl` where the folder has the vectors. Users:
    categories `user_130_1` to `user_130_5`. pictures: a table of addresses of pictures, to be downloaded.
    split: default as the files say; of train one user in ten is in valid.
    allow_empty: as of `import_table`.

    Raises UserError for absent files and columns, files that cannot be read, and when nothing is left to import.
    """
    if history < 0 or (rows is not None and rows < 1):
        raise UserError(f"history={history}, rows={rows}: use a history of at least 0, and at least 1 row")
    folder = Path(folder)
    report = ImportReport(source=f"Taobao-MM {folder.name}")
    log = _opened(folder, report, rows)
    vectors = open_vectors([folder / "feature_map", folder / "raw", folder], report)
    split = split or SplitSpec.model_validate({"kind": "column", "column": PART})
    if history and split.history is None:
        split = split.model_copy(update={"history": "given"})
    with (
        DatasetWriter(
            out,
            fields=Fields(categorical=[*OF_ITEMS.values()], feature={VECTORS: vectors.width} if vectors else {}),
            source=report.source,
            labels=["click"],
            label_rule="clicked when shown",
            extra={"given": pa.int8(), PART: pa.int64()},
            users=Columns(categorical=[*OF_USERS.values()]),
            has_time=True,
            needed=(),
            allow_empty=allow_empty,
            overwrite=overwrite,
            pictures=pictures,
        ) as writer,
        Bar(progress) as bar,
    ):
        items = Items()
        _Rows(writer, items, report, history).write(log, bar)
        _write_items(writer, items, vectors, bar)
        report.note("there are no times: timestamp is an order, histories first, then train, then test")
        return writer.finish(split, report)


# ---------------------------------------------------------------------------------------------------------------- files
class _Log:
    """Files of the two parts. joined: samples and what is known of users and items stand in one row."""

    def __init__(self, parts: dict[str, list[Path]], joined: bool, users: dict[str, Path], items: Path | None) -> None:
        self.parts, self.joined, self.users, self.items = parts, joined, users, items
        self.rows: int | None = None


def _opened(folder: Path, report: ImportReport, rows: int | None) -> _Log:
    """The files of the layout that the folder has; of both the raw one, in which a history stands once."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist or is not a folder")
    log = None
    for place in (folder / "raw", folder):
        if (place / "train_samples.parquet").is_file():
            parts = [part for part in PARTS if (place / f"{part}_samples.parquet").is_file()]
            samples = {part: [place / f"{part}_samples.parquet"] for part in parts}
            users = {part: place / f"{part}_user_features.parquet" for part in parts}
            log = _Log(samples, False, users, place / "item_features.parquet")
            break
    if log is None:
        shards = {part: sorted((folder / part).glob("*.parquet")) for part in PARTS}
        if not shards["train"]:
            found = listed(sorted(path.name for path in folder.iterdir()), none="nothing")
            raise UserError(
                f"{folder} has neither train_samples.parquet, nor in raw, nor files train/*.parquet; found: {found}"
            )
        log = _Log({part: files for part, files in shards.items() if files}, True, {}, None)
    if "test" not in log.parts:
        report.note("there is no test part: of train one user in ten is in valid, and one in ten in test")
    log.rows = rows
    return log


# --------------------------------------------------------------------------------------------------------- interactions
class _Rows:
    """Makes interactions of what was shown and of histories, and attributes of users."""

    def __init__(self, writer: DatasetWriter, items: Items, report: ImportReport, history: int) -> None:
        self.writer, self.items, self.report, self.history = writer, items, report, history
        self.known = Numbering()  # users whose history and attributes are there

    def write(self, log: _Log, bar: Bar) -> None:
        tested = "test" in log.parts
        for part, files in log.parts.items():
            left, users = log.rows, Numbering()
            for path in files:
                if left == 0:
                    break
                source = Parquet(path, self.report, ROWS if log.joined else None)
                more = [*OF_ITEMS, *OF_USERS, PAST, PAST_CATEGORY] if log.joined else []
                source.require("samples", [LABEL, USER, ITEM, *more])
                for batch in bar.track(f"{part} {path.name}", source, [LABEL, USER, ITEM, *more]):
                    batch = batch if left is None else _first(batch, left)
                    left = None if left is None else left - len(batch.rows)
                    batch = self._shown(batch, part, tested)
                    users.encode(texts(batch, USER))
                    if log.joined:
                        self._users(batch)
                        self.items.add(batch, [ITEM, *OF_ITEMS])
                    if left == 0:
                        break
            if not log.joined:
                source = Parquet(log.users[part], self.report, ROWS)
                wanted = [USER, *OF_USERS, PAST, PAST_CATEGORY]
                source.require("users", wanted)
                for batch in bar.track(f"users of {part}", source, wanted):
                    self._users(batch.keep(users.known(texts(batch, USER))))
        if log.items is not None:
            source = Parquet(log.items, self.report)
            source.require("items", [ITEM, *OF_ITEMS])
            for batch in bar.track("items", source, [ITEM, *OF_ITEMS]):
                self.items.add(batch, [ITEM, *OF_ITEMS])

    def _shown(self, batch: Batch, part: str, tested: bool) -> Batch:
        """Add what was shown; the rows that are good."""
        self.report.add_read("interactions", len(batch.rows))
        for column, reason, there in (
            (USER, "no user", lambda batch: numbers(batch, USER) != 0),
            (ITEM, "no item", lambda batch: numbers(batch, ITEM) != 0),
            (LABEL, "no label", lambda batch: ~np.isnan(_clicks(batch))),
        ):
            good = there(batch)
            if not good.all():
                bad = int((~good).sum())
                self.report.skip(f"{reason} in column {column} (row left out)", batch.examples(~good, column), bad)
                batch = batch.keep(good)
        n = len(batch.rows)
        if not n:
            return batch
        moment = self.history + PARTS.index(part)
        self.writer.add_interactions(
            {
                "user_id": texts(batch, USER),
                "item_id": texts(batch, ITEM),
                "timestamp": np.full(n, moment),
                "click": _clicks(batch),
                "given": np.zeros(n, np.int8),
                PART: _part_of(numbers(batch, USER), part, tested),
            }
        )
        return batch

    def _users(self, batch: Batch) -> None:
        """Add histories and attributes of users who have none yet; of several rows of one the first counts."""
        ids = texts(batch, USER)
        new = ~self.known.known(ids)
        first = np.zeros(len(ids), bool)
        first[np.unique(numbers(batch, USER), return_index=True)[1]] = True
        batch = batch.keep(new & first & (numbers(batch, USER) != 0))
        if not len(batch.rows):
            return
        ids = texts(batch, USER)
        self.known.encode(ids)
        values = {stored: categories(numbers(batch, name)) for name, stored in OF_USERS.items()}
        self.writer.users.add({"user_id": ids, **values})
        if self.history:
            self._given(batch, ids)

    def _given(self, batch: Batch, ids: pa.Array) -> None:
        items, lengths = lists(batch, PAST)
        categories, others = lists(batch, PAST_CATEGORY)
        if (lengths != others).any():
            bad = lengths != others
            reason = f"not as many categories ({PAST_CATEGORY}) as items ({PAST}) in a history (categories left out)"
            self.report.skip(reason, batch.examples(bad), int(bad.sum()))
            categories = np.zeros(len(items), np.int64)
        owners = np.repeat(np.arange(len(lengths)), lengths)
        there = items != 0  # the others are padding
        owners, items, categories = owners[there], items[there], categories[there]
        counts = np.bincount(owners, minlength=len(lengths))
        behind = np.repeat(np.cumsum(counts), counts) - np.arange(len(owners))  # 1: the latest
        latest = behind <= self.history
        owners, items, categories, behind = owners[latest], items[latest], categories[latest], behind[latest]
        n = len(items)
        self.report.add_read("items of histories", n)
        self.report.add_read("interactions", n)
        self.items.take(items, {"206": categories})
        if not n:
            return
        self.writer.add_interactions(
            {
                "user_id": ids.take(pa.array(owners)),
                "item_id": pa.array(items).cast(pa.string()),
                "timestamp": self.history - behind,
                "click": np.ones(n, np.float32),
                "given": np.ones(n, np.int8),
                PART: np.full(n, -1),
            }
        )


def _part_of(users: Int64, part: str, tested: bool) -> Int64:
    """0 train, 1 valid, 2 test `[n]`: a user of train is in one part with all rows."""
    if part == "test":
        return np.full(len(users), 2)
    with np.errstate(over="ignore"):
        drawn = (users.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    tenth = (drawn % np.uint64(HELD)).astype(np.int64)
    return np.where(tenth == 0, 1, np.where((tenth == 1) & (not tested), 2, 0))


def _write_items(writer: DatasetWriter, items: Items, vectors: Any, bar: Bar) -> None:
    """Add all items that were met."""
    met = writer.items_met()
    numbers = met.cast(pa.int64()).to_numpy()
    items.take(numbers, {})
    if vectors is not None:
        vectors.read(numbers, bar)
    for at in range(0, len(met), ITEMS_AT_ONCE):
        some = slice(at, at + ITEMS_AT_ONCE)
        columns: dict[str, Any] = {"item_id": met[some], **items.of(numbers[some])}
        if vectors is not None:
            columns[VECTORS] = vectors.of(numbers[some])
        writer.add_items(columns)


# -------------------------------------------------------------------------------------------------------------- columns
def _first(batch: Batch, count: int) -> Batch:
    return batch.keep(np.arange(len(batch.rows)) < count)


def _clicks(batch: Batch) -> NDArray[np.float32]:
    """Whether it was clicked, nan where that is not said: the last number of `[0, 1]`, or a number of its own."""
    column = batch.columns[LABEL]
    if not pa.types.is_nested(column.type):
        said = column.is_valid().to_numpy(zero_copy_only=False)
        return np.where(said, numbers(batch, LABEL) > 0, np.nan).astype(np.float32)
    values, lengths = lists(batch, LABEL)
    clicks = np.full(len(lengths), np.nan, np.float32)
    some = lengths > 0
    clicks[some] = values[(np.cumsum(lengths) - 1)[some]] > 0
    return clicks
