"""Metrics of scored impressions under a task's data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from rawrec.config import Config
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Impressions, Samples
from rawrec.evaluation.ctr import buckets_of, conditional, ctr_metrics
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
    """CTR metrics of scored impressions by bucket; for generated data also the share of the best possible AUC.

    scores: probabilities `[n, candidates]`, of several labels `[n, candidates, labels]`. The metrics of labels beside
    the main one are called buy/auc; and buy|click/auc over impressions with a positive main label, where the other one
    never comes without it. Impressions for which a label is unknown are left out of its metrics.
    """
    metrics: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    several = scores.reshape(-1, 1 + len(sample.further))
    for judged in judgements(task, sample, several):
        found, why = _metrics_of(task, judged)
        metrics |= {judged.prefix + name: value for name, value in found.items()}
        reasons |= {judged.prefix + name: reason for name, reason in why.items()}
    return metrics, reasons


class Judged(NamedTuple):
    """What one set of metrics is of, all `[n]`. best: the true probabilities, of generated data."""

    prefix: str
    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    best: np.ndarray | None

    def part(self, mask: np.ndarray) -> Judged:
        best = None if self.best is None else self.best[mask]
        users, items, labels, scores = (values[mask] for values in self[1:5])
        return Judged(self.prefix, users, items, labels, scores, best)


def judgements(task: Scorer, sample: Impressions, scores: np.ndarray) -> Iterator[Judged]:
    """The main label, each further one, and those given the main one; scores `[n, labels]`."""
    main, generated = task.samples.label, task.data.meta.generated
    users, items = np.repeat(sample.users, sample.items.shape[1]), sample.items.ravel()
    for k, (name, values) in enumerate({main: sample.labels, **sample.further}.items()):
        labels, best = values.ravel(), task.data.true_probability(name)[sample.rows] if generated else None
        known = ~np.isnan(labels)
        yield Judged(f"{name}/" if k else "", users, items, labels, scores[:, k], best).part(known)
        if k and name in task.samples.nested:
            best = task.data.true_given_click(name) if generated else None
            best = None if best is None else best[sample.rows]
            given = conditional(scores[:, k], scores[:, 0])
            rows = known & (sample.labels.ravel() == 1)
            yield Judged(f"{name}|{main}/", users, items, labels, given, best).part(rows)


def _metrics_of(task: Scorer, judged: Judged) -> tuple[dict[str, float | None], dict[str, str]]:
    buckets = {name: mask[judged.items] for name, mask in buckets_of(task.samples.train_counts).items()}
    own = task.cfg.own_metrics("impressions")
    metrics, reasons = ctr_metrics(judged.labels, judged.scores, judged.users, buckets, own)
    return metrics | best_possible(judged, metrics, buckets), reasons


def best_possible(
    judged: Judged, metrics: dict[str, float | None], buckets: dict[str, np.ndarray]
) -> dict[str, float | None]:
    """For generated data `auc_best` (AUC* of the true probability) and `share` = (AUC - .5) / (AUC* - .5)."""
    if judged.best is None:
        return {}
    best, _ = ctr_metrics(judged.labels, judged.best, judged.users, buckets)
    result: dict[str, float | None] = {}
    for prefix in ("", *(f"{name}/" for name in buckets)):
        top, got = best[f"{prefix}auc"], metrics[f"{prefix}auc"]
        result[f"{prefix}auc_best"] = top
        result[f"{prefix}share"] = (
            (got - 0.5) / (top - 0.5) if top is not None and got is not None and top > 0.5 else None
        )
    return result
