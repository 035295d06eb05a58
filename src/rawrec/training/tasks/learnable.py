"""Whether there is something for a ranker to learn from, and to choose by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rawrec.config import Config
from rawrec.data.dataset import Dataset
from rawrec.data.flat import spans
from rawrec.data.sampling import Samples
from rawrec.errors import UserError


def check_parts(cfg: Config, data: Dataset, samples: Samples) -> None:
    """UserError where training has nothing to learn from, or validation nothing to choose by."""
    rows = samples.rows(0)
    if not len(rows):
        raise UserError(f"data.split={cfg.data.split!r}: the training part has {samples.emptiness(0)}")
    for name, labels in {cfg.data.label: samples.labels, **samples.further}.items():
        if all(np.isnan(labels[rows[at]]).all() for at in spans(len(rows))):
            raise UserError(f"label {name!r}: no row of the training part of data.split={cfg.data.split!r} has it")
    low, high = span_of(samples.labels, rows)
    if not samples.positive_only and low == high:
        rows = rows[~np.isnan(samples.labels[rows])]
        positive, raw = samples.positive[rows], data.label(cfg.data.label)[rows]
        span = f"{raw.min():g}" if raw.min() == raw.max() else f"{raw.min():g} to {raw.max():g}"
        which = "above 0, which is positive" if positive[0] else "0 or less, which is negative"
        raise UserError(
            f"data.label={cfg.data.label!r}: every training label is {which} ({span}); a ranking model needs "
            "positive and negative examples. Choose another label, import with a threshold that tells them apart, "
            "or import without one for positive-only data"
        )
    if not len(samples.rows(1)):
        raise UserError(f"data.split={cfg.data.split!r}: the validation part has {samples.emptiness(1)}")


def check_contrast(cfg: Config, data: Dataset, queries: bool) -> None:
    """UserError where LEMUR's contrast needs what is not there, or queries would learn from nothing.

    queries: whether the dataset has any. cfg: model.sqdc_anchor is settled.
    """
    model, query = cfg.model, cfg.content.query
    if model.contrasts_queries and not queries:
        raise UserError(
            f"model.sqdc_weight={model.sqdc_weight} holds documents against queries, and {data.path} "
            "has none: import it with a column of queries, or use model.sqdc_anchor=auto"
        )
    if model.sqdc_weight and model.sqdc_anchor == "history" and not cfg.data.history:
        without = "" if queries else f" where {data.path} has no queries"
        raise UserError(
            f"data.history=0: model.sqdc_weight={model.sqdc_weight} holds an item against the closest earlier one of "
            f"the history{without}; use data.history=20, for example, or model.sqdc_weight=0"
        )
    if model.sqdc_weight and "session" in model.sqdc_mask and not (data.has_sessions and len(data.session_ids)):
        raise UserError(
            f"model.sqdc_mask=[{','.join(model.sqdc_mask)}]: {data.path} has no sessions: import it with a column of "
            "sessions (--session), or leave session out"
        )
    taught = model.ranking_gradient or model.contrasts_queries
    if queries and model.reads_queries and not taught and query.encoder != "shared" and query.train == "all":
        what = "is 0" if not model.sqdc_weight else "holds items against items (model.sqdc_anchor=history)"
        raise UserError(
            f"model.ranking_gradient=false: queries learn by model.sqdc_weight alone then, which {what}; set "
            "content.query.train=none, or use model.sqdc_weight with model.sqdc_anchor=query"
        )


def small_bank(cfg: Config, data: Dataset) -> Iterator[str]:
    """What is told of a bank that cannot hold what one step makes."""
    shown = 1 + cfg.data.negatives if data.positive_only else 1
    most = min(cfg.train.batch_size * cfg.train.accumulate * shown, data.n_items)
    held = cfg.bank.capacity
    if held is not None and held < most:
        yield (
            f"bank.capacity={held}: a step may show {most} items, of which the bank keeps the last {held} made, so "
            "that histories of the next step read little else. Raise it, or lower train.batch_size"
        )


def one_sided(samples: Samples) -> Iterator[str]:
    """What is told of labels beside the main one that are all equal in training."""
    for name, labels in samples.further.items():
        low, high = span_of(labels, samples.rows(0))
        if low == high:
            yield f"label {name}: every training row is {low:g}, so that is all that the model learns of it"


def span_of(labels: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """The least and the largest label that any of the `rows` has; rows are read a span at a time."""
    low, high = np.inf, -np.inf
    for at in spans(len(rows)):
        values = labels[rows[at]]
        low, high = np.fmin(low, np.fmin.reduce(values)), np.fmax(high, np.fmax.reduce(values))
    return float(low), float(high)
