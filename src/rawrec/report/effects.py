"""What pictures add, and what texts: a run's results on the test part with them, and as if no item had any."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from rawrec.data.sampling import Impressions
from rawrec.errors import UserError
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
from rawrec.report.slices import DRAWS, LISTS, Draws
from rawrec.training.masking import masked
from rawrec.training.tasks.base import PARTS
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.pairs import PairTask

ENCODED = 2000
"""Items whose content is made anew, at most, where encoders learn; of frozen ones five times as many."""
IMPRESSIONS = 50_000
USERS = 2000
"""Users whose lists are made, at most."""
SCORES = 100_000_000
"""Users x items that are scored for one kind of lists, at most."""
WORDS = {"image": "pictures", "text": "texts"}
JUDGED: tuple[Metric, ...] = ("auc", "gauc")


@dataclass(frozen=True)
class Cell:
    """A metric with what is left out and without it, and what that adds; p, corrected, good: as in `metrics.Line`."""

    full: float
    without: float
    adds: Interval
    p: float | None = None
    corrected: float | None = None
    bar: Markup | None = None

    @property
    def good(self) -> bool | None:
        return self.adds.value > 0 if self.corrected is not None and self.corrected < 1 - LEVEL else None


@dataclass(frozen=True)
class Line:
    """Of the items of a bucket; judged: impressions, or users. what: is left out, in words."""

    what: str
    bucket: str
    judged: int
    cells: list[Cell]


@dataclass(frozen=True)
class Effects:
    """names: of the metrics; judged: what `Line.judged` counts; of: what part of the test part that is, in words, where
    it is not all; notes: what could not be left out, and why."""

    lines: list[Line]
    names: list[str]
    judged: str
    of: str
    reach: list[float]
    draws: int
    tested: Family
    notes: list[str]


@dataclass(frozen=True)
class _Scored:
    """Values of every user or impression, by bucket: of each metric the draws of each bucket."""

    draws: Mapping[str, Sequence[Draws]]


def effects(
    task: ImpressionTask | PairTask, bootstrap: int, buckets: Mapping[str, NDArray[np.bool_]]
) -> Effects | None:
    """None where the model reads no content. bootstrap: resamplings of users, of which DRAWS at most are made."""
    data = task.data
    kinds: list[tuple[str, list[str]]] = [(WORDS[kind], [kind]) for kind in WORDS if getattr(data.fields, kind)]
    kinds += [(name, [name]) for name in data.fields.feature]
    n = max(100, min(bootstrap, DRAWS))
    judge = _lists(task, buckets, n) if isinstance(task, PairTask) else _impressions(task, buckets, n)
    if judge is None:
        return None
    found, notes = [], []
    readable: list[str] = []
    for what, names in kinds:
        try:
            found.append((what, judge.score(names)))
            readable += names
        except UserError as error:
            notes.append(str(error))
    if not found:
        return Effects([], [], "", "", [], 0, Family(0, 0, None), notes) if notes and _reads(task) else None
    if len(found) > 1:
        found.append(("all content", judge.score(readable)))
    full = judge.score([])
    lines = [
        Line(
            what, bucket, judge.sizes[place], [_cell(full.draws[m][place], scored.draws[m][place]) for m in judge.names]
        )
        for what, scored in found
        for place, bucket in enumerate(judge.buckets)
    ]
    corrected = correct([cell.p for line in lines for cell in line.cells])
    ps = iter(corrected.values)
    lines = [replace(line, cells=[replace(c, corrected=next(ps)) for c in line.cells]) for line in lines]
    reach = [_reach([line.cells[k].adds for line in lines]) for k in range(len(judge.names))]
    lines = [
        replace(line, cells=[_with_bar(cell, r) for cell, r in zip(line.cells, reach, strict=True)]) for line in lines
    ]
    return Effects(lines, list(judge.names.values()), judge.what, judge.of, reach, n, corrected.told(None), notes)


def _reads(task: ImpressionTask | PairTask) -> bool:
    return task.reads_features if isinstance(task, PairTask) else task.item_model is not None


def _cell(full: Draws, without: Draws) -> Cell:
    adds, p = normal_test(full[0] - without[0], full[1] - without[1])
    if full[0] == without[0] and not np.nan_to_num(full[1] - without[1]).any():
        adds, p = Interval(0.0, 0.0, 0.0), None
    return Cell(full[0], without[0], adds, p)


def _reach(found: Sequence[Interval]) -> float:
    ends = [max(abs(one.low), abs(one.high)) for one in found if math.isfinite(one.low)]
    return round_up(float(np.quantile(ends, 0.8))) if ends and max(ends) > 0 else 0.0


def _with_bar(cell: Cell, reach: float) -> Cell:
    if not reach or not math.isfinite(cell.adds.low):
        return cell
    return replace(cell, bar=plots.interval_bar(cell.adds, reach, cell.good))


# ------------------------------------------------------------------------------------------------------------- samples
class _Impressions:
    """Impressions of the test part: all, or those of users drawn once, so that few items are encoded again."""

    what = "Impressions"

    def __init__(self, task: ImpressionTask, buckets: Mapping[str, NDArray[np.bool_]], n: int):
        self.task, self.n = task, n
        self.names = {name: METRICS[name][0] for name in JUDGED}
        self.sample, self.read, self.of = self._drawn()
        items, labels = self.sample.items.ravel(), self.sample.labels.ravel()
        self.users, self.labels = np.repeat(self.sample.users, self.sample.items.shape[1]), labels
        masks = {"": np.ones(len(items), bool)} | {name: mask[items] for name, mask in buckets.items()}
        masks = {b: m for b, m in masks.items() if m.sum() >= ENOUGH and len(np.unique(labels[m] > 0)) == 2}
        self.buckets, self.masks = list(masks), list(masks.values())
        self.sizes = [int(mask.sum()) for mask in self.masks]

    def _drawn(self) -> tuple[Impressions, torch.Tensor, str]:
        task, data = self.task, self.task.data
        learns = task.item_model is not None and bool(task.item_model.trained)
        most = ENCODED if learns else 5 * ENCODED
        rows = task.samples.rows(PARTS["test"])
        users = np.random.default_rng(0).permutation(np.unique(data.users[rows]))
        count, kept = len(users), rows
        while True:
            sample = task.samples.impressions(kept, PARTS["test"], np.random.default_rng([task.cfg.seed, 7919, 2]))
            read = task.rows_read(sample, PARTS["test"])
            if count <= 2 or (len(read) <= most and sample.items.size <= IMPRESSIONS):
                break
            count //= 2
            kept = rows[np.isin(data.users[rows], users[:count])]
        part = "" if count == len(users) else f"{count:,} of the {len(users):,} users of the test part, drawn once"
        return sample, read, part

    def score(self, without: list[str]) -> _Scored:
        with masked(self.task, without, self.read) if without else nullcontext():
            scores = self.task.score_impressions(self.sample, PARTS["test"])
        own = scores.reshape(len(self.users), -1)[:, 0]
        return _Scored(
            {m: resamplings_of_parts(self.users, self.labels > 0, own, self.masks, m, self.n) for m in JUDGED}
        )


class _Lists:
    """Lists of users of the test part: of all, or of some drawn once."""

    what = "Users"

    def __init__(self, task: PairTask, buckets: Mapping[str, NDArray[np.bool_]], n: int):
        self.task, self.n = task, n
        self.k = min(sorted(task.cfg.eval.topk), key=lambda k: abs(k - 20))
        self.names = {name: f"{RANKING[name]}@{self.k}" for name in LISTS}
        whole = task.tasks[PARTS["test"]]
        most = max(ENOUGH, min(USERS, SCORES // max(task.data.n_items, 1)))
        chosen = np.zeros(len(whole.users), bool)
        chosen[np.random.default_rng(0).permutation(len(chosen))[:most]] = True
        self.listed, self.masks = whole.part(chosen), dict(buckets)
        self.of = "" if chosen.all() else f"{most:,} of the {len(chosen):,} users of the test part, drawn once"
        owners = np.repeat(np.arange(len(self.listed.users)), np.diff(self.listed.ptr))
        sizes = {"": len(self.listed.users)}
        sizes |= {name: len(np.unique(owners[mask[self.listed.items]])) for name, mask in buckets.items()}
        self.buckets = [name for name, size in sizes.items() if size >= ENOUGH]
        self.sizes = [sizes[name] for name in self.buckets]

    def score(self, without: list[str]) -> _Scored:
        with masked(self.task, without) if without else nullcontext():
            items = self.task.lists(self.listed, self.k).items
        values = topk_metrics(items, self.listed.ptr, self.listed.items, [self.k], self.masks)[1]
        found = {}
        for name in LISTS:
            rows = [values[f"{bucket}/{name}@{self.k}" if bucket else f"{name}@{self.k}"] for bucket in self.buckets]
            found[name] = mean_resamplings_of_parts(np.stack(rows), self.n) if rows else []
        return _Scored(found)


def _impressions(task: ImpressionTask, buckets: Mapping[str, NDArray[np.bool_]], n: int) -> _Impressions | None:
    if task.item_model is None or not len(task.samples.rows(PARTS["test"])):
        return None
    judge = _Impressions(task, buckets, n)
    return judge if judge.buckets else None


def _lists(task: PairTask, buckets: Mapping[str, NDArray[np.bool_]], n: int) -> _Lists | None:
    if not task.reads_features or not len(task.tasks[PARTS["test"]].users):
        return None
    judge = _Lists(task, buckets, n)
    return judge if judge.buckets else None
