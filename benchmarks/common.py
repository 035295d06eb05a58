"""What the benchmarks share: a generated shop, a trainer on it, and JSON lines."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rawrec.config import resolve
from rawrec.data.dataset import Dataset
from rawrec.training.run import RunFolder
from rawrec.training.system import System
from rawrec.training.trainer import Trainer


def emit(**values: Any) -> None:
    """One JSON line on standard output, numbers to four digits."""
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}), flush=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def folder(given: Path | None) -> Iterator[Path]:
    """The folder given, made where it is not there and kept; else a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="rawrec-benchmark-") as name:
        yield Path(name)


def make_trainer(
    data: Dataset, run: Path, overrides: dict[str, Any], system_class: Callable[..., System] = System
) -> Trainer:
    """A trainer of the preset em3 before its first step, its bank filled; static columns are cached in the dataset."""
    cfg = resolve("em3", {"train.device": "cpu", **overrides})
    system = system_class(cfg, data, data.path / "cache")
    trainer = Trainer(system, RunFolder.create(run, system.cfg, data, overwrite=True))
    system.refresh(None, 0)
    return trainer


def batches(rows: np.ndarray, size: int, count: int, seed: int = 0) -> list[np.ndarray]:
    """`count` batches of `size` of the `rows`, drawn without repeats within a batch."""
    rng = np.random.default_rng(seed)
    return [rng.choice(rows, min(size, len(rows)), replace=False) for _ in range(count)]


def live_rows(trainer: Trainer, rows: np.ndarray) -> torch.Tensor:
    """The items that a step of these samples encodes."""
    system = trainer.system
    sample = trainer.samples.impressions(rows, 0, np.random.default_rng(0))
    _, items, history = system.tensors(sample, 0)
    return system.live_rows(items.flatten(), history.flatten(), torch.Generator().manual_seed(0))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
