"""What a person sees while a run goes on: bars on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from rawrec import shown


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


LOUD = "bold yellow"
"""How a note stands out that nobody should miss."""
STILL = 20.0
"""Seconds after which a line says how far things are, where there is no terminal."""
LOOK = 5.0
"""Seconds between looks whether that is due while nothing happens: 30 s at most pass without a line."""


def watching(observer: Callable[..., None] | None, progress: bool | None) -> AbstractContextManager[Any]:
    """The observer of a run that was called from Python: the caller's own, or `Bars`.

    progress: None: where there is a terminal or a notebook, and no observer.
    """
    wanted = (observer is None and (sys.stderr.isatty() or in_notebook())) if progress is None else progress
    if not wanted:
        return nullcontext(observer)
    return Bars() if observer is None else _Both(observer)


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this process."""
    kernel = sys.modules.get("ipykernel.zmqshell")
    return kernel is not None and "IPython" in sys.modules


class Bars:
    """An observer of training (`Loop`, `job.train`): progress with throughput, loss and time left.

    Where there is no terminal it says a line at least every 30 s, whatever goes on.
    """

    def __init__(self, console: Console | None = None) -> None:
        plain = {"force_terminal": False, "force_jupyter": False} if in_notebook() else {}
        self.console = console or shown.console(stderr=True, **plain)
        self.bars = self.console.is_terminal
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.bars,
            transient=True,
        )
        self.task: Any = None
        self.what = ""
        self.said = time.perf_counter()
        self._begun, self._from = self.said, 0.0  # when the task began, and where
        self._epoch, self._left = "", 0  # its name, and samples that are to come
        self._lock, self._over = threading.RLock(), threading.Event()
        self._waiting, self._taking = list[tuple[str, dict[str, Any]]](), False  # what was told, and is not said yet

    def __enter__(self) -> Bars:
        self.progress.start()
        if not self.bars:
            threading.Thread(target=self._keep_saying, daemon=True, name="rawrec-progress").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self.progress.stop()

    def _keep_saying(self) -> None:
        """Where nothing tells of itself for long, as while a graph is made: that it still goes on."""
        while not self._over.wait(LOOK):
            with self._lock:
                self._say_if_due()

    def _begin(self, text: str, total: float, done: float = 0) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
        self._begun, self._from = time.perf_counter(), done
        self.task = self.progress.add_task(text, total=total, completed=int(done), note="")

    def __call__(self, event: str, **values: Any) -> None:
        """Told by a signal's handler while it writes, it says that afterwards: the console's buffer still holds what is
        being written, and would be written twice."""
        with self._lock:
            self._waiting.append((event, values))
            if self._taking:
                return
            self._taking = True
            try:
                while self._waiting:
                    event, values = self._waiting.pop(0)
                    self._take(event, **values)
                    if not self.bars:
                        self._say_if_due()
            finally:
                self._taking = False

    def _say_if_due(self) -> None:
        if self.task is None or time.perf_counter() - self.said < STILL:
            return
        now = next(task for task in self.progress.tasks if task.id == self.task)
        self.say(f"{now.description}: {self._standing(now.completed, now.total or 0, now.fields['note'])}")

    def _standing(self, done: float, total: float, note: str) -> str:
        """How far a task is, in words."""
        spent, made = time.perf_counter() - self._begun, done - self._from
        if total <= 1 or not made:
            parts = [f"for {duration(spent)}"]
        else:
            parts = [f"{done / total:.0%}, {done:,.0f} of {total:,.0f}"]
            parts += [f"{duration(spent / made * (total - done))} left"] * (done < total)
        return ", ".join([*parts, *([note] if note else [])])

    def _take(self, event: str, **values: Any) -> None:
        if event in ("encoding", "scoring"):
            if values["what"] != self.what:
                self.what = values["what"]
                self._begin(self.what, values["total"], values["done"])
                if event == "encoding":
                    self.say(f"{self.what} once with frozen layers ...")
            self.progress.update(self.task, completed=values["done"], total=values["total"])
        elif event == "epoch":
            self.what = ""
            self._epoch, self._left = f"epoch {values['epoch'] + 1} of {values['epochs']}", values["total"]
            self._begin(self._epoch, values["total"], values["position"])
            self._left -= values["position"]
        elif event == "step":
            self.progress.update(self.task, advance=values["samples"], note=f"loss {values['loss']:.4f}")
            self._left -= values["samples"]
            if self._left <= 0:  # what comes now is its validation
                self._begin(f"validating {self._epoch}", 1)
        elif event == "validated":
            self.say(epoch_line(values["line"], values["epochs"], values["shown"], values["best"]))
        elif event == "note":
            self.say(values["text"], LOUD if values.get("loud") else None)
        elif event == "evaluating":
            self._begin("evaluating the best epoch", 1)
            self.what = ""
            self.say("evaluating the best epoch ...")

    def say(self, text: str, style: str | None = None) -> None:
        """A line, above the bars."""
        with self._lock:
            self.said = time.perf_counter()
            self.console.print(text, markup=False, soft_wrap=True, style=style)


class _Both(Bars):
    """`Bars` beside an observer of the caller's."""

    def __init__(self, other: Callable[..., None]) -> None:
        super().__init__()
        self.other = other

    def __call__(self, event: str, **values: Any) -> None:
        super().__call__(event, **values)
        self.other(event, **values)


def epoch_line(line: Mapping[str, Any], epochs: int, shown: Sequence[str], best: bool) -> str:
    """An epoch in a line, of its line of `metrics.jsonl`. shown: validation metrics, as far as it has them."""
    values = {name: line.get(f"valid/{name}") for name in shown}
    found = [f"{name} {value:.4f}" for name, value in values.items() if value is not None]
    if "loss" not in line:  # a model that takes no steps
        return f"fitted in {line['seconds']:.1f} s{': ' * bool(found)}{', '.join(found)}"
    rate = f"{line['samples_per_second']:,.0f} samples/s"
    parts = [f"loss {line['loss']:.4f}", *found, rate, f"{line['seconds']:.1f} s", *["the best so far"] * best]
    return f"epoch {line['epoch']} of {epochs}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `1.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
