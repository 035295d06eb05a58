"""Items as tiles: a small picture where there is one, else the item's words."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from rawrec.data.dataset import Dataset
from rawrec.data.images import FORMATS, ImageError, decode
from rawrec.shown import visible

SIDE = 176
ROOM = 1_100_000
"""Characters of a page that its pictures may take: where they would take more they are made smaller."""
SMALLER = ((SIDE, 82), (144, 76), (112, 72), (88, 68), (64, 64), (48, 55))
"""Longest side and quality of a page's pictures, the first that fits into the room."""
TITLE_FIELDS = ("title", "name")
TITLE_LENGTH = 70
QUARTER_TURNS = (5, 6, 7, 8)
AT_ONCE = 256  # items whose pictures are held as they are


@dataclass(frozen=True)
class Picture:
    """A JPEG as a data URI, and width / height. name: the class that shows it on its page, see `Tiles.style`."""

    uri: str
    ratio: float
    name: str = ""


@dataclass(frozen=True)
class Tile:
    """One item: id, first words of its title (else its id), its picture; note: a small line; hit: to be marked; mark:
    one more class of its tile."""

    item_id: str
    title: str
    picture: Picture | None
    note: str = ""
    hit: bool = False
    mark: str = ""


class Tiles:
    """Tiles of a dataset's items; pictures and titles are read once for all `rows` that will be asked for.

    A picture stands in the page once, in its style sheet, however many tiles show it. room: characters that all of them
    may take.
    """

    def __init__(self, data: Dataset, rows: Iterable[int], room: int = ROOM):
        wanted = np.unique(np.fromiter(rows, np.int64))
        self._ids = {int(row): visible(str(data.item_ids[row])) for row in wanted}
        pixels: dict[int, Pixels] = {}
        for field in data.fields.image:
            without = np.array([row for row in wanted.tolist() if row not in pixels], np.int64)
            for part in np.array_split(without, max(1, -(-len(without) // AT_ONCE))):
                for row, pictures in zip(part.tolist(), data.images(field, part), strict=True):
                    found = next(filter(None, map(small, pictures)), None)
                    pixels |= {row: found} if found else {}
        self._pictures = _fitting(pixels, room)
        self._titles = titles(data, wanted)

    def style(self) -> Markup:
        """The rules of a style sheet by which a page shows its pictures."""
        rule = Markup('.{}{{background-image:url("{}")}}')
        return Markup("\n").join(rule.format(p.name, Markup(p.uri)) for p in self._pictures.values())

    @property
    def pictured(self) -> bool:
        """Whether any of the items has a picture."""
        return bool(self._pictures)

    @property
    def ratio(self) -> float:
        """Median width / height of the pictures, 1 without any."""
        return float(np.median([p.ratio for p in self._pictures.values()])) if self._pictures else 1.0

    def tile(self, row: int, note: str = "", hit: bool = False, mark: str = "") -> Tile:
        return Tile(self._ids[row], self.title(row), self._pictures.get(row), note, hit, mark)

    def title(self, row: int) -> str:
        return self._titles.get(row) or self._ids[row]

    def name(self, row: int) -> str:
        """The class that shows the item's picture; empty without one."""
        picture = self._pictures.get(row)
        return picture.name if picture else ""


class Pixels(NamedTuple):
    """A picture `[height, width, 3]`, longest side SIDE, and width / height."""

    values: Image.Image
    ratio: float


def titles(data: Dataset, rows: NDArray[np.int64]) -> dict[int, str]:
    """The beginning of the title, or of another text, of the items `rows`; those without one are left out."""
    for field in sorted(data.fields.text, key=lambda name: name not in TITLE_FIELDS)[:1]:
        texts = data.texts(field, rows)
        return {row: _short(t[0]) for row, t in zip(rows.tolist(), texts, strict=True) if t}
    return {}


def _fitting(pixels: dict[int, Pixels], room: int) -> dict[int, Picture]:
    """The pictures of items, all at the largest side and quality that fit into the room; if none does, so many."""
    found: dict[int, Picture] = {}
    for side, quality in SMALLER:
        found = {row: _jpeg(one, side, quality, f"p{row}") for row, one in pixels.items()}
        if sum(len(picture.uri) for picture in found.values()) <= room:
            return found
    used = np.cumsum([len(picture.uri) for picture in found.values()])
    return dict(list(found.items())[: int((used <= room).sum())])


def _jpeg(one: Pixels, side: int, quality: int, name: str) -> Picture:
    size = max(1, round(side * min(1.0, one.ratio))), max(1, round(side / max(1.0, one.ratio)))
    image = one.values if one.values.size == size else one.values.resize(size, Image.Resampling.BICUBIC)
    return Picture(uri_of(image, quality), one.ratio, name)


def uri_of(image: Image.Image, quality: int) -> str:
    """A picture as a JPEG in a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(_bytes_of(image, quality)).decode()


def _bytes_of(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def small(data: bytes, side: int = SIDE) -> Pixels | None:
    """The picture at its own proportions, longest side `side` pixels; None where it cannot be decoded."""
    try:
        pixels = decode(data, side)
    except ImageError:
        return None
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112) in QUARTER_TURNS
    ratio = float(np.clip(height / width if turned else width / height, 0.4, 2.5))
    size = round(side * min(1.0, ratio)), round(side / max(1.0, ratio))
    return Pixels(Image.fromarray(pixels.transpose(1, 2, 0)).resize(size, Image.Resampling.BICUBIC), ratio)


def thumbnail(data: bytes, side: int = SIDE) -> Picture | None:
    """The same as a picture for a page."""
    found = small(data, side)
    return _jpeg(found, side, SMALLER[0][1], "") if found else None


def thumbnail_bytes(data: bytes, side: int = SIDE) -> bytes | None:
    """The same as the bytes of a JPEG."""
    found = small(data, side)
    return _bytes_of(found.values, SMALLER[0][1]) if found else None


def _short(text: str) -> str:
    text = visible(" ".join(text.split()))
    return text if len(text) <= TITLE_LENGTH else text[: TITLE_LENGTH - 1].rstrip() + "…"
