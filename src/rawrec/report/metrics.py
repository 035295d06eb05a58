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
    paired_bootstrap,
    paired_mean_bootstrap,
    user_bootstrap,
    user_mean_bootstrap,
)
from rawrec.report import plots
from rawrec.report.labels import session_values, words
from rawrec.report.run import Run
from rawrec.training.evaluate import same_for_all

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
    """One metric in one bucket: the run, the baseline, their difference, and shares of the best possible AUC."""

    bucket: str
    impressions: int
    value: Interval
    baseline: float | None
    difference: Interval | None
    good: bool | None
    bar: Markup | None
    share: float | None
    baseline_share: float | None


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
    """A block of lines per label and metric, and the number of impressions that both runs scored."""
    blocks = [block for prefix in mine.labels for block in _blocks(mine, other, data, buckets, prefix)]
    both = _frames(mine, other, "")[1]
    return blocks, 0 if both is None else len(both)


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
            baseline = difference = None
            if shared is not None and len(shared):
                args = shared["user"], shared["label"], shared["score"], shared["other"]
                query = shared["query"] if metric == "qauc" else None
                difference = paired_bootstrap(*args, metric, n, queries=query)
                baseline = user_bootstrap(args[0], args[1], args[3], metric, 0, queries=query).value
            share = baseline_share = None
            if metric in ("auc", "qauc") and best is not None:
                top = _best_auc(rows, best[rows["row"].to_numpy()], metric)
                share = _share(value.value, top)
                baseline_share = None if baseline is None else _share(baseline, top)
            good = (difference.value > 0) == higher if difference and difference.excludes_zero else None
            lines.append(Line(name, len(rows), value, baseline, difference, good, None, share, baseline_share))
        blocks.append(_with_bars(Block(title + of_label, meaning, lines, 0.0)))
    return [*blocks, *_shown_blocks(test, both, mine.config.eval.shown, n, of_label)]


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
        baseline = difference = None
        if both is not None:
            shared, mine = session_values(both, "score", ks)
            other = session_values(both, "other", ks)[1]
            difference = user_mean_bootstrap(shared, mine[name] - other[name], n)
            baseline = float(other[name].mean()) if len(shared) else None
        good = difference.value > 0 if difference and difference.excludes_zero else None
        value = user_mean_bootstrap(users, values, n)
        line = Line("", len(test), value, baseline, difference, good, None, None, None)
        title = name.removeprefix(SHOWN).upper()
        meaning = f"within each of {len(values):,} sessions with both labels; higher is better"
        yield _with_bars(Block(f"{title} of what was shown{of_label}", meaning, [line], 0.0))


def _with_bars(block: Block) -> Block:
    """The block with a strip per difference, on a scale that a bucket of a few impressions cannot stretch."""
    extents = [max(abs(d.low), abs(d.high)) for line in block.lines if (d := line.difference) and math.isfinite(d.low)]
    if not any(extents):
        return block
    reach = _round_up(min(max(extents), max(extents[0], 1.6 * float(np.median(extents)))))
    lines = [
        replace(line, bar=plots.interval_bar(line.difference, reach, line.good))
        if line.difference and math.isfinite(line.difference.low)
        else line
        for line in block.lines
    ]
    return replace(block, lines=lines, reach=reach)


def _round_up(value: float) -> float:
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
            lines.append({"label": "", "bucket": name, "run": values[0], "baseline": values[1] if runs[1:] else None})
    for prefix in [prefix for prefix in runs[0].labels if prefix] if runs else ():
        rows = [r.labels[prefix] for r in runs if prefix in r.labels]
        if not rows[0].is_empty():
            values = [(ece(f["label"], f["score"]), pcoc(f["label"], f["score"])) for f in rows]
            baseline = values[1] if values[1:] else None
            lines.append({"label": words(prefix), "bucket": "", "run": values[0], "baseline": baseline})
    return lines


def ranking(mine: Run, other: Run | None, data: Dataset) -> dict[str, Any] | None:
    """Metrics of full-catalogue lists: by cut-off over all items, and by bucket at the cut-off nearest to 20."""
    test = mine.metrics.get("test", {})
    base = other.metrics.get("test", {}) if other else {}
    ks = sorted({int(k.partition("@")[2]) for k in test if k.startswith("recall@")})
    if not ks:
        return None

    def cells(prefix: str, k: int) -> list[dict[str, Any]]:
        keys = [f"{prefix}{name}@{k}" for name in RANKING]
        return [
            {"run": test.get(key), "baseline": base.get(key), "difference": _paired(mine, other, key)} for key in keys
        ]

    drawn = test.get("topk_users"), test.get("topk_users_of")
    middle = min(ks, key=lambda k: abs(k - 20))
    prefixes = {name: f"{name}/" if name else "" for name in BUCKET_NAMES}
    kept = [n for n in BUCKET_NAMES if f"{prefixes[n]}recall@{middle}" in test]
    known = [name for name in BEYOND if any(f"{name}@{k}" in test for k in ks)]
    items = None if mine.topk is None else mine.topk["items"].list.head(middle).to_list()
    return {
        "beyond": [BEYOND[name] for name in known],
        "like": [{"k": k, "cells": [_pair(test, base, f"{name}@{k}") for name in known]} for k in ks],
        "told": None if not items else same_for_all(np.array(items, np.int64), data, "test"),
        "names": list(RANKING.values()),
        "by_k": [{"k": k, "cells": cells("", k)} for k in ks],
        "middle": middle,
        "drawn": drawn if drawn[1] else None,
        "by_bucket": [
            {
                "bucket": n,
                "users": test.get(f"{prefixes[n]}topk_users"),
                "cells": cells(prefixes[n], middle),
            }
            for n in kept
        ],
    }


def _pair(test: dict[str, Any], base: dict[str, Any], key: str) -> dict[str, Any]:
    """A metric of the run and of the baseline; neither is better by being higher."""
    return {"run": test.get(key), "baseline": base.get(key), "difference": None}


def _paired(mine: Run, other: Run | None, key: str) -> Interval | None:
    """Interval of the difference of a metric that both runs stored per user in topk.parquet."""
    a, b = mine.topk, other.topk if other else None
    if a is None or b is None or key not in a.columns or key not in b.columns:
        return None
    both = a.select("user", mine=key).join(b.select("user", other=key), on="user", how="inner")
    return paired_mean_bootstrap(
        both["mine"].cast(pl.Float64).to_numpy(), both["other"].cast(pl.Float64).to_numpy(), mine.config.eval.bootstrap
    )
