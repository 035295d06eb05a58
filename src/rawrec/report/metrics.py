"""Metrics of a run, by bucket, and beside those of a baseline."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.evaluation.ctr import Reliability, auc, ece, group_auc, pcoc, reliability
from rawrec.evaluation.shown import SHOWN
from rawrec.evaluation.significance import (
    Interval,
    Metric,
    bootstrap_test,
    mean_bootstrap,
    mean_resamplings,
    paired_mean_bootstrap,
    paired_t_test,
    resamplings,
    user_bootstrap,
    user_mean_bootstrap,
)
from rawrec.report import plots
from rawrec.report.correction import LEVEL, Family, correct
from rawrec.report.labels import session_values, words
from rawrec.report.run import Run
from rawrec.training.evaluate import same_for_all

ENOUGH = 100
"""Impressions that a bucket needs, with both labels among them, to be shown as a result and to be tested."""
BUCKET_NAMES = {
    "": "all items",
    "cold": "cold: no training row",
    "rare": "rare: 1 to 4",
    "medium": "medium: 5 to 19",
    "warm": "warm: 20 and more",
}
METRICS: dict[Metric, tuple[str, str, bool]] = {
    "auc": ("AUC", "chance that a positive scores above a negative; higher is better", True),
    "gauc": ("GAUC", "the same within each user, weighted by impressions; higher is better", True),
    "qauc": ("QAUC", "the same within each query, weighted by impressions; higher is better", True),
    "logloss": ("Logloss", "cost of the probabilities; lower is better", False),
}
RANKING = {"recall": "Recall", "ndcg": "NDCG", "precision": "Precision", "map": "MAP", "hit": "Hit", "mrr": "MRR"}
BEYOND = {
    "coverage": "Coverage",
    "gini": "Gini",
    "entropy": "Entropy",
    "personalisation": "Personalisation",
    "commonest": "Commonest item",
    "popularity": "Popularity",
    "novelty": "Novelty",
    "tail": "Long tail",
    "diversity": "Diversity",
}


@dataclass(frozen=True)
class Line:
    """One metric in one bucket: the run, the baseline, their difference, and shares of the best possible AUC.

    good: better (True) or worse (False) than the baseline after the correction for all differences tested, else None.
    p, corrected: of the difference, before and after it; None: not tested. small: fewer than `ENOUGH` impressions, or
    all of one label, so that the line is no result."""

    bucket: str
    impressions: int
    value: Interval
    baseline: float | None
    difference: Interval | None
    good: bool | None
    bar: Markup | None
    share: float | None
    baseline_share: float | None
    higher: bool = True
    small: bool = False
    p: float | None = None
    corrected: float | None = None


@dataclass(frozen=True)
class Block:
    """One metric in all buckets; its strips reach from -reach to reach."""

    title: str
    meaning: str
    lines: list[Line]
    reach: float


def _frames(mine: Run, other: Run | None, prefix: str) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """The run's test impressions of a label, and those that both runs scored with `other` beside `score`."""
    test = mine.labels[prefix]
    if other is None or prefix not in other.labels:
        return test, None
    both = test.join(other.labels[prefix].select("row", "item", other="score"), on=["row", "item"], how="inner")
    if both.is_empty() and not prefix:
        raise UserError(f"{mine.path} and {other.path} scored no test impression in common: evaluate both again")
    return test, both


def compare(
    mine: Run, other: Run | None, data: Dataset, buckets: dict[str, NDArray[np.bool_]]
) -> tuple[list[Block], int]:
    """A block of lines per label and metric, and the number of impressions that both runs scored.

    All differences of large enough buckets are tested together, see `correct`."""
    blocks = [block for prefix in mine.labels for block in _blocks(mine, other, data, buckets, prefix)]
    both = _frames(mine, other, "")[1]
    corrected = correct([line.p for block in blocks for line in block.lines])
    ps = iter(corrected.values)
    blocks = [replace(block, lines=[_decided(line, next(ps)) for line in block.lines]) for block in blocks]
    return [_with_bars(block) for block in blocks], 0 if both is None else len(both)


def tested(blocks: list[Block], draws: int) -> Family:
    """How the differences of the blocks were tested, `draws` being the resamplings behind each."""
    return correct([line.p for block in blocks for line in block.lines]).told(draws)


def _decided(line: Line, corrected: float | None) -> Line:
    """The line with its corrected p-value, and what it says."""
    sure = corrected is not None and corrected < 1 - LEVEL and line.difference is not None
    good = (line.difference.value > 0) == line.higher if sure and line.difference else None
    return replace(line, corrected=corrected, good=good)


def _blocks(
    mine: Run, other: Run | None, data: Dataset, buckets: dict[str, NDArray[np.bool_]], prefix: str
) -> list[Block]:
    """Those of one label."""
    test, both = _frames(mine, other, prefix)
    best = _best(data, prefix.removesuffix("/") or mine.config.data.label) if _has_best(data) else None
    n, of_label = mine.config.eval.bootstrap, f" of {words(prefix)}" if prefix else ""
    blocks = []
    for metric, (title, meaning, higher) in METRICS.items():
        if metric == "qauc" and "query" not in test.columns:
            continue
        lines = []
        for name in BUCKET_NAMES:
            rows = _in_bucket(test, buckets.get(name))
            if rows.is_empty():
                continue
            query = rows["query"] if metric == "qauc" else None
            value = user_bootstrap(rows["user"], rows["label"], rows["score"], metric, n, queries=query)
            shared = None if both is None else _in_bucket(both, buckets.get(name))
            baseline = difference = p = None
            small = _small(rows)
            if shared is not None and len(shared):
                users, labels = shared["user"], shared["label"]
                query = shared["query"] if metric == "qauc" else None
                own, draws = resamplings(users, labels, shared["score"], metric, n, queries=query)
                baseline, others = resamplings(users, labels, shared["other"], metric, n, queries=query)
                difference, p = bootstrap_test(own - baseline, draws - others)
                small = small or _small(shared)
                p = None if small or not math.isfinite(difference.low) else p
            share = baseline_share = None
            if metric in ("auc", "qauc") and best is not None:
                top = _best_auc(rows, best[rows["row"].to_numpy()], metric)
                share = _share(value.value, top)
                baseline_share = None if baseline is None else _share(baseline, top)
            line = Line(name, len(rows), value, baseline, difference, None, None, share, baseline_share)
            lines.append(replace(line, higher=higher, small=small, p=p))
        blocks.append(Block(title + of_label, meaning, lines, 0.0))
    return [*blocks, *_shown_blocks(test, both, mine.config.eval.shown, n, of_label)]


def _small(rows: pl.DataFrame) -> bool:
    return len(rows) < ENOUGH or rows["label"].n_unique() < 2


def _best_auc(rows: pl.DataFrame, best: NDArray[np.float32], metric: Metric) -> float:
    """AUC or QAUC of the true probabilities."""
    if metric == "auc":
        return auc(rows["label"], best)
    asked = (rows["query"] >= 0).to_numpy()
    return group_auc(rows["label"].to_numpy()[asked], best[asked], rows["query"].to_numpy()[asked]).mean


def _shown_blocks(
    test: pl.DataFrame, both: pl.DataFrame | None, ks: list[int], n: int, of_label: str
) -> Iterator[Block]:
    """A block per metric of what sessions showed, over all items; none without sessions."""
    if "session" not in test.columns:
        return
    users, found = session_values(test, "score", ks)
    for name, values in found.items():
        if not len(values):
            continue
        baseline = difference = p = None
        small = len(test) < ENOUGH
        if both is not None:
            shared, mine = session_values(both, "score", ks)
            other = session_values(both, "other", ks)[1]
            difference, p = bootstrap_test(*mean_resamplings(shared, mine[name] - other[name], n))
            p = None if small or not math.isfinite(difference.low) else p
            baseline = float(other[name].mean()) if len(shared) else None
        value = user_mean_bootstrap(users, values, n)
        line = Line("", len(test), value, baseline, difference, None, None, None, None, small=small, p=p)
        title = name.removeprefix(SHOWN).upper()
        meaning = f"within each of {len(values):,} sessions with both labels; higher is better"
        yield Block(f"{title} of what was shown{of_label}", meaning, [line], 0.0)


def _with_bars(block: Block) -> Block:
    """The block with a strip per difference, on a scale that a bucket of a few impressions cannot stretch."""
    drawn = [line for line in block.lines if not line.small and line.difference]
    extents = [max(abs(d.low), abs(d.high)) for line in drawn if (d := line.difference) and math.isfinite(d.low)]
    if not any(extents):
        return block
    reach = round_up(min(max(extents), max(extents[0], 1.6 * float(np.median(extents)))))
    lines = [
        replace(line, bar=plots.interval_bar(line.difference, reach, line.good))
        if not line.small and line.difference and math.isfinite(line.difference.low)
        else line
        for line in block.lines
    ]
    return replace(block, lines=lines, reach=reach)


def round_up(value: float) -> float:
    """To a number that is easy to read: 0.0122 -> 0.015."""
    unit = 10 ** math.floor(math.log10(value))
    return next(step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15) if step * unit >= value) * unit


def _has_best(data: Dataset) -> bool:
    return data.meta.generated and "probability" in data.meta.extra and not data.positive_only


def _best(data: Dataset, label: str) -> NDArray[np.float32] | None:
    """The true probabilities of a label, or of one given another (`buy|click`), `[n_interactions]`."""
    name, given, _ = label.partition("|")
    return data.true_given_click(name) if given else data.true_probability(name)


def _share(value: float, best: float) -> float | None:
    share = (value - 0.5) / (best - 0.5) if best != 0.5 else math.nan
    return share if math.isfinite(share) else None


def _in_bucket(frame: pl.DataFrame, mask: NDArray[np.bool_] | None) -> pl.DataFrame:
    return frame if mask is None else frame.filter(pl.Series(mask[frame["item"].to_numpy()]))


def reliability_of(test: pl.DataFrame) -> Reliability:
    """How often what the run called likely came true."""
    return reliability(test["label"], test["score"])


def calibration(runs: list[Run], buckets: dict[str, NDArray[np.bool_]]) -> list[dict[str, Any]]:
    """ece and pcoc by bucket, of the run and, where there are two, of the baseline; of further labels overall."""
    lines = []
    for name in BUCKET_NAMES if runs else ():
        rows = [_in_bucket(r.test, buckets.get(name)) for r in runs]
        if not rows[0].is_empty():
            values = [(ece(f["label"], f["score"]), pcoc(f["label"], f["score"])) for f in rows]
            baseline = values[1] if runs[1:] else None
            small = _small(rows[0])
            lines.append({"label": "", "bucket": name, "run": values[0], "baseline": baseline, "small": small})
    for prefix in [prefix for prefix in runs[0].labels if prefix] if runs else ():
        rows = [r.labels[prefix] for r in runs if prefix in r.labels]
        if not rows[0].is_empty():
            values = [(ece(f["label"], f["score"]), pcoc(f["label"], f["score"])) for f in rows]
            baseline = values[1] if values[1:] else None
            small, label = _small(rows[0]), words(prefix)
            lines.append({"label": label, "bucket": "", "run": values[0], "baseline": baseline, "small": small})
    return lines


def ranking(mine: Run, other: Run | None, data: Dataset) -> dict[str, Any] | None:
    """Metrics of full-catalogue lists: by cut-off over all items, and by bucket at the cut-off nearest to 20."""
    test = mine.metrics.get("test", {})
    base = other.metrics.get("test", {}) if other else {}
    ks = sorted({int(k.partition("@")[2]) for k in test if k.startswith("recall@")})
    if not ks:
        return None
    drawn = test.get("topk_users"), test.get("topk_users_of")
    middle = min(ks, key=lambda k: abs(k - 20))
    prefixes = {name: f"{name}/" if name else "" for name in BUCKET_NAMES}
    kept = [n for n in BUCKET_NAMES if n and f"{prefixes[n]}recall@{middle}" in test]
    known = [name for name in BEYOND if any(f"{name}@{k}" in test for k in ks)]
    items = None if mine.topk is None else mine.topk["items"].list.head(middle).to_list()
    by_k = {k: [Cell.of(mine, other, f"{name}@{k}") for name in RANKING] for k in ks}
    corrected = correct([cell.p for cells in by_k.values() for cell in cells])
    ps = iter(corrected.values)
    by_k = {k: [replace(cell, corrected=next(ps)) for cell in cells] for k, cells in by_k.items()}
    return {
        "beyond": [BEYOND[name] for name in known],
        "like": [{"k": k, "cells": [Cell(test.get(f"{n}@{k}"), base.get(f"{n}@{k}")) for n in known]} for k in ks],
        "told": None if not items else same_for_all(np.array(items, np.int64), data, "test"),
        "names": list(RANKING.values()),
        "by_k": [{"k": k, "cells": cells} for k, cells in by_k.items()],
        "middle": middle,
        "at_middle": by_k[middle],
        "users": test.get("topk_users"),
        "tested": corrected.told(None),
        "drawn": drawn if drawn[1] else None,
        "by_bucket": [
            {
                "bucket": n,
                "users": test.get(f"{prefixes[n]}topk_users"),
                "small": (test.get(f"{prefixes[n]}topk_users") or 0) < ENOUGH,
                "cells": [
                    Cell(test.get(f"{prefixes[n]}{name}@{middle}"), base.get(f"{prefixes[n]}{name}@{middle}"))
                    for name in RANKING
                ],
            }
            for n in kept
        ],
    }


@dataclass(frozen=True)
class Cell:
    """A metric of lists: of the run, with its interval over users, and of the baseline, with the paired difference.

    p, corrected: of a paired t-test over users; None where a run did not keep the metric per user."""

    run: float | None
    baseline: float | None
    value: Interval | None = None
    difference: Interval | None = None
    p: float | None = None
    corrected: float | None = None

    @property
    def good(self) -> bool | None:
        """Better (True) or worse (False) than the baseline after the correction, else None."""
        sure = self.corrected is not None and self.corrected < 1 - LEVEL and self.difference is not None
        return self.difference.value > 0 if sure and self.difference else None

    @staticmethod
    def of(mine: Run, other: Run | None, key: str) -> Cell:
        """With interval and test where the runs stored the metric per user in topk.parquet."""
        n, a, b = mine.config.eval.bootstrap, mine.topk, other.topk if other else None
        run = mine.metrics.get("test", {}).get(key)
        baseline = other.metrics.get("test", {}).get(key) if other else None
        if a is None or key not in a.columns:
            return Cell(run, baseline)
        value = mean_bootstrap(a[key].cast(pl.Float64).to_numpy(), n)
        if b is None or key not in b.columns:
            return Cell(run, baseline, value)
        both = a.select("user", mine=key).join(b.select("user", other=key), on="user", how="inner")
        pair = both["mine"].cast(pl.Float64).to_numpy(), both["other"].cast(pl.Float64).to_numpy()
        return Cell(run, baseline, value, paired_mean_bootstrap(*pair, n), paired_t_test(*pair).p_value)
