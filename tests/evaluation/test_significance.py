"""Intervals hold what they promise, and equal a resampling done row by row."""

import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from rawrec.evaluation.ctr import gauc, logloss
from rawrec.evaluation.significance import (
    _auc_form,
    _metric,
    holm,
    mean_bootstrap,
    mean_resamplings,
    paired_bootstrap,
    paired_bootstrap_of_folds,
    paired_mean_bootstrap,
    paired_t_test,
    user_bootstrap,
    user_mean_bootstrap,
)


def impressions(rows=3000, users=120, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(2, 4, rows).round(2)
    return rng.integers(0, users, rows), (rng.random(rows) < p).astype(np.float32), p


@pytest.mark.parametrize("metric", ["auc", "gauc", "qauc", "logloss"])
def test_resampled_forms_equal_the_metric_of_repeated_rows(metric):
    users, labels, p = impressions(300, 10)
    queries = np.random.default_rng(2).integers(-1, 60, 300)  # some with one label, some of one user
    weights = np.random.default_rng(1).multinomial(10, np.full(10, 0.1), size=5).T.astype(float)
    value, resampled, _ = _metric(users, 10, labels, p, metric, queries)
    for draw, found in zip(weights.T.astype(int), resampled(weights), strict=True):
        copies = [np.flatnonzero(users == u) for u, times in enumerate(draw) for _ in range(times)]
        row = np.concatenate(copies)
        group = np.repeat(np.arange(len(copies)), [len(c) for c in copies])
        expected = {
            "auc": lambda r, g: roc_auc_score(labels[r], p[r]),
            "gauc": lambda r, g: gauc(labels[r], p[r], g)[0],
            "qauc": lambda r, g: gauc(*(values[r[queries[r] >= 0]] for values in (labels, p, queries)))[0],
            "logloss": lambda r, g: logloss(labels[r], p[r]),
        }[metric](row, group)
        assert found == pytest.approx(expected, abs=1e-12)
    assert value == pytest.approx(resampled(np.ones((10, 1)))[0])


def test_the_expected_auc_weighs_every_row_as_a_positive_and_as_a_negative():
    users, _, chance = impressions(400, 10)
    scores = np.random.default_rng(2).random(400).round(2)
    both, weights = np.repeat([1, 0], 400), np.concatenate([chance, 1 - chance])
    expected = roc_auc_score(both, np.tile(scores, 2), sample_weight=weights)
    found = user_bootstrap(users, chance, scores, "expected_auc", n=200)
    assert found.value == pytest.approx(expected, abs=1e-12)
    drawn = [
        roc_auc_score(np.random.default_rng(seed).random(400) < chance, scores) for seed in range(300)
    ]  # its mean is what clicks drawn again and again would give
    assert found.value == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 300**0.5)
    certain = (chance > 0.3).astype(float)
    assert user_bootstrap(users, certain, scores, "expected_auc", n=50) == user_bootstrap(
        users, certain, scores, "auc", n=50
    )


def test_folds_are_averaged_and_share_their_users():
    chance, folds, differences = np.random.default_rng(1), [], []
    for seed in (0, 1):
        users, labels, p = impressions(600, 20, seed)
        other = np.clip(p + chance.normal(0, 0.1, len(p)), 0, 1)
        folds.append((users, labels, p, other))
        differences.append(roc_auc_score(labels, p) - roc_auc_score(labels, other))
    found = paired_bootstrap_of_folds(folds, "auc", n=300)
    assert found.value == pytest.approx(np.mean(differences), abs=1e-12) and found.low < found.value < found.high
    assert paired_bootstrap_of_folds(folds[:1], "auc", n=50) == paired_bootstrap(*folds[0], "auc", n=50)
    twice = paired_bootstrap_of_folds([folds[0], folds[0]], "auc", n=300)  # no news: no narrower than once
    once = paired_bootstrap(*folds[0], "auc", n=300)
    assert (twice.value, twice.low, twice.high) == pytest.approx((once.value, once.low, once.high), abs=1e-12)


@pytest.mark.parametrize("metric", ["auc", "gauc", "logloss"])
def test_interval_holds_the_value_and_is_the_same_twice(metric):
    users, labels, p = impressions()
    interval = user_bootstrap(users, labels, p, metric, n=300, seed=3)
    assert interval.low < interval.value < interval.high
    assert interval == user_bootstrap(users, labels, p, metric, n=300, seed=3)
    assert interval != user_bootstrap(users, labels, p, metric, n=300, seed=4)
    narrow = user_bootstrap(users, labels, p, metric, n=300, seed=3, level=0.5)
    assert interval.low < narrow.low < narrow.high < interval.high


def test_width_matches_theory_for_independent_rows():
    users, labels, p = impressions(4000, 4000)
    users = np.arange(4000)  # one row per user: DeLong's error applies
    interval = user_bootstrap(users, labels, p, "auc", n=1000)
    positive, negative = p[labels == 1], p[labels == 0]
    better = (positive[:, None] > negative[None]) + 0.5 * (positive[:, None] == negative[None])
    error = np.sqrt(better.mean(1).var() / len(positive) + better.mean(0).var() / len(negative))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_paired_interval_is_narrower_and_sees_a_real_difference():
    users, labels, p = impressions()
    worse = np.clip(p + np.random.default_rng(5).normal(0, 0.1, len(p)), 0, 1)
    paired = paired_bootstrap(users, labels, p, worse, "auc", n=400)
    single = user_bootstrap(users, labels, p, "auc", n=400)
    assert paired.excludes_zero and paired.low > 0
    assert paired.high - paired.low < single.high - single.low
    back = paired_bootstrap(users, labels, worse, p, "auc", n=400)
    assert (back.value, back.low, back.high) == pytest.approx((-paired.value, -paired.high, -paired.low))
    same = paired_bootstrap(users, labels, p, p, "logloss", n=50)
    assert (same.value, same.low, same.high) == (0, 0, 0) and not same.excludes_zero


def test_one_user_one_class_and_no_resampling():
    interval = user_bootstrap([0, 0], [0, 1], [0.1, 0.9], "auc", n=20)
    assert (interval.value, interval.low, interval.high) == (1, 1, 1)
    assert np.isnan(user_bootstrap([0, 1], [1, 1], [0.1, 0.9], "auc", n=20).value)
    assert np.isnan(user_bootstrap([], [], [], "gauc", n=20).value)
    none = user_bootstrap([0, 0], [0, 1], [0.1, 0.9], "auc", n=0)
    assert none.value == 1 and np.isnan(none.low)
    with pytest.raises(ValueError, match="no bootstrap of 'ndcg'"):
        user_bootstrap([0], [1], [0.5], "ndcg", n=2)  # pyright: ignore[reportArgumentType]


def test_rare_resamplings_of_one_class_are_left_out():
    interval = user_bootstrap([0, 1, 2], [1, 0, 0], [0.9, 0.1, 0.2], "auc", n=100)
    assert (interval.low, interval.high) == (1, 1)


def test_means_per_user():
    rng = np.random.default_rng(6)
    a = rng.normal(0.5, 1, 2000)
    a[::10] = np.nan
    b = a - 0.1
    interval = mean_bootstrap(a, n=1000)
    kept = a[~np.isnan(a)]
    assert interval.value == pytest.approx(kept.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * kept.std() / len(kept) ** 0.5, rel=0.1)
    paired = paired_mean_bootstrap(a, b, n=100)
    assert (paired.low, paired.high) == pytest.approx((0.1, 0.1))
    assert np.isnan(mean_bootstrap([np.nan, np.nan]).value)
    with pytest.raises(ValueError, match="different users"):
        paired_mean_bootstrap(a, b[:5])


def test_means_of_sessions_of_users():
    """Users are drawn with all of their sessions: a mean of sessions is no mean of users' means."""
    rng = np.random.default_rng(0)
    users, values = rng.integers(0, 8, 50), rng.random(50)
    value, draws = mean_resamplings(users, values, n=40)
    assert value == pytest.approx(values.mean())
    by_hand = np.random.default_rng(0).integers(8, size=(40, 8))
    expected = [np.concatenate([values[users == u] for u in draw]).mean() for draw in by_hand]
    np.testing.assert_allclose(draws, expected)
    interval = user_mean_bootstrap(users, values)
    assert interval.low < interval.value == value < interval.high
    assert np.isnan(user_mean_bootstrap([], []).value)


def test_qauc_without_a_query():
    users, labels, p = impressions(100, 5)
    assert np.isnan(user_bootstrap(users, labels, p, "qauc", queries=np.full(100, -1)).low)
    one = user_bootstrap(users, labels, p, "qauc", queries=np.zeros(100))
    same = user_bootstrap(users, labels, p, "auc")
    assert (one.value, one.low, one.high) == pytest.approx((same.value, same.low, same.high))
    with pytest.raises(ValueError, match="needs the queries"):
        user_bootstrap(users, labels, p, "qauc")
    other = np.random.default_rng(1).random(100)
    queries = np.arange(100) % 4
    paired = paired_bootstrap(users, labels, p, other, "qauc", queries=queries)
    assert paired.value == pytest.approx(gauc(labels, p, queries)[0] - gauc(labels, other, queries)[0])


def test_t_test_equals_scipy():
    rng = np.random.default_rng(7)
    a, b = rng.normal(0.1, 1, 50), rng.normal(0, 1, 50)
    a[3] = np.nan
    result, expected = paired_t_test(a, b), stats.ttest_rel(a, b, nan_policy="omit")
    assert (result.statistic, result.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert result.users == 49
    assert paired_t_test([1.0, 2.0], [1.0, 2.0]).p_value == 1
    assert paired_t_test([1.0], [0.0]).p_value == 1


def test_holm():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1, 1])
    assert len(holm([])) == 0


def test_thousand_resamplings_of_ten_thousand_rows_take_about_a_second():
    users, labels, p = impressions(10_000, 600)
    start = time.perf_counter()
    user_bootstrap(users, labels, p, "auc", n=1000)
    assert time.perf_counter() - start < 8  # about one, on a busy machine more


def test_chunks_do_not_change_the_result(monkeypatch):
    users, labels, p = impressions(500, 30)
    whole = user_bootstrap(users, labels, p, "auc", n=64)
    monkeypatch.setattr("rawrec.evaluation.significance.CHUNK", 3000)
    assert user_bootstrap(users, labels, p, "auc", n=64) == whole


def test_auc_form_of_all_tied_scores():
    form = _auc_form(np.array([0, 1]), np.array([True, False]), np.array([0.5, 0.5]))
    assert form(np.array([[1.0], [2.0]])).tolist() == [0.5]
