"""AUC and its relatives against scikit-learn and against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from rawrec.errors import UserError
from rawrec.evaluation.ctr import (
    auc,
    buckets_of,
    ctr_metrics,
    ece,
    gauc,
    group_auc,
    logloss,
    pcoc,
    reliability,
)

rows = st.lists(
    st.tuples(st.booleans(), st.integers(0, 6).map(lambda i: i / 6), st.integers(0, 4)), min_size=1, max_size=60
)


def columns(drawn):
    labels, scores, users = map(np.asarray, zip(*drawn, strict=True))
    return labels.astype(np.float32), scores, users


def plain_auc(labels, scores):
    """Every pair compared."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    if not len(positive) or not len(negative):
        return np.nan
    difference = positive[:, None] - negative[None]
    return ((difference > 0) + 0.5 * (difference == 0)).mean()


@settings(deadline=None, max_examples=100)
@given(rows)
def test_auc_and_gauc_equal_comparing_every_pair(drawn):
    labels, scores, users = columns(drawn)
    assert auc(labels, scores) == pytest.approx(plain_auc(labels, scores), abs=1e-12, nan_ok=True)
    each = {u: plain_auc(labels[users == u], scores[users == u]) for u in np.unique(users)}
    result = group_auc(labels, scores, users)
    assert result.groups.tolist() == list(each)
    np.testing.assert_allclose(result.auc, list(each.values()), atol=1e-12)
    weights = {u: (users == u).sum() for u, a in each.items() if not np.isnan(a)}
    mean = sum(each[u] * w for u, w in weights.items()) / sum(weights.values()) if weights else np.nan
    value, skipped = gauc(labels, scores, users)
    assert value == pytest.approx(mean, abs=1e-12, nan_ok=True)
    assert skipped == len(each) - len(weights)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_to_scikit_learn_at_size(dtype):
    rng = np.random.default_rng(0)
    p = np.clip(rng.normal(0.3, 0.3, 50_000), 0, 1).round(3).astype(dtype)  # many ties, also exact 0 and 1
    y = (rng.random(50_000) < 0.3).astype(np.float32)
    assert auc(y, p) == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert logloss(y, p) == pytest.approx(log_loss(y, p), rel=1e-5 if dtype is np.float32 else 1e-12)


def test_auc_extremes():
    assert auc([0, 1], [0.1, 0.9]) == 1
    assert auc([1, 0], [0.1, 0.9]) == 0
    assert auc([1, 0, 1, 0], [0.5] * 4) == 0.5
    assert np.isnan(auc([1, 1], [0.1, 0.2]))
    assert np.isnan(auc([], []))


def test_gauc_takes_string_groups():
    assert gauc([0, 1, 1, 0, 1], [0.1, 0.2, 0.1, 0.2, 0.5], ["a", "a", "b", "b", "c"]) == (0.5, 1)


def test_ece_of_calibrated_and_biased_predictions():
    rng = np.random.default_rng(1)
    p = rng.random(200_000)
    y = rng.random(200_000) < p
    assert ece(y, p) < 0.006
    assert ece(y, np.clip(p + 0.1, 0, 1)) == pytest.approx(0.095, abs=0.01)
    assert pcoc(y, p) == pytest.approx(1, abs=0.01)
    assert pcoc(y, 2 * p) == pytest.approx(2, abs=0.02)


def test_ece_against_plain_bins():
    rng = np.random.default_rng(2)
    p = rng.permutation(1000) / 1000  # no ties
    y = rng.random(1000) < 0.5
    bins = np.array_split(np.argsort(p), 15)
    assert ece(y, p) == pytest.approx(sum(len(b) / 1000 * abs(p[b].mean() - y[b].mean()) for b in bins), abs=1e-12)


def test_reliability_does_not_depend_on_the_order_of_rows():
    y = np.r_[np.ones(30), np.zeros(70)]
    curve = reliability(y, np.full(100, 0.4))
    np.testing.assert_allclose(curve.label, 0.3)
    assert curve.count.sum() == 100 and len(curve.count) == 15
    assert curve.ece == pytest.approx(0.1)
    assert len(reliability(y[:4], np.array([0.1, 0.2, 0.3, 0.4])).count) == 4


def test_buckets():
    masks = buckets_of([0, 1, 4, 5, 19, 20, 10_000])
    assert {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()} == {
        "cold": [0],
        "rare": [1, 2],
        "medium": [3, 4],
        "warm": [5, 6],
    }


def test_metrics_by_bucket_and_the_reasons_of_undefined_ones():
    labels = np.array([0, 1, 0, 1, 1, 0, 0], np.float32)
    p = np.array([0.2, 0.8, 0.6, 0.4, 0.7, 0.1, 0.3], np.float32)
    users = np.array([0, 0, 1, 1, 2, 2, 3])
    masks = {"cold": np.arange(7) < 2, "rare": np.arange(7) == 4, "medium": np.arange(7) > 4, "warm": np.zeros(7, bool)}
    metrics, reasons = ctr_metrics(labels, p, users, masks)
    assert metrics["auc"] == pytest.approx(roc_auc_score(labels, p))
    assert metrics["gauc"] == pytest.approx(2 / 3)
    assert metrics["gauc_skipped_users"] == 1
    assert metrics["impressions"] == 7 and metrics["cold/impressions"] == 2 and metrics["warm/impressions"] == 0
    assert metrics["cold/auc"] == 1
    assert metrics["rare/auc"] is None and reasons["rare/auc"] == "every label is 1"
    assert reasons["rare/gauc"] == "no user has both labels"
    assert reasons["medium/pcoc"] == "every label is 0" and metrics["medium/logloss"] is not None
    assert reasons["warm/logloss"] == "no impressions"
    assert {name for name, value in metrics.items() if value is None} == set(reasons)


def test_predictions_that_are_no_probabilities_are_named():
    metrics, reasons = ctr_metrics([0, 1], [0.5, np.nan], [0, 0])
    assert metrics["auc"] is None and reasons["auc"] == "1 of 2 predictions are not probabilities"


def test_labels_other_than_0_and_1_are_refused():
    with pytest.raises(UserError, match=r"found 3\.5 \(row 1 of 2\).*data\.label"):
        ctr_metrics([0, 3.5], [0.5, 0.5], [0, 0])


@settings(deadline=None, max_examples=60)
@given(rows, st.integers(0, 3))
def test_qauc_is_the_auc_within_queries(drawn, seed):
    labels, scores, users = columns(drawn)
    rng = np.random.default_rng(seed)
    queries, bucket = rng.integers(-1, 4, len(labels)), rng.random(len(labels)) < 0.5
    metrics, reasons = ctr_metrics(labels, scores, users, {"cold": bucket}, queries=queries)
    for prefix, mask in (("", np.ones(len(labels), bool)), ("cold/", bucket)):
        kept = mask & (queries >= 0)
        each = {q: plain_auc(labels[kept & (queries == q)], scores[kept & (queries == q)]) for q in set(queries[kept])}
        weights = {q: (queries[kept] == q).sum() for q, a in each.items() if not np.isnan(a)}
        if not weights:
            assert metrics[f"{prefix}qauc"] is None
            wanted = "both labels" if kept.any() else "has a query" if mask.any() else "no impressions"
            assert wanted in reasons[f"{prefix}qauc"]
            continue
        mean = sum(each[q] * w for q, w in weights.items()) / sum(weights.values())
        assert metrics[f"{prefix}qauc"] == pytest.approx(mean, abs=1e-12)
        assert metrics[f"{prefix}qauc_skipped_queries"] == len(each) - len(weights)
        assert metrics[f"{prefix}qauc_without_query"] == (mask & (queries < 0)).sum()
    without, _ = ctr_metrics(labels, scores, users, {"cold": bucket})
    assert not [name for name in without if "qauc" in name]
    assert {name: metrics[name] for name in without} == without
