"""What a list is chosen by beside scores: so many of a group, and unlikeness, as a plain loop over items says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rawrec.evaluation.topk import TopK
from rawrec.serving.choosing import Choice, choose, pick
from rawrec.serving.filters import Groups


def groups(values: list[list[int]]) -> Groups:
    ptr = np.concatenate([[0], np.cumsum([len(one) for one in values])]).astype(np.int64)
    codes = np.array([code for one in values for code in one], np.int32)
    return Groups(ptr, codes, {str(code): code for code in range(10)})


def plain(scores: np.ndarray, choice: Choice, of: list[list[list[int]]]) -> list[int]:
    """The places of one pool, item i at place i; of: groups of each item, per limit."""
    there = np.isfinite(scores)
    spread = np.ptp(scores[there])
    relevant = (scores - scores[there].min()) / spread if spread else np.zeros(len(scores))
    content = None
    if choice.vectors is not None:
        content = choice.vectors[0].numpy() / np.linalg.norm(choice.vectors[0].numpy(), axis=1, keepdims=True)
        content = np.nan_to_num(content) * choice.vectors[1].numpy()[:, None]
    taken: list[int] = []
    while len(taken) < choice.k:
        best, value = -1, -np.inf
        for i in range(len(scores)):
            counts = [
                max([sum(code in values[j] for j in taken) for code in values[i]], default=0) >= most
                for values, (_, most) in zip(of, choice.limits, strict=True)
            ]
            if i in taken or not there[i] or any(counts):
                continue
            own = float(relevant[i])
            if choice.diversity and content is not None:
                near = max((float(content[i] @ content[j]) for j in taken), default=0.0)
                own = (1 - choice.diversity) * own - choice.diversity * near
            if own > value + 1e-7:
                best, value = i, own
        if best < 0:
            break
        taken.append(best)
    return taken


@pytest.mark.parametrize("diversity", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("limited", [False, True])
def test_the_choice_is_that_of_the_plain_loop(diversity: float, limited: bool) -> None:
    rng = np.random.default_rng(0)
    n, users, k = 30, 9, 8
    vectors = torch.from_numpy(rng.normal(size=(n, 5)).astype(np.float32)), torch.from_numpy(rng.random(n) < 0.8)
    one = [[int(rng.integers(4))] if rng.random() < 0.8 else [] for _ in range(n)]
    many = [[int(c) for c in rng.integers(6, size=rng.integers(4))] for _ in range(n)]  # some twice
    limits = [(groups(one), 2), (groups(many), 3)] if limited else []
    choice = Choice(k, n, None, None, limits, diversity, vectors if diversity else None)
    scores = -np.sort(-rng.normal(size=(users, n)), 1)
    scores[3, 20:] = -np.inf  # a pool that ends
    items = np.where(np.isfinite(scores), np.arange(n), -1)
    found = pick(TopK(items, scores.astype(np.float32)), scores, choice)
    for row, own in zip(found, scores, strict=True):
        assert row[row >= 0].tolist() == plain(own, choice, [one, many] if limited else [])
        assert (row[len(row[row >= 0]) :] == -1).all()


def test_a_limit_reaches_as_deep_as_it_must() -> None:
    """Nearly all of the catalogue is of one group, the best scored first; the list is full all the same."""
    n, k = 5000, 6
    values = [[0] if i >= 5 else [i + 1] for i in range(n)]
    choice = Choice(k, n, limits=[(groups(values), 1)])
    scores = torch.arange(n, dtype=torch.float32).expand(3, -1)
    ptr, left_out = np.array([0, 0, 1, 1]), np.array([n - 1])
    top = choose(lambda u, only: scores[u].clone(), lambda s: s, np.arange(3), ptr, left_out, choice, user_batch=2)
    assert top.items.tolist() == [[n - 1, 4, 3, 2, 1, 0], [n - 2, 4, 3, 2, 1, 0], [n - 1, 4, 3, 2, 1, 0]]
    assert top.scores[0].tolist() == top.items[0].tolist()


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_only_what_may_be_in_a_list_is_scored_where_it_is_little(share: float) -> None:
    n = 50
    allowed = np.zeros(n, bool)
    allowed[: int(share * n)] = True
    asked: list[int] = []

    def score(users: np.ndarray, only: torch.Tensor | None) -> torch.Tensor:
        rows = torch.arange(n) if only is None else only
        asked.append(len(rows))
        return rows.float().expand(len(users), -1).clone()

    nothing = np.zeros(3, np.int64), np.zeros(0, np.int64)
    for choice in (Choice(3, n, allowed), Choice(3, n, allowed, limits=[(groups([[]] * n), 1)])):
        top = choose(score, lambda s: s, np.arange(2), *nothing, choice)
        last = allowed.sum() - 1
        assert top.items.tolist() == [[last, last - 1, last - 2]] * 2
    assert asked == [allowed.sum() if share < 0.5 else n] * 2
    none = choose(score, lambda s: s, np.arange(2), *nothing, Choice(3, n, np.zeros(n, bool)))
    assert (none.items == -1).all()
