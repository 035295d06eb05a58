"""Ranking metrics against a plain loop over users, and lists out of a catalogue."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rawrec.errors import UserError
from rawrec.evaluation.topk import rank_all, topk_metrics, undefined

KS = [1, 3, 5, 12]


def csr(lists):
    ptr = np.cumsum([0] + [len(x) for x in lists])
    return ptr, np.array([i for x in lists for i in x], np.int32)


def plain_metrics(topk, positives, ks, wanted):
    """The definitions, user by user. wanted: the items that count."""
    rows = []
    for items, mine in zip(topk, positives, strict=True):
        mine = set(mine) & wanted
        if not mine:
            continue
        row = {}
        for k in ks:
            hit = [i in mine for i in items[:k]]
            ideal = min(len(mine), k)
            gain = sum(1 / math.log2(r + 2) for r, h in enumerate(hit) if h)
            row[f"recall@{k}"] = sum(hit) / len(mine)
            row[f"precision@{k}"] = sum(hit) / k
            row[f"ndcg@{k}"] = gain / sum(1 / math.log2(r + 2) for r in range(ideal))
            row[f"map@{k}"] = sum(sum(hit[: r + 1]) / (r + 1) for r, h in enumerate(hit) if h) / ideal
            row[f"hit@{k}"] = float(any(hit))
            row[f"mrr@{k}"] = max((1 / (r + 1) for r, h in enumerate(hit) if h), default=0.0)
            row[f"hits@{k}"] = sum(hit)
        rows.append(row | {"positives": len(mine)})
    if not rows:
        names = ("recall", "precision", "ndcg", "map", "hit", "mrr", "recall2")
        return {f"{n}@{k}": None for n in names for k in ks} | {"topk_users": 0}
    result = {name: np.mean([r[name] for r in rows]) for name in rows[0] if not name.startswith(("hits@", "positives"))}
    total = sum(r["positives"] for r in rows)
    return result | {f"recall2@{k}": sum(r[f"hits@{k}"] for r in rows) / total for k in ks} | {"topk_users": len(rows)}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(1, 30))
def test_equal_to_the_definitions(seed, n_users, n_items):
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.permutation(n_users * n_items).reshape(n_users, n_items).astype(np.float32))
    masked = [rng.choice(n_items, rng.integers(0, n_items + 1), replace=False) for _ in range(n_users)]
    positives = [np.setdiff1d(rng.integers(0, n_items, rng.integers(0, 15)), m) for m in masked]
    positives = [np.repeat(p, 2) for p in positives]  # taken twice counts once
    top = rank_all(lambda users: scores[users], np.arange(n_users), *csr(masked), k=12, user_batch=4)

    for u, m in enumerate(masked):
        expected = [i for i in np.argsort(-scores[u].numpy()) if i not in m][:12]
        assert top.items[u].tolist() == expected + [-1] * (12 - len(expected))
    cold = rng.random(n_items) < 0.4
    buckets = {"cold": cold, "warm": ~cold}
    metrics, per_user = topk_metrics(top.items, *csr(positives), KS, buckets)
    for prefix, wanted in {"": np.ones(n_items, bool), "cold/": cold, "warm/": ~cold}.items():
        expected = plain_metrics(top.items.tolist(), positives, KS, set(np.flatnonzero(wanted)))
        for name, value in expected.items():
            found = metrics[prefix + name]
            assert found == (None if value is None else pytest.approx(value, abs=1e-12)), prefix + name
            if value is not None and "@" in name and not name.startswith("recall2"):
                assert per_user[prefix + name].shape == (n_users,)
                assert np.nanmean(per_user[prefix + name]) == pytest.approx(value, abs=1e-12)


def test_a_perfect_and_an_empty_list():
    metrics, _ = topk_metrics(np.array([[4, 2, 0], [-1, -1, -1]]), *csr([[2, 4], [1]]), [3])
    assert metrics["recall@3"] == metrics["ndcg@3"] == metrics["map@3"] == 0.5
    assert metrics["precision@3"] == pytest.approx(1 / 3)


def test_no_positive_at_all_is_none_with_a_reason():
    metrics, per_user = topk_metrics(np.zeros((2, 1), int), *csr([[], []]), [1], {"cold": np.ones(1, bool)})
    assert metrics["recall@1"] is None and metrics["topk_users"] == 0
    assert np.isnan(per_user["cold/ndcg@1"]).all()
    assert undefined(metrics)["recall@1"] == "no user has a positive"
    assert undefined(metrics)["cold/ndcg@1"] == "no user has a cold positive"


def test_lists_shorter_than_k_are_refused():
    with pytest.raises(ValueError, match="lists of 2 items cannot be judged at k=5"):
        topk_metrics(np.zeros((1, 2), int), *csr([[0]]), [5])


def test_infinitely_low_scores_are_left_out():
    scores = torch.tensor([[1.0, -torch.inf, 3.0]])
    top = rank_all(lambda users: scores, np.array([7]), *csr([[2]]), k=3)
    assert top.items.tolist() == [[0, -1, -1]] and top.scores[0, 0] == 1


def test_ties_fall_in_one_random_order():
    """Where all items are equal, each list is the same, from anywhere in the catalogue, and whole at any k."""
    scores = torch.zeros(5, 1000)
    users, none = np.arange(5), csr([[]] * 5)
    top = rank_all(lambda u: scores[u], users, *none, k=100, user_batch=2)
    assert (top.items == top.items[0]).all() and len(set(top.items[0].tolist())) == 100
    assert 400 < top.items[0].mean() < 600
    shorter = rank_all(lambda u: scores[u], users, *none, k=10)
    assert (shorter.items == top.items[:, :10]).all()

    levels = torch.zeros(1, 1000)  # three levels, the list ends within the middle one
    levels[0, torch.from_numpy(top.items[0, 50:60])] = 2.0
    levels[0, torch.from_numpy(top.items[0, 10:30])] = 1.0
    found = rank_all(lambda u: levels[u], users[:1], *csr([[top.items[0, 55]]]), k=15).items[0]
    expected = [*top.items[0, 50:55], *top.items[0, 56:60], *top.items[0, 10:16]]
    assert found.tolist() == expected


@pytest.mark.parametrize("seed", range(4))
def test_ties_within_a_list_and_at_its_end_fall_in_that_order(seed: int) -> None:
    """Of few different scores, some of them left out: by score, then by the order of a catalogue of equal items."""
    n, k, rng = 40, 12, np.random.default_rng(seed)
    nothing = np.zeros(4, np.int64), np.zeros(0, np.int64)
    order = rank_all(lambda u: torch.zeros(len(u), n), np.arange(1), np.zeros(2, np.int64), nothing[1], n).items[0]
    place = order.argsort()
    values = rng.integers([2, 4, 20][seed % 3], size=(3, n)).astype(np.float32)
    values[rng.random((3, n)) < 0.2] = -np.inf
    top = rank_all(lambda u: torch.from_numpy(values[u]).clone(), np.arange(3), *nothing, k)
    for row, items in zip(values, top.items, strict=True):
        assert items.tolist() == sorted(np.flatnonzero(np.isfinite(row)), key=lambda i: (-row[i], place[i]))[:k]


@pytest.mark.parametrize(("n_items", "k"), [(997, 1), (997, 20), (1000, 64), (50, 50), (7, 9)])
def test_large_catalogues_are_ranked_as_by_sorting(n_items, k):
    scores = torch.randn(8, n_items, generator=torch.Generator().manual_seed(0))
    top = rank_all(lambda u: scores[u], np.arange(8), *csr([[]] * 8), k=k, user_batch=3)
    expected = scores.sort(dim=1, descending=True)
    assert (top.items[:, :n_items] == expected.indices[:, :k].numpy()).all() and (top.items[:, n_items:] == -1).all()
    assert (top.scores[:, :n_items] == expected.values[:, :k].numpy()).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_that_diverged_is_named(bad):
    with pytest.raises(UserError, match="user 7 scores that are not finite"):
        rank_all(lambda users: torch.tensor([[1.0, bad]]), np.array([7]), *csr([[]]), k=1)


def test_threads_side_by_side_make_the_same_lists():
    before, scores = torch.get_num_threads(), torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(40, requires_grad=True)  # no thread keeps a graph

    def score(users):
        return scores[users] * weight

    masks = csr([[u % 40] for u in range(50)])
    alone = rank_all(score, np.arange(50), *masks, k=5, user_batch=7)
    together = rank_all(score, np.arange(50), *masks, k=5, user_batch=7, workers=3)
    assert np.array_equal(alone.items, together.items) and np.array_equal(alone.scores, together.scores)
    scores[33, 2] = torch.nan
    with pytest.raises(UserError, match="gives user 33 scores that are not finite"):
        rank_all(score, np.arange(50), *masks, k=5, user_batch=7, workers=3)
    assert torch.get_num_threads() == before
