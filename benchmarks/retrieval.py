"""Seconds and memory of one epoch and one evaluation of the retrieval models, beside what their mathematics needs.

The floor of an epoch is the time that its bare sparse products (the reading of a batch's rows and the adding up of
their gradients are some too), matrix products, Fourier transforms and Adam updates take: those of a step are noted
while it runs, and done again with the same tensors and nothing between them. The floor of an evaluation is the bare
product of users and items, and `torch.topk` of 20. Each model runs in a process of its own, so that its peak memory is
its own. Without --data the graph is drawn at random, of the size of Amazon Baby, with random features 4096 and 384
wide: for times, not for quality.

example: python benchmarks/retrieval.py --threads 2 bpr lightgcn freedom:model.train_features=false
         python benchmarks/retrieval.py --scale
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from common import emit, say, seconds
from torch.utils._python_dispatch import TorchDispatchMode

from rawrec.config import RETRIEVAL, parse_overrides, resolve
from rawrec.data.dataset import Dataset, Fields
from rawrec.onednn import linear
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.pairs import PairTask, user_batch

BOTH = ("bm3", "freedom")  # published with trained features, the larger part of their time
MODELS = [
    *(name for name, record in RETRIEVAL.items() if not record.fitted),
    *(f"{name}:model.train_features=false" for name in BOTH),
]
PRODUCTS = (
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "_linear_pointwise",
    "_embedding_bag",
    "_embedding_bag_forward_only",
    "_fused_adam_",
)
ROWS = ("embedding", "embedding_dense_backward", "index", "index_select", "index_add", "index_add_")


@dataclass
class Graph:
    """Random interactions in memory, and random features: what a `PairTask` reads of a `Dataset`."""

    n_users: int
    n_items: int
    n_interactions: int
    widths: dict[str, int] = field(default_factory=dict)
    path: Path = Path("generated")

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        popularity = rng.zipf(1.6, 4 * self.n_items).astype(np.float64)[: self.n_items].clip(max=self.n_items)
        cumulative = np.cumsum(popularity) / popularity.sum()
        users = rng.integers(0, self.n_users, 2 * self.n_interactions)
        items = np.searchsorted(cumulative, rng.random(len(users)))
        keys = rng.permutation(np.unique(users * self.n_items + items))[: self.n_interactions]
        self.users, self.items = (rows.astype(np.int32) for rows in np.divmod(keys, self.n_items))
        self.fields = Fields(feature=self.widths)
        self.user_ids, self.item_ids = np.arange(self.n_users), np.arange(self.n_items)

    def retrieval_split(self, name: str) -> np.ndarray:
        return np.random.default_rng(1).choice(3, len(self.users), p=[0.74, 0.13, 0.13]).astype(np.int8)

    def positive(self, name: str) -> np.ndarray:
        return np.ones(len(self.users), bool)

    def feature(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        values = np.random.default_rng(2).normal(size=(self.n_items, self.widths[name]))
        return values.astype(np.float32), np.ones(self.n_items, bool)


class Noted(TorchDispatchMode):
    """Notes the products and updates that happen inside, with their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in (*PRODUCTS, *ROWS) or name.startswith("_fft"):
            self.calls.append(lambda: func(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def floor_of(work: Callable[[], object]) -> float:
    """Does `work` once, then its products and updates alone; seconds that these take, at best of three times."""
    noted = Noted()
    with noted:
        work()
    return min(seconds(lambda: [call() for call in noted.calls]) for _ in range(3))


def measure(model: str, data: Any, overrides: dict[str, Any], epochs: int, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("warn")  # as in a run
    cast(Any, torch.utils.deterministic).fill_uninitialized_memory = False
    cfg = resolve(model, {"train.device": "cpu", "eval.topk": [20], **overrides})
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        system = PairTask(cfg, cast(Dataset, data), Path(scratch))
        run = RunFolder(Path(scratch) / "run")
        run.path.mkdir()
        trainer = Loop(system, run)
        made = time.perf_counter() - started
        epoch = min(_epoch(trainer) for _ in range(epochs))
        evaluation = min(seconds(lambda: system.evaluate(1, buckets=False)) for _ in range(epochs))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        floor, floor_evaluation = _floor(trainer), _floor_of_evaluation(system)
    options = {key: value for key, value in overrides.items() if key.startswith("model.")}
    emit(
        model=model, **options, threads=threads, seconds=epoch + evaluation, epoch=epoch, epoch_floor=floor,
        epoch_ratio=epoch / floor, evaluation=evaluation, evaluation_floor=floor_evaluation,
        evaluation_ratio=evaluation / floor_evaluation, setup=made, peak_mb=round(peak),
        users=data.n_users, items=data.n_items, pairs=len(trainer.task.pairs.users),
    )  # fmt: skip


def _epoch(trainer: Loop[PairTask]) -> float:
    taken = seconds(trainer._epoch)
    trainer.progress.epoch += 1
    trainer.progress.position, trainer.progress.sums = 0, {}
    return taken


def _floor(trainer: Loop[PairTask]) -> float:
    """Seconds of the products and updates of an epoch: its beginning, its first step, and the others as the second."""
    model, pairs = trainer.task.model, trainer.task.pairs
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(pairs.users), generator=generator).split(trainer.task.cfg.train.batch_size)
    begin = floor_of(lambda: model.begin_epoch(model.draw_epoch(generator)))
    first, other = (floor_of(lambda part=part: trainer._step(part)) for part in (rows[0], rows[min(1, len(rows) - 1)]))
    return begin + first + other * max(len(pairs.users) / trainer.task.cfg.train.batch_size - 1, 0)


def _floor_of_evaluation(system: PairTask) -> float:
    users, items = system.embeddings()
    rows = torch.from_numpy(system.tasks[1].users)
    size = user_batch(system.data.n_items, system.device)
    return min(seconds(lambda: [linear(users[part], items).topk(20) for part in rows.split(size)]) for _ in range(3))


def scale(threads: int, steps: int = 100, sampled: int = 10_000) -> None:
    """LightGCN on a million users and items: steps of 65,536 pairs, then lists for some users."""
    torch.set_num_threads(threads)
    data = Graph(1_000_000, 1_000_000, 20_000_000)
    cfg = resolve("lightgcn", {"train.device": "cpu", "train.batch_size": 65536, "eval.topk": [20]})
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        system = PairTask(cfg, cast(Dataset, data), Path(scratch))
        trainer = Loop(system, RunFolder(Path(scratch)))
        emit(what="scale", part="setup", seconds=time.perf_counter() - started)
        order = torch.randperm(len(trainer.task.pairs.users), generator=torch.Generator().manual_seed(0))
        taken = seconds(lambda: [trainer._step(rows) for rows in order.split(65536)[:steps]])
        emit(what="scale", part=f"{steps} steps of 65536", seconds=taken)
        task = system.tasks[1]
        few = task._replace(users=task.users[:sampled], mask_ptr=task.mask_ptr[: sampled + 1])
        taken = seconds(lambda: system.lists(few, 20))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        emit(what="scale", part=f"lists for {len(few.users)} users", seconds=taken, peak_mb=round(peak))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL[:KEY=VALUE,...]")
    parser.add_argument("--data", help="dataset folder (default: a random graph of the size of Amazon Baby)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of which the fastest counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", action="store_true", help="a million users and items instead")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process
    args = parser.parse_args()
    if args.scale:
        scale(args.threads)
        return
    if not args.here:
        for model in args.models:
            words = [*(["--data", args.data] if args.data else []), "--epochs", args.epochs, "--threads", args.threads]
            done = subprocess.run([sys.executable, __file__, model, "--here", *map(str, words)])
            if done.returncode:
                say(f"{model} failed")
        return
    widths = {"image": 4096, "text": 384}
    data = Dataset.open(args.data) if args.data else Graph(19_445, 7_050, 160_792, widths)
    name, _, options = args.models[0].partition(":")
    overrides = parse_overrides([word for word in options.split(",") if word])
    measure(name, data, overrides, args.epochs, args.threads)


if __name__ == "__main__":
    main()
