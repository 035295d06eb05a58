"""Tables 8 and 9 and figure 4: what EM3 does to neighbours of rare items, by id, and of popular ones, by content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawrec.data.dataset import Dataset
from rawrec.evaluation.significance import Interval, mean_bootstrap
from rawrec.report.pictures import Tiles
from rawrec.serving.recommender import Recommender
from rawrec.studies.em3.arms import Arms
from rawrec.studies.em3.results import Result
from rawrec.studies.gains import percent
from rawrec.studies.table import Cell, Row, Table, Value

NEAREST = 3  # neighbours of an item, as in the paper
RARE = 4  # training rows of a rare item at most; an item without any has no id
POPULAR = 0.3  # share of the items, those with most training rows
SAMPLED = 2000  # items
SHOWN = 4  # items of the pictures
Vectors = NDArray[np.float32]
"""`[items, width]` of length 1; zeros where an item has none."""


@dataclass(frozen=True)
class Spaces:
    """What two runs of one seed, and the frozen encoder, make of every item. rows: training rows of each."""

    ids: Vectors
    em3_ids: Vectors
    em3_content: Vectors
    frozen: Vectors
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """Similarity of items `[n]` to their neighbours, by the space that these were found in; mean over seeds."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]

    @property
    def gain(self) -> float:
        return float(self.after.mean() / self.before.mean() - 1)

    @property
    def interval(self) -> Interval:
        """Of the relative gain, items drawn with replacement."""
        found, mean = mean_bootstrap(self.after - self.before), float(self.before.mean())
        return Interval(found.value / mean, found.low / mean, found.high / mean)


def neighbour_tables(arms: Arms, results: Mapping[str, Result]) -> tuple[list[Table], list[dict[str, Any]]]:
    """The tables that were asked for, and the pictures."""
    wanted = [number for number in (8, 9) if number in arms.cfg.tables]
    if not wanted:
        return [], []
    runs = [results[arm.key].standing.runs for arm in arms.spaces]
    if not all(runs):
        reason = "needs finished runs of the baseline, of EM3 and of PE"
        return [Table(number, TITLES[number], {}, [], "", empty=reason) for number in wanted], []
    seeds = [_spaces(arms.data, *paths) for paths in zip(*runs, strict=True)]
    tables, pictures = [], []
    for number in wanted:
        items = _rare(seeds[0].rows) if number == 8 else _popular(seeds[0])
        if not len(items):
            tables.append(Table(number, TITLES[number], {}, [], "", empty=f"needs {KINDS[number]}"))
            continue
        found = [_similar(space, items, number) for space in seeds]
        mean = Found(np.mean([f.before for f in found], 0), np.mean([f.after for f in found], 0))
        tables.append(_table(number, mean, len(seeds)))
        pictures.append(_pictures(arms.data, seeds[0], items[:SHOWN], number))
    return tables, pictures


TITLES = {
    8: "Material similarity of rare items' id neighbours",
    9: "Behavioural similarity of popular items' neighbours",
}
KINDS = {8: f"items with 1 to {RARE} training rows", 9: "items with content and training rows"}
ROWS = {8: ("baseline", "EM3"), 9: ("frozen", "EM3")}
HEADS = {8: "material similarity", 9: "behavioural similarity"}


def _rare(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Drawn at random, seed 0."""
    rare = np.flatnonzero((rows >= 1) & (rows <= RARE))
    return np.random.default_rng(0).permutation(rare)[:SAMPLED]


def _popular(space: Spaces) -> NDArray[np.int64]:
    rows = space.rows * (space.frozen.any(1) & space.em3_content.any(1))
    most = np.argsort(-rows, kind="stable")[: int(np.ceil(POPULAR * len(rows)))]
    return np.random.default_rng(0).permutation(most[rows[most] > 0])[:SAMPLED]


def _near(space: Vectors, items: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The `NEAREST` items to each of some, by cosine among those that are known, `[n, NEAREST]`."""
    found = []
    for part in np.array_split(items, max(1, len(items) // 256)):
        scores = space[part] @ space.T
        scores[:, ~known] = -np.inf
        scores[np.arange(len(part)), part] = -np.inf
        found.append(np.argsort(-scores, 1, kind="stable")[:, :NEAREST])
    return np.concatenate(found)


def _neighbours(space: Spaces, items: NDArray[np.int64], number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """By the space before and by that of EM3. Of both only items that have an id and content are candidates."""
    known = (space.rows > 0) & space.frozen.any(1) & space.em3_content.any(1)
    before, after = (space.ids, space.em3_ids) if number == 8 else (space.frozen, space.em3_content)
    return _near(before, items, known), _near(after, items, known)


def _similar(space: Spaces, items: NDArray[np.int64], number: int) -> Found:
    judge = space.frozen if number == 8 else space.ids
    before, after = (
        np.einsum("nd,nkd->nk", judge[items], judge[near]).mean(1, dtype=np.float64)
        for near in _neighbours(space, items, number)
    )
    return Found(before, after)


def _spaces(data: Dataset, baseline: Path, em3: Path, frozen: Path) -> Spaces:
    ids, em3_ids, rows = *(_ids(run) for run in (baseline, em3)), _training_rows(data, em3)
    return Spaces(ids, em3_ids, _content(data, em3), _content(data, frozen), rows)


@cache
def _open(run: Path) -> Recommender:
    return Recommender.load(run, device="cpu")


def _ids(run: Path) -> Vectors:
    return _unit(_open(run).system.ranker.inputs.ids.item_vectors()[0].detach().numpy())


def _content(data: Dataset, run: Path) -> Vectors:
    return _unit(_open(run).embed([str(item) for item in data.item_ids]))


def _training_rows(data: Dataset, run: Path) -> NDArray[np.int64]:
    return np.bincount(data.items[_open(run).system.samples.rows(0)], minlength=data.n_items)


def _unit(values: NDArray[np.float32]) -> Vectors:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _table(number: int, found: Found, seeds: int) -> Table:
    first, second = ROWS[number]
    interval = found.interval
    gain = {
        "gain": Cell(Value(found.gain), text=percent(found.gain)),
        "interval": Cell(Value(found.gain), text=f"{percent(interval.low)} to {percent(interval.high)}"),
    }
    better = found.gain > 0
    rows = [
        Row(first, {"similarity": Cell(Value(float(found.before.mean())), not better)}, seeds=seeds),
        Row(second, {"similarity": Cell(Value(float(found.after.mean())), better), **gain}, seeds=seeds),
    ]
    heads = {"similarity": HEADS[number], "gain": "gain", "interval": "95 % of items"}
    return Table(number, TITLES[number], heads, [rows], ABOUT[number].format(len(found.before)))


ABOUT = {
    8: f"Mean cosine of {{:,}} items with 1 to {RARE} training rows to their {NEAREST} nearest by id, by features of "
    "the encoder tuned on the catalogue. The paper's cold items are 5 days old at most.",
    9: f"Mean cosine of {{:,}} of the {POPULAR:.0%} of items with most training rows to their {NEAREST} nearest by "
    "content, by the baseline's ids. frozen: features of the encoder tuned on the catalogue.",
}


def _pictures(data: Dataset, space: Spaces, items: NDArray[np.int64], number: int) -> dict[str, Any]:
    """Figure 4: each item and its neighbours before and after."""
    before, after = _neighbours(space, items, number)
    tiles = Tiles(data, np.concatenate([items, before.ravel(), after.ravel()]).tolist())
    first, second = (f"{row} ids" if number == 8 else f"{row} content" for row in ROWS[number])
    rows = [
        [
            {"label": "item", "tiles": [tiles.tile(item)]},
            {"label": first, "tiles": [tiles.tile(row) for row in near]},
            {"label": second, "tiles": [tiles.tile(row) for row in far]},
        ]
        for item, near, far in zip(items.tolist(), before.tolist(), after.tolist(), strict=True)
    ]
    part = "a" if number == 8 else "b"
    return {"title": f"Figure 4 ({part}): {TITLES[number]}", "about": "Drawn at random, first seed.", "rows": rows}
