"""When a trainer publishes, and what it asks of a version before that is served.

A version is a function of the position in the stream. A clock decides only where on the way versions are made, and only
for who follows a log; a log that is read to a position, and a table, go by the time of their events. So what is trained
does not depend on when, or whether, versions were made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rawrec.errors import UserError
from rawrec.stream import gate, versions
from rawrec.stream.trainer import Trainer
from rawrec.stream.version_files import PAST, Whole
from rawrec.stream.versions import Version
from rawrec.training.job import load_task
from rawrec.training.tasks.stream import StreamTask


class Publisher:
    """Publishes what `trainer` has come to into the folder `out`. following: seconds are those of a clock here, not of
    the events.

    refused: how many versions did not pass. Raises UserError for a folder with versions of another stream.
    """

    def __init__(self, out: Path, trainer: Trainer, following: bool = False) -> None:
        self.out, self.trainer, self.cfg, self.following = out, trainer, trainer.cfg, following
        self.refused = 0
        self._since, self._told = time.monotonic(), False
        self._last: Whole | None = None  # the latest good version
        self._served: StreamTask | None = None  # the model as who loads a version has it
        if trainer.anew and (out / versions.FOLDER).is_dir() and versions.listed(out).versions:
            raise UserError(
                f"{out} holds versions of an earlier stream, and {trainer.folder} begins anew: publish into "
                "another folder"
            )
        if trainer.anew:  # so that whoever finds no state knows that its versions are of another stream
            trainer.save()

    def if_due(self) -> None:
        """Publish where so many steps, or seconds, have gone by."""
        trainer, marks, cfg = self.trainer, self.trainer.marks, self.cfg
        due = cfg.publish_every is not None and trainer.steps.progress.step >= marks["step"] + cfg.publish_every
        if due:
            marks["step"] = trainer.steps.progress.step
        if cfg.publish_seconds is not None:
            due |= self._late(marks, cfg.publish_seconds)
        if due:
            self.publish()

    def _late(self, marks: dict[str, Any], seconds: float) -> bool:
        if self.following:  # no mark of the state: that is a function of the position
            return time.monotonic() - self._since >= seconds
        now = self.trainer.joiner.watermark
        if now is None:
            return False
        if marks["time"] is None:
            marks["time"] = now
        late = now - marks["time"] >= seconds
        if late:
            marks["time"] = now
        return late

    def publish(self) -> Version | None:
        """A version of the model as it is; None where there is one that is further, which a trainer that was killed
        behind it will come to."""
        trainer, task, step = self.trainer, self.trainer.task, self.trainer.steps.progress.step
        name = versions.name_of(step, trainer.counts["taken"])
        self._since = time.monotonic()
        if versions.is_behind(self.out, name):
            if not self._told:
                trainer.observe("note", text=f"{self.out} has versions that are further: the next is made behind them")
            self._told = True
            return None
        asked = gate.canaries(task, self.cfg.canaries, trainer.joiner.watermark or 0.0)
        tensors, found = task.serving_state(step, asked)
        gate.note(asked, found)
        last = trainer.judged.last
        about = Version(
            format=versions.FORMAT,
            name=name,
            run=trainer.fingerprint,
            folder=str(trainer.run.path),
            step=step,
            events=trainer.counts["taken"],
            watermark=trainer.joiner.watermark,
            positions=dict(trainer.positions),
            items=len(task.items),
            users=len(task.users),
            metrics={key: last[key] for key in gate.KEPT if key in last},
            files={},
        )
        plain = task.plain_state() | {"canaries": gate.plain(asked), PAST: trainer.past.state()}
        made, whole = versions.publish(
            self.out, about, tensors, plain, self._passes, self.cfg.publish_full_every, self._last
        )
        if whole is not None and made.refused is None and self.cfg.publish_full_every > 1:
            self._last = whole
        if made.refused is not None:
            self.refused += 1
            trainer.observe("note", text=f"version {made.name} is kept, and not served: {made.refused}", loud=True)
        trainer.observe("published", version=made.name, refused=made.refused)
        self._since = time.monotonic()
        return made

    def _passes(
        self, made: Version, tensors: Mapping[str, Tensor], plain: Mapping[str, Any], served: Version | None
    ) -> str | None:
        """Why a version is not to be served, as it was read from the disk; None where it is."""
        if (reason := gate.no_numbers(tensors)) is not None:
            return reason
        if asked := gate.of_plain(plain["canaries"]):
            if self._served is None:
                found = load_task(self.trainer.run, self.trainer.data, make=StreamTask)
                assert isinstance(found, StreamTask)
                self._served = found
            self._served.serve(plain, tensors, made.step)
            if (reason := gate.otherwise(gate.answers(self._served, asked), asked)) is not None:
                return reason
        return None if served is None else gate.worse(made.metrics, served.metrics, self.cfg)
