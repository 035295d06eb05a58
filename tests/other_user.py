"""Another user, for tests of what a process may not write: one who reads everything and owns nothing."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

NOBODY = 65534
KEEP_CAPABILITIES, VERSION = 8, 0x20080522
READ_ALL = 1 << 2  # CAP_DAC_READ_SEARCH: where Python stands may be in root's own folder


def become() -> None:
    """From here on this process, which has one thread, may write what everybody may alone. As root it becomes another
    user; else `close` has taken the permissions."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(KEEP_CAPABILITIES, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    header = (ctypes.c_uint32 * 2)(VERSION, 0)
    data = (ctypes.c_uint32 * 6)(READ_ALL, READ_ALL, READ_ALL, 0, 0, 0)
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "the right to read everything is not given here")


def close(folder: Path, closed: bool = True) -> None:
    """Take the permission to write into a folder and all below it from its owner, or give it back; root has it all the
    same, see `become`."""
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode & 0o777
        path.chmod(mode & ~0o222 if closed else mode | 0o200)
