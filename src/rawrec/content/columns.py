"""Static columns on disk: what an encoder's frozen layers make of every item, kept so that it is made once.

A file is of one field, one encoder (weights, settings, cut) and one version of a dataset. Beside the column it holds a
digest of the pictures or texts that each item's row was made from. A version without a file takes the rows of items
whose digest is the same from the file of another version, and only the others are encoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rawrec.content.encoders import Encoder
from rawrec.content.item_model import CHUNK, ItemModel, Pieces
from rawrec.data.dataset import Dataset
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError

Progress = Callable[[str, Iterator], Iterator]
DIGEST = 16  # bytes of an item's digest
END = (2**64 - 1).to_bytes(8, "little")  # after the pieces of a kind: no piece is so long
HEAD = 4096  # bytes before the first tensor of a file: its head is known when all else is written
TYPES = {
    torch.uint8: "U8",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
}


def static_columns(
    item_model: ItemModel, data: Dataset, cache: Path, progress: Progress | None = None
) -> tuple[dict[str, Ragged], dict[str, dict[str, int]]]:
    """Every static column that `item_model` reads, from the cache folder or made now; and what was cut or lost of each.

    Columns of raw fields are memory-mapped. What has to be read and encoded is held for CHUNK items at a time.
    Raises OSError where the cache cannot be written.
    """
    columns, stats = {}, {}
    encoders = dict(item_model.raw_encoders())
    for name in item_model.fields:
        if name not in encoders:
            values, valid = data.feature(name)
            columns[f"feature/{name}"] = Ragged.from_lengths(
                torch.from_numpy(values[valid]), torch.from_numpy(valid).long()
            )
            continue
        path = _path(cache, item_model, name, encoders[name], data)
        stored = _read(path)
        if stored is None:
            known = _of_another_version(cache, item_model, name, encoders[name], data)
            _make(path, item_model, data, name, known, progress)
            stored = _read(path)
            assert stored is not None
        columns[item_model.column(name)], stats[name] = stored.column, stored.stats
    return columns, stats


def _path(cache: Path, item_model: ItemModel, name: str, encoder: Encoder, data: Dataset) -> Path:
    reads = "+".join(item_model.read_by(name))
    identity = f"{encoder.fingerprint}|{item_model.autocast}|{reads}|{data.fingerprint()}"
    return cache / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.safetensors"


@dataclass
class _Stored:
    """A column; digests: of what each item's row was made from, `[items, DIGEST]` uint8, or of no item (an older file).

    lost: what -> how much of it each item lost on the way, `[items]` int32. stats: the sums of these.
    """

    column: Ragged
    digests: Tensor
    lost: dict[str, Tensor]
    stats: dict[str, int]


def _read(path: Path) -> _Stored | None:
    """The column in a file, memory-mapped; None where there is no file, or one that is damaged."""
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            column = Ragged(file.get_tensor("values"), file.get_tensor("ptr"))
            digests = file.get_tensor("digests") if "digests" in names else torch.zeros(0, DIGEST)
            lost = {name.removeprefix("lost/"): file.get_tensor(name) for name in names if name.startswith("lost/")}
            return _Stored(column, digests, lost, json.loads((file.metadata() or {}).get("stats", "{}")))
    except (FileNotFoundError, SafetensorError):
        return None


def _of_another_version(
    cache: Path, item_model: ItemModel, name: str, encoder: Encoder, data: Dataset
) -> _Stored | None:
    """The column of the newest other version of the dataset that has one."""
    for version in range(data.newest, 0, -1):
        if version == data.version:
            continue
        with contextlib.suppress(UserError):  # of an earlier version that is damaged
            stored = _read(_path(cache, item_model, name, encoder, Dataset.open(data.path, version)))
            if stored is not None and len(stored.digests):
                return stored
    return None


def _make(
    path: Path, item_model: ItemModel, data: Dataset, name: str, known: _Stored | None, progress: Progress | None
) -> None:
    """Write the file of a field: rows of `known` where the item's digest is the same, the others encoded."""
    starts: Iterator[int] = iter(range(0, data.n_items, CHUNK))
    if progress is not None:
        starts = progress(f"encoding {name}", starts)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # of this process: others may write the same column
    try:
        with partial.open("wb") as file:
            target = _ColumnFile(file)
            for start in starts:
                raw = _raw(item_model, data, name, range(start, min(start + CHUNK, data.n_items)))
                digests = _digests(raw)
                target.add(*_rows(item_model, name, raw, digests, start, known), digests)
            target.finish()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _rows(
    item_model: ItemModel,
    name: str,
    raw: list[Pieces],
    digests: Tensor,
    start: int,
    known: _Stored | None,
) -> tuple[Ragged, dict[str, Tensor]]:
    """The rows of the items from `start` on, given raw and by their digests, and what each of them lost."""
    count = len(digests)
    if known is None or start >= len(known.digests):
        return item_model.lower(name, raw)
    there = known.digests[start : start + count]
    changed = torch.ones(count, dtype=torch.bool)
    changed[: len(there)] = (digests[: len(there)] != there).any(1)
    rows = torch.arange(start, start + len(there))
    old, lost = known.column.select(rows), {what: values[rows] for what, values in known.lost.items()}
    if not changed.any():
        return old, lost
    rows = changed.nonzero()[:, 0].tolist()
    new, more = item_model.lower(name, [[pieces[i] for i in rows] for pieces in raw])
    order = torch.arange(count)
    order[changed] = len(there) + torch.arange(len(new))
    return Ragged.cat([old, new]).select(order), {what: torch.cat([lost[what], more[what]])[order] for what in more}


def _raw(item_model: ItemModel, data: Dataset, name: str, rows: range) -> list[Pieces]:
    """What the encoder `name` is given of the dataset's items `rows`."""
    read = {f: (data.images if f in data.fields.image else data.texts)(f, rows) for f in item_model.read_by(name)}
    return item_model.by_kind(name, read)


def _digests(raw: list[Pieces]) -> Tensor:
    """A digest of the pieces of each item, those of every kind, `[items, DIGEST]` uint8."""
    found = bytearray()
    for item in zip(*raw, strict=True):
        digest = hashlib.blake2b(digest_size=DIGEST)
        for i, pieces in enumerate(item):
            if i:
                digest.update(END)
            for piece in pieces:
                piece = piece.encode() if isinstance(piece, str) else piece
                digest.update(len(piece).to_bytes(8, "little"))
                digest.update(piece)
        found += digest.digest()
    return torch.frombuffer(found, dtype=torch.uint8).view(-1, DIGEST)


class _ColumnFile:
    """A safetensors file of a column that comes some items at a time; memory for these, lengths and digests."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lengths: list[Tensor] = []
        self._digests: list[Tensor] = []
        self._lost: dict[str, list[Tensor]] = {}
        self._first = torch.zeros(0)  # values of the first items, for their type and shape
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
        head: dict = {"__metadata__": {"stats": json.dumps(stats)}}
        head["values"] = {"dtype": TYPES[self._first.dtype], "shape": shape, "data_offsets": [0, end]}
        for name, values in tensors.items():
            self._write(values)
            start, end = end, self._file.tell() - HEAD
            head[name] = {"dtype": TYPES[values.dtype], "shape": [*values.shape], "data_offsets": [start, end]}
        self._file.seek(0)
        self._file.write((HEAD - 8).to_bytes(8, "little") + json.dumps(head).encode().ljust(HEAD - 8))

    def _write(self, values: Tensor) -> None:
        self._file.write(values.contiguous().flatten().view(torch.uint8).numpy().data)
