"""What the runs of the study came to: AUC and GAUC by seed, and differences from a baseline with how sure they are."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rawrec.errors import UserError
from rawrec.evaluation.significance import Interval, paired_bootstrap_of_folds, paired_t_test
from rawrec.studies.em3.arms import Arm, Arms
from rawrec.studies.running import Standing
from rawrec.studies.table import Value, dumped

METRICS = ("auc", "gauc")
LEVEL = 0.05
RESAMPLINGS = 1000
TEST = 2  # of `split` in scores.parquet


class Result:
    """An arm and what its runs measured on test. seeds: metric -> a value per seed, where all have one."""

    def __init__(self, arm: Arm, standing: Standing):
        self.arm, self.standing = arm, standing
        self.seeds: dict[str, list[float]] = {}
        if standing.state == "finished":
            found = [json.loads((path / "metrics.json").read_text(encoding="utf-8"))["test"] for path in standing.runs]
            for name in METRICS:
                values = [test[name] for test in found if test.get(name) is not None]
                if len(values) == len(found):
                    self.seeds[name] = values

    def value(self, metric: str) -> Value | None:
        return Value.of(self.seeds[metric]) if metric in self.seeds else None

    def scores(self, seed: int) -> pl.DataFrame:
        """row, user, item, label and score of the test impressions of a run."""
        frame = pl.read_parquet(self.standing.runs[seed] / "scores.parquet")
        return frame.filter(pl.col("split") == TEST)

    def dump(self, arms: Arms) -> dict[str, Any]:
        """Plain values: what `study.json` says of the arm."""
        planned = arms.planned[self.arm.key]
        said = {"words": planned.words, "model": self.arm.model, "settings": dict(self.arm.own)}
        return said | self.standing.dump(planned, arms.out) | {"test": dumped(self.seeds)}


def gather(arms: Arms, standings: Mapping[str, Standing]) -> dict[str, Result]:
    """The results of all arms by key."""
    return {arm.key: Result(arm, standings[arm.key]) for arm in arms.arms()}


@dataclass(frozen=True)
class Gain:
    """An arm's AUC against its baseline's. gain: relative difference of the means, as the paper has it. p: of the
    paired t-test over the seeds that both have; None with one. interval: of the relative difference, users drawn with
    replacement, each with the impressions of all seeds."""

    row: str
    baseline: str
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
            "auc_gain": self.gain,
            "p": self.p,
            "interval": [None if math.isnan(x) else x for x in (self.interval.low, self.interval.high)],
        }


def gain(one: Result, base: Result) -> Gain | None:
    """None where one of the two has no AUC. Raises UserError where they were judged on different impressions."""
    if "auc" not in one.seeds or "auc" not in base.seeds:
        return None
    seeds = min(len(one.seeds["auc"]), len(base.seeds["auc"]))
    ours, theirs = one.seeds["auc"][:seeds], base.seeds["auc"][:seeds]
    mean = sum(theirs) / seeds
    folds = []
    for seed in range(seeds):
        a, b = one.scores(seed), base.scores(seed)
        if not a.select("row", "item", "label").equals(b.select("row", "item", "label")):
            raise UserError(
                f"{one.standing.runs[seed]} and {base.standing.runs[seed]} were judged on different impressions"
            )
        folds.append((a["user"].to_numpy(), a["label"].to_numpy(), a["score"].to_numpy(), b["score"].to_numpy()))
    found = paired_bootstrap_of_folds(folds, "auc", RESAMPLINGS)
    p = paired_t_test(ours, theirs).p_value if seeds > 1 else None
    relative = Interval(found.value / mean, found.low / mean, found.high / mean)
    return Gain(one.arm.label, base.arm.label, sum(ours) / seeds / mean - 1, p, relative)
