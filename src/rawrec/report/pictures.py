"""Items as tiles: a small picture where there is one, else the item's words."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from rawrec.data.dataset import Dataset
from rawrec.data.images import FORMATS, ImageError, decode

SIDE = 176
TITLE_FIELDS = ("title", "name")
TITLE_LENGTH = 70
QUARTER_TURNS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Picture:
    """A JPEG as a data URI, and width / height."""

    uri: str
    ratio: float


@dataclass(frozen=True)
class Tile:
    """One item: id, first words of its title (else its id), its picture; note: a small line; hit: to be marked."""

    item_id: str
    title: str
    picture: Picture | None
    note: str = ""
    hit: bool = False


class Tiles:
    """Tiles of a dataset's items; pictures and titles are read once for all `rows` that will be asked for."""

    def __init__(self, data: Dataset, rows: Iterable[int]):
        wanted = np.unique(np.fromiter(rows, np.int64))
        self._ids = {int(row): str(data.item_ids[row]) for row in wanted}
        self._pictures: dict[int, Picture] = {}
        for field in data.fields.image:
            for row, pictures in zip(wanted.tolist(), data.images(field, wanted), strict=True):
                if row not in self._pictures:
                    found = next(filter(None, map(thumbnail, pictures)), None)
                    self._pictures |= {row: found} if found else {}
        self._titles: dict[int, str] = {}
        for field in sorted(data.fields.text, key=lambda name: name not in TITLE_FIELDS)[:1]:
            texts = data.texts(field, wanted)
            self._titles = {row: _short(t[0]) for row, t in zip(wanted.tolist(), texts, strict=True) if t}

    @property
    def pictured(self) -> bool:
        """Whether any of the items has a picture."""
        return bool(self._pictures)

    @property
    def ratio(self) -> float:
        """Median width / height of the pictures, 1 without any."""
        return float(np.median([p.ratio for p in self._pictures.values()])) if self._pictures else 1.0

    def tile(self, row: int, note: str = "", hit: bool = False) -> Tile:
        item_id = self._ids[row]
        return Tile(item_id, self._titles.get(row) or item_id, self._pictures.get(row), note, hit)


def thumbnail(data: bytes, side: int = SIDE) -> Picture | None:
    """The picture at its own proportions, longest side `side` pixels; None where it cannot be decoded."""
    try:
        pixels = decode(data, side)
    except ImageError:
        return None
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112) in QUARTER_TURNS
    ratio = float(np.clip(height / width if turned else width / height, 0.4, 2.5))
    small = Image.fromarray(pixels.transpose(1, 2, 0))
    small = small.resize((round(side * min(1.0, ratio)), round(side / max(1.0, ratio))), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82, optimize=True)
    return Picture("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(), ratio)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= TITLE_LENGTH else text[: TITLE_LENGTH - 1].rstrip() + "…"
