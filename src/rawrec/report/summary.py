"""A run in a few sentences, and what its reader should beware of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rawrec.data.dataset import Dataset
from rawrec.evaluation.significance import Interval
from rawrec.report.metrics import Block, Cell
from rawrec.report.page import number
from rawrec.report.run import Run
from rawrec.training.runs import cut_short

FEW_USERS = 100
"""Test users below which a page warns: of so few, intervals are wide and single users decide."""
Warned = tuple[str, str]
"""A warning in two words, and what it means."""


def without_times(statement: str) -> str:
    """A split's statement with its dates alone: seconds since 1970 say nothing to a reader."""
    return re.sub(r" \(time -?\d+(\.\d+)?\)", "", statement)


def sentences(
    mine: Run, other: Run | None, data: Dataset, blocks: Sequence[Block], lists: dict[str, Any] | None
) -> list[str]:
    """What the run is, against what, and what came out; plain text."""
    kind = "ranks impressions" if mine.judges_impressions else "makes lists out of the whole catalogue"
    epochs = len(mine.epochs)
    trained = f"; it was trained for {epochs} epoch{'s' * (epochs != 1)}" if epochs else ""
    against = f", and is compared with {other.name} (model {other.info['model']})" if other else ""
    about = f"{mine.name} is a run of model {mine.info['model']}, which {kind}, on {mine.info['dataset_name']}"
    found = [f"{about}{trained}{against}."]
    line = blocks[0].lines[0] if blocks and blocks[0].lines else None
    if line is not None and not line.small:
        found.append(
            f"On {line.impressions:,} impressions of the test part its AUC is {number(line.value.value)}"
            + (_against(other, line.baseline, line.difference, line.good) if line.difference and other else "")
            + "."
        )
    cell: Cell | None = lists["at_middle"][0] if lists else None
    if lists and cell and cell.run is not None:
        base = cell.baseline if other else None
        found.append(
            f"Its lists of {lists['middle']} hold {100 * cell.run:.1f} % of what users took later (recall)"
            + (f", those of {other.name} {100 * base:.1f} %" if other and base is not None else "")
            + (_verdict(cell.good) if cell.difference else "")
            + "."
        )
    covered = next((c for c in (_named(lists, "Coverage"),) if c and c.run is not None), None)
    if covered and lists and covered.run is not None:
        base = f" ({100 * covered.baseline:.0f} % by {other.name})" if other and covered.baseline is not None else ""
        found.append(f"{100 * covered.run:.0f} % of the {data.n_items:,} items stand in any of them{base}.")
    return found


def _named(lists: dict[str, Any] | None, name: str) -> Cell | None:
    """A metric of the lists as a whole at the middle cut-off."""
    if not lists or name not in lists["beyond"]:
        return None
    line = next(line for line in lists["like"] if line["k"] == lists["middle"])
    return line["cells"][lists["beyond"].index(name)]


def _against(other: Run, baseline: float | None, difference: Interval, good: bool | None) -> str:
    way = "above" if difference.value >= 0 else "below"
    return f", {number(abs(difference.value))} {way} the {number(baseline)} of {other.name}{_verdict(good)}"


def _verdict(good: bool | None) -> str:
    if good is None:
        return "; chance may explain the difference"
    return "; chance does not explain it, it is " + ("better" if good else "worse")


def warnings_of(mine: Run, data: Dataset, blocks: Sequence[Block], lists: dict[str, Any] | None) -> list[Warned]:
    """What the reader should know before believing a number."""
    found: list[Warned] = []
    if data.meta.generated:
        made = "The products, users and clicks of this dataset were made by a program."
        found.append(
            ("Generated data.", f"{made} Its numbers show that the machinery works; they say nothing about real shops.")
        )
    if short := cut_short(mine.info):
        said = f"Training was ended after {short}; the weights are those of the best of them."
        found.append(("Cut short.", said))
    if lists and lists["told"]:
        told = str(lists["told"])
        found.append(("One item stands in most lists.", told[0].upper() + told[1:] + "."))
    users = [mine.test["user"].n_unique()] if mine.judges_impressions and len(mine.test) else []
    users += [int(lists["users"])] if lists and lists["users"] else []
    if users and min(users) < FEW_USERS:
        said = f"The test part judges {min(users):,} users: single ones decide, and intervals are wide."
        found.append(("Few users.", said))
    if mine.judges_impressions and blocks and blocks[0].lines and blocks[0].lines[0].small:
        found.append(("Few impressions.", "The test part is too small, or of one label: its metrics are no result."))
    if data.positive_only and mine.judges_impressions:
        drawn = (
            "The dataset holds positives only: negatives were drawn at random, so AUC, GAUC, logloss and calibration"
        )
        said = f"{drawn} are sampled figures. Compare them only with runs that draw the same way."
        found.append(("Sampled figures.", said))
    if len(mine.epochs) == 1:
        found.append(("One epoch.", "Whether more would have helped cannot be seen here."))
    return found
