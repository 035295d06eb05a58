"""`rawrec online`: a finished run goes on, by a log as events come, or by a table in order of time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rawrec.arguments import CALLABLE, checked, optional, shown
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.files import alone, clean, filling
from rawrec.folders import is_within, own_folder
from rawrec.progress import watching
from rawrec.reading import damaged
from rawrec.stream import gate, versions
from rawrec.stream.log import open_log
from rawrec.stream.publishing import Publisher
from rawrec.stream.tables import EventTable
from rawrec.stream.trainer import FOLDER, Trainer, summary
from rawrec.threads import computing
from rawrec.training.job import load_task
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.stream import StreamTask
from rawrec.training.tasks.streamable import refuse
from rawrec.training.turns import one_training


@checked(observer=optional(CALLABLE))
def online(
    run: str | Path,
    log: str | None = None,
    events: str | Path | None = None,
    until: int | str | None = None,
    settings: Mapping[str, Any] | None = None,
    data: Dataset | str | Path | None = None,
    observer: Any = None,
    progress: bool | None = None,
    trim: bool = False,
    publish: str | Path | None = None,
) -> dict[str, Any]:
    """Go on with a finished run of a ranker, by the events of a log as they come, or by a table in order of time.

    log: its address, see `open_log`; events: a table (Parquet, CSV) of interactions. until: the position of the log to
    go to, or "end", what is there now; None: as events come, until a signal. settings: of `OnlineConfig`; a state that
    is there keeps those that are not given. data: where the dataset is now, if it has moved. observer, progress: as of
    `train`. trim: forget the events of the log that the state holds. publish: the folder of versions, one every
    `online.publish_every` steps or `online.publish_seconds`, and one at the end, see `publishing.py`. Returns where it
    stands and what it has met.

    Raises UserError for a mistake, a damaged state, a log that was trimmed behind it, and where another process goes on
    with the run; RunStopped where training diverges; RunInterrupted where a signal ends it.

    >>> rawrec.online("runs/em3", log="sqlite:events.db", until="end")
    >>> rawrec.online("runs/em3", events="clicks.parquet")
    """
    if (log is None) == (events is None):
        raise UserError("give a log (--log), or a table of events (--events)")
    if publish is not None and is_within(Path(publish), RunFolder.open(run).path):
        raise UserError(f"--publish {publish} is in the folder of the run: give another one")
    if events is not None and (until is not None or trim):
        raise UserError("--until and --trim are of a log: a table is read to its end, and stays as it is")
    opened = RunFolder.open(run)
    begun = time.perf_counter()
    folder = opened.path / FOLDER
    busy = f"another process goes on with {opened.path} now: wait until it is done"
    with watching(observer, progress) as told, alone(folder, busy), one_training():
        cfg = opened.config()
        refuse(cfg)
        own_folder(folder)
        clean(folder)
        with computing(cfg.train.threads), filling(folder):
            trainer = Trainer(opened, folder, settings or {}, data, told)
            if publish is not None:
                following = log is not None and until is None
                trainer.publisher = Publisher(Path(publish).absolute(), trainer, following)
            if log is not None:
                with open_log(log, create=False) as source:
                    trainer.follow(source, log, source.end() if until == "end" else _position(until), trim)
            elif events is not None:
                table = table_of(trainer.task, Path(events))
                trainer.counts["rows_without_a_value"] += table.skipped * (table.name not in trainer.positions)
                trainer.follow(table, table.name, None)
        return summary(trainer, begun)


def _position(until: int | str | None) -> int | None:
    if until is None or (isinstance(until, int) and until >= 0):
        return until
    if isinstance(until, str) and until.isdecimal():
        return int(until)
    raise UserError(f"--until {shown(until)}: give a position of the log, or end")


def table_of(task: StreamTask, path: Path) -> EventTable:
    """A table, read as the dataset of a task is."""
    kinds = task.data.meta.context
    context = dict.fromkeys(kinds.categorical, "categorical") | dict.fromkeys(kinds.numeric, "numeric")
    read = (
        {} if task.context is None else {name: kind for name, kind in context.items() if name in task.context.readers}
    )
    return EventTable(path, task.cfg.data.label, read, task.taken.drawn if task.samples.n_negatives else None)


def load_version(
    out: str | Path, version: str | None = None, data: Dataset | str | Path | None = None
) -> tuple[versions.Version, StreamTask]:
    """A published version, the one that is served unless another is named, and its model, ready to predict.

    data: where the dataset is now, if it has moved. Raises UserError where the version, or the run that it goes on
    from, is not there, is damaged, or is another one.
    """
    about, tensors, plain = versions.read(Path(out), version)
    run = RunFolder.open(about.folder)
    if run.info()["files"].get("model.safetensors") != about.run:
        raise UserError(f"{out}: version {about.name} goes on from other weights than {run.path} has now")
    task = load_task(run, data, make=StreamTask)
    assert isinstance(task, StreamTask)
    with damaged(out, ". Publish again"):
        task.serve(plain, tensors, about.step)
        gate.check_answers(task, gate.of_plain(plain["canaries"]))
    return about, task
