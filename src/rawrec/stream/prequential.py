"""Prequential metrics: of predictions that were made before the model had learned from what they are judged by."""

from __future__ import annotations

from typing import Any

import numpy as np

from rawrec.evaluation.ctr import ctr_metrics
from rawrec.stream.joiner import Impression

Line = dict[str, Any]


class Prequential:
    """Collects impressions whose labels are final; every `window` of their items make a line of metrics.

    Beside those of what the model said when the impression came stand `served/...`, of what the server had said, where
    the events tell it: the difference is the price of staleness. last: the line of the last window.
    """

    def __init__(self, window: int, state: dict[str, Any] | None = None) -> None:
        state = state or {"rows": [], "total": [0, 0.0], "last": {}}
        self.window = window
        self._rows: list[list[Any]] = [list(row) for row in state["rows"]]
        self.last: Line = dict(state["last"])
        self.judged, self._loss = int(state["total"][0]), float(state["total"][1])

    def add(self, found: Impression) -> None:
        assert found.predicted is not None
        served: list[float | None] = [None] * len(found.items) if found.served is None else list(found.served)
        for label, predicted, given in zip(found.labels, found.predicted, served, strict=True):
            self._rows.append([found.user or "", found.query or "", label, predicted, given])

    def lines(self) -> list[Line]:
        """Metrics of the windows that are full, which begin anew."""
        found = []
        while len(self._rows) >= self.window:
            rows, self._rows = self._rows[: self.window], self._rows[self.window :]
            found.append(self._line(rows))
        return found

    def rest(self) -> list[Line]:
        """The last window, as far as it came."""
        rows, self._rows = self._rows, []
        return [self._line(rows)] if rows else []

    def _line(self, rows: list[list[Any]]) -> Line:
        line = _metrics(rows, 3)
        self.judged += len(rows)
        self._loss += float(line["logloss"] or 0.0) * len(rows)
        served = [row for row in rows if row[4] is not None]
        if served:
            line |= {f"served/{name}": value for name, value in _metrics(served, 4).items()}
        self.last = line | {"judged": self.judged, "logloss_so_far": self._loss / self.judged}
        return self.last

    def state(self) -> dict[str, Any]:
        """What it is made of again: plain values."""
        return {"rows": self._rows, "total": [self.judged, self._loss], "last": self.last}


def _metrics(rows: list[list[Any]], at: int) -> Line:
    users, queries = (np.unique([row[k] for row in rows], return_inverse=True)[1] for k in (0, 1))
    asked = np.where([row[1] != "" for row in rows], queries, -1)
    labels = np.array([row[2] for row in rows], np.float32)
    predicted = np.array([row[at] for row in rows], np.float64)
    found, _ = ctr_metrics(labels, predicted, users, queries=asked if (asked >= 0).any() else None)
    return found | {"positive": float(np.mean(labels > 0))}
