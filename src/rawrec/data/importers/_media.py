"""Pictures on their way into a dataset: found by an item's id in a folder, read, checked, counted.

Bytes are stored as they are. A file that is no whole picture is not stored, and is named in the report.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rawrec.data import images
from rawrec.data.importers.report import ImportReport
from rawrec.errors import UserError

MAX_BYTES = 64 << 20
"""A larger picture file is skipped."""
CHUNK = 32
FLUSH_BYTES = 64 << 20
WORKERS = min(8, os.cpu_count() or 1)


class Skip(Exception):
    """A picture that is not stored: the reason, and what may differ from picture to picture."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = f"image: {reason}"
        self.detail = f" ({detail})" if detail else ""


class ImageFolder:
    """The pictures of a folder, one per item, under names made from the item's id.

    Only the files that items name are opened. No id can lead out of the folder: not by `..`, not by an absolute path,
    not by a link.
    """

    def __init__(self, folder: Path, name: str, report: ImportReport) -> None:
        """name: the file's name with `{item}` in place of the id, for example `{item}.jpg`. UserError otherwise."""
        if not Path(folder).is_dir():
            raise UserError(f"image folder {folder} does not exist or is not a folder")
        if "{item}" not in name:
            raise UserError(f"image name {name!r} must hold {{item}} in place of the item's id, as in '{{item}}.jpg'")
        self.folder = Path(folder).resolve()
        self.name = name
        self.report = report
        self.used: set[str] = set()

    def read(self, item_id: str) -> tuple[str, bytes | Skip | None]:
        """The file's name, and the picture's bytes, why it is not stored, or None where there is no file."""
        name = self.name.replace("{item}", item_id)
        try:
            return name, self._read(name)
        except Skip as skip:
            return name, skip

    def _read(self, name: str) -> bytes | None:
        if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise Skip("unsafe name (leads out of the image folder)")
        try:
            path = (self.folder / name).resolve()
            if not path.is_relative_to(self.folder):
                raise Skip("unsafe name (leads out of the image folder)")
            state = path.stat()
            if stat.S_ISDIR(state.st_mode):
                raise Skip("is a folder, not a file")
            if not stat.S_ISREG(state.st_mode):
                raise Skip("is not a plain file")
            if state.st_size > MAX_BYTES:
                raise Skip(f"larger than {MAX_BYTES >> 20} MiB")
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                return None
            raise Skip("cannot be read", getattr(error, "strerror", None) or str(error)) from None
        check(data)
        return data

    def read_many(self, item_ids: Sequence[str], pool: ThreadPoolExecutor) -> list[list[bytes]]:
        """Per item its picture, if there is a good one; everything else is counted in the report."""
        result: list[list[bytes]] = []
        for name, found in pool.map(self.read, item_ids):
            if found is not None:
                self.used.add(os.path.normpath(name))
                self.report.add_read("images")
            if isinstance(found, Skip):
                self.report.skip(found.reason, name + found.detail)
            result.append([found] if isinstance(found, bytes) else [])
        self.report.add_kept("images", sum(map(len, result)))
        return result

    def count_unused(self) -> None:
        """Count the files of the folder that no item named."""
        examples, count = [], 0
        for root, _, files in os.walk(self.folder):
            inside = os.path.relpath(root, self.folder)
            for file in files:
                name = os.path.normpath(os.path.join(inside, file))  # noqa: PTH118
                if name not in self.used:
                    count += 1
                    if len(examples) < 20:
                        examples.append(name)
        if count:
            self.report.skip("file of the image folder that no item names", sorted(examples), count)


def check(data: bytes) -> None:
    """Raises Skip if the bytes are too many, or no whole picture."""
    if not data:
        raise Skip("empty file")
    if len(data) > MAX_BYTES:
        raise Skip(f"larger than {MAX_BYTES >> 20} MiB")
    if reason := images.check(data):
        reason, _, detail = reason.partition(": ")
        raise Skip(reason, detail)


def check_many(
    rows: list[list[bytes]], where: Sequence[str], report: ImportReport, pool: ThreadPoolExecutor
) -> list[list[bytes]]:
    """Per item its good pictures; the others are counted with `where` the item stands."""

    def reasons(pictures: list[bytes]) -> list[Skip | None]:
        found: list[Skip | None] = []
        for data in pictures:
            try:
                check(data)
                found.append(None)
            except Skip as skip:
                found.append(skip)
        return found

    result = []
    for pictures, found, place in zip(rows, pool.map(reasons, rows), where, strict=True):
        report.add_read("images", len(pictures))
        for skip in filter(None, found):
            report.skip(skip.reason, place + skip.detail)
        result.append([data for data, skip in zip(pictures, found, strict=True) if skip is None])
    report.add_kept("images", sum(map(len, result)))
    return result


def spans(ids: Sequence[str], folder: ImageFolder | None) -> Iterator[tuple[slice, list[list[bytes]] | None]]:
    """Consecutive parts of `ids` with the pictures of each, so that a part holds no more than some 64 MiB of them."""
    if folder is None:
        yield slice(0, len(ids)), None
        return
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from bounded(len(ids), lambda part: folder.read_many(ids[part], pool))


def bounded(n: int, read: Callable[[slice], list[list[bytes]]]) -> Iterator[tuple[slice, list[list[bytes]]]]:
    """Consecutive parts of `n` rows with the pictures that `read` gives of them, some 64 MiB to a part."""
    start, held, size = 0, [], 0
    for at in range(0, n, CHUNK):
        found = read(slice(at, at + CHUNK))
        held += found
        size += sum(len(data) for pictures in found for data in pictures)
        if size >= FLUSH_BYTES:
            yield slice(start, start + len(held)), held
            start, held, size = start + len(held), [], 0
    if held:
        yield slice(start, start + len(held)), held
