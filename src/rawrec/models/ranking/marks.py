"""What is known of the events of a history beside their items, as codes: how long ago they were, what the user did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Samples
from rawrec.errors import UserError
from rawrec.models.ranking.counts import times_for

GAPS = 40
"""Codes of a gap: 2^38 seconds are 8,700 years."""
LABELS = 12


class Marks:
    """Codes of events, 0 = nothing is known of it.

    gap: 1 + floor(log2(1 + seconds between the event and the impression)). action: 1 + the sum of 2^k over the labels
    beside the main one (data.labels) that the event has, the k-th of them. sizes: how many codes each of `names` has.
    """

    def __init__(self, names: Sequence[str], data: Dataset, samples: Samples):
        self.names = list(dict.fromkeys(names))
        self._times, self._actions = None, np.zeros(0, np.int64)
        self.sizes: list[int] = []
        for name in self.names:
            if name == "gap":
                self._times = times_for("model.lemur.marks=[gap]", samples)
                self._latest = int(self._times.max(initial=0))
                self.sizes.append(GAPS)
                continue
            if not samples.further:
                raise UserError(
                    "model.lemur.marks=[action] tells events apart by labels beside the main one, and data.labels "
                    "names none; use for example data.labels=[click,buy]"
                )
            if len(samples.further) > LABELS:
                raise UserError(
                    f"model.lemur.marks=[action]: every set of labels has a code, and data.labels names "
                    f"{len(samples.further)} beside the main one; name {LABELS} at most"
                )
            has = np.stack([values > 0 for values in samples.further.values()], 1)
            self._actions = 1 + has @ (1 << np.arange(has.shape[1]))
            self.sizes.append(1 + (1 << len(samples.further)))

    def read(self, events: np.ndarray, times: np.ndarray | None) -> np.ndarray:
        """`[n, history, marks]` int64 of rows of the interactions `[n, history]` (-1 = none), which impressions at
        `times` `[n]` (None: now, the time of the last interaction of all) look back on."""
        known = events >= 0
        found = np.zeros((*events.shape, len(self.names)), np.int64)
        for k, name in enumerate(self.names):
            if name == "gap":
                assert self._times is not None
                now = np.full(len(events), self._latest) if times is None else times
                seconds = np.maximum(now[:, None] - self._times[events], 0)
                codes = 1 + np.floor(np.log2(1 + seconds.astype(np.float64))).astype(np.int64)
                codes = codes.clip(max=GAPS - 1)
            else:
                codes = self._actions[events]
            found[..., k] = np.where(known, codes, 0)
        return found
