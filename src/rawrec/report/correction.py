"""Differences of one page that are tested together: p-values corrected for their number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rawrec.evaluation.significance import holm

LEVEL = 0.95
"""Of intervals; a difference is called one where its corrected p-value is below 1 - LEVEL."""


@dataclass(frozen=True)
class Family:
    """How many differences were tested, and how many passed. enough: the resamplings that any of them would need to
    pass, None where they have that many (or the test draws nothing)."""

    count: int
    passed: int
    enough: int | None


@dataclass(frozen=True)
class Corrected:
    """p-values after the correction (Holm-Bonferroni), in the order given; None: was not tested."""

    values: list[float | None]

    def told(self, draws: int | None) -> Family:
        """draws: resamplings behind each p-value; None: it is of a test without any."""
        known = [p for p in self.values if p is not None]
        # the smallest p-value of n resamplings is 2 / (n + 1), and that of m tests is multiplied by m
        enough = math.floor(2 * len(known) / (1 - LEVEL)) + 1
        short = draws is not None and bool(known) and draws < enough
        return Family(len(known), sum(p < 1 - LEVEL for p in known), enough if short else None)


def correct(p_values: Sequence[float | None]) -> Corrected:
    """Corrected for the number of those that are not None."""
    known = [p for p in p_values if p is not None]
    found = iter(holm(known).tolist() if known else [])
    return Corrected([None if p is None else next(found) for p in p_values])
