"""Folders that take their place whole, in one step; sub-folders that are no links; what is in a folder, really."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from rawrec import faults
from rawrec.errors import UserError
from rawrec.files import clean, filling, is_partial, partial_of, remove, sync

HERE, SWAP = -100, 2
"""Of Linux' renameat2: paths are as they are given; the two places are exchanged."""
UNABLE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)
"""What a system or a file system says that cannot exchange."""


@contextmanager
def placing(target: Path) -> Iterator[Path]:
    """A fresh folder beside `target` to fill; at the end all of it is on the disk and it takes the place of `target`,
    which goes; after an error the fresh one is gone, and what was there stands.

    A process that is killed leaves the old folder or the new one, see `swap`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    restore(target)
    clean(target.parent)
    folder = partial_of(target)
    folder.mkdir()
    try:
        with filling(target):
            yield folder
            sync_all(folder)
        if target.is_dir() and any(target.iterdir()):
            swap(folder, target)
        else:
            with faults.around("rename", target):
                folder.rename(target)
            sync(target.parent)
    finally:
        remove(folder)


def swap(new: Path, target: Path) -> None:
    """The folder `new` takes the place of the folder `target`, which goes. Where the system can exchange two names, one
    of the two is at `target` at every moment; elsewhere `target` is for a moment at `beside(target)`, from where
    `restore` brings it back."""
    if exchange(new, target):
        sync(target.parent)
        discard(new)
        return
    old = beside(target)
    remove(old)
    with faults.around("rename", old):
        target.rename(old)
    try:
        with faults.around("rename", target):
            new.rename(target)
    except BaseException:
        if not os.path.lexists(target):
            old.rename(target)
        raise
    sync(target.parent)
    discard(old)


def swap_keeping(new: Path, target: Path, kept: Path) -> None:
    """The folder `new` takes the place of the folder `target`, which stands at `kept` then, where nothing is
    yet. Killed in between, `target` is where it was, or, where the system cannot exchange, at `kept`."""
    new.rename(kept)
    if exchange(kept, target):
        sync(target.parent)
        return
    kept.rename(new)
    target.rename(kept)
    try:
        new.rename(target)
    except BaseException:
        kept.rename(target)
        raise
    sync(target.parent)


def beside(target: Path) -> Path:
    """Where a folder stands for a moment while it is replaced by renaming."""
    return target.with_name(f".{target.name}.old")


def restore(target: Path) -> bool:
    """Bring back a folder whose replacement was killed between two renames; whether there was one. For who has the
    right to write there."""
    if os.path.lexists(target) or not beside(target).is_dir() or beside(target).is_symlink():
        return False
    beside(target).rename(target)
    return True


def discard(folder: Path) -> None:
    """Remove a folder: it loses its name at once, so that nobody takes for whole what a kill leaves of it."""
    name = partial_of(folder)
    try:
        with faults.around("rename", folder):
            folder.rename(name)
    except FileNotFoundError:
        return
    except OSError:
        name = folder
    remove(name)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders or files in one step; False, and nothing has changed, where the system cannot. Raises
    OSError where one of them is not there, or must not be moved."""
    call = _exchanger()
    if call is None:
        return False
    with faults.around("rename", other):
        code = call(os.fsencode(one), os.fsencode(other))
    if code in UNABLE:
        return False
    if code:
        raise OSError(code, os.strerror(code), str(other))
    return True


@cache
def _exchanger() -> Any:
    """(path, path) -> the number of an error, or 0; None where the system has no such call."""
    library = ctypes.CDLL(None, use_errno=True)
    if (linux := getattr(library, "renameat2", None)) is not None:
        return lambda one, other: ctypes.get_errno() if linux(HERE, one, HERE, other, SWAP) else 0
    if (apple := getattr(library, "renamex_np", None)) is not None:
        return lambda one, other: ctypes.get_errno() if apple(one, other, SWAP) else 0
    return None


def sync_all(folder: Path) -> None:
    """Return when all that a folder of our own holds is on the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            if stat.S_ISREG((Path(place) / name).lstat().st_mode):
                sync(Path(place) / name)
        sync(Path(place))


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing, or only what a process that was killed was writing into it."""
    return all(is_partial(path.name) for path in folder.iterdir())


def own_folder(path: Path) -> Path:
    """A folder within one of ours, made where there is none. Raises UserError where a link or a file stands there:
    nothing is written through links, since they can lead anywhere."""
    with suppress(FileExistsError):
        path.mkdir()
    check_own_folder(path)
    return path


def check_own_folder(path: Path) -> None:
    """UserError where something stands at `path` that is no folder, as a link that leads to one."""
    if os.path.lexists(path) and not stat.S_ISDIR(path.lstat().st_mode):
        raise UserError(
            f"{path} is a link or a file, and a folder is needed there: nothing is written through links. "
            "Move what it leads to there, or remove it"
        )


def is_within(path: Path, folder: Path) -> bool:
    """Whether `path` stands in `folder` or below, whatever links and dots lead there."""
    if not folder.is_dir():
        return False
    above = path.absolute().parent.resolve()
    return any(place.exists() and place.samefile(folder) for place in (above, *above.parents))


def copy_linked(source: Path, target: Path) -> None:
    """A copy of a file or folder that shares the disk's blocks where they are on one file system. For files that are
    replaced and never changed."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link)
    else:
        _link(str(source), str(target))


def _link(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
