"""Negatives by rank against brute force: from the pool, launched, free, each of them as likely as the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rawrec.data.negatives import Negatives

USERS, ITEMS = 5, 8
pairs = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1)), max_size=40)
pools = st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=ITEMS)
times = st.lists(st.integers(0, 6), min_size=ITEMS, max_size=ITEMS)


def of(taken: list[tuple[int, int]], pool: list[int], launched: list[int] | None) -> Negatives:
    users, items = (torch.tensor([pair[k] for pair in taken], dtype=torch.int64) for k in (0, 1))
    there = None if launched is None else torch.tensor(launched)
    return Negatives(users, items, USERS, ITEMS, torch.tensor(pool, dtype=torch.int64), there)


@settings(max_examples=200, deadline=None)
@given(taken=pairs, pool=pools, launched=st.none() | times)
def test_ranks_are_the_free_items_one_by_one(
    taken: list[tuple[int, int]], pool: list[int], launched: list[int] | None
) -> None:
    """Every rank below the count is another item that may be drawn, so a uniform rank is a uniform draw."""
    made = of(taken, pool, launched)
    for time in [None] if launched is None else range(-1, 8):
        for user in range(USERS):
            there = [item for item in pool if launched is None or time is None or launched[item] <= time]
            free = sorted(item for item in there if (user, item) not in taken)
            who = torch.full((len(free),), user)
            moment = None if time is None else torch.tensor([time])
            assert made.free_by(torch.tensor([user]), moment).tolist() == [len(free)]
            assert sorted(made.at(who, torch.arange(len(free))).tolist()) == free


@settings(max_examples=100, deadline=None)
@given(taken=pairs, pool=pools, launched=st.none() | times, n=st.integers(1, 5), seed=st.integers(0, 9))
def test_drawn_items_are_free(
    taken: list[tuple[int, int]], pool: list[int], launched: list[int] | None, n: int, seed: int
) -> None:
    made, rng = of(taken, pool, launched), np.random.default_rng(seed)
    users, moments = rng.integers(0, USERS, 30), rng.integers(-1, 7, 30)
    free = made.free_by(torch.from_numpy(users), torch.from_numpy(moments)).numpy()
    users, moments, none = users[free > 0], moments[free > 0], users[free == 0]
    drawn = made.draw_by(users.astype(np.int32), moments, n, np.random.default_rng(seed))
    assert drawn.shape == (len(users), n)
    for user, time, items in zip(users.tolist(), moments.tolist(), drawn.tolist(), strict=True):
        assert all(item in pool and (user, item) not in taken for item in items)
        assert launched is None or all(launched[item] <= time for item in items)
    again = made.draw_by(users.astype(np.int32), moments, n, np.random.default_rng(seed))
    assert np.array_equal(drawn, again)
    if len(none):
        with pytest.raises(ValueError, match="no free item"):
            made.draw_by(none, np.full(len(none), -1), n, rng)


def test_draws_are_uniform_over_what_the_user_has_not_taken() -> None:
    rng = np.random.default_rng(0)
    taken = rng.random((12, 15)) < rng.uniform(0.1, 0.9, (12, 1))
    taken[:, [4, 9]] = False  # of no pair, and not in the pool
    taken[3] = True
    taken[3, [2, 4, 9]] = False  # one left
    users, items = (torch.from_numpy(rows) for rows in np.nonzero(taken))
    shuffled = torch.randperm(len(users), generator=torch.Generator().manual_seed(0))
    negatives = Negatives(users[shuffled], items[shuffled], 12, 15, torch.unique(items))
    wanted = torch.arange(12).repeat_interleave(6000)
    drawn = negatives.draw(wanted, torch.Generator().manual_seed(1))
    by_numpy = negatives.draw_by(wanted.numpy(), None, 1, np.random.default_rng(0))[:, 0]
    free = taken.any(0) & ~taken
    for found in (drawn.numpy(), by_numpy):
        counts = np.zeros((12, 15))
        np.add.at(counts, (wanted.numpy(), found), 1)
        assert (counts[~free] == 0).all()
        share = counts / 6000 * free.sum(1, keepdims=True)
        assert np.abs(share[free] - 1).max() < 0.2
    assert drawn[wanted == 3].unique().tolist() == [2]
    assert torch.equal(drawn, negatives.draw(wanted, torch.Generator().manual_seed(1)))


def test_draws_at_a_time_are_uniform_over_what_was_there() -> None:
    made = of([(0, 1), (0, 3), (0, 7), (1, 0)], list(range(ITEMS)), [5, 0, 3, 1, 9, 2, 4, 6])
    users = np.zeros(9000, np.int64)
    drawn = made.draw_by(users, np.full(9000, 5), 2, np.random.default_rng(0))
    counts = np.bincount(drawn.ravel(), minlength=ITEMS)
    assert np.flatnonzero(counts).tolist() == [0, 2, 5, 6]  # 1 and 3 are taken, 4 and 7 come later
    assert np.abs(counts[[0, 2, 5, 6]] / 4500 - 1).max() < 0.1
