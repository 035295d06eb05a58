"""The items of a page: what can be searched in it, and what is known of each and what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawrec.data.dataset import Dataset
from rawrec.data.splits import BUCKETS
from rawrec.report.embedding_map import EmbeddingMap, cells_of
from rawrec.report.page import plain
from rawrec.report.pictures import Tiles, titles
from rawrec.report.run import TEST, Run
from rawrec.shown import visible

SEARCHED = 3000
"""Items that can be searched, at most, beside those that the page names anyway."""
WORDS = 40
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class Missing:
    """A field: how many items lack it, in all and in each bucket, as a share (None: the bucket is empty)."""

    name: str
    kind: str
    lacking: int
    share: float
    by_bucket: dict[str, float | None]


def missing(data: Dataset, buckets: dict[str, NDArray[np.bool_]]) -> list[Missing]:
    """Of every field of the items."""
    found = []
    for name, kind in kinds(data).items():
        lacks = ~data.present(name)
        by_bucket = {b: float(lacks[mask].mean()) if mask.any() else None for b, mask in buckets.items()}
        found.append(Missing(name, kind, int(lacks.sum()), float(lacks.mean()) if len(lacks) else 0.0, by_bucket))
    return found


def kinds(data: Dataset) -> dict[str, str]:
    """Every field of the items, and its kind."""
    fields = data.fields
    of_kinds = {"image": fields.image, "text": fields.text, "category": fields.categorical, "number": fields.numeric,
                "feature": list(fields.feature)}  # fmt: skip
    return {name: kind for kind, names in of_kinds.items() for name in names}


def searchable(data: Dataset, train: NDArray[np.int64], named: Iterable[int]) -> NDArray[np.int64]:
    """Rows of the items that can be searched: all, or those that are named, the most popular, and some drawn once."""
    if data.n_items <= SEARCHED:
        return np.arange(data.n_items)
    popular = np.argsort(-train, kind="stable")[: SEARCHED // 2]
    drawn = np.random.default_rng(1).permutation(data.n_items)[: SEARCHED // 2]
    return np.unique(np.concatenate([popular, drawn, np.fromiter(named, np.int64)]))


def items_of(
    data: Dataset,
    mine: Run,
    rows: NDArray[np.int64],
    counts: NDArray[np.int64],
    tiles: Tiles,
    found: EmbeddingMap | None,
) -> dict[str, Any]:
    """What the page's script knows of the items `rows`, as plain values.

    counts: training rows of all items. Of an item: id, title (0: the id), fields that it lacks (bits), training rows,
    times taken in the test part, lists that it stands in, class of its picture, values, place in the map.
    """
    fields = kinds(data)
    lacks = np.zeros(len(rows), np.int64)
    for bit, name in enumerate(fields):
        lacks |= (~data.present(name)[rows]).astype(np.int64) << bit
    positive = data.positive(mine.config.data.label) & (data.retrieval_split(mine.config.data.split) == TEST)
    taken = np.bincount(data.items[positive], minlength=data.n_items)[rows]
    listed = _listed(mine, data.n_items)
    named, shown = titles(data, rows), _values(data, rows)
    places = cells_of(found, rows.tolist()) if found else [None] * len(rows)
    entries = []
    for n, row in enumerate(rows.tolist()):
        entries.append(
            [
                visible(str(data.item_ids[row])),
                named.get(row, 0),
                int(lacks[n]),
                int(counts[row]),
                int(taken[n]),
                0 if listed is None else int(listed[row]),
                tiles.name(row),
                shown[n],
                places[n],
            ]
        )
    return {
        "items": entries,
        "fields": list(fields),
        "images": len(data.fields.image),
        "lists": 0 if mine.topk is None else len(mine.topk),
        "buckets": {name: low for name, (low, _) in BUCKETS.items()},
        "across": found.sheet.across if found else 1,
    }


def _listed(mine: Run, n_items: int) -> NDArray[np.int64] | None:
    """How many of the stored lists each item stands in, among the first 20."""
    if mine.topk is None:
        return None
    items = mine.topk["items"].list.head(20).explode().drop_nulls().to_numpy()
    return np.bincount(items[items >= 0], minlength=n_items)


def _values(data: Dataset, rows: NDArray[np.int64]) -> list[str]:
    """Categories and numbers of items in words."""
    found: list[list[str]] = [[] for _ in rows]
    for name in data.fields.categorical[:3]:
        ptr, codes, words = data.categorical(name)
        for n, row in enumerate(rows.tolist()):
            own = codes[ptr[row] : ptr[row + 1]].tolist()
            if own:
                found[n].append(visible(f"{name} {', '.join(str(words[code]) for code in own[:3])}")[:WORDS])
    for name in data.fields.numeric[:3]:
        for n, value in enumerate(data.numeric(name)[rows].tolist()):
            if np.isfinite(value):
                found[n].append(f"{name} {plain(value)}")
    return ["; ".join(one) for one in found]
