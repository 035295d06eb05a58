"""The one training loop: exact to resume, stopped before anything that is not finite is written.

It knows steps, not recommenders: what a sample, a loss and a metric are, a `Task` says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rawrec.arguments import shown
from rawrec.errors import RunStopped, UserError
from rawrec.interruption import Ended, Ending, at_a_step
from rawrec.memory import begin_peak, peak_mb
from rawrec.randomness import drawing
from rawrec.reading import check_tensors, damaged
from rawrec.shown import listed
from rawrec.training import state as checkpoint
from rawrec.training.ending import WAIT, stopped
from rawrec.training.exchange import mark
from rawrec.training.records import Checkpoint
from rawrec.training.runs import RunFolder
from rawrec.training.state import Progress
from rawrec.training.steps import AnyTask, Steps
from rawrec.training.tasks.base import Result

FORMAT = 2  # of checkpoints


class Loop(Steps[AnyTask]):
    """Trains a `Task` in a `RunFolder`. `observer(event, **values)` is told of steps and epochs (progress bars)."""

    def __init__(self, task: AnyTask, run: RunFolder, observer: Callable[..., None] | None = None):
        self.observe = observer or (lambda event, **values: None)
        task.observe = self.observe
        super().__init__(task, run.path / "checkpoint")
        self.run = run
        self._best: dict[str, Tensor] = {}  # the state of the best epoch
        self._saved, self._saving = time.perf_counter(), 0.0
        self.kept: Progress | None = None  # what the last checkpoint knows of
        self._ending = Ending()
        self._monitored(task.probe())

    # ---------------------------------------------------------------------------------------------------------- steps
    def _signal(self) -> int:
        return self._ending.asked or 0

    def train(self) -> None:
        """Train to the last epoch or to early stopping, from wherever `progress` stands.

        Raises RunInterrupted after the step, or the validation, during which a signal has asked for the end.
        """
        if self.progress.step == 0:
            self.task.begin()
        with at_a_step(lambda: self.observe("note", text=WAIT)) as self._ending:
            self._epochs()

    def _epochs(self) -> None:
        state = self.progress
        while not state.finished:
            started, first, step = time.perf_counter(), state.position, state.step
            if self.task.phase():
                begin_peak(self.task.device)
            samples = self._epoch() - first
            self._end_of_epoch(time.perf_counter() - started, samples, state.step - step)
            for note in self.task.closing_notes() if state.finished else ():
                self.run.log(note)
                self.observe("note", text=note)
            self._compare()
            self._end_if_asked()

    def _compare(self) -> None:
        """After an epoch: are several processes asked to end, and are their weights still equal? RunStopped if not."""
        if not self.world.several:
            return
        shards, held = self.task.shards, self.task.state()
        alike = [value for name, value in held.items() if shards is None or shards.table_of(name) is None]
        own = [self._signal(), mark(alike)]
        signals, marks = self.world.table(torch.tensor(own, dtype=torch.float64)).unbind(1)
        self._asked = int(signals.max())
        others = (marks != marks[0]).nonzero()[:, 0].tolist()
        if others:
            raise RunStopped(
                f"after epoch {self.progress.epoch} the weights of process {others[0]} are not those of process 0, "
                "though both have done the same: their processors or libraries compute otherwise. Use machines that "
                "are alike, or one"
            )

    def _epoch(self) -> int:
        """The rest of an epoch; how many samples it has."""
        state, train = self.progress, self.schedule
        order = self.task.begin_epoch(state.epoch)
        if state.position > len(order) or (state.position and not {"loss", "steps"} <= state.sums.keys()):
            raise UserError(f"{self.run.path}/checkpoint is damaged: an epoch has no position {state.position}")
        epochs = self.schedule.epochs
        self.observe("epoch", epoch=state.epoch, epochs=epochs, total=len(order), position=state.position)
        while state.position < len(order):
            rows = order[state.position : state.position + train.batch_size * train.accumulate]
            with drawing():
                self._step(rows)
            state.position += len(rows)
            self._tell_step(len(rows))
            self._end_if_asked()
            due = state.step % train.checkpoint_every == 0 and state.position < len(order)
            if due and self.task.resumes_within_epoch() and self._saves():
                self.save()
        return len(order)

    def _tell_step(self, samples: int) -> None:
        """loss: mean of the epoch so far; losses, norm, rates: of this step, see `callbacks.StepRecord`."""
        state = self.progress
        losses = {name: value for name, value in self._step_sums.items() if name.partition("/")[0] == "loss"}
        self.observe(
            "step",
            samples=samples,
            loss=state.sums["loss"] / state.sums["steps"],
            number=state.step,
            losses=losses,
            norm=self._norm,
            rates=lambda: self.optimiser.rates_of(state.step - 1, state.epoch),
        )

    def _end_if_asked(self) -> None:
        """Between two steps, or after a validation, whose checkpoint is written by then, unless it was asked while the
        validation was told."""
        number, state = self._asked if self.world.several else self._signal(), self.progress
        if not number:
            return
        kept = self.kept is not None and (self.kept.epoch, self.kept.step) == (state.epoch, state.step)
        if self.task.resumes_within_epoch() if state.position else not kept:
            self.save()
        raise stopped(self.run, Ended(number), state, self.kept, self.schedule.epochs)

    # ------------------------------------------------------------------------------------------------- end of an epoch
    def _end_of_epoch(self, seconds: float, samples: int, steps: int) -> None:
        state, task = self.progress, self.task
        self._check_all_encoders()
        sums, begun = state.sums, time.perf_counter()
        line: dict[str, Any] = {"epoch": state.epoch + 1, "step": state.step}
        line |= {key: sums[key] / sums["steps"] for key in sorted(sums) if key != "steps"}
        if task.bank is not None:
            line |= task.bank.health(state.step)
        if task.bank is not None and task.encoders():
            shown, encoded = self._shown.tolist()
            counts = zip(self._buckets, shown, encoded, strict=True)
            line |= {f"live_share/{name}": live / n if n else None for name, n, live in counts}
        if phase := task.phase():
            line |= phase | {"lora/memory_mb": peak_mb(task.device)}
            line["lora/step_seconds"] = seconds / steps if steps else None
        with self.optimiser.averaged():
            result = task.validate(state.step)
            if task.bank is not None:
                line |= task.bank.likeness()
            line |= {f"valid/{key}": value for key, value in result.metrics.items()}
            value = self._monitored(result)
            state.epoch += 1
            if state.best is None or (value < state.best if task.lower else value > state.best):
                state.best, state.best_epoch, state.bad_epochs = value, state.epoch, 0
                self._best = {name: tensor.clone() for name, tensor in task.state().items()}
                self._best |= checkpoint.with_prefix("stale.", task.stale())
            else:
                state.bad_epochs += 1
        state.position, state.sums = 0, {}
        self._shown.zero_()
        self._decide()
        times = {"seconds": seconds, "samples_per_second": samples / seconds}
        times["validation_seconds"] = time.perf_counter() - begun
        self.run.append_metrics({**line, **times})
        # A resumed run does again, exactly, what was done since.
        if self._saves(state.finished or bool(self._ending.asked)):
            self.save()
        told = {"epochs": self.schedule.epochs, "shown": task.shown_metrics(result.metrics)}
        self.observe("validated", line={**line, **times}, best=state.best_epoch == state.epoch, **told)

    def _decide(self) -> None:
        """Whether training ends with this epoch, or its second phase begins."""
        state, task = self.progress, self.task
        ends = state.bad_epochs >= self.schedule.patience + task.like_mmrec
        state.finished = state.epoch >= self.schedule.epochs
        if not state.finished and task.hands_over(state.epoch, ends):
            self._hand_over()
        else:
            state.finished = state.finished or ends

    def _hand_over(self) -> None:
        """Begin the task's second phase. What is frozen are the averages, by which it has been evaluated."""
        self.optimiser.take_averages(self.task.frozen_from_now())
        self.task.hand_over()
        before, self.optimiser = self.optimiser, self._new_optimiser()
        self.optimiser.go_on_from(before)
        self.progress.bad_epochs = 0
        self.run.log(f"second phase from epoch {self.progress.epoch + 1} on: {self.task.phase()}")

    def _monitored(self, result: Result) -> float:
        """The metric that early stopping follows. Raises UserError where it is undefined."""
        name, metrics = self.task.metric, result.metrics
        if name not in metrics:
            known = listed(sorted(k for k in metrics if "/" not in k), name)
            raise UserError(
                f"train.metric={shown(name)} is no validation metric. Known: {known}, also with cold/, rare/ ..."
            )
        value = metrics[name]
        if value is None:
            why = result.reasons.get(name, "undefined")
            instead = ". Use train.metric=logloss" if "logloss" in metrics else ""
            raise UserError(f"train.metric={name} is undefined on the validation part: {why}{instead}")
        return round(value, 4) if self.task.like_mmrec else value

    # ----------------------------------------------------------------------------------------------------- checkpoints
    def _may_save(self) -> bool:
        """Checkpoints take no more than train.checkpoint_share of a run's time."""
        share = self.schedule.checkpoint_share
        return share == 1 or time.perf_counter() - self._saved > self._saving / share

    def _saves(self, must: bool = False) -> bool:
        """Whether a checkpoint is due. Processes that hold shares of tables save together, when the first does."""
        if self.task.shards is None:
            return must or self._may_save()
        return self.world.any(must or (self.world.first and self._may_save()))

    def save(self) -> None:
        """The whole state of the run, replaced atomically."""
        started, task = time.perf_counter(), self.task
        tensors = checkpoint.with_prefix("model.", task.state()) | checkpoint.with_prefix("best.", self._best)
        tensors |= self.optimiser.state() | {"shown": self._shown} | checkpoint.with_prefix("kept.", task.kept())
        if task.bank is not None:
            tensors |= checkpoint.with_prefix("bank.", task.bank.state(health=True))
        if task.shards is not None:
            tensors = task.shards.whole(tensors)
        encoders = {"unproven": sorted(self._unproven), "waiting": sorted(self._waiting)}
        if not self.world.first:  # all hold the same, and one writes
            self.kept = replace(self.progress)
            return
        state = {"format": FORMAT, "progress": asdict(self.progress), "metrics_lines": self.progress.epoch, **encoders}
        checkpoint.save(self.run.path / "checkpoint" / "last.safetensors", tensors, state)
        self._saved, self.kept = time.perf_counter(), replace(self.progress)
        self._saving = self._saved - started

    def restore(self) -> None:
        """Continue where the last checkpoint stands; lines of metrics written after it are taken back.

        A run that had come to its end goes on where train.epochs or train.patience now let it.
        """
        path = self.run.path / "checkpoint" / "last.safetensors"
        tensors, state = checkpoint.load(path, Checkpoint)
        if state.get("format") != FORMAT:
            raise UserError(
                f"{path} is of another version of rawrec: go on with the one that began this run (its "
                "environment.json names it), or train again"
            )
        self.progress, self.kept = Progress(**state["progress"]), Progress(**state["progress"])
        with damaged(path, ". Train again"):
            self._restore(path, tensors, state)
        self.run.keep_metrics(state["metrics_lines"])
        if self.progress.finished:
            self._decide()

    def _restore(self, path: Path, tensors: dict[str, Tensor], state: Mapping[str, Any]) -> None:
        if self.task.shards is not None:
            tensors = self.task.shards.own(tensors)
        self.task.load_state(checkpoint.without_prefix("model.", tensors))
        self._best = checkpoint.without_prefix("best.", tensors)
        self.task.load_kept(checkpoint.without_prefix("kept.", tensors))
        if self.task.phase():  # which may be the second one
            self.optimiser = self._new_optimiser()
        self.optimiser.load_state(tensors)
        self._shown.copy_(tensors["shown"])
        self._unproven = {name: encoder for name, encoder in self._unproven.items() if name in state["unproven"]}
        self._waiting = set(state["waiting"])
        if self.task.bank is not None:
            self.task.bank.load_state(checkpoint.without_prefix("bank.", tensors))
        own = self.task.state()
        best = {name: value for name, value in own.items() if name in self._best}
        kept = checkpoint.with_prefix("model.", own) | checkpoint.with_prefix("best.", best) | self.optimiser.state()
        check_tensors(kept | {"shown": self._shown}, tensors, path)  # no value has stood in the place of many

    def finish(self) -> None:
        """The best epoch's weights, one evaluation of test, and the files that make the run whole."""
        self.observe("evaluating")
        run, task, step = self.run, self.task, self.progress.step
        task.load_state({name: value for name, value in self._best.items() if not name.startswith("stale.")})
        results = task.finish(run.path, step, checkpoint.without_prefix("stale.", self._best))
        if task.shards is not None:
            task.shards.end()
        if self.world.first:
            task.publish(run.path, step)
        for text in results["test"].told if "test" in results else ():
            run.log(text)
            self.observe("note", text=text, loud=True)
        metrics: dict[str, Any] = {name: result.metrics for name, result in results.items()}
        reasons = {name: result.reasons for name, result in results.items()}
        if self.world.first:
            checkpoint.write_json(run.path / "metrics.json", {**metrics, "reasons": reasons})
        shown = task.shown_metrics(metrics.get("test", metrics["valid"]))
        self.observe("evaluated", metrics=metrics, best_epoch=self.progress.best_epoch, step=step, shown=shown)
