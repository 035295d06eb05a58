"""Metrics of scored impressions under a task's data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from rawrec.config import Config
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Histories, Impressions, Samples
from rawrec.evaluation.ctr import buckets_of, conditional, ctr_metrics
from rawrec.evaluation.shown import SHOWN, shown_lists
from rawrec.models.ranking.context import Moments
from rawrec.world import World


class Scorer(Protocol):
    """What is judged by impressions: `ImpressionTask`, seen from below."""

    cfg: Config
    data: Dataset
    samples: Samples
    observe: Callable[..., None]
    world: World

    def score_impressions(self, sample: Impressions, part: int) -> np.ndarray: ...
    def score_all(self, moments: Moments, history: np.ndarray, table: Any) -> Tensor: ...
    def table(self) -> Any: ...
    def past_of(
        self, histories: Histories, users: np.ndarray, targets: np.ndarray | None, times: np.ndarray | None
    ) -> np.ndarray | None: ...


def impression_metrics(
    task: Scorer, sample: Impressions, scores: np.ndarray
) -> tuple[dict[str, float | None], dict[str, str]]:
    """CTR metrics of scored impressions by bucket, and of what sessions showed; for generated data also the shares of
    the best possible AUC and QAUC.

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
    """What one set of metrics is of, all `[n]`. best: the true probabilities, of generated data. query, session: None
    where the dataset has none."""

    prefix: str
    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    best: np.ndarray | None
    query: np.ndarray | None
    session: np.ndarray | None

    def part(self, mask: np.ndarray) -> Judged:
        users, items, labels, scores = (values[mask] for values in self[1:5])
        best, query, session = (None if values is None else values[mask] for values in self[5:])
        return Judged(self.prefix, users, items, labels, scores, best, query, session)


def judgements(task: Scorer, sample: Impressions, scores: np.ndarray) -> Iterator[Judged]:
    """The main label, each further one, and those given the main one; scores `[n, labels]`."""
    main, generated = task.samples.label, task.data.meta.generated
    width = sample.items.shape[1]
    users, items = np.repeat(sample.users, width), sample.items.ravel()
    asked = [None if rows is None else np.repeat(rows, width) for rows in (sample.query, sample.session)]
    for k, (name, values) in enumerate({main: sample.labels, **sample.further}.items()):
        labels, best = values.ravel(), task.data.true_probability(name)[sample.rows] if generated else None
        known = ~np.isnan(labels)
        yield Judged(f"{name}/" if k else "", users, items, labels, scores[:, k], best, *asked).part(known)
        if k and name in task.samples.nested:
            best = task.data.true_given_click(name) if generated else None
            best = None if best is None else best[sample.rows]
            given = conditional(scores[:, k], scores[:, 0])
            rows = known & (sample.labels.ravel() == 1)
            yield Judged(f"{name}|{main}/", users, items, labels, given, best, *asked).part(rows)


def _metrics_of(task: Scorer, judged: Judged) -> tuple[dict[str, float | None], dict[str, str]]:
    buckets = {name: mask[judged.items] for name, mask in buckets_of(task.samples.train_counts).items()}
    own = task.cfg.own_metrics("impressions")
    metrics, reasons = ctr_metrics(judged.labels, judged.scores, judged.users, buckets, own, judged.query)
    shown, why = shown_metrics(judged, task.cfg.eval.shown)
    return metrics | best_possible(judged, metrics, buckets) | shown, reasons | why


def shown_metrics(judged: Judged, ks: list[int]) -> tuple[dict[str, float | None], dict[str, str]]:
    """Metrics of what sessions showed, and why some are undefined; none where the dataset has no sessions."""
    if judged.session is None:
        return {}, {}
    inside = judged.session >= 0
    names = [*(f"{SHOWN}ndcg@{k}" for k in ks), f"{SHOWN}mrr"]
    values: dict[str, float | None] = dict.fromkeys([*names, f"{SHOWN}sessions", f"{SHOWN}skipped_sessions"])
    values[f"{SHOWN}without_session"] = int((~inside).sum())
    lost = int((~np.isfinite(judged.scores)).sum())
    if lost or not inside.any():
        why = f"{lost} of {len(inside)} predictions are not finite" if lost else "no impression is of a session"
        return values, dict.fromkeys(names, why if len(inside) else "no impressions")
    found = shown_lists(judged.labels[inside], judged.scores[inside], judged.session[inside], ks)
    values[f"{SHOWN}sessions"], values[f"{SHOWN}skipped_sessions"] = len(found.sessions), found.skipped
    if not len(found.sessions):
        return values, dict.fromkeys(names, "no session has both labels")
    return values | {name: float(of_each.mean()) for name, of_each in found.values().items()}, {}


def best_possible(
    judged: Judged, metrics: dict[str, float | None], buckets: dict[str, np.ndarray]
) -> dict[str, float | None]:
    """For generated data `auc_best` (AUC* of the true probability) and `share` = (AUC - .5) / (AUC* - .5); with queries
    also `qauc_best` and `qauc_share`."""
    if judged.best is None:
        return {}
    best, _ = ctr_metrics(judged.labels, judged.best, judged.users, buckets, queries=judged.query)
    result: dict[str, float | None] = {}
    for name, share in (("auc", "share"), ("qauc", "qauc_share")) if judged.query is not None else (("auc", "share"),):
        for prefix in ("", *(f"{bucket}/" for bucket in buckets)):
            top, got = best[prefix + name], metrics[prefix + name]
            result[f"{prefix}{name}_best"] = top
            result[prefix + share] = (
                (got - 0.5) / (top - 0.5) if top is not None and got is not None and top > 0.5 else None
            )
    return result
