"""What a dataset is like: how its parts differ, which items are the same, how often things occur."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from rawrec.data.dataset import Dataset
from rawrec.data.inspect import spread
from rawrec.data.splits import PARTS
from rawrec.report.pictures import AT_ONCE
from rawrec.shown import visible

READ = 200_000_000
"""Bytes of pictures that are compared, at most."""
TEXTS = 50_000
"""Items whose texts are compared, at most, evenly spread."""
GROUPS, MEMBERS = 6, 8
"""Groups of equal items that are shown, and items of each."""
VALUES = 10
"""Values of a category that are compared between the parts."""
TAIL = 0.2
"""The most popular share of the items, that the long tail is without."""
BINS = 40


# ---------------------------------------------------------------------------------------------------------- duplicates
@dataclass(frozen=True)
class Duplicates:
    """Of a field: how many items it has been compared of, how many of them are like another, in how many groups; and
    the largest groups, as rows. whole: whether all items were compared that could be equal."""

    field: str
    compared: int
    items: int
    groups: int
    shown: list[list[int]]
    whole: bool


def duplicates(data: Dataset) -> list[Duplicates]:
    """Items whose pictures, or whose texts, are the same to the byte, for every image and text field."""
    return [_same_pictures(data, name) for name in data.fields.image] + [
        _same_texts(data, name) for name in data.fields.text
    ]


def _same_pictures(data: Dataset, name: str) -> Duplicates:
    """Only items with as many bytes as another can have the same pictures: the others are not read."""
    sizes = data.image_bytes(name)
    there = np.flatnonzero(data.counts(name) > 0)
    _, inverse, counts = np.unique(sizes[there], return_inverse=True, return_counts=True)
    candidates = there[counts[inverse] > 1]
    order = candidates[np.argsort(sizes[candidates], kind="stable")]
    kept = order[np.cumsum(sizes[order]) <= READ]
    digests: dict[bytes, list[int]] = {}
    for part in np.array_split(kept, max(1, -(-len(kept) // AT_ONCE))):
        for row, pictures in zip(part.tolist(), data.images(name, part), strict=True):
            digests.setdefault(_digest(pictures), []).append(row)
    return _grouped(name, len(there) - len(order) + len(kept), digests, len(kept) == len(order))


def _same_texts(data: Dataset, name: str) -> Duplicates:
    there = np.flatnonzero(data.counts(name) > 0)
    rows = spread(there, TEXTS)
    digests: dict[bytes, list[int]] = {}
    for part in np.array_split(rows, max(1, -(-len(rows) // 4096))):
        for row, texts in zip(part.tolist(), data.texts(name, part), strict=True):
            digests.setdefault(_digest([text.encode("utf-8", "surrogatepass") for text in texts]), []).append(row)
    return _grouped(name, len(rows), digests, len(rows) == len(there))


def _digest(pieces: Sequence[bytes]) -> bytes:
    stream = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        stream.update(len(piece).to_bytes(8, "little") + piece)
    return stream.digest()


def _grouped(name: str, compared: int, digests: Mapping[bytes, list[int]], whole: bool) -> Duplicates:
    groups = sorted((sorted(rows) for rows in digests.values() if len(rows) > 1), key=lambda rows: (-len(rows), rows))
    items = sum(len(rows) for rows in groups)
    return Duplicates(name, compared, items, len(groups), [rows[:MEMBERS] for rows in groups[:GROUPS]], whole)


# --------------------------------------------------------------------------------------------------------------- drift
@dataclass(frozen=True)
class Drift:
    """A line about the three parts: a value for each, None where a part is empty."""

    name: str
    values: list[float | None]
    form: str


def drift(data: Dataset, split: str = "default") -> list[Drift]:
    """How many rows, users and items the parts of a split have, how new and how popular these are, how positive."""
    part = data.split(split)
    rows = [part == number for number in range(len(PARTS))]
    train = np.bincount(data.items[rows[0]], minlength=data.n_items)
    known = np.bincount(data.users[rows[0]], minlength=data.n_users) > 0
    head = np.zeros(data.n_items, bool)
    head[np.argsort(-train, kind="stable")[: math.ceil(TAIL * data.n_items)]] = True

    def each(name: str, form: str, values: NDArray) -> Drift:
        return Drift(name, [float(np.nanmean(values[mask])) if mask.any() else None for mask in rows], form)

    found = [
        Drift("Interactions", [float(mask.sum()) for mask in rows], "count"),
        Drift("Users", [float(len(np.unique(data.users[mask]))) for mask in rows], "count"),
        Drift("Items", [float(len(np.unique(data.items[mask]))) for mask in rows], "count"),
        each("Of users without a training row", "share", ~known[data.users]),
        each("Of items without a training row", "share", train[data.items] == 0),
        each(f"Of the long tail (without the {TAIL:.0%} most popular items)", "share", ~head[data.items]),
        Drift(
            "Training rows of the item, median",
            [float(np.median(train[data.items[mask]])) if mask.any() else None for mask in rows],
            "count",
        ),
    ]
    for name in data.meta.labels:
        values = data.binary(name)
        if all(not mask.any() or np.isfinite(values[mask]).any() for mask in rows):
            found.append(each(f"Positive by {name}", "share", values))
    for name in data.fields.numeric:
        values = data.numeric(name)[data.items]
        medians = [values[mask & np.isfinite(values)] for mask in rows]
        found.append(Drift(f"{name} of the item, median", [float(np.median(v)) if len(v) else None for v in medians],
                           "number"))  # fmt: skip
    return found


@dataclass(frozen=True)
class Shares:
    """A category: values with their share of each part's rows; away: of valid and test, how far they are from training
    (total variation: the share of rows that would have to change), and how far chance alone would bring them."""

    name: str
    values: list[tuple[str, list[float | None]]]
    away: list[tuple[float, float] | None]


def shares(data: Dataset, split: str = "default") -> list[Shares]:
    """How often each value of the items' categories occurs in each part; an item with several counts for each."""
    part = data.split(split)
    found = []
    for name in data.fields.categorical:
        ptr, codes, words = data.categorical(name)
        lengths = np.diff(ptr)
        owner = np.repeat(np.arange(data.n_items), lengths)
        tables = []
        for number in range(len(PARTS)):
            often = np.bincount(data.items[part == number], minlength=data.n_items)
            tables.append(np.bincount(codes, often[owner], minlength=len(words)))
        totals = [float(table.sum()) for table in tables]
        if not totals[0] or not len(words):
            continue
        first = np.argsort(-tables[0], kind="stable")[:VALUES].tolist()
        values = [
            (
                visible(str(words[code])),
                [float(t[code]) / n if n else None for t, n in zip(tables, totals, strict=True)],
            )
            for code in first
        ]
        usual = tables[0] / totals[0]
        away = [_away(usual, table, total) for table, total in zip(tables[1:], totals[1:], strict=True)]
        found.append(Shares(name, values, away))
    return found


def _away(usual: NDArray[np.float64], table: NDArray[np.float64], total: float) -> tuple[float, float] | None:
    if not total:
        return None
    chance = float(np.sqrt(2 * usual * (1 - usual) / (math.pi * total)).sum() / 2)
    return float(np.abs(usual - table / total).sum() / 2), chance


# ---------------------------------------------------------------------------------------------------------- histograms
@dataclass(frozen=True)
class Histogram:
    """edges `[bins + 1]` and, of each series, how many fall between them `[bins]`. words: of the axis. log: the bins
    double; dates: edges are seconds since 1970."""

    title: str
    meaning: str
    edges: list[float]
    counts: dict[str, list[int]]
    words: str
    log: bool = False
    dates: bool = False


def histograms(data: Dataset, split: str = "default") -> list[Histogram]:
    """Of interactions per user and per item, of times by part, of the items' numbers."""
    found = []
    for what, rows, count in (("user", data.users, data.n_users), ("item", data.items, data.n_items)):
        often = np.bincount(rows, minlength=count)
        if len(often) and often.max() > 0:
            top = math.ceil(math.log2(int(often.max()) + 1))
            edges = [0.0, *(float(2**k) for k in range(top + 1))]
            counts = np.histogram(often, [*edges[:-1], np.inf])[0]
            meaning = f"how many {what}s have so many; the bins double"
            words = f"interactions of a {what}" if what == "user" else "interactions of an item"
            found.append(
                Histogram(f"Interactions per {what}", meaning, edges, {what + "s": counts.tolist()}, words, True)
            )
    times = data.timestamps
    if times is not None and len(times) and times.max() > times.min():
        edges = np.linspace(times.min(), times.max(), BINS + 1)
        part = data.split(split)
        series = {name: np.histogram(times[part == number], edges)[0].tolist() for number, name in enumerate(PARTS)}
        found.append(
            Histogram("Interactions over time", "by part of the split", edges.tolist(), series, "", dates=True)
        )
    for name in data.fields.numeric:
        values = data.numeric(name)
        values = values[np.isfinite(values)]
        if len(values) and values.max() > values.min():
            low, high = np.quantile(values, [0.0, 0.99])
            edges = np.linspace(low, high if high > low else values.max(), min(BINS, len(np.unique(values))) + 1)
            counts = np.histogram(np.minimum(values, edges[-1]), edges)[0].tolist()
            over = f", the largest up to {values.max():,.6g} in the last bin" if values.max() > edges[-1] else ""
            found.append(
                Histogram(f"{name} of items", f"how many items{over}", edges.tolist(), {"items": counts}, name)
            )
    return found


def day(seconds: float) -> str:
    """A date for an axis, or the number where it is none."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:,.0f}"
