"""The rows of a bank that were made longest ago, without looking at all rows in every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

AHEAD = 4096
"""Rows that are found at once."""


class Stalest:
    """Rows in the order of the step that they were made at, oldest first, ties by row.

    The oldest `AHEAD` are found at once and given out over the following steps, without those that were made anew
    meanwhile: rows only grow younger, so the order stays that of all rows. queue: int64 `[2, AHEAD]`, rows (-1: given
    out, or none) and the step of each then.
    """

    def __init__(self, items: int, device: torch.device | str = "cpu"):
        self.queue = torch.full((2, min(AHEAD, items)), -1, dtype=torch.int64, device=device)

    def take(self, count: int, made: Tensor, there: Callable[[], Tensor]) -> Tensor:
        """At most `count` rows, `[n]`. made: int64 `[items]`; there: which rows may be taken, bool `[items]`."""
        found = self._from_queue(count, made)
        while len(found) < count:
            self._fill(made, there(), found)
            more = self._from_queue(count - len(found), made)
            if not len(more):
                break
            found = torch.cat([found, more])
        return found

    def _from_queue(self, count: int, made: Tensor) -> Tensor:
        rows, then = self.queue
        places = ((rows >= 0) & (made[rows.clamp(min=0)] == then)).nonzero()[:count, 0]
        found = rows[places]
        self.queue[0, places] = -1
        return found

    def _fill(self, made: Tensor, there: Tensor, taken: Tensor) -> None:
        there = there.clone()
        there[taken] = False
        rows = there.nonzero()[:, 0]
        order = made[rows] * len(made) + rows
        rows = rows[order.topk(min(self.queue.shape[1], len(rows)), largest=False).indices]
        self.queue.fill_(-1)
        self.queue[0, : len(rows)], self.queue[1, : len(rows)] = rows, made[rows]
