"""Static columns on disk: what an encoder's frozen layers make of every item, kept so that it is made once.

A file is of one field, one encoder (weights, settings, cut) and one version of a dataset. Beside the column it holds a
digest of the pictures or texts that each item's row was made from. A version without a file takes the rows of items
whose digest is the same from the file of another version, and only the others are encoded.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rawrec.content.caches import Cache
from rawrec.content.column_files import DIGEST, Shards, Stored, read
from rawrec.content.encoders import Encoder
from rawrec.content.item_model import CHUNK, ItemModel, Pieces
from rawrec.data.dataset import Dataset
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError
from rawrec.files import filling

T = TypeVar("T")
Progress = Callable[[str, range], Iterator[int]]
"""Told what is done and the first items of the chunks to come, which it hands on."""
Elsewhere = Callable[[str, range], Iterator[tuple[Ragged, dict[str, Tensor], Tensor]]]
"""Makes the rows of a field on other machines: rows, what was lost and digests of each chunk that begins in the range,
in its order (`chunk_rows`)."""
END = (2**64 - 1).to_bytes(8, "little")  # after the pieces of a kind: no piece is so long


def static_columns(
    item_model: ItemModel,
    data: Dataset,
    cache: Path | Cache,
    progress: Progress | None = None,
    elsewhere: Elsewhere | None = None,
) -> tuple[dict[str, Ragged], dict[str, dict[str, int]]]:
    """Every static column that `item_model` reads, from the cache or made now; and what was cut or lost of each.

    Columns of raw fields are memory-mapped. What has to be read and encoded is held for CHUNK items at a time.
    elsewhere: who encodes, where this process does not.
    Raises OSError where a cache that is one folder cannot be written.
    """
    cache = Cache.of(cache)
    columns, stats = {}, {}
    for name in item_model.fields:
        if name not in item_model.about:
            values, valid = data.feature(name)
            columns[f"feature/{name}"] = Ragged.from_lengths(
                torch.from_numpy(values[valid]), torch.from_numpy(valid).long()
            )
            continue
        file = _file(item_model, name, data)
        stored = cache.read(file)
        if stored is None:
            known = _of_another_version(cache, item_model, name, data)
            with cache.place() as folder:
                _make(folder / file, item_model, data, name, known, progress, elsewhere)
                stored = read(folder / file)
            assert stored is not None
        columns[item_model.column(name)], stats[name] = stored.column, stored.stats
    return columns, stats


def equal_content(item_model: ItemModel, data: Dataset, cache: Path | Cache) -> Tensor | None:
    """Of every item a number, int64 `[items]`, equal where all pictures, texts and ready-made features are.

    None where no two items are equal, or where a column's file is of a version that kept no digests. The columns must
    have been made.
    """
    numbers = np.zeros(data.n_items, np.int64)
    for name in item_model.fields:
        if name in item_model.about:
            stored = Cache.of(cache).read(_file(item_model, name, data))
            if stored is None or len(stored.digests) != data.n_items:
                return None
            rows = stored.digests.numpy()
        else:
            values, valid = data.feature(name)
            rows = np.where(valid[:, None], values, 0)
        rows = np.ascontiguousarray(rows)
        _, own = np.unique(
            rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0], return_inverse=True
        )
        _, numbers = np.unique(numbers * (own.max(initial=0) + 1) + own, return_inverse=True)
    return torch.from_numpy(numbers) if numbers.max(initial=-1) + 1 < data.n_items else None


def _file(item_model: ItemModel, name: str, data: Dataset) -> str:
    """The name of a column's file."""
    reads = "+".join(item_model.read_by(name))
    if name in item_model.pieces:
        reads += f"[{item_model.pieces[name][1]}]"
    identity = f"{item_model.about[name].fingerprint}|{item_model.autocast}|{reads}|{data.fingerprint()}"
    return f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.safetensors"


def _of_another_version(cache: Cache, item_model: ItemModel, name: str, data: Dataset) -> Stored | None:
    """The column of the newest other version of the dataset that has one."""
    for version in range(data.newest, 0, -1):
        if version == data.version:
            continue
        with contextlib.suppress(UserError):  # of an earlier version that is damaged
            stored = cache.read(_file(item_model, name, Dataset.open(data.path, version)))
            if stored is not None and len(stored.digests):
                return stored
    return None


def _make(
    path: Path,
    item_model: ItemModel,
    data: Dataset,
    name: str,
    known: Stored | None,
    progress: Progress | None,
    elsewhere: Elsewhere | None,
) -> None:
    """Write the file of a field: rows of `known` where the item's digest is the same, the others encoded."""
    data.check_items()
    shards = Shards(path)
    try:
        starts = range(shards.done, data.n_items, CHUNK)
        chunks = iter(starts) if progress is None else progress(f"encoding {name}", starts)
        if elsewhere is not None:
            with filling(path):
                for _, made in zip(chunks, elsewhere(name, starts), strict=True):
                    shards.add(*made)
                shards.join()
            return
        # Beside: reads and decodes what comes next while the encoder computes.
        with filling(path), ThreadPoolExecutor(1) as beside:
            for chunk in _ahead(beside, lambda start: _chunk(item_model, data, name, start, known), chunks):
                shards.add(*chunk.rows(item_model, name), chunk.digests)
        with filling(path):
            shards.join()
    finally:
        shards.close()
        dict(item_model.raw_encoders())[name].rest()


def chunk_rows(
    item_model: ItemModel, data: Dataset, cache: Cache, name: str
) -> Callable[[int], tuple[Ragged, dict[str, Tensor], Tensor]]:
    """What makes the rows of the chunk of items from a start on, as `static_columns` would: for other processes."""
    known = _of_another_version(cache, item_model, name, data)

    def made(start: int) -> tuple[Ragged, dict[str, Tensor], Tensor]:
        chunk = _chunk(item_model, data, name, start, known)
        return *chunk.rows(item_model, name), chunk.digests

    return made


def _ahead(pool: ThreadPoolExecutor, work: Callable[[int], T], starts: Iterator[int]) -> Iterator[T]:
    """`work` of every start, always one ahead of the reader."""
    waiting: Future[T] | None = None
    for start in starts:
        made, waiting = waiting, pool.submit(work, start)
        if made is not None:
            yield made.result()
    if waiting is not None:
        yield waiting.result()


@dataclass
class _Chunk:
    """Some items: rows that another file had, and media of the others, prepared.

    order: which row of both together is whose. old, new: rows and what each item lost, or None where there are none.
    """

    digests: Tensor
    order: Tensor
    old: tuple[Ragged, dict[str, Tensor]] | None
    new: tuple[Ragged, dict[str, Tensor]] | None

    def rows(self, item_model: ItemModel, name: str) -> tuple[Ragged, dict[str, Tensor]]:
        """The rows of all items in their order, the new ones encoded; and what each item lost."""
        if self.new is None:
            assert self.old is not None
            return self.old
        prepared, lost = self.new
        made = item_model.lower_prepared(name, prepared)
        _check_finite(made, name, dict(item_model.raw_encoders())[name])
        if self.old is None:
            return made, lost
        rows, before = self.old
        together = {what: torch.cat([before[what], counts])[self.order] for what, counts in lost.items()}
        return Ragged.cat([rows, made]).select(self.order), together


def _check_finite(rows: Ragged, name: str, encoder: Encoder) -> None:
    """UserError where a number is not finite; a cache that held one would stop every run that reads it."""
    wrong = ~torch.isfinite(rows.values)
    if wrong.any():
        items = len(rows.owners()[wrong.flatten(1).any(1)].unique())
        raise UserError(
            f"content.{name}: encoder {encoder.name} makes numbers that are not finite, of {items} of the first "
            f"{len(rows)} items that it was given; its weights are damaged or do not fit its config.json: "
            "load them anew, or take another encoder"
        )


def _chunk(item_model: ItemModel, data: Dataset, name: str, start: int, known: Stored | None) -> _Chunk:
    """The items from `start` on, as far as they can be made without the encoder."""
    raw = _raw(item_model, data, name, range(start, min(start + CHUNK, data.n_items)))
    digests = _digests(raw)
    count = len(digests)
    order = torch.arange(count)
    if known is None or start >= len(known.digests):
        return _Chunk(digests, order, None, item_model.prepare(name, raw))
    there = known.digests[start : start + count]
    changed = torch.ones(count, dtype=torch.bool)
    changed[: len(there)] = (digests[: len(there)] != there).any(1)
    at = torch.arange(start, start + len(there))
    old = known.column.select(at), {what: values[at] for what, values in known.lost.items()}
    if not changed.any():
        return _Chunk(digests, order, old, None)
    rows = changed.nonzero()[:, 0].tolist()
    new = item_model.prepare(name, [[pieces[i] for i in rows] for pieces in raw])
    order[changed] = len(there) + torch.arange(len(rows))
    return _Chunk(digests, order, old, new)


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
