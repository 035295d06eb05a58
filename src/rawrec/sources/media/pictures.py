"""Pictures on their way into a dataset: found by an item's id in a folder, read, checked, counted.

Bytes are stored as they are. A file that is no whole picture is not stored, and is named in the report.
"""

from __future__ import annotations

import errno
import glob
import io
import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from rawrec.data.checked import WORKERS, Checked
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.media.names import ImageName, matching, suffix_of, with_suffix

SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
"""Of files that are pictures, where a name has to say what a file is."""
ANY_CASE = (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES))
LISTINGS = 256
"""Folders whose names are held."""
MAX_BYTES = 64 << 20
"""A larger picture file is skipped."""
CHUNK = 8
"""Pictures, or rows of pictures, that a thread works on at a time."""
FLUSH_BYTES = 4 << 20
"""Bytes of pictures that go on together."""
AHEAD = WORKERS + 4
"""Chunks that are worked on while earlier ones are used."""
T = TypeVar("T")
Pictures = list[list[bytes]]
"""Per row its pictures."""


class Skip(Exception):
    """A picture that is not stored: the reason, and what may differ from picture to picture."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = f"image: {reason}"
        self.detail = f" ({detail})" if detail else ""


@dataclass
class Found:
    """What a folder has of an item. used: the files that are the item's; folders: whole folders that are. pictures: a
    name and the bytes of each, or why it is not stored. beside: what else is to be counted: a reason, an example, how
    often."""

    used: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    pictures: list[tuple[str, bytes | Skip]] = field(default_factory=list)
    beside: list[tuple[str, str, int]] = field(default_factory=list)


class ImageFolder:
    """The pictures of a folder under names made from the item's id, see `ImageName`: one per item, of a glob several,
    in the order of their names.

    Where a name ends on the suffix of a picture and there is no such file, those with another suffix are the item's.
    Only the files that items name are opened. No id can lead out of the folder: not by `..`, not by an absolute path,
    not by a link.
    """

    at_once = CHUNK
    """Items that a thread works on at a time."""

    def __init__(self, folder: Path, name: str, report: ImportReport) -> None:
        """name: the file's name with `{item}` in place of the id, for example `{item}.jpg`. UserError for another, and
        where there is no such folder."""
        if not Path(folder).is_dir():
            raise UserError(f"image folder {folder} does not exist or is not a folder")
        self.folder = Path(folder).resolve()
        self.name = ImageName(name)
        self.report = report
        self.used: set[str] = set()
        self.used_folders: set[str] = set()
        self.suffixes: Counter[str] = Counter()
        """Of files that have another one than the name."""
        self._several: list[str] = []  # files of several items
        self._listed = lru_cache(LISTINGS)(self._list)
        self._kinds = lru_cache(LISTINGS)(self._suffixes_in)

    def read(self, item_id: str) -> tuple[str, bytes | Skip | None]:
        """The file's name, and its bytes, why they are not read, or None where there is no file."""
        name = self.name.of(item_id)
        return name, self._tried(lambda: self._read(name))

    def _tried(self, work: Callable[[], T]) -> T | Skip | None:
        """What `work` gives, why it is not read, or None where there is no such file."""
        try:
            return work()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Skip as skip:
            return skip
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                return None
            return Skip("cannot be read", getattr(error, "strerror", None) or str(error))

    def _read(self, name: str) -> bytes:
        path, state = self._locate(name)
        if stat.S_ISREG(state.st_mode) and state.st_size > MAX_BYTES:
            raise Skip(f"larger than {MAX_BYTES >> 20} MiB")
        with self._opened(path, state) as file:
            return file.read()

    def _opened(self, path: str, state: os.stat_result) -> io.FileIO:
        """A plain file; what has taken its place since is neither followed nor waited for."""
        if stat.S_ISDIR(state.st_mode):
            raise Skip("is a folder, not a file")
        if not stat.S_ISREG(state.st_mode):
            raise Skip("is not a plain file")
        return io.FileIO(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))

    def _locate(self, name: str) -> tuple[str, os.stat_result]:
        """Where the file really is, which is in the folder, and what it is. Only a name with links is resolved."""
        if "\0" in name or name.startswith("/") or ".." in name.split("/"):
            raise Skip("unsafe name (leads out of the image folder)")
        path = str(self.folder)
        for part in name.split("/"):
            path += f"/{part}"
            if stat.S_ISLNK(os.lstat(path).st_mode):
                real = (self.folder / name).resolve()
                if not real.is_relative_to(self.folder):
                    raise Skip("unsafe name (leads out of the image folder)")
                return str(real), os.lstat(real)
        return path, os.lstat(path)

    def pictures(self, item_ids: Sequence[Any], pool: ThreadPoolExecutor, checked: Checked) -> Iterator[Pictures]:
        """Chunk by chunk of the items, per item its pictures, those that are good; all else is counted."""

        def read(few: slice) -> list[Found]:
            return [self._found(item_id, checked) for item_id in item_ids[few]]

        for chunk in ahead(pool, read, chunks(len(item_ids), self.at_once)):
            result: Pictures = []
            for found in chunk:
                self._use(found.used)
                self.used_folders.update(map(os.path.normpath, found.folders))
                self.report.add_read("images", len(found.pictures))
                for name, picture in found.pictures:
                    if isinstance(picture, Skip):
                        self.report.skip(picture.reason, name + picture.detail)
                for reason, example, count in found.beside:
                    self.report.skip(reason, example, count)
                result.append([picture for _, picture in found.pictures if isinstance(picture, bytes)])
            self.report.add_kept("images", sum(map(len, result)))
            yield result

    def _use(self, names: Iterable[str]) -> None:
        for name in map(os.path.normpath, names):
            if name in self.used:
                self._several.append(name)
            self.used.add(name)
            if self.name.suffix and (suffix := suffix_of(name)) != self.name.suffix:
                self.suffixes[suffix] += 1

    def _found(self, item_id: Any, checked: Checked) -> Found:
        for name in self._names(item_id):
            found = self._files(self._matches(name) if self.name.is_glob else [name], checked)
            if found.pictures:
                return found
        return Found()

    def _names(self, item_id: str) -> Iterator[str]:
        """The item's name, or pattern; then, for as long as there is no such file, with other suffixes."""
        name = self.name.of(item_id)
        yield name
        if self.name.suffix in SUFFIXES:
            other = ANY_CASE if self.name.is_glob else self._kinds(os.path.dirname(name))  # noqa: PTH120
            yield from (with_suffix(name, suffix) for suffix in other if suffix != name.rpartition(".")[2])

    def _files(self, names: Iterable[str] | Skip, checked: Checked) -> Found:
        """The pictures of these files, of those that are there."""
        found = Found()
        if isinstance(names, Skip):
            found.pictures.append((self.name.text, names))
            return found
        for name in names:
            picture = self._tried(lambda name=name: self._read(name))
            if picture is None:
                continue
            if isinstance(picture, bytes):
                picture = _reason(picture, checked) or picture
            found.used.append(name)
            found.pictures.append((name, picture))
        return found

    def _matches(self, pattern: str) -> list[str] | Skip:
        """The names that fit a pattern, part by part, each in the order of names; or why a folder is not read."""
        if pattern.startswith("/"):
            return Skip("unsafe name (leads out of the image folder)")
        places = [""]
        for part in pattern.split("/"):
            if not glob.has_magic(part):
                places = [f"{place}/{part}".lstrip("/") for place in places]
                continue
            found: list[str] = []
            for place in places:
                listed = self._tried(lambda place=place: self._listed(place))
                if isinstance(listed, Skip):
                    return listed
                found += [f"{place}/{name}".lstrip("/") for name in matching(part, listed or [])]
            places = found
        return places

    def _list(self, name: str) -> list[str]:
        """The names in a folder within this one, sorted."""
        path, state = self._locate(name) if name else (str(self.folder), os.lstat(self.folder))
        if not stat.S_ISDIR(state.st_mode):
            raise NotADirectoryError(name)
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries)

    def _suffixes_in(self, name: str) -> list[str]:
        """The suffixes of pictures that occur in a folder within this one, as they are written."""
        names = self._tried(lambda: self._list(name))
        found = {file.rpartition(".")[2] for file in names} if isinstance(names, list) else set[str]()
        return [suffix for known in SUFFIXES for suffix in sorted(found) if suffix.lower() == known]

    def count_unused(self) -> None:
        """Count the files of the folder that no item named; note what other suffixes there were, and files of several
        items."""
        if self.suffixes:
            kinds = ", ".join(f".{suffix} {count:,}" for suffix, count in self.suffixes.most_common())
            self.report.note(f"pictures with another suffix than .{self.name.suffix} of the image name: {kinds}")
        self._note_several()
        examples, count = [], 0
        for root, folders, files in os.walk(self.folder):
            inside = os.path.relpath(root, self.folder)
            if os.path.normpath(inside) in self.used_folders:
                folders.clear()
                continue
            for file in files:
                name = os.path.normpath(os.path.join(inside, file))  # noqa: PTH118
                if name not in self.used:
                    count += 1
                    if len(examples) < 20:
                        examples.append(name)
        if count:
            self.report.skip("file of the image folder that no item names", sorted(examples), count)

    def _note_several(self) -> None:
        if self._several:
            self.report.note(
                f"{len(set(self._several)):,} files of the image folder are pictures of several items, as "
                f"{self._several[0]}"
            )


class PathFolder(ImageFolder):
    """The pictures of a folder under paths that columns name, of each item as many as these say.

    A path is relative to the folder; an absolute one counts where it leads into the folder. Nothing outside of it is
    opened, as of `ImageFolder`. columns: how many; the rows of `pictures` are lists of paths, those of an item side by
    side.
    """

    def __init__(self, folder: Path, report: ImportReport, columns: int) -> None:
        super().__init__(folder, "{item}", report)
        self.at_once = CHUNK * columns
        self._given = folder
        self._roots = [self.folder, Path(folder).absolute()]

    def _found(self, item_id: Any, checked: Checked) -> Found:
        found = Found()
        for path in item_id:
            name = self._within(path)
            picture = self._tried(lambda name=name: self._read(name))
            if picture is None:
                is_address = path.lower().startswith(("http://", "https://"))
                absent = f"no such file in {self._given}"
                picture = Skip("an address in a column of paths (use image_url)" if is_address else absent)
            elif isinstance(picture, bytes):
                picture = _reason(picture, checked) or picture
                found.used.append(name)
            found.pictures.append((path, picture))
        return found

    def _within(self, path: str) -> str:
        """The path as seen from the folder; as it is where it is absolute and leads elsewhere."""
        pure = PurePosixPath(path)
        for root in self._roots:
            if pure.is_relative_to(root):
                return str(pure.relative_to(root))
        return str(pure)

    def count_unused(self) -> None:
        """Count the pictures that lie beside those that were named, in the same folders, and are not named."""
        self._note_several()
        left: list[str] = []
        for folder in sorted({os.path.dirname(name) for name in self.used}):  # noqa: PTH120
            listed = self._tried(lambda folder=folder: self._listed(folder))
            names = [f"{folder}/{name}".lstrip("/") for name in listed] if isinstance(listed, list) else []
            left += [name for name in names if suffix_of(name) in SUFFIXES and name not in self.used]
        if left:
            self.report.skip("picture beside those named that no item names", left[:20], len(left))


def check(data: bytes, checked: Checked) -> None:
    """Raises Skip if the bytes are too many, or no whole picture."""
    if not data:
        raise Skip("empty file")
    if len(data) > MAX_BYTES:
        raise Skip(f"larger than {MAX_BYTES >> 20} MiB")
    if reason := checked.check(data):
        reason, _, detail = reason.partition(": ")
        raise Skip(reason, detail)


def check_many(
    rows: Pictures, where: Sequence[str], report: ImportReport, pool: ThreadPoolExecutor, checked: Checked
) -> Callable[[], Pictures]:
    """Begin to check pictures. What is returned waits for the end, and gives the good pictures of each row; the others
    are counted with `where` the row stands."""

    def reasons(few: slice) -> list[list[Skip | None]]:
        return [[_reason(data, checked) for data in pictures] for pictures in rows[few]]

    begun = [pool.submit(reasons, few) for few in chunks(len(rows))]

    def result() -> Pictures:
        good: Pictures = []
        found = (skips for future in begun for skips in future.result())
        for pictures, skips, place in zip(rows, found, where, strict=True):
            report.add_read("images", len(pictures))
            for skip in filter(None, skips):
                report.skip(skip.reason, place + skip.detail)
            good.append([data for data, skip in zip(pictures, skips, strict=True) if skip is None])
        report.add_kept("images", sum(map(len, good)))
        return good

    return result


def _reason(data: bytes, checked: Checked) -> Skip | None:
    try:
        check(data, checked)
    except Skip as skip:
        return skip
    return None


def spans(ids: Sequence[Any], folder: ImageFolder | None, checked: Checked) -> Iterator[tuple[slice, Pictures | None]]:
    """Consecutive parts of `ids` with the pictures of each, so that a part holds no more than some MiB of them."""
    if folder is None:
        yield slice(0, len(ids)), None
        return
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from bounded(folder.pictures(ids, pool, checked))


def bounded(found: Iterable[Pictures]) -> Iterator[tuple[slice, Pictures]]:
    """The pictures of consecutive chunks of rows in parts of some MiB, and which rows these are."""
    start, held, size = 0, [], 0
    for chunk in found:
        held += chunk
        size += sum(len(data) for pictures in chunk for data in pictures)
        if size >= FLUSH_BYTES:
            yield slice(start, start + len(held)), held
            start, held, size = start + len(held), [], 0
    if held:
        yield slice(start, start + len(held)), held


def chunks(n: int, size: int = CHUNK) -> Iterator[slice]:
    """`n` rows, cut into chunks."""
    return (slice(at, min(at + size, n)) for at in range(0, n, size))


def ahead(pool: ThreadPoolExecutor, work: Callable[[slice], T], parts: Iterable[slice]) -> Iterator[T]:
    """What `work` makes of each part, in order; the next ones are begun before one is used."""
    begun: deque[Future[T]] = deque()
    try:
        for part in parts:
            begun.append(pool.submit(work, part))
            if len(begun) > AHEAD:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
