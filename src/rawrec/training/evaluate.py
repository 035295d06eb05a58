"""The evaluation of a system on one part of its data: impressions, and lists over the full catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from rawrec.evaluation.ctr import buckets_of
from rawrec.evaluation.topk import TopK, rank_all, topk_metrics, undefined
from rawrec.training.system import System
from rawrec.training.trainer import impression_metrics

PARTS = {"valid": 1, "test": 2}


@dataclass
class TopKResult:
    users: np.ndarray  # user rows, those with a positive in the part
    lists: TopK
    metrics: dict[str, float | None]
    reasons: dict[str, str]
    per_user: dict[str, np.ndarray]


def evaluate_part(system: System, part: int, seed: int) -> tuple[dict[str, Any], dict[str, str], pl.DataFrame]:
    """CTR metrics of a part from the bank as it stands, why some are undefined, and the scores behind them."""
    rng = np.random.default_rng([seed, 7919, part])
    sample = system.samples.impressions(system.samples.rows(part), part, rng)
    scores = system.score_impressions(sample, part)
    metrics, reasons = impression_metrics(system, sample, scores)
    if system.samples.positive_only:
        metrics["sampled"] = system.samples.n_negatives
    width = sample.items.shape[1]
    frame = pl.DataFrame(
        {
            "row": np.repeat(sample.rows, width),
            "user": np.repeat(sample.users, width).astype(np.int32),
            "item": sample.items.ravel().astype(np.int32),
            "label": sample.labels.ravel().astype(np.float32),
            "score": scores.ravel(),
            "split": np.full(scores.size, part, np.int8),
        }
    )
    return metrics, reasons, frame


def evaluate_topk(system: System, part: int, ks: list[int], user_batch: int = 64) -> TopKResult:
    """Lists over the full catalogue for every user with a positive in the part.

    The history is what the user did before the first such positive; positives of the earlier parts are left out of the
    lists. Users, positives and masks are CSR; no users x items matrix exists but for `user_batch` users at a time.
    """
    samples, data = system.samples, system.data
    positive = samples.labels > 0
    rows = np.flatnonzero((samples.part == part) & positive)
    rows = rows[np.argsort(data.users[rows], kind="stable")]
    users, start = np.unique(data.users[rows], return_index=True)
    users = users.astype(np.int64)
    ptr = np.append(start, len(rows)).astype(np.int64)
    items = data.items[rows].astype(np.int64)
    times = None if samples.times is None else np.minimum.reduceat(samples.times[rows], start) if len(rows) else None

    known = np.flatnonzero((samples.part >= 0) & (samples.part < part) & positive)
    known = known[np.argsort(data.users[known], kind="stable")]
    counts = np.bincount(data.users[known], minlength=data.n_users)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    mask_ptr = np.concatenate([[0], np.cumsum(counts[users])]).astype(np.int64)
    index = np.arange(mask_ptr[-1]) + np.repeat(offsets[users] - mask_ptr[:-1], counts[users])
    mask_items = data.items[known][index].astype(np.int64)

    history = samples.eval_histories.read(users, None, times, samples.history)
    table = system.table()
    at = {int(user): i for i, user in enumerate(users)}

    def score(batch: np.ndarray):
        place = np.fromiter((at[int(u)] for u in batch), np.int64, len(batch))
        return system.score_all(batch, history[place], table)

    depth = max(ks)
    if len(users):
        lists = rank_all(score, users, mask_ptr, mask_items, depth, user_batch)
    else:
        lists = TopK(np.zeros((0, depth), np.int64), np.zeros((0, depth), np.float32))
    metrics, per_user = topk_metrics(lists.items, ptr, items, ks, buckets_of(samples.train_counts))
    return TopKResult(users, lists, metrics, undefined(metrics), per_user)
