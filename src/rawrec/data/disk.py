"""Files of datasets on the disk: what the system refuses, one writer at a time, safely there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rawrec.errors import UserError

_CAUSES = {
    errno.ENOSPC: "the disk is full: free some space or choose a folder on another disk",
    errno.EDQUOT: "the disk quota is used up: free some space or choose a folder on another disk",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "writing is not permitted there: choose another folder or change its permissions",
    errno.EPERM: "writing is not permitted there: choose another folder or change its permissions",
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another folder",
    errno.EEXIST: "a part of the path is a file, not a folder: choose another folder",
    errno.ENOTEMPTY: "something else was written there meanwhile: choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn what the system refuses while writing into a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        # Libraries below raise some of these without a number, but with its text.
        found = re.search(r"os error (\d+)", str(error))
        code = error.errno or (int(found.group(1)) if found else None)
        for number in _CAUSES:
            if code is None and os.strerror(number) in str(error):
                code = number
        cause = _CAUSES.get(code or 0, first_line(error))
        raise UserError(f"cannot write the dataset {out}: {cause}") from error


class Lock:
    """The right to write to the place `out` (resolved), by the file `.<name>.lock` beside it.

    One process has it at a time; the system frees it however the process ends. Raises UserError where another has it.
    """

    def __init__(self, out: Path) -> None:
        self._file = out.with_name(f".{out.name}.lock")
        self._handle: int | None = self._acquire(out)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def held(self) -> bool:
        return self._handle is not None

    def _acquire(self, out: Path) -> int:
        while True:
            with writing(out):
                lock = os.open(self._file, os.O_CREAT | os.O_RDWR, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_ino == self._file.stat().st_ino:
                    return lock
            except BlockingIOError:
                os.close(lock)
                raise UserError(
                    f"another import or append is writing to {out} now: wait until it is done, or choose another folder"
                ) from None
            except FileNotFoundError:
                pass
            os.close(lock)  # its last owner removed the file between our opening and locking it

    def release(self) -> None:
        if self._handle is not None:
            self._file.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None


def sync(path: Path) -> None:
    """Return when the file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
