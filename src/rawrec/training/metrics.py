"""Metrics of scored impressions under a task's data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from rawrec.config import Config
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Impressions, Samples
from rawrec.evaluation.ctr import buckets_of, ctr_metrics
from rawrec.models.ranking.context import Moments


class Scorer(Protocol):
    """What is judged by impressions: `ImpressionTask`, seen from below."""

    cfg: Config
    data: Dataset
    samples: Samples
    observe: Callable[..., None]

    def score_impressions(self, sample: Impressions, part: int) -> np.ndarray: ...
    def score_all(self, moments: Moments, history: np.ndarray, table: Any) -> Tensor: ...
    def table(self) -> Any: ...


def impression_metrics(
    task: Scorer, sample: Impressions, scores: np.ndarray
) -> tuple[dict[str, float | None], dict[str, str]]:
    """CTR metrics of scored impressions by bucket; for generated data also the share of the best possible AUC."""
    users = np.repeat(sample.users, sample.items.shape[1])
    items, labels = sample.items.ravel(), sample.labels.ravel()
    buckets = {name: mask[items] for name, mask in buckets_of(task.samples.train_counts).items()}
    own = task.cfg.own_metrics("impressions")
    metrics, reasons = ctr_metrics(labels, scores.ravel(), users, buckets, own)
    return metrics | best_possible(task.data, sample, metrics, buckets), reasons


def best_possible(
    data: Dataset, sample: Impressions, metrics: dict[str, float | None], buckets: dict[str, np.ndarray]
) -> dict[str, float | None]:
    """For generated data `auc_best` (AUC* of the true click probability) and `share` = (AUC - .5) / (AUC* - .5)."""
    if not data.meta.generated:
        return {}
    best, _ = ctr_metrics(sample.labels.ravel(), data.column("probability")[sample.rows], sample.users, buckets)
    result: dict[str, float | None] = {}
    for prefix in ("", *(f"{name}/" for name in buckets)):
        top, got = best[f"{prefix}auc"], metrics[f"{prefix}auc"]
        result[f"{prefix}auc_best"] = top
        result[f"{prefix}share"] = (
            (got - 0.5) / (top - 0.5) if top is not None and got is not None and top > 0.5 else None
        )
    return result
