"""Metrics of scored impressions under a task's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Impressions
from rawrec.evaluation.ctr import buckets_of, ctr_metrics

if TYPE_CHECKING:
    from rawrec.training.tasks.impressions import ImpressionTask


def impression_metrics(
    task: ImpressionTask, sample: Impressions, scores: np.ndarray
) -> tuple[dict[str, float | None], dict[str, str]]:
    """CTR metrics of scored impressions by bucket; for generated data also the share of the best possible AUC."""
    users = np.repeat(sample.users, sample.items.shape[1])
    items, labels = sample.items.ravel(), sample.labels.ravel()
    buckets = {name: mask[items] for name, mask in buckets_of(task.samples.train_counts).items()}
    metrics, reasons = ctr_metrics(labels, scores.ravel(), users, buckets)
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
