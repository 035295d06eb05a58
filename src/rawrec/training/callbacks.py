"""What other programs may do while a run goes on: `rawrec.train(..., callbacks=[...])`.

A callback is told what happens and changes nothing of what is trained. An error that it raises ends the run, which can
be resumed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rawrec.config import Config
from rawrec.config.finetune import FinetuneConfig
from rawrec.config.resolution import flatten
from rawrec.errors import UserError, in_a_line
from rawrec.extras import need, there
from rawrec.folders import own_folder
from rawrec.training.event_file import EventFile
from rawrec.training.state import Progress

State = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class RunStart:
    """A run begins or goes on. path: its folder. settings: by dotted key, complete. data: the dataset's folder. step,
    epoch: updates and epochs that were made before, 0 of a new run."""

    path: Path
    model: str
    data: Path
    settings: Mapping[str, Any]
    step: int
    epoch: int


@dataclass(frozen=True)
class StepRecord:
    """An update of the weights. step: its number, from 1; epoch: which one it belongs to, from 1. samples: of its
    batches. losses: "loss", which is minimised, and "loss/NAME", its parts without their weights. gradient_norm: before
    it is cut to train.clip. rates: learning rate of each group of parameters."""

    step: int
    epoch: int
    samples: int
    losses: Mapping[str, float]
    gradient_norm: float
    rates: Mapping[str, float]


@dataclass(frozen=True)
class EpochRecord:
    """An epoch and its validation. metrics: its line of `metrics.jsonl`, as "valid/auc". best: none was better."""

    epoch: int
    epochs: int
    step: int
    metrics: Mapping[str, Any]
    best: bool


@dataclass(frozen=True)
class RunEnd:
    """How a run ended. state: finished; stopped, by a signal, to be resumed; failed, by an error. metrics: of a
    finished run by part, "valid" and "test" (of `rawrec finetune` "before" and "valid"), with the weights of
    `best_epoch`. reason: why it did not finish."""

    path: Path
    state: State
    step: int
    epochs: int
    best_epoch: int
    metrics: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    reason: str = ""


class Callback:
    """Base of callbacks: each method may be left as it is. They are called in the thread that trains.

    >>> class Printer(rawrec.Callback):
    ...     def on_epoch(self, record):
    ...         print(record.epoch, record.metrics["valid/auc"])
    >>> rawrec.train("em3", data="data/ml", out="runs/em3", callbacks=[Printer()])

    dispensable: the run goes on without it where it fails after the start, and a warning says so, once.
    """

    dispensable = False

    def on_start(self, record: RunStart) -> None:
        """Before the first step, or the first one of a resumed run; all is checked and encoded by then."""

    def on_step(self, record: StepRecord) -> None:
        """After every update of the weights."""

    def on_epoch(self, record: EpochRecord) -> None:
        """After an epoch was validated and its checkpoint written."""

    def on_end(self, record: RunEnd) -> None:
        """At the end, whatever it is, once for each `on_start`."""


class Callbacks:
    """The callbacks of a run: hears what the loop tells an observer and makes records of it. note: keeps what is told
    of one that failed, where the run goes on without it."""

    def __init__(self, callbacks: Sequence[Callback], path: Path) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise UserError(f"callbacks: {callback!r} is no rawrec.Callback: make one of a class that inherits it")
        self.all, self.path = list(callbacks), path
        self.settings: Mapping[str, Any] = {}
        self.metrics: Mapping[str, Mapping[str, Any]] = {}
        self.epoch = 0
        self.note: Callable[[str], None] = lambda text: None
        self._begun: list[Callback] = []
        self._failed: list[Callback] = []

    def start(self, cfg: Config | FinetuneConfig, data: Path, state: Progress) -> None:
        self.settings = dict(flatten(cfg.dump()))
        record = RunStart(self.path, cfg.label, data, self.settings, state.step, state.epoch)
        for callback in self.all:
            self._begun.append(callback)
            try:
                callback.on_start(record)
            except (UserError, OSError):
                raise
            except Exception as error:
                if not callback.dispensable:
                    raise
                raise UserError(f"{type(callback).__name__} cannot begin: {in_a_line(error)}") from error

    def __call__(self, event: str, **values: Any) -> None:
        if event == "step":
            step = StepRecord(
                values["number"], self.epoch + 1, values["samples"], values["losses"], values["norm"], values["rates"]()
            )
            for callback in self._left():
                self._tell(callback, callback.on_step, step)
        elif event == "epoch":
            self.epoch = values["epoch"]
        elif event == "validated":
            line = values["line"]
            epoch = EpochRecord(line["epoch"], values["epochs"], line["step"], line, values["best"])
            for callback in self._left():
                self._tell(callback, callback.on_epoch, epoch)
        elif event == "evaluated":
            self.metrics = values["metrics"]

    def _left(self) -> list[Callback]:
        return [callback for callback in self.all if not any(callback is one for one in self._failed)]

    def _tell(self, callback: Callback, method: Callable[[Any], None], record: object) -> None:
        try:
            method(record)
        except Exception as error:
            if not callback.dispensable:
                raise
            if not any(callback is one for one in self._failed):
                self._failed.append(callback)
                said = f"{type(callback).__name__} failed, and the run goes on without it: {in_a_line(error)}"
                warnings.warn(said, stacklevel=1)
                self.note(said)

    def end(self, how: State, state: Progress, reason: str) -> None:
        """Every callback that has begun hears of it; of several errors of theirs the first is raised then."""
        record = RunEnd(self.path, how, state.step, state.epoch, state.best_epoch, self.metrics, self.settings, reason)
        begun, self._begun = self._begun, []
        errors: list[Exception] = []
        for callback in begun:
            try:
                self._tell(callback, callback.on_end, record)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def failed(self, error: BaseException, state: Progress) -> None:
        """The run ends by an error, or is stopped: what callbacks then raise themselves is told beside it."""
        stopped = isinstance(error, KeyboardInterrupt)
        try:
            self.end("stopped" if stopped else "failed", state, str(error).partition("\n")[0] or type(error).__name__)
        except Exception as other:
            error.add_note(f"a callback failed at the end, too: {other!r}")


class TensorBoard(Callback):
    """Curves for TensorBoard, which every run has in its folder `tensorboard/` where the package is installed.

    Of steps losses, learning rates and the norm of the gradient; of epochs what `metrics.jsonl` has; at the end the
    test metrics, and the settings as HPARAMS. every: steps between those that are written; None: five a second at most.
    Raises UserError where tensorboard is not installed.
    """

    SECONDS = 0.2
    dispensable = True

    def __init__(self, every: int | None = None) -> None:
        if not there("tensorboard"):
            need("tensorboard", "curves for TensorBoard are written by tensorboard")
        self.every = every
        self._file: EventFile | None = None
        self._at = 0.0

    def on_start(self, record: RunStart) -> None:
        self._at = 0.0
        place = own_folder(record.path / "tensorboard")
        self._file = EventFile(place, record.step + 1 if record.step else None)

    def on_step(self, record: StepRecord) -> None:
        now = time.perf_counter()
        if record.step % self.every if self.every else now - self._at < self.SECONDS:
            return
        self._at = now
        values = {f"step/{name}": value for name, value in record.losses.items()}
        values |= {f"step/lr/{name}": value for name, value in record.rates.items()}
        self._add({**values, "step/gradient_norm": record.gradient_norm}, record.step)

    def on_epoch(self, record: EpochRecord) -> None:
        self._add({key: value for key, value in record.metrics.items() if key not in ("epoch", "step")}, record.step)

    def on_end(self, record: RunEnd) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if record.state == "finished":
                file.add({f"test/{name}": value for name, value in record.metrics.get("test", {}).items()}, record.step)
                names = [
                    name for name in record.metrics.get("test", record.metrics.get("valid", {})) if "/" not in name
                ]
                file.add_settings(record.settings, [f"test/{name}" for name in names])
        finally:
            file.close()

    def _add(self, values: Mapping[str, Any], step: int) -> None:
        if self._file is not None:
            self._file.add(values, step)
