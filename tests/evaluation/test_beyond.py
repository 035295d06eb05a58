"""What lists are like, against the definitions in plain loops over users, pairs of users and pairs of items."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rawrec.evaluation.beyond import Catalogue, beyond_accuracy, in_common

KS = [1, 3, 8]


def mean(values):
    return sum(values) / len(values) if values else None


def plain(lists, ks, popularity, users, content, buckets):
    """The definitions of docs/metrics.md. lists: of item rows; content: modality -> (vectors, present)."""
    n, found = len(popularity), {}
    head = round(0.2 * n)
    ranked = sorted(popularity, reverse=True)
    border = ranked[head - 1] if head else math.inf
    level = sum(p == border for p in popularity)
    spare = level - (head - sum(p > border for p in popularity)) if head else 0
    tail = [0.0 if p > border else spare / level if p == border else 1.0 for p in popularity]
    information = [math.log2(users / max(p, 1)) for p in popularity]

    def vector(item):
        parts = [np.array(v[item]) if p[item] and np.any(v[item]) else np.zeros(len(v[item])) for v, p in content]
        whole = np.concatenate([part / (np.linalg.norm(part) or 1) for part in parts])
        return whole / np.linalg.norm(whole) if whole.any() else None

    vectors = [vector(i) for i in range(n)] if content else []
    for k in ks:
        cut = [items[:k] for items in lists]
        counts = [sum(i in items for items in cut) for i in range(n)]
        total = sum(counts)
        some = [items for items in cut if items]
        p = [c / total for c in counts if c] if total else []
        differences = sum(abs(a - b) for a in counts for b in counts)
        pairs = [len(set(a) & set(b)) / math.sqrt(len(a) * len(b)) for a, b in combinations(some, 2)]
        found |= {
            f"coverage@{k}": sum(c > 0 for c in counts) / n if total else None,
            f"gini@{k}": differences / (2 * n * total) if total else None,
            f"entropy@{k}": -sum(x * math.log2(x) for x in p) if total else None,
            f"commonest@{k}": max(counts) / len(lists) if total else None,
            f"personalisation@{k}": 1 - mean(pairs) if pairs else None,
            f"popularity@{k}": mean([mean([popularity[i] for i in items]) for items in some]),
            f"novelty@{k}": mean([mean([information[i] for i in items]) for items in some]),
            f"tail@{k}": mean([mean([tail[i] for i in items]) for items in some]),
        }
        for name, mask in buckets.items():
            found[f"{name}/coverage@{k}"] = mean([c > 0 for c, m in zip(counts, mask, strict=True) if m])
            held = sum(c for c, m in zip(counts, mask, strict=True) if m)
            found[f"{name}/exposure@{k}"] = held / total if total else None
        if content:
            of_users = []
            for items in some:
                there = [vectors[i] for i in items if vectors[i] is not None]
                cosines = [float(a @ b) for a, b in combinations(there, 2)]
                of_users += [1 - mean(cosines)] if cosines else []
            found[f"diversity@{k}"] = mean(of_users)
    return found


def padded(lists, depth):
    return np.array([items + [-1] * (depth - len(items)) for items in lists], np.int64).reshape(-1, depth)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(1, 25), st.booleans())
def test_equal_to_the_definitions(seed, n_users, n_items, whole):
    rng = np.random.default_rng(seed)
    longest = min(n_items, 8)
    sizes = np.full(n_users, longest) if whole else rng.integers(0, longest + 1, n_users)
    lists = [rng.permutation(n_items)[:size].tolist() for size in sizes]
    users, items = rng.integers(0, 6, 30), rng.integers(0, max(n_items - 3, 1), 30)
    popularity = [len(set(users[items == i])) for i in range(n_items)]
    cold = np.array(popularity) == 0
    buckets = {"cold": cold, "warm": ~cold}
    content = {}
    for name, width in (("image", 4), ("text", 2)):
        vectors = torch.from_numpy(rng.normal(size=(n_items, width)).astype(np.float32))
        content[name] = vectors, torch.from_numpy(rng.random(n_items) < 0.7)
    content["image"][0][:2] = 0  # features without a length are none
    content = content if rng.random() < 0.8 else {}

    catalogue = Catalogue.of_pairs(users, items, n_items, content)
    assert catalogue.popularity.tolist() == popularity and catalogue.users == len(set(users))
    found = beyond_accuracy(padded(lists, 8), [8, 1, 3, 3], catalogue, buckets)
    expected = plain(
        lists, KS, popularity, catalogue.users, [(v.numpy(), p.numpy()) for v, p in content.values()], buckets
    )
    assert found.metrics.keys() == expected.keys()
    for name, value in expected.items():
        near = 1e-5 if name.startswith("diversity") else 1e-12
        assert found.metrics[name] == (None if value is None else pytest.approx(value, abs=near)), name
        assert (name in found.reasons) == (value is None)
    for name, values in found.per_user.items():
        assert values.shape == (n_users,)
        if found.metrics[name] is not None:
            assert np.nanmean(values) == pytest.approx(found.metrics[name])


def test_the_ends_of_the_scales():
    popularity = np.array([5, 4, 3, 2, 1, 1, 0, 0, 0, 0])
    catalogue = Catalogue(popularity, 8)
    same = beyond_accuracy(np.tile([0, 1], (4, 1)), [2], catalogue).metrics
    assert same["personalisation@2"] == 0 and same["commonest@2"] == 1 and same["coverage@2"] == 0.2
    assert same["entropy@2"] == 1 and same["tail@2"] == 0 and same["gini@2"] == pytest.approx(0.8)
    assert same["popularity@2"] == 4.5 and same["novelty@2"] == pytest.approx((math.log2(8 / 5) + 1) / 2)
    even = beyond_accuracy(np.arange(10).reshape(5, 2), [2], catalogue).metrics
    assert even["personalisation@2"] == even["coverage@2"] == 1 and abs(even["gini@2"]) < 1e-12
    assert even["entropy@2"] == pytest.approx(math.log2(10)) and even["tail@2"] == 0.8


def test_why_some_are_undefined():
    catalogue = Catalogue(np.array([1, 1, 0]), 1, {"image": (torch.ones(3, 2), torch.tensor([True, False, False]))})
    warm = {"warm": np.zeros(3, bool)}
    one = beyond_accuracy(np.array([[0, 1]]), [2], catalogue, warm).reasons
    assert one["personalisation@2"] == "no two users have a list"
    assert one["diversity@2"] == "no list has two items with content"
    assert one["warm/coverage@2"] == "there are no warm items" and "warm/exposure@2" not in one
    none = beyond_accuracy(np.zeros((0, 2), np.int64), [2], catalogue).reasons
    assert set(none.values()) == {"no user has a list"} and "gini@2" in none


def test_what_lists_have_in_common_is_told_where_it_is_remarkable():
    lists = np.arange(40).reshape(20, 2)
    assert in_common(lists, 100) is None
    lists[:19, 0] = 77
    lists[:12, 1] = 78
    assert in_common(lists, 100) == (77, 0.95, 2, 2 + 1 + 8)
    assert in_common(lists[:9], 100) is None  # too few to tell
    few = np.tile([0, 1], (20, 1))
    assert in_common(few, 3) is None and in_common(few, 4) is not None  # two of three are anybody's
