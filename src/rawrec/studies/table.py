"""A table of a study, free of how it is printed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Value:
    """Mean and standard deviation over seeds (None with one seed)."""

    mean: float
    deviation: float | None = None

    @classmethod
    def of(cls, seeds: Sequence[float]) -> Value:
        return cls(statistics.fmean(seeds), statistics.stdev(seeds) if len(seeds) > 1 else None)


def dumped(seeds: Mapping[str, list[float]]) -> dict[str, Any]:
    """Plain values of each metric: mean, deviation and the seeds themselves."""
    return {name: {**asdict(Value.of(values)), "seeds": values} for name, values in seeds.items()}


@dataclass(frozen=True)
class Cell:
    """text: shown in place of the value, where it is given."""

    value: Value
    best: bool = False
    star: bool = False
    text: str = ""


@dataclass(frozen=True)
class Row:
    """cells: by metric, without those that are undefined. note: why there are none. seeds: runs behind it."""

    label: str
    cells: dict[str, Cell] = field(default_factory=dict)
    note: str = ""
    seeds: int = 0


@dataclass(frozen=True)
class Plot:
    """Bars: group -> series -> value; series: in their order."""

    title: str
    groups: Mapping[str, Mapping[str, float]]
    series: Sequence[str]


@dataclass(frozen=True)
class Table:
    """number: of the paper's table. metrics: the heads of its columns by name. groups: rows among which the best is
    marked. tests: of a row against another, each with `dump`. counts: how often one kind of row beats another, each
    with `words`. empty: why there is no row."""

    number: int
    title: str
    metrics: Mapping[str, str]
    groups: list[list[Row]]
    caption: str
    tests: Sequence[Any] = ()
    counts: Sequence[Any] = ()
    empty: str = ""
    plot: Plot | None = None

    def dump(self) -> dict[str, Any]:
        """Plain values."""
        rows = [
            {
                "row": row.label,
                "note": row.note,
                "cells": {
                    name: {
                        "mean": cell.value.mean,
                        "deviation": cell.value.deviation,
                        "best": cell.best,
                        "star": cell.star,
                    }
                    | ({"text": cell.text} if cell.text else {})
                    for name, cell in row.cells.items()
                },
            }
            for group in self.groups
            for row in group
        ]
        counts = [vars(count) | {"words": count.words} for count in self.counts]
        return {
            "title": self.title, "caption": self.caption, "rows": rows, "counts": counts, "empty": self.empty,
            "tests": [test.dump() for test in self.tests],
        }  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A table of the paper for one dataset: heads, and rows of a label and figures as printed."""

    number: int
    dataset: str
    columns: list[str]
    rows: list[list[str]]

    def dump(self) -> dict[str, Any]:
        return vars(self)
