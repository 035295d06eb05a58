"""A tiny shop whose pictures and titles agree: every item has two colours, which are seen and said."""

from __future__ import annotations

import io
from itertools import permutations
from pathlib import Path

import numpy as np
from PIL import Image

from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter

COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "yellow": (230, 220, 40),
    "black": (10, 10, 10), "white": (245, 245, 245), "grey": (128, 128, 128),
    "pink": (250, 130, 190), "cyan": (60, 220, 220),
    "brown": (120, 70, 20), "orange": (250, 140, 20),
}  # fmt: skip


def picture(upper: str, lower: str, seed: int) -> bytes:
    """The upper quarter in one colour, the rest in the other, with a little noise."""
    pixels = np.empty((32, 32, 3), np.float64)
    pixels[:8], pixels[8:] = COLOURS[upper], COLOURS[lower]
    pixels += np.random.default_rng(seed).normal(0, 8, pixels.shape)
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def colours(out: Path, pictures: int = 1, title: str = "{upper} on {lower}", plain: bool = False) -> Dataset:
    """110 items, and two without a picture or a title. pictures: of each item; plain: all look alike to the byte."""
    names = list(permutations(COLOURS, 2))
    seeds = [0 if plain else k for k in range(len(names))]
    shown = [[picture(*("red", "blue") if plain else pair, 7 * s + k) for k in range(pictures)]
             for pair, s in zip(names, seeds, strict=True)]  # fmt: skip
    said = [[title.format(upper=upper, lower=lower)] for upper, lower in names]
    ids = [f"i{k}" for k in range(len(names) + 2)]
    fields = Fields(image=["front"], text=["title"])
    with DatasetWriter(out, fields=fields, source="test", labels=[], has_time=True) as writer:
        writer.add_items({"item_id": ids, "front": [*shown, [], shown[0]], "title": [*said, ["red"], []]})
        rng = np.random.default_rng(0)
        users, items = rng.integers(0, 30, 600), rng.integers(0, len(ids), 600)
        writer.add_interactions(
            {"user_id": [f"u{u}" for u in users], "item_id": [ids[i] for i in items], "timestamp": list(range(600))}
        )
        return writer.finish(SplitSpec(kind="time_global"), ImportReport(source="test"))
