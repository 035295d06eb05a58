"""Where a run is good and where it is not: its metrics by category, by price, by how much users did.

Of a ranker AUC and GAUC of the test impressions, of a retrieval model Recall and NDCG of its lists. Each part is held
against the baseline, or without one against the whole, with the same resamplings of users; all differences of the parts
of a page are corrected together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from rawrec.data.dataset import Dataset
from rawrec.evaluation.significance import (
    Interval,
    Metric,
    mean_resamplings_of_parts,
    normal_test,
    resamplings_of_parts,
)
from rawrec.evaluation.topk import topk_metrics
from rawrec.report import plots
from rawrec.report.correction import LEVEL, Family, correct
from rawrec.report.metrics import ENOUGH, METRICS, RANKING, round_up
from rawrec.report.page import plain
from rawrec.report.run import TEST, Run
from rawrec.shown import visible
from rawrec.training.evaluate import lists_of_pairs

VALUES = 8
"""Values of a category that have a line of their own: those with the most to judge."""
COLUMNS = 8
"""Columns that the page is divided by, at most."""
QUARTERS = 4
DRAWS = 400
"""Resamplings of users, at most: the tests go by their deviation."""
ROWS = 40_000_000
"""Impressions x resamplings of one metric, at most: of more impressions fewer are drawn."""
FEWEST = 100
IMPRESSIONS: tuple[Metric, ...] = ("auc", "gauc")
LISTS = ("recall", "ndcg")
Draws = tuple[float, NDArray[np.float64]]


@dataclass(frozen=True)
class Part:
    """Some of the items (by_user: of the users): mask `[n_items]` or `[n_users]`."""

    name: str
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Column:
    """What the parts are values of."""

    title: str
    meaning: str
    by_user: bool
    parts: list[Part]


@dataclass(frozen=True)
class Cell:
    """A metric in a part: its value, the baseline's, and the difference from the baseline (without one: from the
    whole). p, corrected, good: as in `metrics.Line`."""

    value: Interval
    baseline: float | None
    difference: Interval | None
    p: float | None = None
    corrected: float | None = None
    bar: Markup | None = None

    @property
    def good(self) -> bool | None:
        sure = self.corrected is not None and self.corrected < 1 - LEVEL and self.difference is not None
        return self.difference.value > 0 if sure and self.difference else None


@dataclass(frozen=True)
class Line:
    """A part: how many items or users it has, how many impressions (of lists: users) are judged, and its metrics; all
    None where it is too small to say anything."""

    name: str
    members: int
    judged: int
    small: bool
    cells: Sequence[Cell | None]


@dataclass(frozen=True)
class Table:
    column: Column
    lines: list[Line]


@dataclass(frozen=True)
class Slices:
    """tables: one per column. names: of the metrics. judged: what they are of. reach: of the strips of each metric.
    draws: resamplings behind the intervals. tested: differences of all tables."""

    tables: list[Table]
    names: list[str]
    judged: str
    reach: list[float]
    draws: int
    tested: Family


def slices(mine: Run, other: Run | None, data: Dataset) -> Slices | None:
    """None where there is nothing to divide by, or nothing to judge."""
    judge = _impressions(mine, other) if mine.judges_impressions else _lists(mine, other, data)
    if judge is None:
        return None
    found = [judge.table(column) for column in columns(data, mine)]
    tables = [table for table in found if sum(not line.small for line in table.lines) > 1]
    if not tables:
        return None
    cells = [cell for table in tables for line in table.lines for cell in line.cells if cell is not None]
    corrected = correct([cell.p for cell in cells])
    ps = iter(corrected.values)
    decided = [
        replace(table, lines=[replace(line, cells=[c and replace(c, corrected=next(ps)) for c in line.cells])
                              for line in table.lines])
        for table in tables
    ]  # fmt: skip
    reach = [_reach(decided, place) for place in range(len(judge.names))]
    drawn = [
        replace(table, lines=[replace(line, cells=[_with_bar(c, r) for c, r in zip(line.cells, reach, strict=True)])
                              for line in table.lines])
        for table in decided
    ]  # fmt: skip
    return Slices(drawn, judge.names, judge.what, reach, judge.draws, corrected.told(None))


# ------------------------------------------------------------------------------------------------------------- columns
def columns(data: Dataset, mine: Run) -> list[Column]:
    """What a dataset can be divided by: categories and numbers of items, what users did in training, what is known of
    them."""
    split = data.split(mine.config.data.split)
    rows = np.bincount(data.users[split == 0], minlength=data.n_users)
    judged_items = np.bincount(data.items[split == TEST], minlength=data.n_items)
    judged_users = np.bincount(data.users[split == TEST], minlength=data.n_users)
    found = []
    for name in data.fields.categorical:
        found.append(Column(name, "of the item", False, _values(*data.categorical(name), judged_items)))
    for name in data.fields.numeric:
        found.append(Column(name, "of the item, in quarters of the items", False, quarters(data.numeric(name))))
    seen = judged_users > 0
    counts = rows.astype(np.float64)
    counts[~seen] = np.nan
    none = [Part("none", seen & (rows == 0))] * bool((seen & (rows == 0)).any())
    parts = [*none, *quarters(np.where(rows > 0, counts, np.nan), missing=False)]
    found.append(
        Column("activity", "the user's rows of training, in quarters of the users of the test part", True, parts)
    )
    for name in data.meta.users.categorical:
        found.append(Column(name, "of the user", True, _values(*data.user_categorical(name), judged_users)))
    for name in data.meta.users.numeric:
        found.append(Column(name, "of the user, in quarters", True, quarters(data.user_numeric(name))))
    return [replace(column, parts=parts) for column in found[:COLUMNS] if len(parts := column.parts) > 1]


def _values(
    ptr: NDArray[np.int64], codes: NDArray[np.int32], names: Sequence[str], weight: NDArray[np.int64]
) -> list[Part]:
    """The values with the most to judge, the others as one, and those without any. An item with several counts for
    each of them."""
    count = len(ptr) - 1
    owner = np.repeat(np.arange(count), np.diff(ptr))
    often = np.bincount(codes, weight[owner], minlength=len(names))
    first = [code for code in np.argsort(-often, kind="stable")[:VALUES].tolist() if often[code] > 0]
    parts = [Part(visible(str(names[code])), _mask(owner[codes == code], count)) for code in first]
    rest = _mask(owner[~np.isin(codes, first)], count)
    further = len(names) - len(first)
    parts += [Part(f"{further:,} other value{'s' * (further > 1)}", rest)] * bool((weight[rest] > 0).any())
    without = np.diff(ptr) == 0
    return parts + [Part("none", without)] * bool((weight[without] > 0).any())


def _mask(rows: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def quarters(values: NDArray[np.float64], missing: bool = True) -> list[Part]:
    """Parts of equal size, as far as equal values allow, and those without a value."""
    known = values[np.isfinite(values)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, QUARTERS + 1))) if len(known) else np.zeros(0)
    parts = []
    for place, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        inside = (values >= low if place == 0 else values > low) & (values <= high)
        if inside.any():
            low, high = values[inside].min(), values[inside].max()
            parts.append(Part(_span(float(low), float(high)), inside))
    if len(edges) == 1:
        parts.append(Part(_span(float(edges[0]), float(edges[0])), values == edges[0]))
    without = ~np.isfinite(values)
    return parts + [Part("unknown", without)] * bool(missing and without.any())


def _span(low: float, high: float) -> str:
    return plain(low) if low == high else f"{plain(low)} to {plain(high)}"


# ------------------------------------------------------------------------------------------------------------- metrics
@dataclass(frozen=True)
class _Judge:
    """names: of the metrics. what: is counted. sample: of a part of a column -> how many are judged, and the mask that
    `measure` takes; measure: masks -> per metric and mask the run's draws and the baseline's."""

    names: list[str]
    what: str
    draws: int
    small: Callable[[Column, Part], tuple[int, bool]]
    measure: Callable[[Column, Sequence[Part]], Iterator[tuple[list[Draws], list[Draws] | None]]]

    def table(self, column: Column) -> Table:
        sizes = [self.small(column, part) for part in column.parts]
        kept = [part for part, (_, small) in zip(column.parts, sizes, strict=True) if not small]
        of_metrics = list(self.measure(column, kept)) if kept else []
        lines, at = [], 0
        for part, (judged, small) in zip(column.parts, sizes, strict=True):
            cells: Sequence[Cell | None] = [None] * len(self.names)
            if not small:
                cells = [_cell(own[0], own[1 + at], base[1 + at] if base else None) for own, base in of_metrics]
                at += 1
            if judged:
                lines.append(Line(part.name, int(part.mask.sum()), judged, small, cells))
        return Table(column, lines)


def _cell(whole: Draws, own: Draws, base: Draws | None) -> Cell:
    value = normal_test(*own)[0]
    compared = whole if base is None else base
    difference, p = normal_test(own[0] - compared[0], own[1] - compared[1])
    if not math.isfinite(difference.low):
        return Cell(value, base and base[0], None)
    return Cell(value, base and base[0], difference, p)


def _impressions(mine: Run, other: Run | None) -> _Judge | None:
    """Of the test impressions; of those that both runs scored where there is a baseline."""
    frame = mine.test
    if other is not None and other.judges_impressions:
        frame = frame.join(other.test.select("row", "item", other="score"), on=["row", "item"], how="inner")
    if frame.is_empty() or frame["label"].n_unique() < 2:
        return None
    users, items, labels, scores = (frame[name].to_numpy() for name in ("user", "item", "label", "score"))
    base = frame["other"].to_numpy() if "other" in frame.columns else None
    n = max(FEWEST, min(mine.config.eval.bootstrap, DRAWS, ROWS // len(frame)))

    def inside(column: Column, part: Part) -> NDArray[np.bool_]:
        return part.mask[users if column.by_user else items]

    def small(column: Column, part: Part) -> tuple[int, bool]:
        rows = inside(column, part)
        count = int(rows.sum())
        return count, count < ENOUGH or len(np.unique(labels[rows])) < 2

    def measure(column: Column, parts: Sequence[Part]) -> Iterator[tuple[list[Draws], list[Draws] | None]]:
        masks = [np.ones(len(users), bool), *(inside(column, part) for part in parts)]
        for metric in IMPRESSIONS:
            own, theirs = (
                None if of is None else resamplings_of_parts(users, labels, of, masks, metric, n)
                for of in (scores, base)
            )
            assert own is not None
            yield own, theirs

    return _Judge([METRICS[name][0] for name in IMPRESSIONS], "Impressions", n, small, measure)


def _lists(mine: Run, other: Run | None, data: Dataset) -> _Judge | None:
    """Of the lists of the test users; a user has a value in a part of the items where they took something of it."""
    ks = [int(name.partition("@")[2]) for name in mine.metrics.get("test", {}) if name.startswith("recall@")]
    if mine.topk is None or not ks:
        return None
    k = min(sorted(ks), key=lambda k: abs(k - 20))
    task = lists_of_pairs(
        data, mine.config, TEST, data.retrieval_split(mine.config.data.split), data.positive(mine.config.data.label)
    )
    frames = [mine.topk] + ([other.topk] if other is not None and other.topk is not None else [])
    users = task.users
    for frame in frames:
        users = np.intersect1d(users, frame["user"].to_numpy())
    if not len(users):
        return None
    task = task.part(np.isin(task.users, users))
    found = [padded(frame, users, k) for frame in frames]
    n = max(FEWEST, min(mine.config.eval.bootstrap, DRAWS, ROWS // len(users)))
    none = np.full(len(users), np.nan)

    def valued(place: int, column: Column, parts: Sequence[Part]) -> Mapping[str, NDArray[np.float64]]:
        masks = {} if column.by_user else {f"{i}": part.mask for i, part in enumerate(parts)}
        values = topk_metrics(found[place], task.ptr, task.items, [k], masks)[1]
        rows = {name: [values[f"{name}@{k}"]] for name in LISTS}
        for i, part in enumerate(parts):
            for name in LISTS:
                whole = values[f"{name}@{k}"]
                own = np.where(part.mask[users], whole, none) if column.by_user else values[f"{i}/{name}@{k}"]
                rows[name].append(own)
        return {name: np.stack(stacked) for name, stacked in rows.items()}

    def small(column: Column, part: Part) -> tuple[int, bool]:
        if column.by_user:
            count = int(part.mask[users].sum())
        else:
            owners = np.repeat(np.arange(len(users)), np.diff(task.ptr))
            count = len(np.unique(owners[part.mask[task.items]]))
        return count, count < ENOUGH

    def measure(column: Column, parts: Sequence[Part]) -> Iterator[tuple[list[Draws], list[Draws] | None]]:
        tables = [valued(place, column, parts) for place in range(len(found))]
        for name in LISTS:
            own = mean_resamplings_of_parts(tables[0][name], n)
            yield own, mean_resamplings_of_parts(tables[1][name], n) if tables[1:] else None

    return _Judge([f"{RANKING[name]}@{k}" for name in LISTS], "Users", n, small, measure)


def padded(frame: pl.DataFrame, users: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The first `k` items of the lists of `users` (ascending), -1 where a list ends before."""
    kept = frame.filter(pl.Series(np.isin(frame["user"].to_numpy(), users))).sort("user")
    lists = kept["items"].list.head(k)
    lengths = lists.list.len().to_numpy()
    items = np.full((len(users), k), -1, np.int64)
    items[np.arange(k) < lengths[:, None]] = lists.explode().drop_nulls().to_numpy()
    return items


def _reach(tables: Sequence[Table], place: int) -> float:
    found = [
        max(abs(cell.difference.low), abs(cell.difference.high))
        for table in tables for line in table.lines for cell in [line.cells[place]] if cell and cell.difference
    ]  # fmt: skip
    return round_up(float(np.quantile(found, 0.9))) if found and max(found) > 0 else 0.0


def _with_bar(cell: Cell | None, reach: float) -> Cell | None:
    if cell is None or cell.difference is None or reach == 0:
        return cell
    return replace(cell, bar=plots.interval_bar(cell.difference, reach, cell.good))
