"""What the runs of a study came to: a value per seed and per user, and tests of pairs of points over the users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rawrec.errors import UserError
from rawrec.evaluation.significance import holm, paired_t_test
from rawrec.report.tables_of_runs import LISTS, read_frame
from rawrec.studies.lmm.grid import Grid, Point
from rawrec.studies.running import Runs, Standing
from rawrec.studies.table import Value, dumped
from rawrec.training.runs import RunFolder

METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
NEW_ITEMS = "cold/recall@20"
LEVEL = 0.05
Correction = Literal["none", "holm"]
"""Of the p-values of a table: as its caption in the paper says."""


class Result:
    """A point and what its runs measured on test. seeds: metric -> a value per seed; users: metric -> each user's value
    by seed, `[seeds, users]`. Both are empty unless it is finished."""

    def __init__(self, point: Point, standing: Standing):
        self.point, self.standing = point, standing
        self.seeds: dict[str, list[float]] = {}
        self.users: dict[str, NDArray[np.float64]] = {}
        self.judged: pl.Series | None = None
        if standing.state == "finished":
            self._read()

    def _read(self) -> None:
        runs = self.standing.runs
        found = [RunFolder(path).metrics()["test"] for path in runs]
        for name in (*METRICS, NEW_ITEMS):
            values = [test[name] for test in found if test.get(name) is not None]
            if len(values) == len(runs):
                self.seeds[name] = values
        frames = [read_frame(path / "topk.parquet", LISTS).select("user", *METRICS) for path in runs]
        self.judged = frames[0]["user"]
        for frame, path in zip(frames, runs, strict=True):
            if not frame["user"].equals(self.judged):
                raise UserError(f"{runs[0]} and {path} were judged on different users")
        self.users = {name: np.stack([frame[name].to_numpy() for frame in frames]) for name in METRICS}

    def value(self, metric: str) -> Value | None:
        return Value.of(self.seeds[metric]) if metric in self.seeds else None

    def dump(self, grid: Grid) -> dict[str, Any]:
        """Plain values: what `study.json` says of the point."""
        point = self.point
        said = {
            "words": point.words,
            "model": point.model,
            "encoder": point.encoder and point.encoder.label,
            "paradigm": point.paradigm,
            "modalities": point.modalities,
        }
        return said | self.standing.dump(grid.planned[point], grid.out) | {"test": dumped(self.seeds)}


def gather(grid: Grid, runs: Runs) -> dict[Point, Result]:
    """The results of all points of the study. Raises UserError where they were judged on different users."""
    results = {point: Result(point, runs.standing(planned)) for point, planned in grid.planned.items()}
    judged = [result for result in results.values() if result.judged is not None]
    for other in judged[1:]:
        if not other.judged.equals(judged[0].judged):  # type: ignore[union-attr]
            raise UserError(f"{judged[0].standing.runs[0]} and {other.standing.runs[0]} were judged on different users")
    return results


@dataclass(frozen=True)
class Test:
    """A point against another in a metric: difference of the means, and how sure it is (paired t-test over users)."""

    __test__ = False  # it is none of pytest's

    metric: str
    point: Point
    against: Point
    difference: float
    p_value: float
    p_holm: float
    significant: bool
    holm_significant: bool

    def dump(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "point": self.point.words,
            "against": self.against.words,
            "difference": self.difference,
            "p": self.p_value,
            "p_holm": self.p_holm,
            "significant": self.significant,
        }


def compared(pairs: Sequence[tuple[str, Result, Result]], correction: Correction) -> list[Test]:
    """Tests of a metric's values of a point against those of another; p-values are corrected over all of them.

    A user's value is the mean over the seeds that both points have.
    """
    tests = [paired_t_test(*_of_users(metric, one, other)) for metric, one, other in pairs]
    corrected = holm([test.p_value for test in tests]).tolist() if tests else []
    return [
        Test(
            metric, one.point, other.point, test.mean, test.p_value, p_holm,
            (p_holm if correction == "holm" else test.p_value) < LEVEL, p_holm < LEVEL,
        )
        for (metric, one, other), test, p_holm in zip(pairs, tests, corrected, strict=True)
    ]  # fmt: skip


def _of_users(metric: str, *results: Result) -> list[NDArray[np.float64]]:
    seeds = min(len(result.users[metric]) for result in results)
    return [result.users[metric][:seeds].mean(0) for result in results]


@dataclass(frozen=True)
class Count:
    """How often one kind of point beats another: in `improved` of `cases`, in `significant` of these significantly;
    worse: in so many of the cases significantly worse."""

    what: str
    cases: int
    improved: int
    significant: int
    holm_significant: int
    worse: int

    @classmethod
    def of(cls, what: str, tests: Sequence[Test]) -> Count:
        better = [test for test in tests if test.difference > 0]
        return cls(
            what,
            len(tests),
            len(better),
            sum(test.significant for test in better),
            sum(test.holm_significant for test in better),
            sum(test.significant for test in tests if test.difference < 0),
        )

    @property
    def words(self) -> str:
        """As the paper words it."""
        if not self.cases:
            return f"{self.what}: no case"
        text = f"{self.what}: {_share(self.improved, self.cases)} of {self.cases} cases improved"
        if self.improved:
            text += f", {_share(self.significant, self.improved)} of these {self.improved} significantly"
            if self.holm_significant != self.significant:
                text += f" ({self.holm_significant} of them with Holm-Bonferroni)"
        return text + (f"; {self.worse} significantly worse" if self.worse else "")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"
