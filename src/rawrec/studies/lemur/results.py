"""What the runs of the study came to: metrics by seed, what their steps cost, how their banks stood."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from rawrec.report.tables_of_runs import SCORES, read_frame
from rawrec.studies.gains import TEST, Measured
from rawrec.studies.lemur.arms import Arm, Arms
from rawrec.studies.running import Standing
from rawrec.studies.table import dumped

JUDGED = ("qauc", "gauc", "auc")
BUCKETS = ("cold", "rare", "medium", "warm")
METRICS = (
    *JUDGED, "qauc_share", "share", *(f"stale/{name}" for name in JUDGED),
    *(f"{bucket}/{name}" for bucket in BUCKETS for name in JUDGED),
)  # fmt: skip
STEP, RATE = "step_ms", "samples_per_second"
ENCODED, LEARNED = "live/encoded", "live/learned"
OF_EPOCHS = (RATE, ENCODED, LEARNED)
HEALTH = ("bank/age_mean", "bank/age_p95", "bank/cosine", "bank/coverage")
OF_BANK = (*HEALTH, *(f"{name}/{bucket}" for name in HEALTH for bucket in BUCKETS))


class Result(Measured):
    """An arm and what its runs measured on test; read: metrics and scores of each run as the arm reads it, if not
    whole. cost, bank: of each run, see `_told`; None where it has no such thing."""

    def __init__(self, arm: Arm, standing: Standing, read: list[Path] | None = None):
        super().__init__(arm.label, standing, METRICS)
        self.arm, self._read = arm, read
        if read is not None:
            found = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in read]
            of = {name: [one[name] for one in found if one.get(name) is not None] for name in METRICS}
            self.seeds = {name: values for name, values in of.items() if len(values) == len(found)}
        each = [_told(path) for path in standing.runs] if standing.state == "finished" and read is None else []
        self.training: dict[str, list[float]] = {}
        for name in (STEP, *OF_EPOCHS, *OF_BANK):
            values = [value for one in each if (value := one[name]) is not None]
            if values and len(values) == len(each):
                self.training[name] = values

    def scores(self, seed: int) -> pl.DataFrame:
        if self._read is None:
            return super().scores(seed)
        return read_frame(self._read[seed] / "scores.parquet", SCORES).filter(pl.col("split") == TEST)

    def dump(self, arms: Arms) -> dict[str, Any]:
        """Plain values: what `study.json` says of the arm."""
        planned = arms.planned[self.arm.trained]
        said = {"words": planned.words, "model": self.arm.own["model.name"], "settings": dict(self.arm.own)}
        rows = [
            (table.number, arm.label) for table in arms.comparisons for arm in table.arms if arm.key == self.arm.key
        ]
        said |= {
            "rows": [{"table": number, "row": label} for number, label in rows],
            "after": self.arm.after and self.arm.after.label,
            "read": self.arm.read,
        }
        said |= self.standing.dump(planned, arms.out)
        return said | {"test": dumped(self.seeds), "training": dumped(self.training)}


def _told(run: Path) -> dict[str, float | None]:
    """Of a run: the median time of a step (ms) and of samples a second over its epochs, items encoded and with gradient
    in a step; of its bank at the end of the best epoch age, cosine with fresh encodings and coverage."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    best = json.loads((run / "run.json").read_text(encoding="utf-8"))["best_epoch"]
    steps = [line["step"] - before for line, before in zip(lines, [0, *(line["step"] for line in lines)], strict=False)]
    found: dict[str, float | None] = {
        STEP: statistics.median(1000 * line["seconds"] / max(n, 1) for line, n in zip(lines, steps, strict=True))
    }
    for name in OF_EPOCHS:
        values = [line[name] for line in lines if line.get(name) is not None]
        found[name] = statistics.median(values) if values else None
    return found | {name: lines[best - 1].get(name) for name in OF_BANK}


def gather(arms: Arms, standings: Mapping[str, Standing], read: Mapping[str, list[Path] | str]) -> dict[str, Result]:
    """The results of all arms by key. read: of arms that are read in part, by key, a folder for each seed, or why there
    is none."""
    found = {}
    for arm in arms.arms():
        standing, folders = standings[arm.trained], read.get(arm.key)
        if isinstance(folders, str):
            standing = Standing("undefined" if standing.state == "undefined" else "failed", folders)
        found[arm.key] = Result(arm, standing, folders if isinstance(folders, list) else None)
    return found
