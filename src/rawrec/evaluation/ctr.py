"""How well probabilities order and match binary labels: AUC, GAUC, QAUC, logloss, ece, pcoc, overall and by bucket."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rawrec.data.splits import BUCKETS
from rawrec.errors import UserError
from rawrec.plugins import own_code

ECE_BINS = 15


def buckets_of(train_counts: ArrayLike) -> dict[str, NDArray[np.bool_]]:
    """Which items are cold, rare, medium and warm.

    train_counts: training rows of each item, `[n_items]`. Returns a mask `[n_items]` per bucket; each item is in one.
    """
    counts = np.asarray(train_counts)
    return {
        name: (counts >= low) & (counts <= (np.inf if high is None else high)) for name, (low, high) in BUCKETS.items()
    }


@dataclass(frozen=True)
class GroupAuc:
    """AUC within each group, for the groups that have both labels (`defined`); nan for the others.

    groups `[g]` ids ascending; auc `[g]`; impressions `[g]` int64.
    """

    groups: NDArray
    auc: NDArray[np.float64]
    impressions: NDArray[np.int64]

    @property
    def defined(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.auc)

    @property
    def mean(self) -> float:
        """GAUC, QAUC: the mean weighted by impressions; nan when no group has both labels."""
        ok = self.defined
        return float(np.average(self.auc[ok], weights=self.impressions[ok])) if ok.any() else float("nan")


def group_auc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> GroupAuc:
    """AUC within every group (user or query), tied scores counted half.

    labels `[n]` of 0 and 1, scores `[n]` finite, groups `[n]` ids of any sortable kind. One sort, no loop over groups;
    the counts are whole numbers, so the result is exact up to one division.
    """
    ids, group = np.unique(np.asarray(groups), return_inverse=True)
    positive, score = np.asarray(labels) > 0, np.asarray(scores)
    order = np.lexsort((score, group))
    group, positive, score = group[order], positive[order], score[order]
    tie_start = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (score[1:] != score[:-1])][: len(group)])
    tie_group = group[tie_start]
    tie_size = np.diff(np.r_[tie_start, len(group)])
    tie_positive = np.diff(np.r_[0, np.cumsum(positive)][np.r_[tie_start, len(group)]])
    tie_negative = tie_size - tie_positive
    before = np.cumsum(tie_negative) - tie_negative
    before -= before[np.searchsorted(tie_group, tie_group)]
    # Twice the number of (positive, negative) pairs in the right order, a tied pair counting one.
    twice_won = _sums(tie_group, tie_positive * (2 * before + tie_negative), len(ids))
    positives, negatives = _sums(tie_group, tie_positive, len(ids)), _sums(tie_group, tie_negative, len(ids))
    pairs = 2.0 * positives * negatives
    auc = np.divide(twice_won, pairs, out=np.full(len(ids), np.nan), where=pairs > 0)
    return GroupAuc(ids, auc, positives + negatives)


def _sums(group: NDArray, values: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Sum of `values` for each of the groups 0 .. n - 1, all present in the ascending `group`."""
    return np.add.reduceat(values, np.searchsorted(group, np.arange(n))) if n else np.zeros(0, np.int64)


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Chance that a positive scores above a negative, ties counted half; nan when a label is missing altogether."""
    result = group_auc(labels, scores, np.zeros(np.shape(labels), np.int8)).auc
    return float(result[0]) if len(result) else float("nan")


def gauc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> tuple[float, int]:
    """AUC within each group with both labels, weighted by impressions, and the number of groups left out."""
    result = group_auc(labels, scores, groups)
    return result.mean, int((~result.defined).sum())


def log_losses(labels: ArrayLike, probabilities: ArrayLike) -> NDArray[np.float64]:
    """-log of the probability given to what happened, `[n]`.

    Probabilities are clipped to [eps, 1 - eps], eps being the precision of their own type (1.2e-7 for float32,
    2.2e-16 for float64), so that one certain mistake costs 16 or 36, not infinity.
    """
    p = np.asarray(probabilities)
    p = p if np.issubdtype(p.dtype, np.floating) else p.astype(np.float64)
    eps = np.finfo(p.dtype).eps
    p = np.clip(p, eps, 1 - eps).astype(np.float64)
    return -np.log(np.where(np.asarray(labels) > 0, p, 1 - p))


def logloss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean of `log_losses`; nan without rows."""
    losses = log_losses(labels, probabilities)
    return float(losses.mean()) if len(losses) else float("nan")


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins of equal mass, ascending: rows, mean prediction and mean label of each, all `[bins]`."""

    count: NDArray[np.int64]
    prediction: NDArray[np.float64]
    label: NDArray[np.float64]

    @property
    def ece(self) -> float:
        """Mean distance of prediction and label over the bins, weighted by rows; nan without rows."""
        if not len(self.count):
            return float("nan")
        return float(np.average(np.abs(self.prediction - self.label), weights=self.count))


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = ECE_BINS) -> Reliability:
    """Sort by prediction and cut into `bins` of equal size (the first ones hold one more where it does not divide).

    Rows with the same prediction share their mean label, so the result does not depend on the order of rows.
    """
    p, first, size = np.unique(np.asarray(probabilities, np.float64), return_inverse=True, return_counts=True)
    rate = np.bincount(first, np.asarray(labels, np.float64) > 0, len(p)) / np.maximum(size, 1)
    n = int(size.sum())
    count = n // bins + (np.arange(bins) < n % bins)
    count = count[count > 0]
    start = np.cumsum(count) - count
    if not n:
        return Reliability(count, np.zeros(0), np.zeros(0))
    means = [np.add.reduceat(np.repeat(values, size), start) / count for values in (p, rate)]
    return Reliability(count, *means)


def ece(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Expected calibration error over 15 bins of equal mass."""
    return reliability(labels, probabilities).ece


def pcoc(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean prediction / mean label (1: neither too high nor too low); nan without a positive label."""
    total = float((np.asarray(labels) > 0).sum())
    return float(np.asarray(probabilities, np.float64).sum()) / total if total else float("nan")


def conditional(both: NDArray[np.float32], first: NDArray[np.float32]) -> NDArray[np.float32]:
    """P(second | first), at most 1, from P(first and second) and P(first), each `[n]`."""
    return np.minimum(both / np.maximum(first, np.finfo(np.float32).tiny), np.float32(1))


def ctr_metrics(
    labels: ArrayLike,
    probabilities: ArrayLike,
    users: ArrayLike,
    buckets: Mapping[str, NDArray[np.bool_]] | None = None,
    own: Mapping[str, Callable[..., float]] | None = None,
    queries: ArrayLike | None = None,
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Every metric of impressions, overall and by bucket, and why some are undefined.

    labels `[n]` of 0 and 1, probabilities `[n]`, users `[n]` (the groups of GAUC), buckets: name -> mask `[n]`,
    queries `[n]`: those of QAUC, -1 = none; None: there are none. Returns metrics `auc, gauc, gauc_skipped_users,
    logloss, ece, pcoc, impressions`, with queries `qauc, qauc_skipped_queries` (those with one label alone) and
    `qauc_without_query` (impressions), then the same as `cold/auc` and so on, and a reason for each one that is None.
    own: registered metrics by name, functions of labels, probabilities and users; nan: undefined. Raises UserError on
    labels other than 0 and 1.
    """
    labels, probabilities, users = np.asarray(labels), np.asarray(probabilities), np.asarray(users)
    asked = None if queries is None else np.asarray(queries)
    strange = (labels != 0) & (labels != 1)
    if strange.any():
        raise UserError(
            f"labels must be 0 or 1, found {labels[strange][0]} (row {np.flatnonzero(strange)[0]} of {len(labels)}): "
            "choose a binary label column with data.label"
        )
    metrics: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    parts = {"": np.ones(len(labels), bool)} | {f"{name}/": mask for name, mask in (buckets or {}).items()}
    for prefix, mask in parts.items():
        rows = labels[mask], probabilities[mask], users[mask]
        values, why = _ctr_metrics(*rows, None if asked is None else asked[mask])
        for name, function in (own or {}).items():
            values[name], why[name] = _own_metric(name, function, *rows)
        metrics |= {prefix + name: value for name, value in values.items()}
        reasons |= {prefix + name: reason for name, reason in why.items() if reason}
    return metrics, reasons


def _ctr_metrics(
    labels: NDArray, probabilities: NDArray, users: NDArray, queries: NDArray | None
) -> tuple[dict[str, float | None], dict[str, str]]:
    names = ["auc", "gauc", "gauc_skipped_users", "logloss", "ece", "pcoc"]
    names += [] if queries is None else ["qauc", "qauc_skipped_queries", "qauc_without_query"]
    values: dict[str, float | None] = {**dict.fromkeys(names), "impressions": len(labels)}
    outside = ~((probabilities >= 0) & (probabilities <= 1))
    if not len(labels):
        return values, dict.fromkeys(names, "no impressions")
    if outside.any():
        return values, dict.fromkeys(names, f"{outside.sum()} of {len(labels)} predictions are not probabilities")
    reasons = {}
    if labels.min() == labels.max():
        reasons["auc"] = f"every label is {int(labels[0])}"
    else:
        values["auc"] = auc(labels, probabilities)
    mean, skipped = gauc(labels, probabilities, users)
    values["gauc_skipped_users"] = skipped
    if np.isnan(mean):
        reasons["gauc"] = "no user has both labels"
    else:
        values["gauc"] = mean
    if queries is not None:
        asked = queries >= 0
        mean, skipped = gauc(labels[asked], probabilities[asked], queries[asked])
        values["qauc_skipped_queries"], values["qauc_without_query"] = skipped, int((~asked).sum())
        if np.isnan(mean):
            reasons["qauc"] = "no query has both labels" if asked.any() else "no impression has a query"
        else:
            values["qauc"] = mean
    values["logloss"] = logloss(labels, probabilities)
    values["ece"] = ece(labels, probabilities)
    if labels.max() == 0:
        reasons["pcoc"] = "every label is 0"
    else:
        values["pcoc"] = pcoc(labels, probabilities)
    return values, reasons


def _own_metric(
    name: str, function: Callable[..., float], labels: NDArray, probabilities: NDArray, users: NDArray
) -> tuple[float | None, str]:
    """A registered metric, or None and why."""
    if not len(labels):
        return None, "no impressions"
    with own_code("metric", name):
        value = float(function(labels, probabilities, users))
    return (value, "") if math.isfinite(value) else (None, f"{name} is undefined here")
