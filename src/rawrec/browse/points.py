"""All items as points in the plane of the two directions in which their vectors differ most."""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawrec.browse.facts import Facts
from rawrec.data.splits import BUCKETS
from rawrec.report.embedding_map import by_category, plane

MOST = 50_000
"""Points of a map; of more items so many are drawn once."""
ACROSS = 65_535
AGES = 6
"""Colours of ages, equally many items each."""
COLUMNS = 4


def points(facts: Facts, among: NDArray[np.int64] | None = None) -> dict[str, Any]:
    """The map of the items of a catalogue, or of its rows `among`: ids, `x` and `y` (from 0 to 65,535, little-endian
    uint16 in Base64), and for each way to colour them the colour of every point (uint8 in Base64) and the names of the
    colours with how many items have it. UserError where the model has no vectors of items.
    """
    rec, data = facts.rec, facts.data
    rows = np.arange(rec.n_items) if among is None else among
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:MOST])
    vectors, there = rec.item_vectors([rec.item_ids[row] for row in rows.tolist()])
    of, rows, vectors = len(rows), rows[there], vectors[there]
    found, shares = plane(vectors) if len(rows) else (np.zeros((0, 2)), (0.0, 0.0))
    low, high = np.quantile(found, [0.003, 0.997], axis=0) if len(rows) else (np.zeros(2), np.ones(2))
    scaled = np.clip((found - low) / np.where(high > low, high - low, 1), 0, 1) * ACROSS
    x, y = np.rint(scaled).astype("<u2").T
    own = rows < data.n_items
    colours = []
    for name in data.fields.categorical[:COLUMNS]:
        if own.any():
            kinds, names = by_category(data, rows[own], name)
            colours.append(_colour(name, _spread(kinds, own, names), names))
    counts = facts.train[rows]
    buckets = np.searchsorted([low for low, _ in BUCKETS.values()], counts, side="right") - 1
    colours.append(_colour("training rows", buckets, _counted(list(BUCKETS), buckets)))
    ages = _ages(facts, rows, own)
    if ages is not None:
        colours.append(ages)
    return {
        "items": [rec.item_ids[row] for row in rows.tolist()], "x": _packed(x), "y": _packed(y), "colours": colours,
        "shares": [float(share) for share in shares], "of": of, "all": rec.n_items,
    }  # fmt: skip


def _spread(kinds: NDArray, own: NDArray[np.bool_], names: list[tuple[str, int]]) -> NDArray:
    """Colours of all points, those of added items being that of the others."""
    found = np.full(len(own), len(names) - 1)
    found[own] = kinds
    return found


def _ages(facts: Facts, rows: NDArray[np.int64], own: NDArray[np.bool_]) -> dict[str, Any] | None:
    """By the time of an item's launch, or of its first interaction; None where the data have no times."""
    data = facts.data
    times = data.timestamps
    first = data.launched
    if first is None and times is None:
        return None
    if first is None and times is not None:
        latest = np.iinfo(np.int64).max
        first = np.full(data.n_items, latest)
        np.minimum.at(first, data.items, times)
        first = np.where(first == latest, np.iinfo(np.int64).min, first)
    assert first is not None
    when = np.full(len(rows), np.iinfo(np.int64).min)
    when[own] = first[rows[own]]
    known = when > np.iinfo(np.int64).min
    if not known.any():
        return None
    edges = np.unique(np.quantile(when[known], np.linspace(0, 1, AGES + 1)[:-1]).astype(np.int64))
    kinds = np.where(known, np.searchsorted(edges, when, side="right") - 1, len(edges)).clip(0)
    names = [f"from {_day(edge)}" for edge in edges.tolist()] + ["unknown"]
    told = _counted(names, kinds)
    return _colour("age", kinds, told if told[-1][1] else told[:-1])


def _day(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def _counted(names: list[str], kinds: NDArray) -> list[tuple[str, int]]:
    counts = np.bincount(kinds, minlength=len(names)).tolist()
    return [(name, count) for name, count in zip(names, counts, strict=False)]


def _colour(name: str, kinds: NDArray, names: list[tuple[str, int]]) -> dict[str, Any]:
    return {"name": name, "kinds": _packed(kinds.astype(np.uint8)), "names": [list(one) for one in names]}


def _packed(values: NDArray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
