"""Runs as processes of their own: how `rawrec sweep` and `rawrec study` start them, and what becomes of them.

`python -m rawrec.training.processes` reads a task from stdin (a line of JSON), trains, tunes or resumes one run folder,
and tells how it ended on stdout. Its stdin stays open as long as who started it lives: a run never outlives it.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from rawrec.errors import RunStopped, UserError, refused_by_system
from rawrec.files import appending, clean, is_partial, make_folder, remove, remove_empty
from rawrec.folders import own_folder
from rawrec.threads import count
from rawrec.training.job import finetune, resume, train
from rawrec.training.runs import RunFolder
from rawrec.training.sweeps.trial import MedianRule, Pruned

POLL = 0.05  # seconds between looks at the processes
LOCK, REPLACED = ".lock", ".replaced"
OURS = {LOCK, REPLACED}  # in a folder of many runs, beside what it holds
K = TypeVar("K")


# -------------------------------------------------------------------------------------------------- who starts the runs
class Start(NamedTuple, Generic[K]):
    """A run to make. key: what who asks for it calls it. task: what `work` is given. log: file of what it says."""

    key: K
    task: dict[str, Any]
    log: Path


class Outcome(NamedTuple):
    """How a run ended: finished, pruned, stopped, refused, or died (its process did), and why."""

    end: str
    reason: str


def threads_of(jobs: int) -> int:
    """Threads of each of `jobs` processes."""
    return max(1, count() // jobs)


def make_runs(jobs: int, more: Callable[[], Start[K] | None], ended: Callable[[K, Outcome], None]) -> None:
    """Make runs, at most `jobs` at a time, until none goes on and there is no more.

    more: the next run to start; None: none now. ended: told of every run's end. Where either raises, all are ended.
    """
    going: list[tuple[Start[K], subprocess.Popen[str]]] = []
    try:
        while True:
            while len(going) < jobs and (start := more()) is not None:
                going.append((start, _process(start, threads_of(jobs))))
            if not going:
                break
            done = [one for one in going if one[1].poll() is not None]
            for one in done:
                going.remove(one)
                ended(one[0].key, _outcome(*one))
            if not done:
                time.sleep(POLL)
    finally:
        for _, process in going:
            process.kill()
            process.communicate()


def run_of(start: Start[Any], threads: int, folder: str) -> Outcome:
    """Make one run, and wait for it. folder: where paths begin."""
    with suppress(OSError):
        os.chdir(folder)
    process = _process(start, threads)
    try:
        process.wait()  # its stdin stays open until then
        return _outcome(start, process)
    finally:
        process.kill()


def _process(start: Start[Any], threads: int) -> subprocess.Popen[str]:
    """With a session of its own: Ctrl-C ends it through us."""
    own_folder(start.log.parent)
    with appending(start.log) as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "rawrec.training.processes"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "POLARS_MAX_THREADS": str(threads)},
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(start.task) + "\n")
    process.stdin.flush()
    return process


def _outcome(start: Start[Any], process: subprocess.Popen[str]) -> Outcome:
    said, _ = process.communicate()
    if process.returncode or not said:
        return Outcome("died", f"exit code {process.returncode}: see {start.log}")
    return Outcome(**json.loads(said.splitlines()[-1]))


@contextmanager
def alone_in(out: Path, settings: str, noun: str) -> Iterator[Path]:
    """The folder of many runs, ours alone inside, and the path of its settings file in it.

    Raises UserError where something else stands there, or another process works. A UserError inside that leaves the
    folder empty takes it away, where it was made here.
    """
    path = out / settings
    known = {file.name for file in out.iterdir()} if out.is_dir() else set[str]()
    killed = (out / REPLACED / settings).is_file()  # while it was replaced
    strange = {name for name in known - OURS if not is_partial(name)} and not killed
    if out.exists() and not path.is_file() and (not out.is_dir() or strange):
        raise UserError(f"{out} exists and is no {noun} folder: choose another `out`")
    made = make_folder(out)
    with appending(out / LOCK) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"a {noun} is running in {out} now: wait for it, or choose another `out`") from None
        clean(out)
        clean(out / "runs")
        try:
            yield path
        except UserError:
            if {file.name for file in out.iterdir()} == {LOCK}:
                (out / LOCK).unlink()
                remove_empty(made)
            raise


# ---------------------------------------------------------------------------------------------------------- the process
def work(task: Mapping[str, Any]) -> dict[str, str]:
    """Make the run of a task, or go on with it; how it ended: finished, pruned, stopped or refused, and why.

    died: the system refused something, as on a full disk.

    data, run: paths. model, overrides: a model that is trained; or encoder, settings: an encoder that is tuned.
    pruning: settings of a `MedianRule`, or none.
    """
    run = Path(task["run"])
    observer = MedianRule(run, **task["pruning"]) if task.get("pruning") else None
    try:
        if (run / "run.json").is_file():
            resume(run, observer, task["data"])
        else:
            remove(run)  # killed while it was being created
            if "encoder" in task:
                finetune(task["data"], task["encoder"], run, task["settings"])
            else:
                train(task["model"], task["data"], run, task["overrides"], observer=observer)
    except Pruned:
        folder = RunFolder.open(run)
        folder.write_info(pruned=True)
        folder.log("pruned: worse than the median of the sweep's trials")
        return {"end": "pruned", "reason": ""}
    except RunStopped as error:
        return {"end": "stopped", "reason": str(error)}
    except UserError as error:
        return {"end": "refused", "reason": str(error)}
    except (OSError, MemoryError, RuntimeError) as error:
        if (why := refused_by_system(error)) is None:
            raise
        return {"end": "died", "reason": why}
    return {"end": "finished", "reason": ""}


def _end_with_the_starter() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def main() -> None:
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    print(json.dumps(work(task)))


if __name__ == "__main__":
    main()
