"""What a training step costs, by the numbers of users and items: the same batch, ever larger tables.

Each model makes whole optimiser steps (samples, histories, negatives, bank, forward, backward, checks, optimiser,
averages) on data in memory: 2,000 users are active among `n`, each with 200 interactions, and items are any of `n`.
Steps of `n` and of the smallest size take turns in one process; printed are medians of processor seconds, so that
other work on the machine counts as little as it can, and the ratio of the two. Row `id`: a ranker on ids; `em3`: the
hybrid one on ready-made features; `negatives`: `id` on data with positives alone; `bpr`: the retrieval model, with
train.optimizer=sparse_adam.

example: python benchmarks/scale.py id bpr --sizes 300000 1000000
"""

from __future__ import annotations

import argparse
import gc
import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from common import emit, say

from rawrec.config import resolve
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.meta import Columns
from rawrec.training.job import task_of
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder

LEAST = 2000
ACTIVE, EACH = 2000, 200
ASKED = {300_000: 1.5, 1_000_000: 2.0, 10_000_000: 2.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "id": ("id", {}),
    "negatives": ("id", {}),
    "em3": ("em3", {"paradigm": "hybrid", "content.dim": 16, "content.fusion.kind": "concat"}),
    "bpr": ("bpr", {"train.optimizer": "sparse_adam", "train.metric": "recall@20"}),
}


NONE = Columns()


@dataclass
class Shop:
    """Interactions in memory: what a task reads of a `Dataset`."""

    n: int
    positive_only: bool
    width: int = 0  # of a ready-made feature of every item
    path: Path = Path("generated")
    launched: None = None
    has_queries: bool = False
    has_sessions: bool = False
    meta: Any = field(
        default_factory=lambda: SimpleNamespace(
            splits={"default": {}}, generated=False, users=NONE, context=NONE, asked=()
        )
    )
    categorical = numeric = user_categorical = user_numeric = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.n_users = self.n_items = self.n
        self.n_interactions = ACTIVE * EACH
        active = rng.choice(self.n, ACTIVE, replace=False).astype(np.int32)
        self.timestamps = np.arange(self.n_interactions)
        self.users = rng.permutation(np.repeat(active, EACH))
        self.items = rng.integers(0, self.n, self.n_interactions, dtype=np.int32)
        self._label = np.ones(len(self.users), np.float32)
        if not self.positive_only:
            self._label[rng.random(len(self.users)) < 0.5] = 0
        self.fields = Fields(feature={"vector": self.width} if self.width else {})
        self.user_ids = self.item_ids = np.arange(self.n)

    def in_order(self, chosen: np.ndarray) -> np.ndarray:
        return np.flatnonzero(chosen)

    def split(self, name: str) -> np.ndarray:
        part = np.zeros(self.n_interactions, np.int8)
        part[-400:-200], part[-200:] = 1, 2
        return part

    def retrieval_split(self, name: str) -> np.ndarray:
        return self.split(name)

    def history_rows(self, name: str) -> np.ndarray:
        return np.zeros(self.n_interactions, bool)

    def positive(self, name: str) -> np.ndarray:
        return self._label > 0

    def binary(self, name: str) -> np.ndarray:
        return self._label

    def feature(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        values = np.random.default_rng(2).random((self.n_items, self.width), np.float32)
        return values, np.ones(self.n_items, bool)


class Steps:
    """A trainer on a shop, and its steps one by one."""

    def __init__(self, model: str, n: int, batch: int, folder: Path):
        preset, settings = MODELS[model]
        shop = cast(Dataset, Shop(n, positive_only=model in ("negatives", "bpr"), width=16 if model == "em3" else 0))
        cfg = resolve(preset, {"train.device": "cpu", "train.batch_size": batch, **settings})
        run = RunFolder(folder / f"{model}-{n}")
        run.path.mkdir()
        started = time.perf_counter()
        task = task_of(cfg)(cfg, shop, folder)
        self.loop = Loop(task, run)
        task.begin()
        self.order = task.begin_epoch(0)
        self.made, self.at, self.batch = time.perf_counter() - started, 0, batch

    def step(self) -> float:
        """Processor seconds of the next step."""
        rows = self.order[self.at : self.at + self.batch]
        self.at += self.batch
        started = time.process_time()
        self.loop._step(rows)
        return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS), help=f"of {', '.join(MODELS)}; default: all")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(ASKED), help="numbers of users and of items")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40, help="steps timed of each size")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("warn")  # as in a run
    cast(Any, torch.utils.deterministic).fill_uninitialized_memory = False
    for model in args.models:
        for n in args.sizes:
            say(f"{model}, {n:,} users and items")
            with tempfile.TemporaryDirectory() as scratch:
                measure(model, n, args.batch, args.warmup, args.steps, Path(scratch))
            gc.collect()


def measure(model: str, n: int, batch: int, warmup: int, count: int, folder: Path) -> None:
    least, large = Steps(model, LEAST, batch, folder), Steps(model, n, batch, folder)
    times = np.array([[steps.step() for steps in (least, large)] for _ in range(warmup + count)])[warmup:]
    first, second = np.median(times, 0).tolist()
    values: dict[str, Any] = {
        "model": model,
        "users": n,
        "items": n,
        "batch": batch,
        "step_ms": 1e3 * second,
        "sample_us": 1e6 * second / batch,
        f"step_ms_{LEAST}": 1e3 * first,
        "ratio": second / first,
        "made_seconds": large.made,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    if n in ASKED:
        values |= {"asked": ASKED[n], "met": second / first <= ASKED[n]}
    emit(**values)


if __name__ == "__main__":
    main()
