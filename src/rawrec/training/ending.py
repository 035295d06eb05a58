"""Runs that were stopped: what the user is told, and which of them can be ended as they stand."""

from __future__ import annotations

import os
import shlex
import signal

from rawrec.errors import RunInterrupted, UserError
from rawrec.folders import check_own_folder
from rawrec.interruption import Ended
from rawrec.training import state as checkpoint
from rawrec.training.records import Checkpoint
from rawrec.training.runs import RunFolder
from rawrec.training.state import Progress

WAIT = "ending after this step, or this validation, with a checkpoint; Ctrl-C once more ends at once, without one"


def stopped(
    run: RunFolder, by: KeyboardInterrupt, state: Progress, kept: Progress | None, epochs: int
) -> RunInterrupted:
    """The end of a run in training. state: where it stands; kept: where its checkpoint stands; epochs: of how many."""
    where = f"after {state.epoch} of {epochs} epochs"
    if state.finished:
        where = f"after its last epoch, {state.epoch}, before its evaluation on test was done"
    elif state.position:
        where = f"in epoch {state.epoch + 1} of {epochs}"
    where = f"{where} ({state.step:,} steps)"
    if kept is None:
        goes_on = "there is no checkpoint yet: it will begin anew"
    elif (kept.epoch, kept.step) == (state.epoch, state.step):
        goes_on = "the checkpoint is written"
    else:
        goes_on = f"the last checkpoint is of step {kept.step:,}, what came after it will be done again"
    run.log(f"stopped {where} by {signal.Signals(_number(by)).name}; {goes_on}")
    return RunInterrupted(f"{_begin(by)} {where}; {goes_on}\n{ways(run, kept)}", _number(by))


def not_begun(run: RunFolder, by: KeyboardInterrupt) -> RunInterrupted:
    """The end of a new run before its first step: its folder goes, unless what was encoded is in it."""
    if (run.path / "cache").is_dir():
        told = f"what was encoded is kept\n{ways(run, None)}"
    else:
        run.withdraw()
        told = f"{run.path} is as it was. What was encoded is kept beside the dataset: begin with the same command"
    return RunInterrupted(f"{_begin(by)} before the first step; {told}", _number(by))


def not_resumed(run: RunFolder, by: KeyboardInterrupt) -> RunInterrupted:
    """The end of a run that had not gone on yet, as while its content was encoded."""
    return RunInterrupted(
        f"{_begin(by)} before the run went on: it is as it was\n{ways(run, kept_of(run))}", _number(by)
    )


def _number(by: KeyboardInterrupt) -> int:
    return by.number if isinstance(by, Ended) else signal.SIGINT


def _begin(by: KeyboardInterrupt) -> str:
    return "interrupted" if _number(by) == signal.SIGINT else "ended by a signal"


def ways(run: RunFolder, kept: Progress | None) -> str:
    """How a stopped run goes on, a line each."""
    path = shlex.quote(str(run.path))
    lines = [
        (f"rawrec resume {path}", "goes on, exactly"),
        (f"rawrec resume {path} train.epochs=N", "goes on to another number of epochs"),
    ]
    if kept is not None and kept.best_epoch:
        lines.append((f"rawrec finish {path}", f"ends it with the best epoch so far, {kept.best_epoch}"))
    width = max(len(command) for command, _ in lines)
    return "\n".join(f"  {command:{width}}  {what}" for command, what in lines)


def kept_of(run: RunFolder) -> Progress | None:
    """Where the checkpoint of a run stands; None where it has none. Raises UserError for a damaged one."""
    path = run.path / "checkpoint" / "last.safetensors"
    check_own_folder(path.parent)
    return Progress(**checkpoint.load_state(path, Checkpoint)["progress"]) if os.path.lexists(path) else None


def check_finish(run: RunFolder) -> None:
    """UserError where a run has no epoch to end with."""
    kept = kept_of(run)
    if kept is None or not kept.best_epoch:
        raise UserError(
            f"{run.path}: no epoch was finished and kept, so that there is nothing to end with; "
            f"`rawrec resume {run.path}` goes on"
        )
