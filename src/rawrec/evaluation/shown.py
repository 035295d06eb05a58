"""How well scores order the items that were shown together: nDCG and MRR within a session.

Unlike lists of the full catalogue these ask nothing of what was not shown. A session whose items all have one label
says nothing of an order: it is skipped and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

SHOWN = "shown/"
"""Before the names of these metrics, which are others than those of full lists."""


@dataclass(frozen=True)
class Shown:
    """Metrics of sessions with both labels: sessions `[g]` ids ascending, ndcg: cut-off -> `[g]`, mrr `[g]`; skipped:
    sessions with one label alone."""

    sessions: NDArray
    ndcg: dict[int, NDArray[np.float64]]
    mrr: NDArray[np.float64]
    skipped: int

    def values(self) -> dict[str, NDArray[np.float64]]:
        """Name, with `shown/` before it -> value of each session."""
        return {f"{SHOWN}ndcg@{k}": ndcg for k, ndcg in self.ndcg.items()} | {f"{SHOWN}mrr": self.mrr}


def shown_lists(labels: ArrayLike, scores: ArrayLike, sessions: ArrayLike, ks: Sequence[int]) -> Shown:
    """nDCG at each cut-off and MRR of every session.

    labels `[n]` of 0 and 1, scores `[n]` finite, sessions `[n]` ids of any sortable kind. The items of a session stand
    by their score; of equal scores any order is as likely, and a metric is its mean over these orders.

    nDCG@k: the sum of 1 / log2(rank + 1) over the positives among the first k, against that of the best order. MRR: 1 /
    rank of the first positive. One sort, no loop over sessions.
    """
    ids, group = np.unique(np.asarray(sessions), return_inverse=True)
    positive, score = np.asarray(labels) > 0, np.asarray(scores)
    positives = np.bincount(group[positive], minlength=len(ids))
    both = (positives > 0) & (positives < np.bincount(group, minlength=len(ids)))
    skipped = len(ids) - int(both.sum())
    keep = both[group]
    if not keep.any():
        return Shown(ids[:0], {k: np.zeros(0) for k in ks}, np.zeros(0), skipped)
    group, positive, score, positives = group[keep], positive[keep], score[keep], positives[both]
    order = np.lexsort((-score, group))
    group, positive, score = group[order], positive[order], score[order]

    first = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])  # row at which a session begins
    rank = np.arange(len(group)) - np.repeat(first, np.diff(np.r_[first, len(group)]))  # from 0
    tie = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (score[1:] != score[:-1])])
    size = np.diff(np.r_[tie, len(group)])
    inside = np.add.reduceat(positive.astype(np.int64), tie)  # positives of each run of equal scores
    chance = np.repeat(inside / size, size)  # that a row of such a run holds a positive

    ndcg = {}
    gains = 1 / np.log2(np.arange(int(rank.max()) + 1) + 2)
    best = np.r_[0.0, np.cumsum(gains)]
    for k in ks:
        found = np.add.reduceat(np.where(rank < k, chance * gains[rank], 0.0), first)
        ndcg[k] = found / best[np.minimum(positives, k)]
    return Shown(ids[both], ndcg, _reciprocal(first, tie, size, inside, rank), skipped)


def _reciprocal(
    first: NDArray[np.int64],
    tie: NDArray[np.int64],
    size: NDArray[np.int64],
    inside: NDArray[np.int64],
    rank: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Mean of 1 / rank of the first positive of each session `[g]`.

    It stands in the first run of equal scores that has a positive. Of m rows with p positives, in a random order, the
    first positive is at place j (from 0) with chance C(m - 1 - j, p - 1) / C(m, p).
    """
    with_one = np.flatnonzero(inside > 0)
    run = with_one[np.searchsorted(tie[with_one], first)]  # of each session
    m, p, start = size[run], inside[run], tie[run]
    owner = np.repeat(np.arange(len(run)), m)
    begin = np.cumsum(m) - m
    j = np.arange(len(owner)) - begin[owner]
    rows, positives = m[owner], p[owner]
    chance = np.exp(_log_choose(np.maximum(rows - 1 - j, positives - 1), positives - 1) - _log_choose(rows, positives))
    chance[j > rows - positives] = 0
    return np.add.reduceat(chance / (rank[start[owner] + j] + 1), begin)


def _log_choose(n: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.float64]:
    from scipy.special import gammaln  # which a recommender need not load

    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
