"""Pairs of user and item of one step of a retrieval model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class StepPairs:
    """Pairs of a step, each `[n]`, on the device; negatives are None where the model draws none."""

    users: Tensor
    positives: Tensor
    negatives: Tensor | None
    generator: torch.Generator  # of the model's own draws

    @property
    def items(self) -> Tensor:
        """Those with a term in the loss; the positives come first."""
        return self.positives if self.negatives is None else torch.cat([self.positives, self.negatives])

    def split(self, size: int) -> Iterator[StepPairs]:
        for start in range(0, len(self.users), size):
            yield self.part(slice(start, start + size))

    def part(self, part: slice) -> StepPairs:
        negatives = None if self.negatives is None else self.negatives[part]
        return StepPairs(self.users[part], self.positives[part], negatives, self.generator)
