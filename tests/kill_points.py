"""A piece of work that is killed at each of its operations on files, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from rawrec import folders

CHANGING = ("rename", "replace", "mkdir", "unlink", "rmdir")
"""Operations that change names: what lies between two of them is seen by nobody else."""


def killed_everywhere(work: Callable[[], Any], most: int = 300, every: int = 1) -> Iterator[int]:
    """The number of the operation before which a process that does the work was killed; ends when it came to its end.
    Between two steps the caller puts things back. every: so many operations lie between two kills."""
    for number in range(0, most, every):
        process = os.fork()
        if not process:
            code = 1
            try:
                kill_before(number)
                work()
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert code in (0, 9), "it did not go as it should where it was not killed"
        yield number
        if code == 0:
            return
    raise AssertionError(f"not done after {most} operations")


def kill_before(number: int, names: Sequence[str] = CHANGING) -> list[int]:
    """End this process, as SIGKILL does, before its operation of that number, of those that os has by these names, and
    of exchanges of folders. Returns a list of how many operations are left until then."""
    left = [number]
    patch = pytest.MonkeyPatch()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return call(*args, **kwargs)

        return counting

    for name in names:
        patch.setattr(os, name, counted(getattr(os, name)))
    if (call := folders._exchanger()) is not None:
        patch.setattr(folders, "_exchanger", lambda: counted(call))
    return left
