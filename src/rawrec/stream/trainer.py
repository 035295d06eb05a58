"""The online trainer: a finished run of a ranker goes on with events as they come.

An event is taken in the order of the log: impressions wait for their labels (`joiner.py`), items are encoded at once.
Each impression is predicted before its label is known, judged by that when it is final, and trained once, in batches
that are a function of the log alone. All that it knows is one checkpoint, `RUN/online/checkpoint`; a process that was
killed, at whatever instant, goes on from there and comes to the same state, bit by bit.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch

from rawrec import faults
from rawrec.config import Config
from rawrec.config.online import PREFIX, online_config
from rawrec.data.dataset import Dataset
from rawrec.errors import IdleSetting, RunInterrupted, UserError
from rawrec.files import appending, sync, write_text
from rawrec.interruption import at_a_step
from rawrec.memory import staying
from rawrec.randomness import drawing
from rawrec.reading import RECORD, check_tensors, damaged, read_text
from rawrec.stream import saved
from rawrec.stream.events import Acted, Event, Gone, Item, Shown, read_event
from rawrec.stream.joiner import Joiner
from rawrec.stream.log import AT_ONCE, Letter, Log, Record
from rawrec.stream.past import Past
from rawrec.stream.prequential import Line, Prequential
from rawrec.stream.seen import Seen
from rawrec.stream.tables import Row
from rawrec.training import state as checkpoint
from rawrec.training.job import load_task
from rawrec.training.records import Checkpoint
from rawrec.training.runs import RunFolder
from rawrec.training.state import Progress
from rawrec.training.steps import Steps
from rawrec.training.tasks.stream import StreamTask

PREDICTED = 1024
"""Items that are scored at once."""
WAIT = 0.5
"""Seconds after which who waits for events looks whether it shall end."""
METRICS = "metrics.jsonl"
FOLDER = "online"
"""Of a run folder: what goes on from it."""


class Arrival(Protocol):
    """An event at its position, with its id."""

    @property
    def position(self) -> int: ...
    @property
    def producer(self) -> str: ...
    @property
    def sequence(self) -> int: ...


class Source(Protocol):
    """What events are read from: a log, or a table."""

    def read(self, after: int, count: int = AT_ONCE) -> Sequence[Any]: ...


class Publishing(Protocol):
    """Makes versions of the model when they are due, and when it is asked, see `publishing.py`."""

    refused: int

    def if_due(self) -> None: ...
    def publish(self) -> object: ...


class Trainer:
    """What goes on from the run folder `run`; where it stands is `RUN/online`, which nobody else may write.

    given: settings; data: where the dataset is now, if it has moved. Raises UserError for a run that cannot be gone on
    with, and for a state that is damaged or of another run.
    """

    def __init__(
        self,
        run: RunFolder,
        folder: Path,
        given: Mapping[str, Any],
        data: Dataset | str | Path | None = None,
        observe: Callable[..., None] | None = None,
    ) -> None:
        self.run, self.folder, self.data = run, folder, data
        self.observe = observe or (lambda event, **values: None)
        self.fingerprint = run.info()["files"].get("model.safetensors", "")
        found = saved.load(folder / "checkpoint", self.fingerprint)
        self.cfg = online_config(given, None if found is None else found[1]["settings"])
        task = load_task(run, data, make=self._make)
        assert isinstance(task, StreamTask)
        self.task = task
        self.task.admit_after, self.task.popular = self.cfg.admit_after, self.cfg.refresh_popular
        self._refresh_check(given)
        self.steps: Steps[StreamTask] = Steps(task, folder / "checkpoint")
        self.task.grown, self.task.forgotten = self.steps.grow, self.steps.optimiser.forget
        self.counts: Counter[str] = Counter()
        self.positions: dict[str, int] = {}
        self.publisher: Publishing | None = None
        self.marks: dict[str, Any] = {"step": 0, "time": None}  # when a version was due last
        self._since: float | None = None  # the stream's time when the first sample that waits became ready
        self._lines, self._saved = 0, 0
        self.anew = found is None
        if found is None:
            self._begin()
        else:
            tensors, plain, _ = found
            with damaged(folder / "checkpoint", f". Remove {folder} to begin anew from the run"):
                self._restore(tensors, plain)
        self._keep_lines()

    def _make(self, cfg: Config, data: Dataset, cache: Any) -> StreamTask:
        """The task, which learns as online.* says. Averages are of epochs: a stream serves the weights as they are, and
        learns more slowly, so that they do not leave what the averages have come to."""
        changed = {"ema": 0.0, "accumulate": 1, "batch_size": self.cfg.batch_size or cfg.train.batch_size}
        ids = cfg.train.lr if cfg.train.id_lr is None else cfg.train.id_lr
        changed |= {name: self.cfg.rate * getattr(cfg.train, name) for name in ("lr", "encoder_lr")}
        changed |= {"id_lr": self.cfg.id_rate * ids}
        cfg.train = cfg.train.model_copy(update=changed)
        if self.cfg.refresh_share is not None:
            cfg.bank = cfg.bank.model_copy(update={"refresh_share": self.cfg.refresh_share})
        return StreamTask(cfg, data, cache)

    def _refresh_check(self, given: Mapping[str, Any]) -> None:
        """IdleSetting for a refresher that has nothing to do."""
        cfg, asked = self.task.cfg, {name.removeprefix(PREFIX) for name in given}
        idle = "content of this run never becomes stale" if cfg.reads_content else "this run reads no content"
        refreshes = cfg.reads_content and cfg.paradigm != "frozen"
        if self.cfg.refresh_share and not refreshes:
            raise IdleSetting(f"{PREFIX}refresh_share", f"{PREFIX}refresh_share would do nothing: {idle}")
        if "refresh_popular" in asked and self.cfg.refresh_popular and not (refreshes and cfg.bank.refresh_share):
            reason = "no item is refreshed (online.refresh_share)" if refreshes else idle
            raise IdleSetting(f"{PREFIX}refresh_popular", f"{PREFIX}refresh_popular would do nothing: {reason}")

    def _begin(self) -> None:
        """From the run's weights, and from what its optimiser had come to, where its last checkpoint is there."""
        self.past = Past(self.task.samples.history, self.task.taken.of)
        self.joiner, self.seen = Joiner(self.cfg, self.past), Seen()
        self.judged = Prequential(self.cfg.window)
        info = self.run.info()
        self.steps.progress = Progress(epoch=info.get("best_epoch") or 0, step=info.get("steps", 0))
        last = self.run.path / "checkpoint" / "last.safetensors"
        if last.is_file():
            tensors, _ = checkpoint.load(last, Checkpoint)
            self._begin_optimiser({k: v for k, v in tensors.items() if k.startswith("optim.")})
        self.steps.optimiser.updates = self._saved = self.marks["step"] = self.steps.progress.step

    def _begin_optimiser(self, state: Mapping[str, torch.Tensor]) -> None:
        """As at the run's last checkpoint; anew where its weights, of the best epoch, are of the phase before."""
        own = {name.removeprefix("optim.").rpartition(".")[0] for name in state} - {""}
        if own <= set(self.steps.optimiser.names):
            self.steps.optimiser.load_state(state)
        else:
            told = (
                "the run's best epoch was before content.lora.handover, and its checkpoint is of after: the optimiser"
            )
            self.observe("note", text=f"{told} begins anew")

    # ---------------------------------------------------------------------------------------------------------- events
    def take(self, record: Any) -> None:
        """An event, of which nothing is done twice."""
        self.counts["taken"] += 1
        if not self.seen.take(record.producer, record.sequence):
            self.counts["duplicate"] += 1
            return
        event: Event | Row = self._read(record.data) if isinstance(record, Record) else record.event
        self.counts[event.kind] += 1
        if isinstance(event, Shown | Row):
            known = self.task.items
            for item in event.items:
                if item not in known:
                    self.task.item_row(item)
            self.joiner.shown(event)
        elif isinstance(event, Acted):
            self.joiner.acted(event)
        else:
            self.joiner.advance(event.time)
            self._of_item(event)

    def _read(self, data: bytes) -> Event:
        event, unknown = read_event(data)
        if unknown:
            self.counts["unknown_field"] += len(unknown)
        return event

    def _of_item(self, event: Item | Gone) -> None:
        if isinstance(event, Gone):
            self.task.gone.add(event.item)
            return
        values: dict[str, Any] = dict(event.fields)
        for name, pictures in event.pictures.items():
            values[name] = [picture.data for picture in pictures if picture.data is not None]
            self.counts["picture_by_address"] += sum(picture.address is not None for picture in pictures)
            if pictures and not values[name]:  # what is not at hand changes nothing
                del values[name]
        self.task.take_item(event.item, values, self.steps.progress.step)

    # ----------------------------------------------------------------------------------------------------------- steps
    @property
    def batch_size(self) -> int:
        return self.task.cfg.train.batch_size

    def train_ready(self, all_of_it: bool = False) -> None:
        """Train the batches that are full; all_of_it, or where the first has waited for online.every seconds: and what
        is left."""
        joiner, now = self.joiner, self.joiner.watermark or 0.0
        if joiner.ready and self._since is None:
            self._since = now
        overdue = self.cfg.every is not None and self._since is not None and now - self._since >= self.cfg.every
        if len(joiner.ready) >= (1 if all_of_it or overdue else self.batch_size):
            self._train(1 if all_of_it or overdue else self.batch_size)
            self._since = now if joiner.ready else None
        if self.cfg.expire_after is not None:
            self._expire()

    def _expire(self) -> None:
        if (before := self.task.expire(self.joiner.watermark, self.cfg.expire_after)) is not None:
            self.past.forget(before)

    def _train(self, least: int) -> None:
        """Train batches as long as so many samples are ready."""
        while len(self.joiner.ready) >= least:
            self.judge()
            ready = self.joiner.ready
            samples = [ready.popleft() for _ in range(min(self.batch_size, len(ready)))]
            with drawing():
                self.steps._step(samples)
            self.task.note(samples)
            self.counts["trained"] += len(samples)
            self.steps.progress.sums = {}
            loss = self.steps._step_sums["loss"]
            self.observe("online", step=self.steps.progress.step, samples=self.counts["trained"], loss=loss)

    def judge(self) -> None:
        """Predict the impressions that came since the last step, and judge those whose labels are final."""
        self._predict()
        for found in self.joiner.closed:
            self.judged.add(found)
        self.joiner.closed.clear()
        self._write(self.judged.lines())

    def _predict(self) -> None:
        new, self.joiner.new = self.joiner.new, []
        asked = [found for found in new for _ in found.items]
        items = [item for found in new for item in found.items]
        predicted: list[float] = []
        for at in range(0, len(items), PREDICTED):
            predicted += self.task.predict(asked[at : at + PREDICTED], items[at : at + PREDICTED])
        at = 0
        for found in new:
            found.predicted = predicted[at : at + len(found.items)]
            at += len(found.items)

    def _write(self, lines: list[Line]) -> None:
        at = {"step": self.steps.progress.step, "watermark": self.joiner.watermark, "trained": self.counts["trained"]}
        if lines and (bank := self.task.bank) is not None and self.task.cfg.paradigm != "frozen":
            at |= {name: self.task.counts.get(name, 0) for name in ("made_items", "refreshed_items")}
            ages = bank.health(self.steps.progress.step)
            at |= {name: ages[name] for name in ("bank/coverage", "bank/age_mean", "bank/age_p95")}
        for line in lines:
            with appending(self.folder / METRICS) as file:
                file.write((checkpoint.written(at | line) + "\n").encode())
            self._lines += 1
            self.observe("judged", line=at | line)

    # ------------------------------------------------------------------------------------------------------------ runs
    def follow(self, source: Source, name: str, until: int | None, trim: bool = False) -> None:
        """Take what the source has behind the position where this stands, up to `until`; None: as it comes, until a
        signal ends it. The state is saved every `online.checkpoint_every` steps, and at the end.

        Raises RunInterrupted after the event, or step, during which a signal has asked for the end.
        """
        log = source if isinstance(source, Log) else None
        self.joiner.trusting = log is None
        passed = False
        with staying(), at_a_step(lambda: self.observe("note", text="saving, and ending")) as ending:
            while ending.asked is None and (until is None or self.positions.get(name, 0) < until):
                at = self.positions.get(name, 0)
                records = source.read(at, AT_ONCE)
                for record in records:
                    if ending.asked is not None or (until is not None and record.position > until):
                        break
                    self._take_or_bury(record, log)
                    self.positions[name] = record.position
                    self.train_ready()
                    if self.publisher is not None:
                        self.publisher.if_due()
                    if self.steps.progress.step >= self._saved + self.cfg.checkpoint_every:
                        self.save()
                        self._trim(log, name, trim)
                if records and until is not None and records[-1].position >= until:
                    break
                if not records and log is None:
                    self._end_of_table()
                    break
                if not records and log is not None:
                    if passed:  # positions up to there were given to nothing, as those of duplicates are
                        break
                    passed = until is not None and log.end() >= until
                    if not passed:
                        log.wait(at, WAIT)
                    if self.publisher is not None:
                        self.publisher.if_due()
            self.save()
            self._trim(log, name, trim)
            if self.publisher is not None:
                self.publisher.publish()
            if ending.asked is not None:
                raise RunInterrupted(
                    f"{self.folder} stands at step {self.steps.progress.step:,}, position "
                    f"{self.positions.get(name, 0):,}; the same command goes on",
                    ending.asked,
                )

    def _take_or_bury(self, record: Any, log: Log | None) -> None:
        try:
            self.take(record)
        except UserError as error:
            self.counts["dead"] += 1
            if log is not None:
                log.bury(Letter(record.position, str(error)))

    def _end_of_table(self) -> None:
        """Nothing comes any more: what waits is final, the last batch smaller, the last window shorter."""
        self.joiner.finish()
        self.train_ready(all_of_it=True)
        self.judge()
        self._write(self.judged.rest())

    def _trim(self, log: Log | None, name: str, trim: bool) -> None:
        if trim and log is not None:
            with faults.around("acknowledge", name):
                log.trim(self.positions[name])

    # ----------------------------------------------------------------------------------------------------------- state
    def save(self) -> None:
        """Replace the checkpoint by the state as it is."""
        steps, task = self.steps, self.task
        if (lines := self.folder / METRICS).is_file():
            sync(lines)
        tensors = checkpoint.with_prefix("model.", task.state()) | steps.optimiser.state()
        tensors |= checkpoint.with_prefix("grown.", task.grown_state()) | {"shown": steps._shown}
        plain = {
            "settings": self.cfg.dump(),
            "positions": self.positions,
            "progress": asdict(steps.progress),
            "unproven": sorted(steps._unproven),
            "waiting": sorted(steps._waiting),
            "task": task.plain_state(),
            "joiner": self.joiner.state(),
            "past": self.past.state(),
            "seen": self.seen.state(),
            "judged": self.judged.state(),
            "counts": dict(sorted(self.counts.items())),
            "lines": self._lines,
            "marks": self.marks,
            "since": self._since,
        }
        step = steps.progress.step
        saved.save(self.folder / "checkpoint", tensors, plain, self.fingerprint, step, self.positions)
        self._saved = step

    def _restore(self, tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any]) -> None:
        steps, task = self.steps, self.task
        task.load_plain_state(plain["task"])
        own = checkpoint.with_prefix("model.", task.state())
        check_tensors(own, tensors, self.folder / "checkpoint")  # of which a copy would make many of one value
        task.load_state(checkpoint.without_prefix("model.", tensors))
        task.load_grown_state(checkpoint.without_prefix("grown.", tensors))
        steps.optimiser.load_state({k: v for k, v in tensors.items() if k.startswith("optim.")})
        steps._shown.copy_(tensors["shown"])
        steps.progress = Progress(**plain["progress"])
        steps._unproven = {name: one for name, one in steps._unproven.items() if name in plain["unproven"]}
        steps._waiting = set(plain["waiting"])
        self.past = Past(task.samples.history, task.taken.of, plain["past"])
        self.joiner = Joiner.of(self.cfg, self.past, plain["joiner"])
        self.seen, self.judged = Seen(plain["seen"]), Prequential(self.cfg.window, plain["judged"])
        self.positions, self.counts = dict(plain["positions"]), Counter(plain["counts"])
        self._lines, self._saved, self.marks = plain["lines"], steps.progress.step, dict(plain["marks"])
        self._since = plain["since"]

    def _keep_lines(self) -> None:
        """Lines of metrics that were written after the state come again."""
        path = self.folder / METRICS
        if path.is_file():
            kept = read_text(path, RECORD).splitlines(keepends=True)[: self._lines]
            write_text(path, "".join(kept))


def summary(trainer: Trainer, begun: float) -> dict[str, Any]:
    """Where a trainer stands, and what it has met, as plain values."""
    return {
        "step": trainer.steps.progress.step,
        "positions": dict(trainer.positions),
        "counts": dict(sorted((trainer.counts + Counter(trainer.task.counts) + trainer.joiner.counts).items())),
        "waiting": trainer.joiner.waiting,
        "ready": len(trainer.joiner.ready),
        "refused_versions": 0 if trainer.publisher is None else trainer.publisher.refused,
        "seconds": time.perf_counter() - begun,
    }
