"""Flat arrays on disk, memory-mapped: columns of more interactions than memory holds, and what is made of them.

An array is a file of its own, named by a key that says all that it was made from. It is written some rows at a time,
takes its place whole, and has a check sum of every block: one that is not as it was written is made anew.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rawrec.errors import UserError
from rawrec.files import create, partial_of, replacing
from rawrec.folders import own_folder
from rawrec.reading import check_plain, json_of

HEAD = 4096
"""Bytes before the values."""
BLOCK = 1 << 20
"""Bytes with one check sum."""
ROWS = 1 << 20
"""Rows of interactions that are read and made at a time."""
Array = NDArray[Any]
Parts = Mapping[str, Array]


def spans(count: int, size: int = 0) -> Iterator[slice]:
    """`count` rows, at most `size` (0: ROWS) at a time."""
    size = size or ROWS
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


class FlatStore:
    """Arrays in the first of the folders `places` that has them, or can be written to; where none can, in a folder for
    temporary files that is gone when they are mapped, which a warning tells."""

    def __init__(self, *places: Path) -> None:
        self._places = places

    def arrays(
        self, key: str, kinds: Mapping[str, Any], make: Callable[[], Iterable[Parts]], *, writable: bool = False
    ) -> dict[str, Array]:
        """Arrays `[n]` by name, of numpy's types `kinds`. key: everything that they are made from. make: their values,
        some rows at a time, of all names.

        They are mapped: pages are read when they are asked for, and given back when memory is needed. They are not to
        be written to. writable: torch may have them, which tells readable memory from writable; what is written then
        stays in this process.
        """
        files = {name: f"rows-{name}-{_digest(f'{key}|{name}|{np.dtype(kinds[name])}')}.flat" for name in kinds}
        for place in self._places:
            found = {name: _mapped(place / file, kinds[name], writable) for name, file in files.items()}
            whole = {name: array for name, array in found.items() if array is not None}
            if len(whole) == len(files):
                return whole
        with self._writable() as folder:
            _write({name: folder / file for name, file in files.items()}, kinds, make)
            made = {name: _mapped(folder / file, kinds[name], writable) for name, file in files.items()}
        missing = [name for name, array in made.items() if array is None]
        if missing:
            raise UserError(f"{folder}/{files[missing[0]]} was changed while it was read: begin again")
        return {name: array for name, array in made.items() if array is not None}

    def array(
        self, key: str, kind: Any, make: Callable[[], Iterable[Array]], *, writable: bool = False, name: str = "values"
    ) -> Array:
        """One array, see `arrays`."""
        return self.arrays(key, {name: kind}, lambda: ({name: part} for part in make()), writable=writable)[name]

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for what is gone at the end."""
        with self._writable() as place:
            folder = partial_of(place / "rows")
            folder.mkdir()
            try:
                yield folder
            finally:
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()

    @contextmanager
    def _writable(self) -> Iterator[Path]:
        for place in self._places:
            with suppress(OSError):
                place.parent.mkdir(parents=True, exist_ok=True)
                own_folder(place)
                probe = partial_of(place / "probe")
                probe.touch(exist_ok=False)
                probe.unlink()
                yield place
                return
        with tempfile.TemporaryDirectory(prefix="rawrec-") as name:
            said = " and ".join(map(str, self._places)) or "no folder of this run"
            warnings.warn(f"{said} cannot be written: interactions are mapped for this process alone", stacklevel=1)
            yield Path(name)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


# --------------------------------------------------------------------------------------------------------------- files
class _Writer:
    """Values behind the head, then a check sum of each of their blocks."""

    def __init__(self, file: BinaryIO, kind: Any) -> None:
        self._file, self._kind = file, np.dtype(kind)
        self._count, self._sum, self._inside = 0, 0, 0
        self._sums: list[int] = []
        file.write(bytes(HEAD))

    def add(self, values: Array) -> None:
        data = (
            memoryview(np.ascontiguousarray(values, self._kind).reshape(-1).view(np.uint8).data)
            if len(values)
            else memoryview(b"")
        )
        self._file.write(data)
        self._count, at = self._count + len(values), 0
        while at < len(data):
            part = data[at : at + BLOCK - self._inside]
            self._sum, self._inside, at = zlib.crc32(part, self._sum), self._inside + len(part), at + len(part)
            if self._inside == BLOCK:
                self._sums.append(self._sum)
                self._sum = self._inside = 0

    def finish(self) -> None:
        sums = np.array([*self._sums, *[self._sum] * (self._inside > 0)], "<u4").tobytes()
        self._file.write(sums)
        about = {"type": self._kind.str, "count": self._count, "sums": zlib.crc32(sums)}
        text = json.dumps(about)
        self._file.seek(0)
        self._file.write(json.dumps({**about, "head": zlib.crc32(text.encode())}).encode().ljust(HEAD))


def _write(paths: Mapping[str, Path], kinds: Mapping[str, Any], make: Callable[[], Iterable[Parts]]) -> None:
    with ExitStack() as stack:
        writers = {}
        for name, path in paths.items():
            partial = stack.enter_context(replacing(path))
            writers[name] = _Writer(stack.enter_context(create(partial)), kinds[name])
        for parts in make():
            for name, writer in writers.items():
                writer.add(parts[name])
        for writer in writers.values():
            writer.finish()


def _mapped(path: Path, kind: Any, writable: bool) -> Array | None:
    """The array in a file; None where there is none, or, told, one that is not as it was written."""
    kind = np.dtype(kind)
    try:
        check_plain(path)
        count = _whole(path, kind)
    except OSError:
        return None
    except (UserError, ValueError, KeyError, TypeError):
        count = None
    if count is None:
        warnings.warn(f"{path} is damaged, or nothing that rawrec wrote: what it holds is made anew", stacklevel=1)
        return None
    if not count:
        return np.zeros(0, kind)
    return np.memmap(path, kind, "c" if writable else "r", HEAD, (count,)).view(np.ndarray)


def _whole(path: Path, kind: np.dtype[Any]) -> int | None:
    """How many values a file of `kind` has, if it is as it was written: every block is read."""
    with path.open("rb") as file:
        head: Any = json_of(file.read(HEAD).decode())
        said = head.pop("head")
        size = int(head["count"]) * kind.itemsize
        if zlib.crc32(json.dumps(head).encode()) != said or head["type"] != kind.str:
            return None
        if path.stat().st_size != HEAD + size + 4 * -(-size // BLOCK):
            return None
        file.seek(HEAD + size)
        sums = file.read()
        if zlib.crc32(sums) != head["sums"]:
            return None
        file.seek(HEAD)
        for k, known in enumerate(np.frombuffer(sums, "<u4").tolist()):
            if zlib.crc32(file.read(min(BLOCK, size - k * BLOCK))) != known:
                return None
    return int(head["count"])
