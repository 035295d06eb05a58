"""Runs that stand for processes: those of sweeps and studies are made in the process of the test."""

from __future__ import annotations

import json
from typing import Any

from rawrec.training.processes import work


class Here:
    """Stands for a process: does its task in this one."""

    tasks: list[dict[str, Any]]
    returncode = 0

    def __init__(self, command: list[str], **options: Any):
        assert command[1:] == ["-m", "rawrec.training.processes"] and options["start_new_session"]
        self.stdin = self

    def write(self, text: str) -> None:
        task = json.loads(text)
        self.tasks.append(task)
        self.said = json.dumps(work(task))

    def flush(self) -> None: ...
    def kill(self) -> None: ...

    def poll(self) -> int:
        return self.returncode

    def communicate(self) -> tuple[str, None]:
        return self.said, None
