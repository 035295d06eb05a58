"""Negatives of retrieval models, drawn without rejection."""

from __future__ import annotations

import torch
from torch import Tensor

from rawrec.models.graph import Interactions


class Negatives:
    """Uniform negatives of a user: items that training has seen, less the user's training positives; without rejection.

    Each user's positives are kept as `rank - place`: rank among the seen items, place among the user's positives. That
    is how many items that are free to draw come before it, so the r-th free item is found by one binary search.
    """

    def __init__(self, pairs: Interactions):
        self.seen, rank = torch.unique(pairs.items, return_inverse=True)
        width = len(self.seen)
        keys = (pairs.users * width + rank).sort().values
        users = keys // width
        degree = torch.bincount(users, minlength=pairs.n_users)
        self.ptr = degree.cumsum(0) - degree
        self.free = width - degree  # [n_users]; 0: the user has taken all there is
        self.keys = keys - (torch.arange(len(keys), device=keys.device) - self.ptr[users])

    def draw(self, users: Tensor, generator: torch.Generator) -> Tensor:
        """One for each of `users` `[batch]`, who must have free items. The generator is a CPU's."""
        place = torch.rand(len(users), generator=generator, dtype=torch.float64).to(users.device)
        free = self.free[users]
        place = torch.minimum((place * free).long(), free - 1)
        before = torch.searchsorted(self.keys, users * len(self.seen) + place, right=True) - self.ptr[users]
        return self.seen[place + before]
