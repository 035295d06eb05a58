"""Which items a bank holds that has fewer rows than there are items: those that were used last."""

from __future__ import annotations

import torch
from torch import Tensor


class Slots:
    """Slots of items, `capacity` of them. of: int64 `[items]`, the slot of each, -1 = it has none; item: `[capacity]`,
    the item in each, -1 = free; used: int64 `[capacity]`, the step of its last use, -1 = never.

    Memory: 8 bytes an item, 16 a slot. An operation costs what its rows cost, and a taking of slots O(capacity) beside.
    """

    def __init__(self, items: int, capacity: int, device: torch.device | str = "cpu"):
        self.of = torch.full((items,), -1, dtype=torch.int64, device=device)
        self.item = torch.full((capacity,), -1, dtype=torch.int64, device=device)
        self.used = torch.full((capacity,), -1, dtype=torch.int64, device=device)

    @property
    def capacity(self) -> int:
        return len(self.item)

    def touch(self, rows: Tensor, step: int) -> None:
        """Items that were read: rows of any shape, -1 = none."""
        slots = self.of[rows[rows >= 0]]
        self.used[slots[slots >= 0]] = step

    def take(self, rows: Tensor, step: int) -> Tensor:
        """Give every item of `rows` (`[n]` unique, n at most `capacity`) a slot; the items that lost theirs.

        Those lose it that were used longest ago, and of these the ones in the first slots; none of `rows` does.
        """
        slots = self.of[rows]
        self.used[slots[slots >= 0]] = step
        new = rows[slots < 0]
        if not len(new):
            return new
        order = (self.used + 1) * self.capacity + torch.arange(self.capacity, device=rows.device)
        own = slots[slots >= 0]
        order[own] = torch.iinfo(torch.int64).max
        free = order.topk(len(new), largest=False).indices.sort().values
        lost = self.item[free]
        lost = lost[lost >= 0]
        self.of[lost] = -1
        self.of[new], self.item[free], self.used[free] = free, new, step
        return lost

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""
        return {"slot": self.of, "slot.item": self.item, "slot.used": self.used}
