"""Intervals and tests that know users, not rows, are what was sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rawrec.evaluation.ctr import auc, group_auc, log_losses

Metric = Literal["auc", "gauc", "qauc", "logloss", "expected_auc"]
Resampled = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Weights of users `[n_users, c]` (how often each was drawn in c resamplings) -> the metric in each `[c]`."""

CHUNK = 2**19
"""Weights held at once: users or rows x resamplings."""


@dataclass(frozen=True)
class Interval:
    """A value and the interval that holds `level` of its resamplings; nan where it is undefined."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class TTest:
    """Paired t-test: mean difference, t, two-sided p, users compared."""

    mean: float
    statistic: float
    p_value: float
    users: int


def user_bootstrap(
    users: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike,
    metric: Metric,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    queries: ArrayLike | None = None,
) -> Interval:
    """Percentile interval of a metric of impressions, users drawn with replacement, each with all rows.

    users, labels (0, 1) and scores (probabilities for logloss) are `[rows]`, as are queries (-1: none), for qauc. For
    `expected_auc` the labels are the known chances of a positive: a row counts as that much of a positive and as the
    rest of a negative, which takes the luck of the draw out of the AUC. A resampling in which the metric is undefined
    (one label only) is left out.
    """
    return _interval(*resamplings(users, labels, scores, metric, n, seed, queries), level)


def resamplings(
    users: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike,
    metric: Metric,
    n: int = 1000,
    seed: int = 0,
    queries: ArrayLike | None = None,
) -> tuple[float, NDArray[np.float64]]:
    """A metric of impressions and its values in `n` resamplings of the users, `[n]`; nan where it is undefined.

    With the same seed the same users are drawn, so that the resamplings of several models on the same users are pairs.
    """
    ids, user = np.unique(np.asarray(users), return_inverse=True)
    value, resampled, rows = _metric(user, len(ids), labels, scores, metric, queries)
    return value, _drawn(resampled, len(ids), rows, n, seed)


def mean_resamplings(users: ArrayLike, values: ArrayLike, n: int = 1000, seed: int = 0) -> tuple[float, NDArray]:
    """The mean of values `[m]` that are of users `[m]`, one of whom may have several, and its values in `n` resamplings
    of the users, `[n]`: what sessions are worth."""
    ids, user = np.unique(np.asarray(users), return_inverse=True)
    sums = np.bincount(user, np.asarray(values, np.float64), len(ids)).astype(np.float64)
    counts = np.bincount(user, minlength=len(ids)).astype(np.float64)
    value = float(sums.sum() / counts.sum()) if len(ids) else float("nan")
    return value, _drawn(_ratio_form(sums, counts), len(ids), len(ids), n, seed)


def resamplings_of_parts(
    users: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike,
    parts: Sequence[NDArray[np.bool_]],
    metric: Metric,
    n: int = 1000,
    seed: int = 0,
) -> list[tuple[float, NDArray[np.float64]]]:
    """As `resamplings`, for each of some parts of the rows (bool `[rows]`): whoever is drawn is drawn for all of them,
    so that the parts, and the whole, can be compared draw by draw."""
    ids, user = np.unique(np.asarray(users), return_inverse=True)
    labels, scores = np.asarray(labels), np.asarray(scores)
    forms = [_metric(user[part], len(ids), labels[part], scores[part], metric) for part in parts]
    draws: list[list[NDArray[np.float64]]] = [[] for _ in parts]
    for weights in _weights(len(ids), max([rows for _, _, rows in forms], default=0), n, seed):
        for found, (_, resampled, _) in zip(draws, forms, strict=True):
            found.append(resampled(weights))
    none = np.zeros(0)
    return [(value, np.concatenate([none, *found])) for (value, *_), found in zip(forms, draws, strict=True)]


def mean_resamplings_of_parts(
    values: NDArray[np.float64], n: int = 1000, seed: int = 0
) -> list[tuple[float, NDArray[np.float64]]]:
    """The mean of every row of `[parts, users]`, nan where a user has no value in a part, and its values in `n`
    resamplings of the users, the same for all parts."""
    users = values.shape[1]
    known = ~np.isnan(values)
    sums = np.where(known, values, 0.0)
    weights = [(sums @ w, known @ w) for w in _weights(users, users, n, seed)] if users else []
    count = known.sum(1)
    means = np.divide(sums.sum(1), count, out=np.full(len(values), np.nan), where=count > 0)
    if not weights:
        return [(float(mean), np.zeros(0)) for mean in means]
    above, below = (np.concatenate([pair[k] for pair in weights], 1) for k in range(2))
    draws = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return [(float(mean), row) for mean, row in zip(means, draws, strict=True)]


def normal_test(value: float, draws: NDArray[np.float64], level: float = 0.95) -> tuple[Interval, float | None]:
    """As `bootstrap_test`, with p by the normal law and the deviation of the resamplings: small p-values, as many
    comparisons need them, do not take as many draws. None where nothing varies, or next to nothing is known."""
    defined = draws[~np.isnan(draws)]
    interval = _interval(value, draws, level)
    deviation = float(defined.std(ddof=1)) if len(defined) > 1 else 0.0
    if not np.isfinite(value) or deviation <= 1e-12 * max(1.0, abs(value)) or len(defined) < len(draws) / 2:
        return interval, None
    return interval, float(2 * stats.norm.sf(abs(value) / deviation))


def user_mean_bootstrap(
    users: ArrayLike, values: ArrayLike, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile interval of such a mean; of differences of values it is that of the difference of two means."""
    return _interval(*mean_resamplings(users, values, n, seed), level)


def _drawn(resampled: Resampled, n_users: int, rows: int, n: int, seed: int) -> NDArray[np.float64]:
    return np.concatenate([resampled(w) for w in _weights(n_users, rows, n, seed)]) if n else np.zeros(0)


def paired_bootstrap(
    users: ArrayLike,
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    metric: Metric,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    queries: ArrayLike | None = None,
) -> Interval:
    """As `user_bootstrap`, for metric(scores_a) - metric(scores_b) on the same rows and the same draws of users."""
    value_a, draws_a = resamplings(users, labels, scores_a, metric, n, seed, queries)
    value_b, draws_b = resamplings(users, labels, scores_b, metric, n, seed, queries)
    return _interval(value_a - value_b, draws_a - draws_b, level)


def paired_bootstrap_of_folds(
    folds: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]],
    metric: Metric,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean over folds of `paired_bootstrap`'s difference, each user being drawn with all rows of all folds.

    folds: users, labels, scores_a and scores_b of each, `[rows]`. A resampling that leaves the metric undefined in one
    fold is left out.
    """
    ids, user = np.unique(np.concatenate([np.asarray(users) for users, *_ in folds]), return_inverse=True)
    value, forms, rows, at = 0.0, [], 0, 0
    for users, labels, *scores in folds:
        here = user[at : at + len(np.asarray(users))]
        at += len(here)
        (value_a, resampled_a, size), (value_b, resampled_b, _) = (
            _metric(here, len(ids), labels, of_one, metric) for of_one in scores
        )
        value += (value_a - value_b) / len(folds)
        forms.append((resampled_a, resampled_b))
        rows = max(rows, size)
    draws = [
        np.mean([resampled_a(w) - resampled_b(w) for resampled_a, resampled_b in forms], 0)
        for w in _weights(len(ids), rows, n, seed)
    ]
    return _interval(value, np.concatenate(draws) if draws else np.zeros(0), level)


def mean_bootstrap(values: ArrayLike, n: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Interval of the mean of one value per user `[n_users]`; users whose value is nan are left out."""
    kept = np.asarray(values, np.float64)
    return mean_bootstraps(kept[None, ~np.isnan(kept)], n, seed, level)[0]


def mean_bootstraps(values: ArrayLike, n: int = 1000, seed: int = 0, level: float = 0.95) -> list[Interval]:
    """Interval of the mean of every row of `[m, n_users]`, none of them nan, over the same draws of users."""
    rows = np.asarray(values, np.float64)
    users = rows.shape[1]
    if not users:
        return [Interval(float("nan"), float("nan"), float("nan"))] * len(rows)
    draws = [rows @ w / users for w in _weights(users, users, n, seed)]
    sampled = np.concatenate(draws, 1) if draws else np.zeros((len(rows), 0))
    return [_interval(float(row.mean()), drawn, level) for row, drawn in zip(rows, sampled, strict=True)]


def paired_mean_bootstrap(
    values_a: ArrayLike, values_b: ArrayLike, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Interval of mean(a - b), one value per user in the same order; users with a nan in either are left out."""
    return mean_bootstrap(_difference(values_a, values_b), n, seed, level)


def paired_t_test(values_a: ArrayLike, values_b: ArrayLike) -> TTest:
    """Student's t-test of a - b over users; users with a nan in either are left out.

    With less than two users, or without any difference, the statistic is nan and p is 1.
    """
    difference = _difference(values_a, values_b)
    difference = difference[~np.isnan(difference)]
    count = len(difference)
    mean = float(difference.mean()) if count else float("nan")
    error = float(difference.std(ddof=1)) / count**0.5 if count > 1 else 0.0
    if error == 0:
        return TTest(mean, float("nan"), 1.0, count)
    statistic = mean / error
    return TTest(mean, statistic, float(2 * stats.t.sf(abs(statistic), count - 1)), count)


def bootstrap_test(value: float, draws: NDArray[np.float64], level: float = 0.95) -> tuple[Interval, float]:
    """Interval of a difference and the two-sided p-value of its being zero, from its resamplings `[n]`.

    p is twice the share of resamplings on the side of zero where fewer are. One is added to both counts, as for any
    test by simulation, so that p is at least 2 / (n + 1); it is 1 where nothing can be said.
    """
    defined = draws[~np.isnan(draws)]
    other = min((defined <= 0).sum(), (defined >= 0).sum())
    return _interval(value, draws, level), min(1.0, float(2 * (other + 1) / (len(defined) + 1)))


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """p-values corrected for the number of comparisons (Holm-Bonferroni), `[m]` in the order given."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected


def _difference(values_a: ArrayLike, values_b: ArrayLike) -> NDArray[np.float64]:
    a, b = np.asarray(values_a, np.float64), np.asarray(values_b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"values of different users cannot be paired: {a.shape} and {b.shape}")
    return a - b


def _weights(n_users: int, rows: int, n: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each user is drawn in `n` resamplings, in chunks `[n_users, c]` that keep rows x c small."""
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK // max(n_users, rows, 1))
    for start in range(0, n, chunk):
        c = min(chunk, n - start)
        drawn = rng.integers(n_users, size=(c, n_users)) * c + np.arange(c)[:, None]
        yield np.bincount(drawn.ravel(), minlength=n_users * c).reshape(n_users, c).astype(np.float64)


def _interval(value: float, draws: NDArray[np.float64], level: float) -> Interval:
    draws = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(draws):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _metric(
    user: NDArray[np.int64],
    n_users: int,
    labels: ArrayLike,
    scores: ArrayLike,
    metric: Metric,
    queries: ArrayLike | None = None,
) -> tuple[float, Resampled, int]:
    """The metric, its resampled form, and how many rows that form touches per resampling."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if metric == "auc":
        return auc(labels, scores), _auc_form(user, (labels > 0).astype(np.float64), scores), len(labels)
    if metric == "expected_auc":
        form = _auc_form(user, labels.astype(np.float64), scores)
        return float(form(np.ones((n_users, 1)))[0]), form, 2 * len(labels)
    if metric == "gauc":
        groups = group_auc(labels, scores, user)
        weight, won = np.zeros(n_users), np.zeros(n_users)
        weight[groups.groups] = np.where(groups.defined, groups.impressions, 0)
        won[groups.groups] = weight[groups.groups] * np.nan_to_num(groups.auc)
        return groups.mean, _ratio_form(won, weight), n_users
    if metric == "qauc":
        if queries is None:
            raise ValueError("qauc needs the queries of the rows")
        asked = np.asarray(queries) >= 0
        rows = labels[asked], scores[asked], np.asarray(queries)[asked]
        return group_auc(*rows).mean, _qauc_form(user[asked], *rows), int(asked.sum())
    if metric == "logloss":
        losses = np.bincount(user, log_losses(labels, scores), n_users).astype(np.float64)
        counts = np.bincount(user, minlength=n_users).astype(np.float64)
        value = float(losses.sum() / counts.sum()) if n_users else float("nan")
        return value, _ratio_form(losses, counts), n_users
    raise ValueError(f"no bootstrap of {metric!r}: auc, expected_auc, gauc, qauc or logloss")


def _ratio_form(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> Resampled:
    """A metric that is sum of numerator / sum of denominator over users, both `[n_users]`."""

    def resampled(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        below = denominator @ weights
        return np.divide(numerator @ weights, below, out=np.full(len(below), np.nan), where=below > 0)

    return resampled


def _auc_form(user: NDArray[np.int64], chance: NDArray[np.float64], scores: NDArray) -> Resampled:
    """Weighted AUC, each row being a positive to its share `chance`. The sort is done once: a positive beats the
    negatives below it, half of those that tie with it."""
    positives, negatives = np.flatnonzero(chance > 0), np.flatnonzero(chance < 1)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    below = np.searchsorted(scores[negatives], scores[positives], "left")
    up_to = np.searchsorted(scores[negatives], scores[positives], "right")
    negative_users, positive_users = user[negatives], user[positives]
    lost, won_share = 1 - chance[negatives, None], chance[positives, None]

    def resampled(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        mass = np.zeros((len(negatives) + 1, weights.shape[1]))
        np.cumsum(weights[negative_users] * lost, 0, out=mass[1:])
        taken = weights[positive_users] * won_share
        won = (taken * (mass[below] + mass[up_to])).sum(0) / 2
        pairs = taken.sum(0) * mass[-1]
        return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

    return resampled


def _qauc_form(user: NDArray[np.int64], labels: NDArray, scores: NDArray, queries: NDArray) -> Resampled:
    """Mean over queries of the weighted AUC within each, weighted by its weighted rows. A query has rows of many users,
    so that its AUC changes with who is drawn; one that is left with one label counts for nothing, as without weights.
    """
    query = np.unique(queries, return_inverse=True)[1]
    order = np.lexsort((scores, query))
    user, positive, query, score = user[order], labels[order] > 0, query[order], scores[order]
    new = np.r_[True, query[1:] != query[:-1]][: len(query)]
    begin = np.flatnonzero(new)
    tie = np.flatnonzero(new | np.r_[True, score[1:] != score[:-1]][: len(query)])
    rows = np.flatnonzero(positive)
    run = np.searchsorted(tie, rows, "right") - 1
    start, stop, base = tie[run], np.r_[tie, len(query)][run + 1], begin[query[rows]]

    def resampled(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        drawn = weights[user]
        lost = np.zeros((len(user) + 1, weights.shape[1]))
        np.cumsum(np.where(positive[:, None], 0, drawn), 0, out=lost[1:])
        won = np.zeros_like(drawn)
        won[rows] = drawn[rows] * (lost[start] + lost[stop] - 2 * lost[base]) / 2
        if not len(begin):
            return np.full(weights.shape[1], np.nan)
        won, size = np.add.reduceat(won, begin), np.add.reduceat(drawn, begin)
        positives = np.add.reduceat(np.where(positive[:, None], drawn, 0), begin)
        pairs = positives * (size - positives)
        ok = pairs > 0
        auc_of = np.divide(won, pairs, out=np.zeros_like(won), where=ok)
        below = np.where(ok, size, 0).sum(0)
        return np.divide((auc_of * size * ok).sum(0), below, out=np.full(len(below), np.nan), where=below > 0)

    return resampled
