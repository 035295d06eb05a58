"""The one door for files that are written: whole or not at all, through no link, under names that nobody can foresee.

A file is written beside its place, under a name that carries who writes it (machine, process and when that began), and
takes its place by a rename when it is on the disk. So a reader sees the old file or the new one, a link that stands in
the place is replaced and never followed, and what a killed process left can be told from what a living one is writing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rawrec import faults
from rawrec.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_LOCKS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
HOLDER = 200
"""Bytes of what a lock's file says of who has it."""
SIGNED = re.compile(rb"process [0-9]+ on ")
"""What the file of a lock begins with."""
LEFT = 3600.0
"""Seconds since a partial file was last written after which nobody writes it any more, where its process is not of this
machine (another host, a container, a boot before this one), so that nobody here can say whether it lives."""
PARTIAL = re.compile(r"\..*\.([0-9a-f]{8})-([0-9a-f]+)-([0-9a-f]+)\.[0-9a-f]{16}\.partial", re.DOTALL)
"""Machine, process and start of process in the name of what is being written."""
EARLIER = re.compile(r".+\.[0-9a-f]{8}\.partial", re.DOTALL)
"""What earlier versions named theirs."""


@contextmanager
def filling(path: Path) -> Iterator[None]:
    """An error of a full disk that does not say where (those of writing do not) names this file or folder."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


# ------------------------------------------------------------------------------------------------------- a file, whole
@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A new, empty file beside `path` to write; at the end it is on the disk and takes the place of `path`, after an
    error it is gone. Every writer has a file of its own: of several at once the last one's counts, and each is whole.

    What stands at `path` is never opened: a link there is replaced. What killed processes left in the folder is
    removed. durable: False for files whose damage would be found (pictures that are checked when they are read): nobody
    waits for the disk, and left-overs are left to who asks for `clean`.
    """
    if durable:
        clean(path.parent)
    partial = partial_of(path)
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with filling(path):
            yield partial
            if durable:
                sync(partial)
        try:
            with faults.around("rename", path):
                partial.replace(path)
        except IsADirectoryError:
            raise UserError(f"{path} is a folder, and a file is to be written there: remove it") from None
        if durable:
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` atomically."""
    with replacing(path) as partial, create(partial) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Replace `path` atomically; signs that UTF-8 cannot hold are written as what they are in Python."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def yaml_text(values: Any) -> str:
    """The text of plain values, keys in their order; reading it gives them again, whatever characters they have."""
    how: dict[str, Any] = {"sort_keys": False, "allow_unicode": True}
    try:
        return yaml.dump(values, Dumper=_DUMPER, **how)
    except UnicodeEncodeError:  # names of files that are no UTF-8, which libyaml does not write
        return yaml.dump(values, Dumper=yaml.SafeDumper, **how)


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""libyaml's: four times as quick, and PyYAML's own makes other text of U+0085."""


def write_table(table: pa.Table, path: Path) -> None:
    """A Parquet file, replaced atomically. Raises OSError where it cannot be written."""
    with replacing(path) as partial:
        pq.write_table(table, partial, write_page_checksum=True)


def create(path: Path) -> BinaryIO:
    """A file to write from its beginning, in a folder of our own or of `replacing`; OSError where a link is there."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return faults.written(os.fdopen(handle, "wb"), path)


def copy(source: Path, target: Path) -> None:
    """What a file holds, in a file of our own, see `create`."""
    with source.open("rb") as given, create(target) as file:
        shutil.copyfileobj(given, file, 1 << 20)


def appending(path: Path, readable: bool = False) -> BinaryIO:
    """A file to add to at its end, made where there is none. readable: it can be read and cut, too.

    Raises UserError where `path` is a link, or no plain file. A file that has another name elsewhere (a hard link) is
    copied first, so that the other stays what it is.
    """
    flags = os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for _ in range(2):
        try:
            handle = os.open(path, flags | (os.O_RDWR if readable else os.O_WRONLY), 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR) or path.is_symlink():
                raise UserError(f"{path} is no plain file, and nothing is written through it: remove it") from None
            raise
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            os.close(handle)
            raise UserError(f"{path} is no plain file, and nothing is written through it: remove it")
        if found.st_nlink == 1:
            break
        os.close(handle)
        with replacing(path) as partial:
            copy(path, partial)
    return faults.written(os.fdopen(handle, "a+b" if readable else "ab"), path)


def sync(path: Path) -> None:
    """Return when the file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with faults.around("fsync", path):
            os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that syncs no folders
            raise
    finally:
        os.close(handle)


def move(path: Path, target: Path) -> None:
    """Move a file, in one step; from another file system, by way of a copy beside the target."""
    try:
        with faults.around("rename", target):
            path.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(target) as partial:
            copy(path, partial)
        path.unlink()


# ------------------------------------------------------------------------------------------------ names, and left-overs
def partial_of(path: Path) -> Path:
    """A name beside `path` that nobody else has or can foresee, by which `clean` knows whose it is."""
    owner = f"{_machine()}-{os.getpid():x}-{_start(os.getpid()) or 0:x}"
    return path.with_name(f".{path.name[:32]}.{owner}.{secrets.token_hex(8)}.partial")


def is_partial(name: str) -> bool:
    """Whether a file or folder of this name is being written, or was left by who wrote it."""
    return bool(PARTIAL.fullmatch(name) or EARLIER.fullmatch(name))


def clean(folder: Path) -> None:
    """Remove the files and folders in `folder` that processes were writing which are dead, and their locks; what cannot
    be removed stays."""
    locks: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            found = []
            for entry in entries:
                if entry.name.endswith(".partial") and _is_left(entry):
                    found.append(entry.path)
                elif entry.name.endswith(".lock") and entry.name.startswith("."):
                    locks.append(Path(entry.path))
    except OSError:
        return
    for path in found:
        remove(Path(path))
    for lock in locks:
        with suppress(OSError):
            _remove_lock(lock)


def _remove_lock(path: Path) -> None:
    """Remove the file of a lock that nobody has: who had it was killed."""
    lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(lock)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and SIGNED.match(os.pread(lock, HOLDER, 0)):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_ino == path.lstat().st_ino:
                path.unlink()
    finally:
        os.close(lock)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, as far as that can be done; no link is followed."""
    with suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _is_left(entry: os.DirEntry[str]) -> bool:
    """Whether nobody writes any more what has such a name."""
    match = PARTIAL.fullmatch(entry.name)
    if match and match[1] == _machine():
        return not _lives(int(match[2], 16), int(match[3], 16))
    if not match and not EARLIER.fullmatch(entry.name):
        return False
    with suppress(OSError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFT
    return False


def _lives(process: int, started: int) -> bool:
    """Whether the process that began at `started` (0: unknown) is there yet; another can have its number now."""
    try:
        os.kill(process, 0)
    except PermissionError:
        pass  # it is another user's
    except (OSError, OverflowError):
        return False
    now = _start(process)
    return now is None or (now >= 0 and started in (0, now))


def _start(process: int) -> int | None:
    """When a process began, in ticks since the machine did; -1: it is dead, and waits for its parent; None: nobody
    says."""
    try:
        words = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return -1 if words[0] in (b"Z", b"X") else int(words[19])


@cache
def _machine() -> str:
    """Where numbers of processes mean the same: this machine since it was started, and this container."""
    known = [platform.node()]
    with suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        known.append(str(os.stat("/proc/self/ns/pid").st_ino))  # noqa: PTH116
    return blake2b(" ".join(known).encode(), digest_size=4).hexdigest()


# ------------------------------------------------------------------------------------------------------ locks, folders
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
            try:
                lock = os.open(self._file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                self._file.unlink(missing_ok=True)  # a link, which we neither follow nor keep
                continue
            found = os.fstat(lock)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:  # somebody's file under another name
                os.close(lock)
                self._file.unlink(missing_ok=True)
                continue
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


@contextmanager
def alone(place: Path, busy: str) -> Iterator[None]:
    """Inside, nobody else who asks writes to `place`, whatever links lead there: see `Lock`. Where the folder cannot be
    written, or its file system knows no locks, nobody is kept out."""
    with ExitStack() as stack:
        try:
            stack.enter_context(Lock(place.absolute().parent.resolve() / place.name, busy))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield


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


# --------------------------------------------------------------------------------------------------------- safetensors
def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file, as the library of that name lays it out, written into `path` itself: no further temporary
    file that a kill could leave. Takes memory for one tensor that is not on the CPU. Raises OSError where it cannot be
    written: disk full, read-only."""
    from torch import uint8

    kinds = tensor_kinds()
    names = sorted(tensors, key=lambda name: (-kinds[tensors[name].dtype][1], name))
    head: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].numel() * tensors[name].element_size()
        kind, shape = kinds[tensors[name].dtype][0], [*tensors[name].shape]
        head[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with create(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            values = tensors[name].detach().cpu().contiguous()
            if values.numel():
                file.write(values.reshape(-1).view(uint8).numpy().data)


@cache
def tensor_kinds() -> dict[object, tuple[str, int]]:
    """Type of a tensor -> its name in safetensors, and its place in the order of a file (the last ones come first)."""
    import torch

    names = {
        "BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn",
        "I16": "int16", "U16": "uint16", "F16": "float16", "BF16": "bfloat16", "I32": "int32", "U32": "uint32",
        "F32": "float32", "C64": "complex64", "F64": "float64", "I64": "int64", "U64": "uint64",
    }  # fmt: skip
    known = [(kind, getattr(torch, name)) for kind, name in names.items()]
    return {kind: (name, place) for place, (name, kind) in enumerate(known)}
