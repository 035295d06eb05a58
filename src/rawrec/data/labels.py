"""The one rule of labels, above 0 is positive, and what is said of a column whose values are not plainly 0 and 1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelValues:
    """The values of a label column: how many rows, how many of them positive, the distinct values, ascending."""

    rows: int
    positive: int
    distinct: NDArray[np.float32]

    @classmethod
    def of(cls, parts: Iterable[NDArray[np.float32]]) -> LabelValues:
        """Of the column's values, in any number of pieces."""
        rows, positive, distinct = 0, 0, np.zeros(0, np.float32)
        for values in parts:
            rows, positive = rows + len(values), positive + int(is_positive(values).sum())
            distinct = np.union1d(distinct, values)
        return cls(rows, positive, distinct)

    @property
    def plain(self) -> bool:
        """Whether there are no values but 0 and 1."""
        return bool(np.isin(self.distinct, (0, 1)).all())

    def span(self) -> str:
        """`1 to 5`, or the only value."""
        low, high = (f"{value:g}" for value in (self.distinct[0], self.distinct[-1]))
        return low if low == high else f"{low} to {high}"

    def remark(self, name: str) -> str:
        """What a user should know of values other than 0 and 1; empty where there are none."""
        if self.plain:
            return ""
        count = len(self.distinct)
        several = f"{count:,} distinct values ({self.span()})" if count > 1 else f"always {self.span()}"
        return f"label {name}: {several}; above 0 is positive, which {self.positive / self.rows:.1%} of the rows are"


def is_positive(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Above 0, whatever the scale: 1 of 0 and 1, 1 of -1 and 1, stars, counts, seconds, and shares between 0 and 1."""
    return values > 0
