"""One training at a time in a process: torch has one state for all of its threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rawrec.errors import UserError
from rawrec.threads import Mutex

_settling = Mutex()
_training: tuple[int, int] | None = None  # the process and the thread that trains


@contextmanager
def one_training() -> Iterator[None]:
    """Inside, no other thread of this process trains: it hears a UserError.

    How many threads torch has, and what it does where an operation is not deterministic, is settled for a process.
    """
    global _training
    me = os.getpid(), threading.get_ident()
    with _settling:
        before = _training
        if before is not None and before[0] == me[0] and before != me:
            raise UserError(
                "another thread of this process is training now, and torch has one state for both: wait until it is "
                "done, or train in processes (rawrec train, rawrec sweep --jobs 2)"
            )
        _training = me
    try:
        yield
    finally:
        _training = before
