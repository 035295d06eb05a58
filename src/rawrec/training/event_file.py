"""A file of events for TensorBoard, written in the thread that trains.

TensorBoard's own writer has a thread: where its folder is closed or full, that thread ends in a traceback, and whoever
writes next hears of it. Here an error is raised where it happens, and no thread is left.
"""

from __future__ import annotations

import itertools
import os
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rawrec.files import create, filling

_NUMBERS = itertools.count()
"""Of this process' files: TensorBoard reads the files of a folder by name, and two can be of one second."""


class EventFile:
    """A new file in a folder of our own, under a name that nobody can foresee.

    purge: the step from which on what earlier files of the folder hold is not shown. Raises OSError where it cannot be
    written, as all methods but `close` do.
    """

    def __init__(self, folder: Path, purge: int | None = None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        events: Any = event_pb2  # classes that are made at run time
        summaries: Any = summary_pb2
        self._event, self._summary = events.Event, summaries.Summary
        host = socket.gethostname().replace("/", "_")
        own = f"{host}.{os.getpid()}.{next(_NUMBERS)}.{secrets.token_hex(8)}"
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}.{own}"
        self._file = create(self.path)
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        if purge is not None:
            self._write(step=purge, session_log=events.SessionLog(status=events.SessionLog.START))
        self._flush()

    def add(self, values: Mapping[str, Any], step: int) -> None:
        """Those of the values that are numbers, as of a step."""
        for name, value in values.items():
            if isinstance(value, int | float):
                one = self._summary.Value(tag=name, simple_value=float(value))
                self._write(step=step, summary=self._summary(value=[one]))
        self._flush()

    def add_settings(self, settings: Mapping[str, Any], metrics: list[str]) -> None:
        """The settings of a run, as HPARAMS beside metrics of these names."""
        from torch.utils.tensorboard.summary import hparams

        simple = (bool, int, float, str)
        plain = {key: value if isinstance(value, simple) else str(value) for key, value in settings.items()}
        for summary in hparams(plain, dict.fromkeys(metrics)):
            self._write(summary=summary)
        self._flush()

    def close(self) -> None:
        with suppress(OSError):  # of what could not be written before
            self._file.close()

    def _write(self, **what: Any) -> None:
        with filling(self.path):
            self._records.write(self._event(wall_time=time.time(), **what).SerializeToString())

    def _flush(self) -> None:
        with filling(self.path):
            self._file.flush()
