"""What the runs of the study came to: AUC and GAUC by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rawrec.studies.em3.arms import Arm, Arms
from rawrec.studies.gains import Measured
from rawrec.studies.running import Standing
from rawrec.studies.table import dumped

METRICS = ("auc", "gauc")


class Result(Measured):
    """An arm and what its runs measured on test."""

    def __init__(self, arm: Arm, standing: Standing):
        super().__init__(arm.label, standing, METRICS)
        self.arm = arm

    def dump(self, arms: Arms) -> dict[str, Any]:
        """Plain values: what `study.json` says of the arm."""
        planned = arms.planned[self.arm.key]
        said = {"words": planned.words, "model": self.arm.model, "settings": dict(self.arm.own)}
        return said | self.standing.dump(planned, arms.out) | {"test": dumped(self.seeds)}


def gather(arms: Arms, standings: Mapping[str, Standing]) -> dict[str, Result]:
    """The results of all arms by key."""
    return {arm.key: Result(arm, standings[arm.key]) for arm in arms.arms()}
