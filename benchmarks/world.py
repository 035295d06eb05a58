"""What several processes of this machine gain, and what they send each other, on a generated shop.

    python benchmarks/world.py [--processes 1 2] [--cases id hybrid end_to_end bpr wide ...] [--items 2000] [--steps 30]

A JSON line per case and number of processes, one thread each: samples/s and share of the ideal (so many times one
process's); bytes that the first process sends in a step, by kind; and what the mathematics needs (`needed`), from the
sizes of the step: a sum over processes costs each at least 2 (n - 1) / n of its numbers, what one has and all need
n - 1 times itself (of rows that are shared: of their gradients alone); what id tables take in a process with the
optimiser's state and averages. Times are those of the machine as it is: processes that share cores gain nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rawrec.config import resolve
from rawrec.data.dataset import Dataset
from rawrec.models.ids import is_touched_by_rows
from rawrec.sources.synthetic import import_synthetic
from rawrec.training.loading import task_of
from rawrec.training.ranks import joined
from rawrec.training.steps import Steps
from rawrec.world import World

WARM = 3  # steps before any is counted
IMAGES = {"content.image.encoder": "random:conv", "content.image.size": 32, "content.title.use": False}
IMAGES |= {"content.description.use": False, "train.precision": "fp32"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "id": ("id", {}),
    "wide": ("id", {"model.dim": 1024}),  # tables that are large beside the rest
    "wide_sharded": ("id", {"model.dim": 1024, "model.tables": "sharded"}),
    "hybrid": ("em3", {**IMAGES, "paradigm": "hybrid"}),
    "end_to_end": ("em3", {**IMAGES, "paradigm": "end_to_end", "content.image.train": "all"}),
    "bpr": ("bpr", {"train.optimizer": "sparse_adam", "train.weight_decay": 0}),
}


class Counted(Steps[Any]):
    """Steps that note how large what they must exchange is: bytes, of one process."""

    needed: dict[str, float]

    def _step(self, rows: Any) -> None:
        task, size = self.task, self.world.size
        self.needed = {}
        go_live = task.go_live

        def noted(batch: Any, step: int) -> Any:
            live = go_live(batch, step)
            if live is not None and size > 1:
                own = [int((of % size == self.world.rank).sum()) for of in (live.rows, live.encoded)]
                width = live.leaf.shape[1]
                there, back = own[0] * (size - 1), (len(live.rows) - own[0]) * live.leaf.requires_grad
                self.needed["content"] = 4.0 * width * (there + back)
                self.needed["features"] = 4.0 * own[1] * (size - 1) * sum(v.shape[1] for v in live.features.values())
            return live

        task.go_live = noted
        try:
            super()._step(rows)
        finally:
            task.go_live = go_live
        share = 2 * (size - 1) / size
        dense = [p for p in self.optimiser.parameters if p.grad is not None and not is_touched_by_rows(p)]
        self.needed["dense"] = share * sum(p.numel() * p.element_size() for p in dense)
        touched = [table.values for table in self.optimiser.tables.values() if table.values is not None]
        self.needed["rows"] = share * sum(values.numel() * values.element_size() for values in touched)


def measure(world: World, case: str, data: Path, steps: int, batch: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    name, settings = CASES[case]
    given = {"train.batch_size": batch, "train.device": "cpu", "train.warmup_steps": 0}
    cfg = resolve(name, given | settings)
    if world.several and not world.first:
        world.follow(f"made {case}")
    task = task_of(cfg)(cfg, Dataset.open(data), data / "cache")
    if world.several and world.first:
        world.note(f"made {case}")
    task.join(world)
    loop, order, sent, needed = Counted(task, data), task.begin_epoch(0), dict[str, float](), dict[str, float]()
    begun = 0.0
    for number in range(WARM + steps):
        if number == WARM:
            world.sent.clear()
            begun = time.perf_counter()
        start = number * batch % max(len(order) - batch, 1)
        loop._step(order[start : start + batch])
        for kind, size in loop.needed.items() if number >= WARM else ():
            needed[kind] = needed.get(kind, 0) + size / steps
    seconds = time.perf_counter() - begun
    sent = {kind: size / steps for kind, size in world.sent.items()}
    found = {
        "case": case,
        "processes": world.size,
        "batch": batch,
        "samples_per_second": round(batch * steps / seconds),
        "tables_mb": round(_held(loop) / 2**20, 1),
    }
    if world.several:
        found |= {"sent": _rounded(sent), "needed": _rounded(needed)}
        found["ratio"] = round(sum(sent.values()) / max(sum(needed.values()), 1), 3)
    return found


def _held(loop: Steps[Any]) -> int:
    """Bytes of the tables of ids, and of the optimiser's state and averages of them, in this process."""
    found = 0
    for table in loop.optimiser.tables.values():
        held = [table.weight, *table.state().values(), *([] if table.average is None else [table.average])]
        found += sum(values.numel() * values.element_size() for values in held)
    return found


def _rounded(sizes: dict[str, float]) -> dict[str, int]:
    return {kind: round(size) for kind, size in sizes.items()}


def work(data: Path, cases: Sequence[str], steps: int, batch: int) -> None:
    """What each process does; the first one prints."""
    with joined() as world:
        for case in cases:
            found = measure(world, case, data, steps, batch)
            if world.first:
                print(json.dumps(found), flush=True)


def together(size: int, words: Sequence[str]) -> list[dict[str, Any]]:
    """The lines that so many processes print."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    command = [sys.executable, __file__, *words]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**env, "RANK": str(rank)})
        for rank in range(size)
    ]
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a process has failed")
    return [json.loads(line) for line in said[0].splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)  # of the processes that are started
    args = parser.parse_args()
    if args.data is not None:
        work(args.data, args.cases, args.steps, args.batch)
        return
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "shop"
        users, rows = args.items // 2, args.items * 20
        import_synthetic(data, items=args.items, users=users, impressions=rows, progress=False)
        words = ["--data", str(data), "--steps", str(args.steps), "--batch", str(args.batch), "--cases", *args.cases]
        alone: dict[str, float] = {}
        for size in args.processes:
            for line in together(size, words):
                speed = line["samples_per_second"]
                before = alone.setdefault(line["case"], speed / size)
                print(json.dumps({**line, "share_of_ideal": round(speed / (before * size), 3)}), flush=True)


if __name__ == "__main__":
    main()
