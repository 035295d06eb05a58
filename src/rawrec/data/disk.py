"""Files of datasets on the disk: what the system refuses, one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from rawrec import files
from rawrec.errors import UserError
from rawrec.reading import check_plain

_CAUSES = {
    errno.ENOSPC: "the disk is full: free some space or choose a folder on another disk",
    errno.EDQUOT: "the disk quota is used up: free some space or choose a folder on another disk",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "writing is not permitted there: choose another folder or change its permissions",
    errno.EPERM: "writing is not permitted there: choose another folder or change its permissions",
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another folder",
    errno.EEXIST: "a part of the path is a file, not a folder: choose another folder",
    errno.ENOTEMPTY: "something else was written there meanwhile: choose another folder",
    errno.EXDEV: "it is a mount point, or on another disk than the folder it stands in: name a folder within it",
    errno.EBUSY: "it is a mount point: name a folder within it",
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


def check_lance(table: Path) -> None:
    """UserError where something in the folder of a table of Lance is no file and no folder: Lance opens pipes, and
    waits for ever."""
    for folder, _, names in os.walk(table):
        for name in names:
            check_plain(Path(folder, name), links=True)


def clean_lance(table: Path) -> None:
    """Remove what Lance was writing beside the versions of a table when it was killed; for who has the lock."""
    for path in (table / "_versions").glob(".tmp*"):
        files.remove(path)


class Lock(files.Lock):
    """The right to write to the dataset at `out` (resolved)."""

    def __init__(self, out: Path) -> None:
        busy = f"another import or append is writing to {out} now: wait until it is done, or choose another folder"
        with writing(out):
            super().__init__(out, busy)


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
