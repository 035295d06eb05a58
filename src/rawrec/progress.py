"""What a person sees while a run goes on: bars on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


LOUD = "bold yellow"
"""How a note stands out that nobody should miss."""
STILL = 20.0
"""Seconds after which a line says how far things are, where there is no terminal."""


class Bars:
    """An observer of training (`Loop`, `job.train`): progress with throughput, loss and time left."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task: Any = None
        self.what = ""
        self.said = time.perf_counter()

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def _begin(self, text: str, total: int, done: int = 0) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.task = self.progress.add_task(text, total=total, completed=done, note="")

    def __call__(self, event: str, **values: Any) -> None:
        self._take(event, **values)
        if not self.console.is_terminal and self.task is not None and time.perf_counter() - self.said >= STILL:
            now = next(task for task in self.progress.tasks if task.id == self.task)
            note = f", {now.fields['note']}" if now.fields["note"] else ""
            self.say(f"{now.description}: {now.completed:,.0f} of {now.total:,.0f}{note}")

    def _take(self, event: str, **values: Any) -> None:
        if event in ("encoding", "scoring"):
            if values["what"] != self.what:
                self.what = values["what"]
                self._begin(self.what, values["total"])
                if event == "encoding":
                    self.say(f"{self.what} once with frozen layers ...")
            self.progress.update(self.task, completed=values["done"], total=values["total"])
        elif event == "epoch":
            self.what = ""
            self._begin(f"epoch {values['epoch'] + 1}", values["total"], values["position"])
        elif event == "step":
            self.progress.update(self.task, advance=values["samples"], note=f"loss {values['loss']:.4f}")
        elif event == "validated":
            self._validated(values["line"], values["best"])
        elif event == "note":
            self.say(values["text"], LOUD if values.get("loud") else None)
        elif event == "evaluating":
            self._begin("evaluating", 1)
            self.what = ""
            self.say("evaluating the best epoch ...")

    def _validated(self, line: dict[str, Any], best: bool) -> None:
        values = {name: line.get(f"valid/{name}") for name in ("auc", "logloss", "recall@20", "ndcg@20", "recall")}
        shown = [f"{name} {value:.4f}" for name, value in values.items() if value is not None]
        rate = f"{line['samples_per_second']:,.0f} samples/s"
        parts = [f"loss {line['loss']:.4f}", *shown, rate, f"{line['seconds']:.1f} s", *["the best so far"] * best]
        self.say(f"epoch {line['epoch']}: {', '.join(parts)}")

    def say(self, text: str, style: str | None = None) -> None:
        """A line, above the bars."""
        self.said = time.perf_counter()
        self.console.print(text, markup=False, soft_wrap=True, style=style)
