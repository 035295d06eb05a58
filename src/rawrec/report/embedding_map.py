"""A map of items: their vectors in the plane of the two directions in which they differ most (PCA)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.report.pictures import AT_ONCE, SMALLER, small, uri_of
from rawrec.shown import visible

POINTS = 2000
LOOKED_AT = 5 * POINTS
"""Items that are drawn: not all may have a vector."""
WIDTH, HEIGHT, MARGIN = 1000, 620, 26
"""Of the map, in its own units."""
KINDS = 7
"""Categories with a colour of their own."""
BOX = 58
"""Side of a picture that stands in the map, in its units."""
STANDING = 48
CELLS = ((40, 70), (32, 64), (24, 56))
"""Side and quality of the thumbnails of the sheet, the first that fits."""
ROOM = 650_000
"""Characters of a page that the sheet may take."""
BYTES = 400_000_000
"""Of pictures that are read for it."""


@dataclass(frozen=True)
class Sheet:
    """Thumbnails in one picture of `across` x `across` square cells. cells: item row -> number of its cell."""

    uri: str = ""
    across: int = 1
    cells: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class EmbeddingMap:
    """rows: of the items, `[n]`; places: `[n, 2]`, whole numbers; kinds: which colour each has, `[n]`; names: of the
    colours, with how many items. shares: of the variance that the two directions hold. of: how many items have a
    vector."""

    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    kinds: NDArray[np.int64]
    names: list[tuple[str, int]]
    by: str
    shares: tuple[float, float]
    of: int
    sheet: Sheet
    drawing: Markup


def sample(n_items: int) -> NDArray[np.int64]:
    """The items that a map is drawn of: all, or LOOKED_AT drawn once, in the order in which they are taken."""
    return np.random.default_rng(0).permutation(n_items)[:LOOKED_AT]


def plane(vectors: NDArray[np.floating]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Vectors `[n, dim]`, brought to length 1, in their two principal directions `[n, 2]`, and what share of the
    variance each holds. The signs are such that the largest entry of a direction is above 0."""
    values = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    values = np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)
    values = values - values.mean(0)
    if len(values) > values.shape[1]:  # the same of the few columns: 50,000 items take a second
        squares, columns = np.linalg.eigh(values.T @ values)
        sizes, directions = np.sqrt(squares.clip(min=0))[::-1], columns.T[::-1]
    else:
        _, sizes, directions = np.linalg.svd(values, full_matrices=False)
    found = np.zeros((len(values), 2))
    shares = [0.0, 0.0]
    total = float((sizes**2).sum())
    for axis in range(min(2, len(sizes))):
        direction = directions[axis] * np.sign(directions[axis][np.abs(directions[axis]).argmax()])
        found[:, axis] = values @ direction
        shares[axis] = float(sizes[axis] ** 2) / total if total > 0 else 0.0
    return found, (shares[0], shares[1])


def item_map(
    data: Dataset, buckets: Mapping[str, NDArray[np.bool_]], recommender: Any
) -> tuple[EmbeddingMap | None, str]:
    """The map of a dataset's items by the vectors of a run in use, or why there is none."""
    read = getattr(recommender, "item_vectors", None)
    if read is None:
        return None, ""
    rows = sample(data.n_items)
    try:
        vectors, there = read([str(item) for item in data.item_ids[rows]])
    except UserError as error:
        return None, f"There is no map of the items: {error}."
    of = int(there.sum()) if len(rows) == data.n_items else round(float(there.mean()), 3) * data.n_items
    taken = np.flatnonzero(there)[:POINTS]
    taken = taken[np.argsort(rows[taken])]
    found = make_map(data, rows[taken], vectors[taken], int(of), buckets)
    return found, "" if found else "There is no map of the items: hardly any has a vector."


def make_map(
    data: Dataset, rows: NDArray[np.int64], vectors: NDArray[np.floating], of: int, buckets: Mapping[str, NDArray]
) -> EmbeddingMap | None:
    """The map of the items `rows` `[n]`, which have the vectors `[n, dim]`; None of fewer than three."""
    if len(rows) < 3:
        return None
    found, shares = plane(vectors)
    low, high = np.quantile(found, [0.005, 0.995], axis=0)
    room = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    scaled = np.clip((found - low) / np.where(high > low, high - low, 1), 0, 1)
    places = np.rint(MARGIN + scaled * room).astype(np.int64)
    by, kinds, names = coloured(data, rows, buckets)
    pictures = _pictures(data, rows)
    drawing = _drawing(rows, places, kinds, len(names), pictures)
    return EmbeddingMap(rows, places, kinds, names, by, shares, of, _sheet(pictures), drawing)


def coloured(
    data: Dataset, rows: NDArray[np.int64], buckets: Mapping[str, NDArray]
) -> tuple[str, NDArray[np.int64], list[tuple[str, int]]]:
    """What the items are coloured by: the category that most of them have, or how often training saw them; the number
    of the colour of each, and the names of the colours with how many items have it."""
    best: tuple[int, str] = (0, "")
    for name in data.fields.categorical:
        ptr, codes, _ = data.categorical(name)
        there = int((np.diff(ptr)[rows] > 0).sum())
        if there > best[0] and len(np.unique(codes[ptr[rows][np.diff(ptr)[rows] > 0]])) > 1:
            best = there, name
    if not best[1]:
        known = [name for name in buckets if buckets[name][rows].any()]
        kinds = np.stack([buckets[name][rows] for name in known]).argmax(0) if known else np.zeros(len(rows), int)
        return "popularity", kinds, [(name, int((kinds == k).sum())) for k, name in enumerate(known)]
    return best[1], *by_category(data, rows, best[1])


def by_category(data: Dataset, rows: NDArray[np.int64], column: str) -> tuple[NDArray[np.int64], list[tuple[str, int]]]:
    """The number of the colour of each item by its first value of a categorical column, the commonest of which have one
    each; and the names of the colours with how many items have it."""
    ptr, codes, words = data.categorical(column)
    has = np.diff(ptr)[rows] > 0
    first = np.full(len(rows), -1)
    first[has] = codes[ptr[rows][has]]
    often = np.bincount(first[has], minlength=len(words))
    chosen = [code for code in np.argsort(-often, kind="stable")[:KINDS].tolist() if often[code]]
    kinds = np.full(len(rows), len(chosen))
    for k, code in enumerate(chosen):
        kinds[first == code] = k
    names = [(visible(str(words[code])), int(often[code])) for code in chosen]
    rest = int((kinds == len(chosen)).sum())
    return kinds, names + [("all others", rest)] * (rest > 0)


def _pictures(data: Dataset, rows: NDArray[np.int64]) -> dict[int, Image.Image]:
    """A square thumbnail of each item that has a picture."""
    found: dict[int, Image.Image] = {}
    for name in data.fields.image:
        sizes = data.image_bytes(name)[rows]
        wanted = rows[(sizes > 0) & (np.cumsum(sizes) <= BYTES) & ~np.isin(rows, list(found))]
        for part in np.array_split(wanted, max(1, -(-len(wanted) // AT_ONCE))):
            for row, pictures in zip(part.tolist(), data.images(name, part), strict=True):
                one = small(pictures[0], 64) if pictures else None
                if one is not None:
                    found[row] = _square(one.values, CELLS[0][0])
    return found


def _square(image: Image.Image, side: int) -> Image.Image:
    """The middle of a picture, `side` x `side`."""
    edge = min(image.size)
    left, top = (image.size[0] - edge) // 2, (image.size[1] - edge) // 2
    return image.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.BICUBIC)


def _sheet(pictures: Mapping[int, Image.Image]) -> Sheet:
    if not pictures:
        return Sheet()
    across = math.ceil(math.sqrt(len(pictures)))
    cells = {row: place for place, row in enumerate(pictures)}
    uri = ""
    for side, quality in CELLS:
        sheet = Image.new("RGB", (across * side, across * side), "white")
        for place, image in enumerate(pictures.values()):
            sheet.paste(image.resize((side, side)), (place % across * side, place // across * side))
        uri = uri_of(sheet, quality)
        if len(uri) <= ROOM:
            return Sheet(uri, across, cells)
    return Sheet()


def _drawing(
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
    kinds: NDArray[np.int64],
    count: int,
    pictures: Mapping[int, Image.Image],
) -> Markup:
    """Points as one path for each colour, and over them some pictures that do not hide each other."""
    paths = [
        Markup('<path class="k{}" d="{}"/>').format(k, "".join(f"M{x} {y}h0" for x, y in places[kinds == k].tolist()))
        for k in range(count)
    ]
    images, taken = [], np.zeros((0, 2))
    for at in np.random.default_rng(0).permutation(len(rows)).tolist():
        row, place = int(rows[at]), places[at]
        if len(images) == STANDING:
            break
        if row not in pictures or (len(taken) and (np.abs(taken - place).max(1) < BOX * 1.25).any()):
            continue
        taken = np.concatenate([taken, place[None]])
        x, y = (place - BOX // 2).clip(2, [WIDTH - BOX - 2, HEIGHT - BOX - 2]).tolist()
        images.append(
            Markup('<image x="{}" y="{}" width="{}" height="{}" href="{}"/><rect class="k{}" x="{}" y="{}" width="{}" '
                   'height="{}"/>').format(x, y, BOX, BOX, Markup(uri_of(pictures[row], SMALLER[1][1])),
                                           int(kinds[at]), x, y, BOX, BOX)
        )  # fmt: skip
    said = f"Map of {len(rows):,} items"
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        WIDTH, HEIGHT, said, Markup("").join(paths), Markup("").join(images)
    )


def cells_of(found: EmbeddingMap, rows: Sequence[int]) -> list[list[int] | None]:
    """Of each item its place, colour and number in the sheet (-1: none); None of one that is not in the map."""
    at = {int(row): n for n, row in enumerate(found.rows)}
    return [
        None if row not in at else [*found.places[at[row]].tolist(), int(found.kinds[at[row]]),
                                    found.sheet.cells.get(row, -1)]
        for row in rows
    ]  # fmt: skip
