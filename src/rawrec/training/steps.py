"""One optimiser step, whoever asks for it: epochs of a dataset (`loop.py`) or a stream.

It knows steps, not recommenders: what a batch and a loss are, a `Task` says.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from rawrec.content.live import LiveContent
from rawrec.errors import RunStopped, UserError
from rawrec.evaluation.ctr import buckets_of
from rawrec.memory import keep_freed_memory
from rawrec.training.exchange import exchange
from rawrec.training.optimiser import Optimiser
from rawrec.training.state import Progress
from rawrec.training.tasks.base import COUNTED, Batch, Task

AnyTask = TypeVar("AnyTask", bound=Task)
COLD = "cold"
"""The bucket of items without a training row."""


class Steps(Generic[AnyTask]):
    """A task with its optimiser, and where it stands. checkpoints: the folder that messages name."""

    def __init__(self, task: AnyTask, checkpoints: Path):
        self.task, self.schedule, self._checkpoints = task, task.schedule, checkpoints
        self.world = task.world
        self._asked = 0  # the signal by which one of several processes was asked to end, when the last step was made
        self.progress = Progress()
        keep_freed_memory()
        self.optimiser = self._new_optimiser()
        buckets = buckets_of(task.train_counts)
        self._buckets = list(buckets)
        self._in_bucket = torch.from_numpy(np.stack(list(buckets.values()))).to(task.device)  # [buckets, n_items]
        if task.bank is not None:
            task.bank.group(dict(zip(buckets, self._in_bucket, strict=True)))
        self._shown = torch.zeros(2, len(buckets), dtype=torch.int64, device=task.device)  # items shown, and encoded
        self._unproven = task.learners()  # those that have had no gradient yet
        self._waiting: set[str] = set()  # those among them that have had items
        self._step_sums: dict[str, float] = {}  # of the last step
        self._norm = 0.0

    def _new_optimiser(self) -> Optimiser:
        return Optimiser(self.task.parameter_groups(), self.schedule, self.task.levels())

    def _signal(self) -> int:
        """By which signal this process is asked to end; 0: by none."""
        return 0

    def _step(self, rows: Any) -> None:
        """One optimiser step: live items made once, losses, gradients checked, then weights and bank written."""
        state, task = self.progress, self.task
        self.world.step = state.step
        batch = task.batch(rows, state.epoch, state.step)
        self.optimiser.zero_grad()
        if task.shards is not None:
            task.shards.forget()
        live = task.go_live(batch, state.step)
        names, values = [], []
        for losses in task.losses(batch, live, state.step):
            losses["loss"].backward()
            names += losses
            values += [value.detach().double() for value in losses.values()]
        if live is not None:
            live.backward()
        if self.world.several:
            told = torch.stack(values), self._signal()
            summed, self._asked = exchange(self.world, self.optimiser.parameters, *told, task.shards)
            values = list(summed.to(task.device))
        norm = self.optimiser.clip(self.world)
        *numbers, norm = torch.stack([*values, norm.double()]).tolist()
        sums: dict[str, float] = {"steps": 1}
        for name, number in zip(names, numbers, strict=True):
            key = name if name == "loss" else f"loss/{name}"
            key = name.removeprefix(COUNTED) if name.startswith(COUNTED) else key
            sums[key] = sums.get(key, 0.0) + number
        self._check_finite("loss", sums["loss"], batch)
        self._check_finite("gradient", norm, batch)
        if live is not None:
            self._check_encoders(batch, live)
            live.settle()
        self.optimiser.step(state.step, state.epoch)
        if live is not None:
            task.write(live, state.step)
            if task.bank is not None and task.encoders():
                shown = self._in_bucket[:, batch.items.flatten()]
                encoded = torch.isin(batch.items.flatten(), live.encoded)
                self._shown += torch.stack([shown.sum(1), (shown & encoded).sum(1)])
                sums |= {"live/encoded": float(len(live.encoded)), "live/learned": float(live.learned)}
        state.step += 1
        self._step_sums, self._norm = sums, norm
        for key, value in sums.items():
            state.sums[key] = state.sums.get(key, 0.0) + value

    def grow(self, items: int) -> None:
        """There are `items` rows now, those behind the others cold, and tables have more rows."""
        more = self._in_bucket.new_zeros(len(self._buckets), items - self._in_bucket.shape[1])
        more[self._buckets.index(COLD)] = True
        self._in_bucket = torch.cat([self._in_bucket, more], 1)
        self.optimiser.grow()

    # --------------------------------------------------------------------------------------------------------- guards
    def _check_finite(self, what: str, value: float, batch: Batch) -> None:
        if math.isfinite(value):
            return
        state, task = self.progress, self.task
        there = self._checkpoints.is_dir() and any(self._checkpoints.glob("*.safetensors"))
        where = f"the last good checkpoint is in {self._checkpoints}" if there else "there is no checkpoint yet"
        raise RunStopped(
            f"the {what} of step {state.step} (epoch {state.epoch + 1}) is {value}. Nothing of this step was written; "
            f"{where}. {task.beginning(batch)}; look for extreme numbers in the columns of these items with "
            "`rawrec inspect`"
        )

    def _check_encoders(self, batch: Batch, live: LiveContent) -> None:
        """A trained encoder must have had a gradient after a step in which all items of the loss had media for it.

        Where some lack them, a loss that compares items may rightly have none to compare: it has until the epoch's end.
        """
        for name, encoder in list(self._unproven.items()):
            if any(p.grad is not None and bool(p.grad.any()) for p in encoder.trained_parameters()):
                del self._unproven[name]
                continue
            every, some = self.task.shown(name, batch, live)
            if every:
                raise UserError(self.task.without_gradient(name))
            elif some:
                self._waiting.add(name)

    def _check_all_encoders(self) -> None:
        """At the end of an epoch: each must have had an item and a gradient."""
        for name in self._unproven:
            raise UserError(
                self.task.without_gradient(name) if name in self._waiting else self.task.without_items(name)
            )
