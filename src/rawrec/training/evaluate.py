"""The evaluation of a system on one part of its data: impressions, and lists over the full catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from torch import Tensor

from rawrec.config.training import Seen
from rawrec.data.dataset import Dataset
from rawrec.evaluation.ctr import buckets_of
from rawrec.evaluation.topk import TopK, rank_all, topk_metrics, undefined
from rawrec.files import write_table
from rawrec.training.metrics import Scorer, impression_metrics
from rawrec.training.tasks.base import PARTS

__all__ = ["PARTS", "ListTask", "TopKResult", "evaluate_part", "evaluate_topk", "make_lists"]


@dataclass
class TopKResult:
    users: np.ndarray  # user rows, those with a positive in the part
    lists: TopK
    metrics: dict[str, float | None]
    reasons: dict[str, str]
    per_user: dict[str, np.ndarray]

    def write(self, path: Path) -> None:
        """A row per user: their list of item rows, and their metrics."""
        frame = pl.DataFrame({"user": self.users.astype(np.int32), "items": self.lists.items.tolist()})
        frame = frame.with_columns(*(pl.Series(k, v) for k, v in self.per_user.items() if "/" not in k))
        write_table(frame.to_arrow(), path)


def evaluate_part(system: Scorer, part: int, seed: int) -> tuple[dict[str, Any], dict[str, str], pl.DataFrame]:
    """CTR metrics of a part from the bank as it stands, why some are undefined, and the scores behind them."""
    rng = np.random.default_rng([seed, 7919, part])
    sample = system.samples.impressions(system.samples.rows(part), part, rng)
    scores = system.score_impressions(sample, part)
    metrics, reasons = impression_metrics(system, sample, scores)
    if system.samples.positive_only:
        metrics["sampled"] = system.samples.n_negatives
        metrics["undrawn"] = system.samples.undrawn[part]
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


class ListTask(NamedTuple):
    """Users `[n]` (rows, ascending) to make lists for. What user i took is `items[ptr[i]:ptr[i + 1]]`; what is left out
    of the list, because it was seen before, is `mask_items[mask_ptr[i]:mask_ptr[i + 1]]`. repeated: pairs of a user and
    an item that were taken and are left out: nobody can find them, so they are not asked for."""

    users: np.ndarray
    ptr: np.ndarray
    items: np.ndarray
    mask_ptr: np.ndarray
    mask_items: np.ndarray
    repeated: int = 0

    @classmethod
    def of(cls, data: Dataset, taken: np.ndarray, left_out: np.ndarray, keep: bool = False) -> ListTask:
        """taken, left_out: bool of each interaction of the dataset; the users are those with one to be found.

        keep: what is left out is asked for all the same, and missed, as some published protocols do.
        """
        again = repeats(data, taken, left_out)
        count = len(np.unique(_pairs(data, again)))
        if not keep:
            taken = taken.copy()
            taken[again] = False
        users = np.unique(data.users[taken]).astype(np.int64)
        return cls(users, *_items_of(data, taken, users), *_items_of(data, left_out, users), count)


def seen_rows(exclude: Seen, positive: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """The `earlier` interactions (bool) whose items `eval.exclude_seen` leaves out of a list."""
    return earlier & {"positives": positive, "interactions": True, "none": False}[exclude]


def repeats(data: Dataset, taken: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Rows of the interactions `taken` (bool) whose user and item are also those of one in `before` (bool)."""
    rows = np.flatnonzero(taken)
    return rows[np.isin(_pairs(data, rows), _pairs(data, np.flatnonzero(before)))]


def _pairs(data: Dataset, rows: np.ndarray) -> np.ndarray:
    """User and item of interactions as one number."""
    return data.users[rows].astype(np.int64) * data.n_items + data.items[rows]


def _items_of(data: Dataset, chosen: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The items of the chosen interactions (bool) of each of `users`, as ptr `[n + 1]` and items."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(data.users[rows], kind="stable")]
    counts = np.bincount(data.users[rows], minlength=data.n_users)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    ptr = np.concatenate([[0], np.cumsum(counts[users])]).astype(np.int64)
    index = np.arange(ptr[-1]) + np.repeat(offsets[users] - ptr[:-1], counts[users])
    return ptr, data.items[rows[index]].astype(np.int64)


def make_lists(
    score: Callable[[np.ndarray], Tensor], task: ListTask, depth: int, user_batch: int, workers: int = 1
) -> TopK:
    """The `depth` best items of every user of the task, see `rank_all`."""
    if not len(task.users):
        return TopK(np.zeros((0, depth), np.int64), np.zeros((0, depth), np.float32))
    return rank_all(score, task.users, task.mask_ptr, task.mask_items, depth, user_batch, workers)


def evaluate_topk(system: Scorer, part: int, ks: list[int], user_batch: int = 64) -> TopKResult:
    """Lists over the full catalogue for every user with a positive in the part.

    The history is what the user did before the first such positive; what was seen in the earlier parts is left out of
    the lists, see `eval.exclude_seen`, and not asked for. Users, positives and masks are CSR; no users x items matrix
    exists but for `user_batch` users at a time.
    """
    samples, data = system.samples, system.data
    taken = (samples.part == part) & samples.positive
    earlier = samples.history_only | ((samples.part >= 0) & (samples.part < part))
    task = ListTask.of(data, taken, seen_rows(system.cfg.eval.exclude_seen, samples.positive, earlier))
    times = None
    if samples.times is not None:
        first = np.full(data.n_users, np.iinfo(np.int64).max)
        np.minimum.at(first, data.users[taken], samples.times[taken])
        times = first[task.users]
    history = samples.eval_histories.read(task.users, None, times, samples.history)
    table = system.table()

    def score(batch: np.ndarray) -> Tensor:
        return system.score_all(batch, history[np.searchsorted(task.users, batch)], table)

    lists = make_lists(score, task, max(ks), user_batch)
    return judge(task, lists, ks, buckets_of(samples.train_counts), system.cfg.own_metrics("lists"))


def judge(
    task: ListTask, lists: TopK, ks: list[int], buckets: Mapping[str, np.ndarray], own: Mapping[str, Any]
) -> TopKResult:
    """Metrics of the lists of a task, registered ones (`own`) among them.

    `topk_repeated`, where there are any: see `ListTask.repeated`.
    """
    metrics, per_user = topk_metrics(lists.items, task.ptr, task.items, ks, buckets, own)
    if task.repeated:
        metrics["topk_repeated"] = task.repeated
    return TopKResult(task.users, lists, metrics, undefined(metrics), per_user)
