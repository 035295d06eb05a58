"""Steps of small systems in one process or several: `python world_steps.py DATA OUT STEPS CASE...`, started by
`worlds.py` with RANK and WORLD_SIZE in the environment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rawrec.config import resolve
from rawrec.data.dataset import Dataset
from rawrec.training.loading import task_of
from rawrec.training.ranks import joined
from rawrec.training.steps import Steps
from rawrec.world import World

SMALL: dict[str, Any] = {
    "model.dim": 8,
    "model.hidden": [16],
    "content.dim": 16,
    "train.precision": "fp32",
    "content.image.encoder": "random:conv",
    "content.image.size": 32,
    "content.title.use": False,
    "content.description.use": False,
    "data.history": 5,
}
EVERYWHERE = {
    "train.batch_size": 64,
    "train.lr": 1e-3,
    "train.warmup_steps": 0,
    "train.device": "cpu",
    "eval.topk": [5, 20],
}
END_TO_END = {"paradigm": "end_to_end", "content.image.train": "top:1"}
FEATURES = {name: SMALL[name] for name in SMALL if name.startswith(("content.", "train.")) and name != "content.dim"}
SHALLOW = {"model.dim": 8, "model.hidden": [16], "data.history": 5}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "id": ("id", SHALLOW),
    "frozen": ("em3", {**SMALL, "paradigm": "frozen"}),
    "hybrid": ("em3", {**SMALL, "paradigm": "hybrid", "content.fusion.dropout": 0.1}),
    "end_to_end": ("em3", {**SMALL, **END_TO_END, "model.cic_negatives": 8, "train.accumulate": 2}),
    "deepfm": ("deepfm", {"model.content": "none", **SHALLOW, "model.dropout": 0.1}),
    "sharded": (
        "em3",
        {**SMALL, "paradigm": "hybrid", "content.fusion.dropout": 0.1, "model.tables": "sharded"},
    ),
    "few_sharded": ("id", {**SHALLOW, "train.batch_size": 3, "model.tables": "sharded"}),
    "few": ("id", {**SHALLOW, "train.batch_size": 3}),  # one of four has no sample
    "few_pairs": ("bpr", {"model.embedding_size": 8, "train.batch_size": 3}),
    "bpr": ("bpr", {"model.embedding_size": 8}),
    "bpr_rows": ("bpr", {"model.embedding_size": 8, "train.optimizer": "sparse_adam", "train.weight_decay": 0}),
    "vbpr": ("vbpr", {"model.embedding_size": 8, **FEATURES, **END_TO_END}),
    "sasrec": ("sasrec", {"model.embedding_size": 8, "model.max_length": 10, "train.batch_size": 7}),
}


def steps(world: World, path: Path, case: str, count: int) -> dict[str, torch.Tensor]:
    """Losses `[count]` and the state after so many steps."""
    name, settings = CASES[case]
    torch.set_num_threads(1)
    cfg = resolve(name, EVERYWHERE | settings)
    task = task_of(cfg)(cfg, Dataset.open(path), path.parent / f"cache-{case}")
    task.join(world)
    loop: Steps[Any] = Steps(task, path)
    losses, epoch = [], 0
    while len(losses) < count:
        order, size = task.begin_epoch(epoch), cfg.train.batch_size * cfg.train.accumulate
        for start in range(0, len(order), size):
            if len(losses) < count:
                loop._step(order[start : start + size])
                losses.append([loop._step_sums["loss"], loop._norm])
        epoch += 1
        loop.progress.epoch = epoch
    bank = {} if task.bank is None else {f"bank.{name}": value for name, value in task.bank.state().items()}
    held = {**task.state(), **loop.optimiser.state(), **bank}
    held = held if task.shards is None else task.shards.whole(held)
    told = {f"metric.{k}": torch.tensor(v) for k, v in task.validate(count).metrics.items() if isinstance(v, float)}
    held = {name: value.detach().clone().contiguous() for name, value in held.items()}
    if task.shards is not None:
        task.shards.end()  # the next case has none
    return {"losses": torch.tensor(losses), **told, **held}


def save(world: World, data: Path, out: Path, count: int, cases: Sequence[str]) -> None:
    for case in cases:
        save_file(steps(world, data, case, count), out / f"{case}-{world.size}-{world.rank}")


if __name__ == "__main__":
    data, out, count, *cases = sys.argv[1:]
    with joined() as world:
        save(world, Path(data), Path(out), int(count), cases)
