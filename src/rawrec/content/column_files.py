"""Files of static columns: one whole file of a column, and the shards from which it is joined.

What takes hours is not lost with the process: every SECONDS what was made becomes a shard, a small column file of its
own beside the place of the whole one, and who begins again goes on behind the last.
"""

from __future__ import annotations

import errno
import fcntl
import json
import random
import re
import shutil
import time
import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from rawrec.data.ragged import Ragged
from rawrec.errors import UserError
from rawrec.files import appending, clean, create, partial_of, remove, sync
from rawrec.folders import own_folder
from rawrec.reading import check_head, damaged, json_of, typed

DIGEST = 16  # bytes of an item's digest
HEAD = 4096  # bytes before the first tensor of a file: its head is known when all else is written
BLOCK = 1 << 20  # bytes with one check sum
CHECKED = 8 << 30
"""Bytes of a file that are compared with their check sums when it is read, in two seconds where they are in memory."""
SECONDS = 20.0  # of work that a shard holds
TYPES = {
    torch.uint8: "U8",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
}


@dataclass
class Stored:
    """A column; digests: of what each item's row was made from, `[items, DIGEST]` uint8, or of no item (an older file).

    lost: what -> how much of it each item lost on the way, `[items]` int32. stats: the sums of these.
    """

    column: Ragged
    digests: Tensor
    lost: dict[str, Tensor]
    stats: dict[str, int]


def read(path: Path) -> Stored | None:
    """The column in a file, memory-mapped; None where there is no file. So it is with one that is not as it was written
    (see `_is_whole`), which is told: whoever asks makes the column anew."""
    with suppress(UserError):
        try:
            check_head(path)
        except FileNotFoundError:
            return None
        if _is_whole(path):
            with damaged(path), safe_open(path, "pt") as file:
                names = set(file.keys())
                column = Ragged(file.get_tensor("values"), file.get_tensor("ptr"))
                digests = file.get_tensor("digests") if "digests" in names else torch.zeros(0, DIGEST)
                lost = {name.removeprefix("lost/"): file.get_tensor(name) for name in names if name.startswith("lost/")}
                stats = typed(dict[str, int], json_of((file.metadata() or {}).get("stats", "{}")), path)
                if _fits(column, digests, lost):
                    return Stored(column, digests, lost, stats)
    warnings.warn(f"{path} is damaged, or nothing that rawrec wrote: what it holds is made anew", stacklevel=1)
    return None


def _is_whole(path: Path) -> bool:
    """Whether a file is as it was written, as far as its check sums say; one of an earlier version has none.

    There is one of the head, and one of every BLOCK bytes behind it. All are compared of a file of up to CHECKED bytes,
    which takes as long as reading it; of a larger one those of so many bytes, others each time.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        with damaged(path):
            head: Any = json.loads(file.read(min(length, HEAD)))
            about = head.get("__metadata__", {})
            if "sums" not in about and "sums" not in head:
                return True
            said = about.pop("head")
            start, end = head["sums"]["data_offsets"]
            file.seek(HEAD + start)
            sums = file.read(end - start)
            if f"{_sum_of(head):08x}" != said or f"{zlib.crc32(sums):08x}" != about["sums"]:
                return False
            count = len(sums) // 8
            some = range(count) if start <= CHECKED else sorted(random.sample(range(count), CHECKED // BLOCK))
            for k in some:
                file.seek(HEAD + k * BLOCK)
                part = file.read(min(BLOCK, start - k * BLOCK))
                if zlib.crc32(part) != int.from_bytes(sums[8 * k : 8 * k + 8], "little"):
                    return False
    return True


def _sum_of(head: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(head).encode())


def _fits(column: Ragged, digests: Tensor, lost: dict[str, Tensor]) -> bool:
    """Whether rows and values belong to each other, as in all files that were written here."""
    ptr, values = column.ptr, column.values
    if ptr.dtype != torch.int64 or ptr.ndim != 1 or not len(ptr) or values.ndim < 1 or digests.ndim != 2:
        return False
    whole = int(ptr[0]) == 0 and int(ptr[-1]) == len(values) and bool((ptr[1:] >= ptr[:-1]).all())
    return whole and len(digests) in (0, len(ptr) - 1) and all(len(counts) == len(ptr) - 1 for counts in lost.values())


class ColumnFile:
    """A safetensors file of a column that comes some items at a time; memory for these, lengths and digests."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lengths: list[Tensor] = []
        self._digests: list[Tensor] = []
        self._lost: dict[str, list[Tensor]] = {}
        self._first = torch.zeros(0)  # values of the first items, for their type and shape
        self._sums: list[int] = []  # of every BLOCK bytes behind the head
        self._sum = self._inside = 0  # of the block that is being written, and how many bytes it has
        file.write(bytes(HEAD))

    def add(self, rows: Ragged, lost: dict[str, Tensor], digests: Tensor) -> None:
        if not self._lengths:
            self._first = rows.values[:0]
        self._write(rows.values)
        self._lengths.append(rows.lengths)
        self._digests.append(digests)
        for what, counts in lost.items():
            self._lost.setdefault(what, []).append(counts)

    def finish(self) -> None:
        """Write what there is beside the values, and the head."""
        lengths = torch.cat(self._lengths)
        ptr = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        lost = {what: torch.cat(parts) for what, parts in self._lost.items()}
        tensors = {"ptr": ptr, "digests": torch.cat(self._digests), **{f"lost/{n}": v for n, v in lost.items()}}
        stats = {what: int(counts.sum()) for what, counts in lost.items()}
        end = self._file.tell() - HEAD
        shape = [int(ptr[-1]), *self._first.shape[1:]]
        head: dict = {"__metadata__": {"stats": json.dumps(stats, sort_keys=True)}}
        head["values"] = {"dtype": TYPES[self._first.dtype], "shape": shape, "data_offsets": [0, end]}
        for name, values in tensors.items():
            self._write(values)
            start, end = end, self._file.tell() - HEAD
            head[name] = {"dtype": TYPES[values.dtype], "shape": [*values.shape], "data_offsets": [start, end]}
        sums = torch.tensor([*self._sums, *[self._sum] * (self._inside > 0)], dtype=torch.int64)
        data = sums.numpy().tobytes()
        start, end = end, end + len(data)
        self._file.write(data)
        head["sums"] = {"dtype": "I64", "shape": [len(sums)], "data_offsets": [start, end]}
        head["__metadata__"]["sums"] = f"{zlib.crc32(data):08x}"
        head["__metadata__"]["head"] = f"{_sum_of(head):08x}"
        self._file.seek(0)
        self._file.write((HEAD - 8).to_bytes(8, "little") + json.dumps(head).encode().ljust(HEAD - 8))

    def _write(self, values: Tensor) -> None:
        data = values.contiguous().flatten().view(torch.uint8).numpy().data
        self._file.write(data)
        at = 0
        while at < len(data):
            part = data[at : at + BLOCK - self._inside]
            self._sum, self._inside, at = zlib.crc32(part, self._sum), self._inside + len(part), at + len(part)
            if self._inside == BLOCK:
                self._sums.append(self._sum)
                self._sum = self._inside = 0


class Shards:
    """The rows of a column as they are made, in the folder `.<name>.shards` beside `path`, the file they will become.

    done: items of whole shards that are there already, the first of the column; `add` goes on behind them. A second
    process that makes the same column has a folder of its own, of which nothing stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        clean(path.parent)
        self.folder = own_folder(path.with_name(f".{path.name}.shards"))
        self._lock = appending(self.folder / "lock")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # of another process, which works there
            self._lock.close()
            self.folder = partial_of(path)
            self.folder.mkdir()
            self._lock = appending(self.folder / "lock")
            self._keeps = False
        else:
            self._keeps = True
        self._whole = self._found()
        self.done = sum(count for _, count in self._whole)
        self._open: tuple[Path, BinaryIO, ColumnFile] | None = None
        self._count, self._started = 0, 0.0

    def _found(self) -> list[tuple[Path, int]]:
        """Shards that follow on each other from the first item on, with their numbers of items; others are removed."""
        numbers = {}
        for file in self.folder.glob("*"):
            if match := re.fullmatch(r"(\d+)\.safetensors", file.name):
                numbers[int(match[1])] = file
            elif file.name != "lock":
                remove(file)  # of a shard that was not finished
        found, done = [], 0
        for number in sorted(numbers):
            stored = read(numbers[number]) if number == done else None
            if stored is None:
                remove(numbers[number])
                continue
            found.append((numbers[number], len(stored.digests)))
            done += len(stored.digests)
        return found

    def add(self, rows: Ragged, lost: dict[str, Tensor], digests: Tensor) -> None:
        if self._open is None:
            partial = self.folder / f"{self.done + self._count}.partial"
            file = create(partial)
            self._open, self._started = (partial, file, ColumnFile(file)), time.perf_counter()
        self._open[2].add(rows, lost, digests)
        self._count += len(digests)
        if time.perf_counter() - self._started >= SECONDS:
            self._end()

    def _end(self) -> None:
        if self._open is None:
            return
        partial, file, target = self._open
        target.finish()
        file.close()
        sync(partial)
        whole = partial.with_suffix(".safetensors")
        partial.replace(whole)
        self._whole.append((whole, self._count))
        self.done, self._count, self._open = self.done + self._count, 0, None

    def join(self) -> None:
        """Make the file of all shards, at once in its place; the folder is gone then."""
        self._end()
        partial = self.folder / "joined.partial"
        if len(self._whole) == 1:
            self._whole[0][0].replace(self.path)
        else:
            remove(partial)
            with create(partial) as file:
                target = ColumnFile(file)
                for shard, _ in self._whole:
                    stored = read(shard)
                    if stored is None:
                        raise OSError(errno.EIO, "it was changed while the column was made", str(shard))
                    target.add(stored.column, stored.lost, stored.digests)
                target.finish()
            sync(partial)
            partial.replace(self.path)
        sync(self.path.parent)
        self._whole = []

    def close(self) -> None:
        """Whole shards stay for who begins again."""
        if self._open is not None:
            self._open[1].close()
            self._open[0].unlink(missing_ok=True)
        if not self._keeps or not self._whole:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()
