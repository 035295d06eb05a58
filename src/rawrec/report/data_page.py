"""A dataset in one page: its pictures, what is missing and what is there twice, how its parts differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rawrec.arguments import checked
from rawrec.data.dataset import Dataset
from rawrec.data.inspect import inspect
from rawrec.data.splits import PARTS
from rawrec.errors import UserError
from rawrec.evaluation.ctr import buckets_of
from rawrec.report import plots
from rawrec.report.catalogue import kinds, missing
from rawrec.report.data_parts import Histogram, day, drift, duplicates, histograms, shares
from rawrec.report.page import render, write
from rawrec.report.pictures import Tiles
from rawrec.report.summary import without_times

GRID = 48
"""Items whose pictures are shown."""


@checked()
def build_data_page(path: str | Path, out: str | Path, found: dict[str, Any] | None = None) -> Path:
    """Write the page of the dataset at `path` to `out`, a new file or a page; returns its path. found: what
    `rawrec.data.inspect.inspect` says of it, where that is known.

    What it takes does not grow with the number of items: some pictures are shown, texts and pictures are compared up to
    a bound that the page tells.

    >>> rawrec.report.build_data_page("data/ml", "data.html")
    """
    plots.loaded()
    data, target = Dataset.open(path), Path(out)
    if target.absolute().resolve().is_relative_to(data.path.resolve()):
        raise UserError(f"{out} is inside of the dataset {path}: choose another place for the page")
    return write(render(_gather(data, found or inspect(path)), template="data.html"), target)


def _gather(data: Dataset, found: dict[str, Any]) -> dict[str, Any]:
    train = np.bincount(data.items[data.split() == 0], minlength=data.n_items)
    buckets = buckets_of(train)
    grid, same = _grid(data), duplicates(data)
    tiles = Tiles(data, {*grid, *(row for one in same for group in one.shown for row in group)})
    statement = data.meta.splits["default"]["statement"] if "default" in data.meta.splits else ""
    return {
        "data": data,
        "found": found,
        "parts": PARTS,
        "split": without_times(str(statement)),
        "span": _span(data),
        "grid": [tiles.tile(row, f"{int(train[row]):,} training rows") for row in grid],
        "with_picture": int(np.logical_or.reduce([data.present(name) for name in data.fields.image]).sum())
        if data.fields.image
        else 0,
        "same": [
            {"of": one, "groups": [[tiles.tile(row, str(data.item_ids[row])) for row in group] for group in one.shown]}
            for one in same
        ],
        "kinds": kinds(data),
        "missing": missing(data, buckets),
        "together": _together(data),
        "buckets": {name: int(mask.sum()) for name, mask in buckets.items()},
        "drift": drift(data),
        "shares": shares(data),
        "charts": [{"of": one, "plot": _plot(one)} for one in histograms(data)],
        "pictured": tiles.pictured,
        "pictures": tiles.style(),
        "ratio": round(tiles.ratio, 3),
        "other": None,
    }


def _span(data: Dataset) -> list[str] | None:
    """The first and the last day."""
    times = data.timestamps
    return None if times is None or not len(times) else [day(float(times.min())), day(float(times.max()))]


def _grid(data: Dataset) -> list[int]:
    """Items drawn at random, with a picture where there are any."""
    there: NDArray[np.bool_] = np.zeros(data.n_items, bool)
    for name in data.fields.image:
        there |= data.present(name)
    rows = np.flatnonzero(there) if there.any() else np.arange(data.n_items)
    return np.random.default_rng(0).permutation(rows)[:GRID].tolist()


def _together(data: Dataset) -> list[tuple[str, int, float]]:
    """How many items have pictures and texts, one of them, or neither; empty without such fields."""
    if not data.fields.image and not data.fields.text:
        return []
    none = np.zeros(data.n_items, bool)
    image, text = (np.logical_or.reduce([none, *(data.present(name) for name in names)])
                   for names in (data.fields.image, data.fields.text))  # fmt: skip
    lines = [("picture and text", image & text), ("picture alone", image & ~text), ("text alone", text & ~image),
             ("neither", ~image & ~text)]  # fmt: skip
    return [(name, int(mask.sum()), float(mask.mean()) if len(mask) else 0.0) for name, mask in lines]


def _plot(one: Histogram) -> Any:
    labels = None
    if one.log:
        labels = [f"{int(low):,}" if high - low <= 1 else f"{int(low):,}–{int(high) - 1:,}"
                  for low, high in zip(one.edges[:-1], one.edges[1:], strict=True)]  # fmt: skip
    dates = [day(edge) for edge in one.edges] if one.dates else None
    return plots.histogram(one.title, one.edges, one.counts, one.words, labels, dates)
