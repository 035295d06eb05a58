"""nDCG and MRR of what sessions showed, against every order of equal scores, one by one."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from rawrec.evaluation.shown import shown_lists

KS = [1, 3, 10]
drawn = st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 3)), min_size=0, max_size=14)


def orders(scores: np.ndarray) -> list[tuple[int, ...]]:
    """All orders by descending score."""
    return [p for p in itertools.permutations(range(len(scores))) if all(np.diff(scores[list(p)]) <= 0)]


def plain(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Metrics of one session, the mean over the orders of its items."""
    found: dict[str, list[float]] = {}
    for order in orders(scores):
        hits = labels[list(order)] > 0
        for k in KS:
            gain = sum(1 / np.log2(rank + 2) for rank, hit in enumerate(hits[:k]) if hit)
            ideal = sum(1 / np.log2(rank + 2) for rank in range(min(int(hits.sum()), k)))
            found.setdefault(f"shown/ndcg@{k}", []).append(gain / ideal)
        found.setdefault("shown/mrr", []).append(1 / (1 + int(np.argmax(hits))))
    return {name: float(np.mean(values)) for name, values in found.items()}


@settings(deadline=None, max_examples=150)
@given(drawn)
def test_equal_to_going_through_every_order(rows: list[tuple[bool, int, int]]) -> None:
    columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.zeros(0)] * 3
    labels, scores, sessions = columns[0].astype(np.float32), columns[1] / 3, columns[2]
    sizes = {s: int((sessions == s).sum()) for s in np.unique(sessions)}
    keep = np.array([sizes[s] <= 6 for s in sessions], bool)  # 720 orders
    labels, scores, sessions = labels[keep], scores[keep], sessions[keep]
    both = [s for s in np.unique(sessions) if len(set(labels[sessions == s])) == 2]
    found = shown_lists(labels, scores, sessions, KS)
    assert found.sessions.tolist() == both and found.skipped == len(np.unique(sessions)) - len(both)
    expected = [plain(labels[sessions == s], scores[sessions == s]) for s in both]
    for name, values in found.values().items():
        np.testing.assert_allclose(values, [one[name] for one in expected], atol=1e-12)


def test_equal_to_scikit_learn_at_size_and_in_no_time() -> None:
    rng = np.random.default_rng(0)
    sessions = np.repeat(np.arange(60_000), 8)
    labels, scores = (rng.random(len(sessions)) < 0.3).astype(np.float32), rng.random(len(sessions)).round(1)
    order = rng.permutation(len(sessions))
    started = time.perf_counter()
    found = shown_lists(labels[order], scores[order], sessions[order] * 7 - 3, [5, 8])
    assert time.perf_counter() - started < 3
    some = found.sessions[:200] // 7 + 1
    for row, session in enumerate(some):
        mine = sessions == session
        for k in (5, 8):
            assert found.ndcg[k][row] == pytest.approx(ndcg_score([labels[mine]], [scores[mine]], k=k))


def test_one_score_for_all_says_nothing() -> None:
    """The mean over all orders, whatever the order of the rows; of many items, too."""
    labels = np.r_[1, 1, np.zeros(998)].astype(np.float32)
    for rows in (labels, labels[::-1]):
        found = shown_lists(rows, np.full(1000, 0.5), np.zeros(1000), [10])
        gains = 1 / np.log2(np.arange(10) + 2)
        assert found.ndcg[10][0] == pytest.approx(0.002 * gains.sum() / gains[:2].sum())
        first = np.arange(1, 1000)  # the place of the first of two positives
        chance = (1000 - first) / (1000 * 999 / 2)
        assert found.mrr[0] == pytest.approx((chance / first).sum(), rel=1e-9)


@pytest.mark.parametrize("sessions", [["b", "b", "a", "a"], [9, 9, -4, -4]])
def test_ids_of_any_kind_and_exact_values(sessions: list) -> None:
    found = shown_lists([0, 1, 1, 0], [0.9, 0.1, 0.9, 0.1], sessions, [1, 2])
    assert found.mrr.tolist() == [1.0, 0.5] and found.ndcg[1].tolist() == [1.0, 0.0]
    assert found.ndcg[2].tolist() == [1.0, 1 / np.log2(3)]
