"""What the runs behind a row measured on test, and relative gains over a baseline's with how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from rawrec.errors import UserError
from rawrec.evaluation.significance import Interval, paired_bootstrap_of_folds, paired_t_test
from rawrec.report.tables_of_runs import SCORES, read_frame
from rawrec.studies.running import Standing
from rawrec.studies.table import Value
from rawrec.training.runs import RunFolder

LEVEL = 0.05
RESAMPLINGS = 1000
TEST = 2  # of `split` in scores.parquet
Judged = Literal["auc", "gauc", "qauc"]
"""QAUC is resampled by queries, the others by users."""


class Measured:
    """The runs of a row and what they measured on test. seeds: metric -> a value per seed, where all have one."""

    def __init__(self, label: str, standing: Standing, metrics: Sequence[str]):
        self.label, self.standing = label, standing
        self.seeds: dict[str, list[float]] = {}
        if standing.state == "finished":
            found = [RunFolder(path).metrics()["test"] for path in standing.runs]
            for name in metrics:
                values = [test[name] for test in found if test.get(name) is not None]
                if len(values) == len(found):
                    self.seeds[name] = values

    def value(self, metric: str) -> Value | None:
        return Value.of(self.seeds[metric]) if metric in self.seeds else None

    def scores(self, seed: int) -> pl.DataFrame:
        """row, user, item, label and score of the test impressions of a run; query, where the data have any."""
        frame = read_frame(self.standing.runs[seed] / "scores.parquet", SCORES)
        return frame.filter(pl.col("split") == TEST)


@dataclass(frozen=True)
class Gain:
    """A row's metric against its baseline's. gain: relative difference of the means, as papers have it. p: of the
    paired t-test over the seeds that both have; None with one. interval: of the relative difference, users (of QAUC:
    queries) drawn with replacement, each with the impressions of all seeds."""

    row: str
    baseline: str
    metric: str
    gain: float
    p: float | None
    interval: Interval

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < LEVEL

    def dump(self) -> dict[str, Any]:
        return {
            "row": self.row,
            "baseline": self.baseline,
            f"{self.metric}_gain": self.gain,
            "p": self.p,
            "interval": [None if math.isnan(x) else x for x in (self.interval.low, self.interval.high)],
        }


def gain(one: Measured, base: Measured, metric: Judged = "auc") -> Gain | None:
    """None where one of the two has no such metric. Raises UserError where they were judged on different
    impressions."""
    if metric not in one.seeds or metric not in base.seeds:
        return None
    seeds = min(len(one.seeds[metric]), len(base.seeds[metric]))
    ours, theirs = one.seeds[metric][:seeds], base.seeds[metric][:seeds]
    mean = sum(theirs) / seeds
    folds = []
    for seed in range(seeds):
        a, b = one.scores(seed), base.scores(seed)
        if not a.select("row", "item", "label").equals(b.select("row", "item", "label")):
            raise UserError(
                f"{one.standing.runs[seed]} and {base.standing.runs[seed]} were judged on different impressions"
            )
        if metric == "qauc":  # the AUC within each query: GAUC with queries in the place of users
            a, b = (frame.filter(pl.col("query") >= 0) for frame in (a, b))
        drawn = a["query" if metric == "qauc" else "user"].to_numpy()
        folds.append((drawn, a["label"].to_numpy(), a["score"].to_numpy(), b["score"].to_numpy()))
    found = paired_bootstrap_of_folds(folds, "gauc" if metric == "qauc" else metric, RESAMPLINGS)
    p = paired_t_test(ours, theirs).p_value if seeds > 1 else None
    relative = Interval(found.value / mean, found.low / mean, found.high / mean)
    return Gain(one.label, base.label, metric, sum(ours) / seeds / mean - 1, p, relative)


def percent(value: float) -> str:
    """A share with its sign, as papers print gains."""
    return f"{100 * value:+.3f} %"


def note(standing: Standing) -> str:
    """Why a row has no values."""
    state, reason = standing.state, standing.reason.partition(". ")[0]
    return {"undefined": f"not defined: {reason}", "failed": f"failed: {reason}"}.get(state, "not finished")
