"""Batches whose samples all have one label, and batches of one sample: steps like any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from systems import trainer

SYSTEMS: dict[str, dict[str, Any]] = {
    "em3": {},
    "din": {"model__name": "din"},
    "dcnv2": {"model__name": "dcnv2"},
    "hybrid": {"paradigm": "hybrid", "content__image__train": "none", "content__text__train": "none"},
}


@pytest.mark.parametrize("count", [1, 24])
@pytest.mark.parametrize("case", SYSTEMS)
def test_a_batch_of_one_label_moves_predictions_towards_it(shop: Path, tmp_path: Path, case: str, count: int) -> None:
    loop = trainer(shop, tmp_path, **SYSTEMS[case], train__warmup_steps=0)
    order = loop.task.begin_epoch(0)
    batch = loop.task.batch(order, 0, 0)
    for label in (1, 0):
        rows = order[np.flatnonzero(batch.labels.flatten().numpy() == label)[:count]]
        assert (loop.task.batch(rows, 0, 0).labels == label).all() and len(rows) == count
        losses = []
        for _ in range(12):
            before = loop.progress.sums.get("loss/bce", 0.0)
            loop._step(rows)
            losses.append(loop.progress.sums["loss/bce"] - before)
        assert losses[-1] < losses[0], label
    assert all(torch.isfinite(p).all() for p in loop.task.parameters())
