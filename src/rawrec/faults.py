"""Faults on demand, for tests of what a killed process or a broken disk leaves: `RAWREC_FAULT=point[@part]:n[:kind]`.

The n-th time (from 1) that the process comes to the point, it is killed (`kill`, unless another kind is named), or the
operation fails: `ENOSPC`, `EIO`, or `short`, which writes half and says that the disk is full. part: of the path that
is written; without it any path counts. Without the variable a point costs a call of a function that does nothing.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from rawrec.errors import UserError

VARIABLE = "RAWREC_FAULT"
OPERATIONS = ("write", "fsync", "rename", "append", "acknowledge")
"""What may fail: bytes into a file; a file or folder brought to the disk; a new name; events into a log; a word to who
sent them, or to the log, that they are held, which nothing but a kill prevents."""
DONE = ".done"
"""Behind an operation's name: the point after it; without it, the one before."""
POINTS = tuple(name + end for name in OPERATIONS for end in ("", DONE))
KINDS = ("kill", "ENOSPC", "EIO", "short")
FORM = re.compile(rf"({'|'.join(map(re.escape, POINTS))})(@[^:]+)?:([1-9][0-9]*)(:({'|'.join(KINDS)}))?")
NOTHING = nullcontext()


class Fault(NamedTuple):
    point: str
    part: str
    number: int
    kind: str

    @classmethod
    def of(cls, text: str) -> Fault:
        """UserError for what is no fault."""
        match = FORM.fullmatch(text)
        if match is None:
            raise UserError(
                f"{VARIABLE}={text[:60]!r}: give point:n or point:n:kind; points are {', '.join(POINTS)}, kinds "
                f"{', '.join(KINDS)}"
            )
        found = cls(match[1], (match[2] or "").removeprefix("@"), int(match[3]), match[5] or "kill")
        if found.point.startswith("acknowledge") and found.kind != "kill":
            raise UserError(f"{VARIABLE}={text}: no disk has a part in that; use kill")
        return found


_lock = threading.Lock()
_asked: Fault | None = None
_met = 0
_wanted = os.environ.get(VARIABLE, "")


def ask(text: str) -> None:
    """What the variable does, in a process that runs already; "" asks for none. Counting begins anew."""
    global _asked, _met, _wanted
    _asked, _met, _wanted = Fault.of(text) if text else None, 0, ""


def reach(point: str, path: Path | str = "") -> None:
    """This is a point: whoever asked for it is killed here, or has an OSError."""
    if _due(point, path):
        _fail(path)


def around(operation: str, path: Path | str = "") -> AbstractContextManager[None]:
    """The points before and after an operation, which is done inside."""
    return _around(operation, path) if _asked is not None or _wanted else NOTHING


def written(file: BinaryIO, path: Path) -> BinaryIO:
    """A file whose writes are points."""
    return cast(BinaryIO, _File(file, path)) if _asked is not None or _wanted else file


@contextmanager
def _around(operation: str, path: Path | str) -> Iterator[None]:
    reach(operation, path)
    yield
    reach(operation + DONE, path)


def _due(point: str, path: Path | str) -> bool:
    global _met
    if _wanted:
        ask(_wanted)
    if _asked is None or point != _asked.point or _asked.part not in str(path):
        return False
    with _lock:
        _met += 1
        return _met == _asked.number


def _fail(path: Path | str) -> None:
    assert _asked is not None
    if _asked.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    number = errno.EIO if _asked.kind == "EIO" else errno.ENOSPC
    raise OSError(number, os.strerror(number), str(path) or None)


class _File:
    """A file, of which a write may be the last, or half of one."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path

    def write(self, data: Any) -> int:
        if _due("write", self._path):
            assert _asked is not None
            if _asked.kind in ("short", "kill"):
                self._file.write(memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
                self._file.flush()
            _fail(self._path)
        count = self._file.write(data)
        if _due("write" + DONE, self._path):
            self._file.flush()
            _fail(self._path)
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
