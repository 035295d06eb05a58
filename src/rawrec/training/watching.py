"""What is told of a run while it goes on: to its observer, and to `log.txt`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from rawrec.progress import duration, epoch_line
from rawrec.threads import Crowding
from rawrec.training.callbacks import Callbacks
from rawrec.training.runs import RunFolder

Observe = Callable[..., None]


def watched(run: RunFolder, observe: Observe, hears: Callbacks) -> Observe:
    """The observer, told as well where other processes hold the machine. With its first step the run has begun; what a
    person sees of it stands in its log, and callbacks hear of it."""
    crowding, log = Crowding(), _Log(run)

    def watch(event: str, **values: Any) -> None:
        if event == "step" and not run.begun:
            run.settle()
        log(event, **values)
        hears(event, **values)
        observe(event, **values)
        if event == "validated" and (note := crowding.note()):
            run.log(note)
            observe("note", text=note)

    return watch


class _Log:
    """Writes what was encoded, epochs and the final metrics into `log.txt`; notes are written by who makes them."""

    def __init__(self, run: RunFolder) -> None:
        self.run, self.what, self.begun = run, "", 0.0

    def __call__(self, event: str, **values: Any) -> None:
        if event == "encoding":
            if values["what"] != self.what:
                self.what, self.begun = values["what"], time.perf_counter()
                self.run.log(f"{self.what}: {values['done']:,} of {values['total']:,} are there")
            elif values["done"] == values["total"]:
                self.run.log(f"{self.what}: done in {duration(time.perf_counter() - self.begun)}")
        elif event == "validated":
            self.run.log(epoch_line(values["line"], values["epochs"], values["shown"], values["best"]))
        elif event == "evaluating":
            self.run.log("evaluating the best epoch")
        elif event == "evaluated":
            metrics = values["metrics"].get("test") or values["metrics"]["valid"]
            part = "test" if values["metrics"].get("test") else "valid"
            shown = [f"{name} {metrics[name]:.4f}" for name in values["shown"] if metrics.get(name) is not None]
            self.run.log(f"{part}: {', '.join(shown)}")


def chunks_told(observe: Observe, text: str, starts: range) -> Iterator[int]:
    """The first items of chunks, of which the observer is told how far they are."""
    for start in starts:
        observe("encoding", what=text, done=start, total=starts.stop)
        yield start
    observe("encoding", what=text, done=starts.stop, total=starts.stop)
