"""Negatives of retrieval models."""

from __future__ import annotations

import numpy as np
import torch

from rawrec.models.graph import Interactions
from rawrec.training.negatives import Negatives


def test_negatives_are_uniform_over_what_the_user_has_not_taken() -> None:
    rng = np.random.default_rng(0)
    taken = rng.random((12, 15)) < rng.uniform(0.1, 0.9, (12, 1))
    taken[:, [4, 9]] = False  # never seen in training
    taken[3] = True
    taken[3, [2, 4, 9]] = False  # one left
    users, items = (torch.from_numpy(rows) for rows in np.nonzero(taken))
    shuffled = torch.randperm(len(users), generator=torch.Generator().manual_seed(0))
    negatives = Negatives(Interactions(users[shuffled], items[shuffled], 12, 15))
    wanted = torch.arange(12).repeat_interleave(6000)
    drawn = negatives.draw(wanted, torch.Generator().manual_seed(1))
    counts = np.zeros((12, 15))
    np.add.at(counts, (wanted.numpy(), drawn.numpy()), 1)
    seen = taken.any(0)
    free = seen & ~taken
    assert (counts[~free] == 0).all()
    share = counts / 6000 * free.sum(1, keepdims=True)
    assert np.abs(share[free] - 1).max() < 0.2
    assert drawn[wanted == 3].unique().tolist() == [2]
    again = negatives.draw(wanted, torch.Generator().manual_seed(1))
    assert torch.equal(drawn, again)
