"""Models that are fitted: against small plain computations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from retrieval_mixin import ITEMS, USERS, checkerboard

from rawrec.config import RETRIEVAL
from rawrec.models.graph import Interactions
from rawrec.models.retrieval import retrieval_model
from rawrec.models.retrieval.base import RetrievalModel


def some_pairs(seed: int = 0, n_users: int = USERS, n_items: int = ITEMS, share: float = 0.25) -> Interactions:
    """At random; the last user and the last two items have none."""
    seen = np.random.default_rng(seed).random((n_users, n_items)) < share
    seen[-1] = seen[:, -2:] = False
    users, items = map(torch.from_numpy, np.nonzero(seen))
    return Interactions(users, items, n_users, n_items)


def matrix(pairs: Interactions) -> np.ndarray:
    """`[users, items]` of 0 and 1."""
    found = np.zeros((pairs.n_users, pairs.n_items))
    found[pairs.users.numpy(), pairs.items.numpy()] = 1
    return found


def fitted(name: str, pairs: Interactions, seed: int = 0, **settings: Any) -> RetrievalModel:
    model = retrieval_model(name)(RETRIEVAL[name](**settings), pairs, {})
    model.fit(torch.Generator().manual_seed(seed))
    return model


def test_pop_counts_training_users() -> None:
    pairs = some_pairs()
    scores = fitted("pop", pairs).scores(torch.tensor([3, 0, USERS - 1]))
    assert scores.dtype == torch.float32 and scores.tolist() == [matrix(pairs).sum(0).tolist()] * 3
    scores[0, 0] = torch.inf  # whoever makes lists writes into them
    assert scores[1, 0].isfinite()


def test_random_is_uniform_and_a_function_of_seed_user_and_item() -> None:
    pairs, everyone = some_pairs(n_users=500, n_items=400), torch.arange(500)
    model = fitted("random", pairs)
    scores = model.scores(everyone)
    assert scores.equal(model.scores(everyone)) and scores[[7, 3]].equal(model.scores(torch.tensor([7, 3])))
    assert scores.equal(fitted("random", pairs, seed=0).scores(everyone))
    assert not (fitted("random", pairs, seed=1).scores(everyone) == scores).any(1).all()
    values = scores.numpy()
    assert values.min() >= 0 and values.max() < 1 and len(np.unique(values)) > 0.98 * values.size
    expected = values.size / 50
    counts = np.histogram(values, bins=50, range=(0, 1))[0]
    assert ((counts - expected) ** 2 / expected).sum() < 100  # chi squared with 49 degrees: 99.998 %
    for axis in (0, 1):
        near = np.corrcoef(np.delete(values, 0, axis).ravel(), np.delete(values, -1, axis).ravel())[0, 1]
        assert abs(near) < 0.01  # of neighbouring users, and items
    assert abs(np.argmax(values, 1).mean() - 199.5) < 25


def by_hand(x: int) -> int:
    """SplitMix64's mixing function, in whole numbers."""
    whole = 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % whole
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % whole
    return x ^ (x >> 31)


@pytest.mark.parametrize(("user", "item"), [(0, 0), (5, 3), (USERS - 1, ITEMS - 1)])
def test_random_against_whole_numbers(user: int, item: int) -> None:
    model = fitted("random", checkerboard()[0])
    golden, seed = 0x9E3779B97F4A7C15, int(model.get_buffer("seed"))
    drawn = by_hand((by_hand((seed + golden * (user + 1)) % 2**64) + golden * (item + 1)) % 2**64)
    assert model.scores(torch.tensor([user]))[0, item].item() == (drawn >> 40) / 2**24
