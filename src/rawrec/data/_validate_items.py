"""The items of a dataset, checked: ids, media, columns, digests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.data import images
from rawrec.data.arrays import pc, pieces
from rawrec.data.bar import Bar
from rawrec.data.checked import WORKERS
from rawrec.data.dataset import Dataset
from rawrec.data.digest import ContentDigest
from rawrec.data.findings import Validation
from rawrec.data.inspect import spread
from rawrec.data.meta import ITEMS
from rawrec.data.parts import item_schema

SAMPLE = 1000
ITEMS_AT_ONCE = 4096
BYTES_AT_ONCE = 64 << 20


def check_items(data: Dataset, found: Validation, bar: Bar) -> NDArray[np.uint64]:
    """Check all items; the hash of each item's id, `[n_items]`, 0 where it could not be read."""
    expected = item_schema(data.fields, data.has_launched).names
    columns = [name for name in expected if not (found.quick and name in data.fields.image)]
    hashes = np.zeros(data.n_items, np.uint64)
    start = 0
    for at, entry in enumerate(data.meta.versions):
        end = start + entry.counts["items"]
        replaced = any(later.replaced for later in data.meta.versions[at + 1 :])
        digest = None if found.quick or replaced or not entry.digest else ContentDigest()
        for first, stop in _slices(data, found, start, end, bar):
            with found.reading(f"{ITEMS}, items {first} to {stop - 1}"):
                table = data.item_table(first, stop, columns)
                table.validate(full=True)
                ids = table.column("item_id").combine_chunks()
                hashes[first:stop] = pl.Series(ids).hash().to_numpy()
                _check_columns(data, found, table, ids, first)
                if digest is not None:
                    digest.update("items", table)
        found.digests[entry.version] = digest
        if not found.quick and digest is None:
            why = "items were replaced since" if replaced else "it was imported when there was none"
            found.notes.append(f"the digest of version {entry.version} is not compared: {why}")
        start = end
    if found.quick:
        _sample_images(data, found)
    known = np.flatnonzero(hashes)
    _, first_at, times = np.unique(hashes[known], return_index=True, return_counts=True)
    found.add(ITEMS, "an item id occurs more than once", int((times - 1).sum()), known[first_at[times > 1]])
    return hashes


def _slices(data: Dataset, found: Validation, start: int, end: int, bar: Bar) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of items, each with no more than some 64 MiB of pictures."""
    size = np.zeros(end - start, np.int64)
    with found.reading(ITEMS):
        for name in data.fields.image:
            size += data.image_bytes(name)[start:end].clip(min=0)
    task = bar.progress.add_task("items", total=1.0, rows=0)
    total = np.concatenate([[0], np.cumsum(size)])
    at = 0
    while at < len(size):
        full = int(np.searchsorted(total, total[at] + BYTES_AT_ONCE, side="right")) - 1
        stop = min(max(full, at + 1), at + ITEMS_AT_ONCE, len(size))
        yield start + at, start + stop
        bar.progress.update(task, completed=stop / len(size), rows=stop)
        at = stop


def _check_columns(data: Dataset, found: Validation, table: pa.Table, ids: pa.Array, first: int) -> None:
    fields, n = data.fields, len(ids)
    found.count("items", n)

    def add(name: str, what: str, bad: NDArray[np.bool_]) -> None:
        at = np.flatnonzero(bad)
        examples = [f"item {first + i} {ids[i].as_py()!r}" for i in at[:5].tolist()]
        found.add(f"{ITEMS}, {name}", what, len(at), examples)

    trimmed = pc.equal(pc.utf8_trim_whitespace(ids), ids)
    bad = ~pc.fill_null(pc.and_(trimmed, pc.not_equal(ids, "")), False).to_numpy(zero_copy_only=False)
    add("item_id", "an id is empty, or has white space around it", bad)
    for name in [*fields.image, *fields.text, *fields.categorical]:
        if name not in table.column_names:
            continue
        lists = table.column(name).combine_chunks()
        flat, number = lists.flatten(), pieces(lists).to_numpy()
        owner = np.repeat(np.arange(n), number)
        size = pc.fill_null(pc.binary_length(flat), 0).to_numpy().astype(np.int64)
        empty = np.bincount(owner[size == 0], minlength=n) > 0
        add(name, "an empty picture or text", empty)
        if name not in fields.categorical:
            add(name, f"count/{name} is not the number of them", table.column(f"count/{name}").to_numpy() != number)
            found.count("pictures" if name in fields.image else "texts", len(flat))
        if name in fields.image:
            total = np.bincount(owner, weights=size, minlength=n)
            add(name, f"bytes/{name} is not the size of them", table.column(f"bytes/{name}").to_numpy() != total)
            _decode(found, name, flat.to_pylist(), owner + first, ids, first)
    for name in fields.numeric:
        endless = np.isinf(table.column(name).to_numpy().astype(np.float64))
        if endless.any():
            found.notes.append(f"field {name} is infinite for {int(endless.sum()):,} items from {first} on")
    for name, width in fields.feature.items():
        column = table.column(name).combine_chunks()
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        values = column.drop_null().flatten().to_numpy().reshape(-1, width)
        bad = np.zeros(n, bool)
        bad[np.flatnonzero(valid)[~np.isfinite(values).all(1)]] = True
        add(name, "a feature is not finite", bad)


def _decode(
    found: Validation, name: str, pictures: list[bytes], rows: NDArray[np.int64], ids: pa.Array, first: int
) -> None:
    """Decode pictures; `rows`: the item of each, of which `ids` begin at `first`."""
    with ThreadPoolExecutor(WORKERS) as pool:
        reasons = list(pool.map(images.check, pictures))
    bad = [(row, reason) for row, reason in zip(rows.tolist(), reasons, strict=True) if reason]
    examples = [f"item {row} {ids[row - first].as_py()!r}: {reason}" for row, reason in bad[:5]]
    advice = "replace it: rawrec append DATASET --items ... --image-dir ... --update"
    found.add(f"{ITEMS}, {name}", "a picture cannot be decoded", len(bad), examples, advice)


def _sample_images(data: Dataset, found: Validation) -> None:
    for name in data.fields.image:
        with found.reading(f"{ITEMS}, {name}"):
            rows = spread(np.flatnonzero(data.counts(name)), SAMPLE)
            for at in range(0, len(rows), 50):
                part = rows[at : at + 50]
                for row, pictures in zip(part.tolist(), data.images(name, part), strict=True):
                    found.count("pictures", len(pictures))
                    _decode(
                        found, name, pictures, np.full(len(pictures), row), pa.array(data.item_ids[row : row + 1]), row
                    )
