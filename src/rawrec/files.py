"""Files written whole or not at all, with honest errors."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from rawrec.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HOLDER = 200
"""Bytes of what a lock's file says of who has it."""
LEFT = 3600.0
"""Seconds since a partial file was last written after which nobody writes it any more."""


@contextmanager
def filling(path: Path) -> Iterator[None]:
    """An error of a full disk that does not say where (those of writing do not) names this file or folder."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write; at the end it is on the disk and takes the place of `path`, after an error it is
    gone. Every writer has a file of its own: of several at once the last one's counts, and each is whole.

    What a process that was killed left of its own is removed by the next writer after an hour.
    """
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT:
                left.unlink()
    partial = partial_of(path)
    try:
        with filling(path):
            yield partial
            sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """A name beside `path` that nobody else has."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")


def sync(path: Path) -> None:
    """Return when the file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move(path: Path, target: Path) -> None:
    """Move a file, in one step; from another file system, by way of a copy beside the target."""
    try:
        path.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(target) as partial:
            shutil.copyfile(path, partial)
        path.unlink()


class Lock:
    """The right to write to the place `out` (resolved), by the file `.<name>.lock` beside it.

    One process has it at a time; the system frees it however the process ends. Raises UserError, with the text `busy`
    and who it is, where another has it.
    """

    def __init__(self, out: Path, busy: str) -> None:
        self._file = out.with_name(f".{out.name}.lock")
        self._handle: int | None = self._acquire(busy)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def held(self) -> bool:
        return self._handle is not None

    def _acquire(self, busy: str) -> int:
        while True:
            lock = os.open(self._file, os.O_CREAT | os.O_RDWR, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_ino == self._file.stat().st_ino:
                    self._sign(lock)
                    return lock
            except BlockingIOError:
                holder = os.pread(lock, HOLDER, 0).decode(errors="replace").strip()
                os.close(lock)
                raise UserError(f"{busy} (it is held by {holder})" if holder else busy) from None
            except FileNotFoundError:
                pass
            except OSError:
                os.close(lock)
                raise
            os.close(lock)  # its last owner removed the file between our opening and locking it

    @staticmethod
    def _sign(lock: int) -> None:
        """Write into the file who has it, for the messages of others; on a full disk it stays unsigned."""
        with suppress(OSError):
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}"[:HOLDER].encode(), 0)

    def release(self) -> None:
        if self._handle is not None:
            self._file.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None


def make_folder(path: Path) -> list[Path]:
    """Make a folder and those above it; those that were not there, the innermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: list[Path]) -> None:
    """Take back what `make_folder` has made, as far as nothing is in it."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def write_table(table: pa.Table, path: Path) -> None:
    """A Parquet file, replaced atomically. Raises OSError where it cannot be written."""
    with replacing(path) as partial:
        pq.write_table(table, partial)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file. Raises OSError, as other files do, where it cannot be written: disk full, read-only."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file  # which loads torch

    path.touch()
    mode = path.stat().st_mode & 0o777  # as every new file here; save_file would leave it readable by its owner only
    try:
        save_file(dict(tensors), path, metadata)
        path.chmod(mode)
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        code = int(found[1]) if found else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from None
