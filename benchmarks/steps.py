"""Training steps to measure: a trainer on a generated shop, and batches for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rawrec.config import resolve
from rawrec.data.dataset import Dataset
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask


def make_trainer(
    data: Dataset, run: Path, overrides: dict[str, Any], system_class: Callable[..., ImpressionTask] = ImpressionTask
) -> Loop[ImpressionTask]:
    """A trainer of the preset em3 before its first step, its bank filled; static columns are cached in the dataset."""
    torch.use_deterministic_algorithms(True, warn_only=True)  # as in a run
    cfg = resolve("em3", {"train.device": "cpu", **overrides})
    system = system_class(cfg, data, data.path / "cache")
    trainer = Loop(system, RunFolder.create(run, system.cfg, data, overwrite=True))
    system.refresh(None, 0)
    return trainer


def batches(rows: np.ndarray, size: int, count: int, seed: int = 0) -> list[np.ndarray]:
    """`count` batches of `size` of the `rows`, drawn without repeats within a batch."""
    rng = np.random.default_rng(seed)
    return [rng.choice(rows, min(size, len(rows)), replace=False) for _ in range(count)]


def live_rows(trainer: Loop[ImpressionTask], rows: np.ndarray) -> torch.Tensor:
    """The items that a step of these samples encodes."""
    system = trainer.task
    sample = trainer.task.samples.impressions(rows, 0, np.random.default_rng(0))
    _, items, history = system.tensors(sample, 0)
    assert system.live is not None
    return system.live.rows(items, history, torch.Generator().manual_seed(0))[1]
