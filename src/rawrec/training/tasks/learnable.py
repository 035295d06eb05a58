"""Whether there is something for a ranker to learn from, and to choose by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rawrec.config import Config
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Samples
from rawrec.errors import UserError


def check_parts(cfg: Config, data: Dataset, samples: Samples) -> None:
    """UserError where training has nothing to learn from, or validation nothing to choose by."""
    rows = samples.rows(0)
    if not len(rows):
        raise UserError(f"data.split={cfg.data.split!r}: the training part has {samples.emptiness(0)}")
    for name, labels in {cfg.data.label: samples.labels, **samples.further}.items():
        if np.isnan(labels[rows]).all():
            raise UserError(f"label {name!r}: no row of the training part of data.split={cfg.data.split!r} has it")
    rows = rows[~np.isnan(samples.labels[rows])]
    positive = samples.positive[rows]
    if not samples.positive_only and positive.min() == positive.max():
        raw = data.label(cfg.data.label)[rows]
        span = f"{raw.min():g}" if raw.min() == raw.max() else f"{raw.min():g} to {raw.max():g}"
        which = "above 0, which is positive" if positive[0] else "0 or less, which is negative"
        raise UserError(
            f"data.label={cfg.data.label!r}: every training label is {which} ({span}); a ranking model needs "
            "positive and negative examples. Choose another label, import with a threshold that tells them apart, "
            "or import without one for positive-only data"
        )
    if not len(samples.rows(1)):
        raise UserError(f"data.split={cfg.data.split!r}: the validation part has {samples.emptiness(1)}")


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
        values = labels[samples.rows(0)]
        values = values[~np.isnan(values)]
        if values.min() == values.max():
            yield f"label {name}: every training row is {values[0]:g}, so that is all that the model learns of it"
