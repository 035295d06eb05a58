"""Models that are fitted: against small plain computations."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from retrieval_mixin import ITEMS, USERS, RetrievalMixin, checkerboard

from rawrec.config import RETRIEVAL
from rawrec.config.baselines import EASEConfig, ItemKNNConfig
from rawrec.errors import UserError
from rawrec.models.graph import Interactions
from rawrec.models.retrieval import ease, itemknn, retrieval_model
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


def similarities_by_hand(pairs: Interactions, shrinkage: float) -> np.ndarray:
    """`[items, items]`, 0 of an item with itself."""
    x = matrix(pairs)
    norms = np.sqrt(x.sum(0))
    bottom = np.outer(norms, norms) + shrinkage
    found = np.divide(x.T @ x, bottom, out=np.zeros_like(bottom), where=bottom > 0)
    np.fill_diagonal(found, 0)
    return found


@pytest.mark.parametrize("shrinkage", [0.0, 3.0])
@pytest.mark.parametrize("at_once", [1, 40, 2**23])
def test_itemknn_with_all_neighbours(shrinkage: float, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(itemknn, "AT_ONCE", at_once)
    pairs, users = some_pairs(), torch.tensor([3, 0, USERS - 1])
    scores = fitted("itemknn", pairs, shrinkage=shrinkage).scores(users)
    expected = matrix(pairs)[users.numpy()] @ similarities_by_hand(pairs, shrinkage)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-6)
    assert scores.dtype == torch.float32 and not scores[2].any() and not scores[:, -2:].any()


def test_itemknn_keeps_the_most_similar() -> None:
    pairs = some_pairs(share=0.1)
    model, similar = fitted("itemknn", pairs, neighbours=3, shrinkage=2.0), similarities_by_hand(pairs, 2.0)
    kept = np.zeros_like(similar)
    for item in range(ITEMS):
        neighbours, values = (
            model.get_buffer("neighbours")[item].numpy(),
            model.get_buffer("similarities")[item].numpy(),
        )
        there = neighbours >= 0
        assert there.sum() == min(3, (similar[item] > 0).sum()) and (np.sort(~there) == ~there).all()
        np.testing.assert_allclose(values[there], similar[item][neighbours[there]], rtol=1e-6)
        np.testing.assert_allclose(values[there], np.sort(similar[item])[::-1][: there.sum()], rtol=1e-6)
        kept[neighbours[there], item] = values[there]
    scores = model.scores(torch.arange(USERS))
    np.testing.assert_allclose(scores.numpy(), matrix(pairs) @ kept, rtol=1e-6)
    other = retrieval_model("itemknn")(model.cfg, pairs, {})
    assert not other.scores(torch.arange(USERS)).any()
    other.load_state_dict(model.state_dict())
    assert other.scores(torch.arange(USERS)).equal(scores)


@pytest.mark.parametrize("l2_weight", [0.3, 20.0])
@pytest.mark.parametrize("rows", [1, 7, 1024])
def test_ease_is_the_constrained_minimum(l2_weight: float, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "ROWS", rows)
    pairs, users = some_pairs(), torch.tensor([3, USERS - 1, 0, 3])
    model = fitted("ease", pairs, l2_weight=l2_weight)
    x = matrix(pairs)
    inverse = np.linalg.inv(x.T @ x + l2_weight * np.eye(ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    np.testing.assert_allclose(model.scores(users).numpy(), (x @ weights)[users.numpy()], atol=1e-6)
    assert not model.scores(users)[1].any() and not model.scores(users)[:, -2:].any()
    assert model.get_buffer("weights").shape == (ITEMS - 2, ITEMS - 2)  # of two items nothing is known

    def objective(b: np.ndarray) -> float:
        return float(((x - x @ b) ** 2).sum() + l2_weight * (b**2).sum())

    held = np.zeros((ITEMS, ITEMS))
    held[:-2, :-2] = model.get_buffer("weights").numpy()
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = 0.01 * rng.normal(size=held.shape) * (1 - np.eye(ITEMS))
        assert objective(held) < objective(held + step)


def test_ease_says_how_much_memory_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = some_pairs()
    model, there = fitted("ease", pairs), 16 * (ITEMS - 2) ** 2
    monkeypatch.setattr("rawrec.memory.available", lambda: there)
    model.fit(torch.Generator())
    monkeypatch.setattr("rawrec.memory.available", lambda: there - 1)
    with pytest.raises(
        UserError, match=r"each pair of the 18 items .* takes 0\.0 GiB .* 0\.0 GiB are available: use itemknn"
    ):
        model.fit(torch.Generator())
    monkeypatch.setattr("rawrec.memory.available", lambda: 4 * (ITEMS - 2) ** 2 - 1)
    with pytest.raises(UserError, match="model ease holds a number for each pair"):
        fitted("ease", pairs)
    monkeypatch.setattr("rawrec.memory.available", lambda: None)  # a system that does not say
    model.fit(torch.Generator())


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


class TestItemKNN(RetrievalMixin):
    config = ItemKNNConfig
    settings: ClassVar = {"shrinkage": 1.0}
    modalities = ()
    test_overfits_a_tiny_set = None  # no item speaks for itself, so nothing is learned by heart


class TestEASE(RetrievalMixin):
    config = EASEConfig
    settings: ClassVar = {"l2_weight": 1.0}
    modalities = ()
    test_overfits_a_tiny_set = None  # no item speaks for itself, so nothing is learned by heart
