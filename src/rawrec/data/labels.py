"""The one rule of labels, above 0 is positive, and what is said of a column whose values are not plainly 0 and 1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelValues:
    """The values of a label column: how many rows have one, how many of them positive, the distinct values, ascending;
    and how many rows have none (nan)."""

    rows: int
    positive: int
    distinct: NDArray[np.float32]
    empty: int = 0

    @classmethod
    def of(cls, parts: Iterable[NDArray[np.float32]]) -> LabelValues:
        """Of the column's values, in any number of pieces."""
        rows, positive, distinct, empty = 0, 0, np.zeros(0, np.float32), 0
        for every in parts:
            values = every[~np.isnan(every)]
            empty += len(every) - len(values)
            rows, positive = rows + len(values), positive + int(is_positive(values).sum())
            distinct = np.union1d(distinct, values)
        return cls(rows, positive, distinct, empty)

    @property
    def plain(self) -> bool:
        """Whether there are no values but 0 and 1."""
        return bool(np.isin(self.distinct, (0, 1)).all())

    def span(self) -> str:
        """`1 to 5`, or the only value; `empty` without any."""
        if not len(self.distinct):
            return "empty"
        low, high = (f"{value:g}" for value in (self.distinct[0], self.distinct[-1]))
        return low if low == high else f"{low} to {high}"

    def remark(self, name: str) -> str:
        """What a user should know of values other than 0 and 1, and of a label that is positive in every row; empty
        where there is nothing of the kind."""
        always = 0 < self.rows == self.positive
        if self.plain and not always:
            return ""
        count = len(self.distinct)
        several = f"{count:,} distinct values ({self.span()})" if count > 1 else f"always {self.span()}"
        if always:
            advice = ": import with --positive N if low values are none" if count > 1 else ""
            return f"label {name}: {several}; it is never 0 or less, so every row is a positive{advice}"
        return f"label {name}: {several}; above 0 is positive, which {self.positive / self.rows:.1%} of the rows are"


def binary(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 where a value is positive, 0 where it is not, nan where there is none."""
    return np.where(np.isnan(values), np.float32(np.nan), is_positive(values).astype(np.float32))


def conversions(clicks: NDArray[np.float32], later: NDArray[np.float32]) -> NDArray[np.float32]:
    """Whether an impression was clicked and converted, 1, 0 or nan: of labels 1, 0 or nan (unknown).

    What was not clicked is no conversion, whatever is said of it; nor is what is known not to have converted.
    """
    return np.where(clicks == 0, np.float32(0), np.where((later == 1) & np.isnan(clicks), np.float32(np.nan), later))


def is_positive(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Above 0, whatever the scale: 1 of 0 and 1, 1 of -1 and 1, stars, counts, seconds, and shares between 0 and 1."""
    return values > 0
