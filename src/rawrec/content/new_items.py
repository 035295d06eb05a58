"""New items, as callers give them: read by field, checked, and made the columns that an item model reads."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from rawrec.arguments import shown
from rawrec.content.item_model import ItemModel
from rawrec.data import images
from rawrec.data.dataset import Fields
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError
from rawrec.shown import listed

LARGEST = 1e18
"""Size of a number in a ready-made feature; the squares of greater ones are infinite in float32, and no length is
then a number."""
Item = str | Mapping[str, Any]
"""An item: its id, or what is known of a new one, as `{"title": "...", "poster": "file.jpg"}` by field name.

Fields are those of the dataset; `image` and `text` stand for the only one of their kind. A text field takes a string or
a list of strings, an image field a file's path, its bytes, a picture of Pillow or a list of them, a feature field a
vector, a categorical field a string or a list of strings, a numeric field a number. Fields that the model does not read
are left aside, so that a whole row of a catalogue can be given.
"""


def new_columns(
    items: Sequence[Mapping[str, Any]], first: int, fields: Fields, item_model: ItemModel
) -> dict[str, Ragged]:
    """What `item_model` reads of new items, by column, of a dataset with these `fields`; a row per item.

    first: the number of the first one, for messages. Raises UserError for a value that no field can have, or a field
    that nobody knows.
    """
    encoded = list(dict.fromkeys(field for name in item_model.reads for field in item_model.read_by(name)))
    known = [*encoded, *(name for name in item_model.fields if name in fields.feature)]
    raw: dict[str, list[Sequence[bytes | str]]] = {name: [[] for _ in items] for name in encoded}
    ready = {name: np.zeros((len(items), width), np.float32) for name, width in fields.feature.items()}
    given = {name: np.zeros(len(items), bool) for name in ready}
    for i, item in enumerate(items):
        for key, value in item.items():
            name, where = _field(key, known, fields), f"new item {first + i}, {key}"
            if name in encoded:
                raw[name][i] = (_pictures if name in fields.image else _strings)(value, where)
            elif name is not None and value is not None:
                ready[name][i] = vector_of(value, fields.feature[name], where)
                given[name][i] = True
    columns = item_model.raw_columns({**raw})
    for name, values in ready.items():
        valid = torch.from_numpy(given[name])
        columns[f"feature/{name}"] = Ragged.from_lengths(torch.from_numpy(values)[valid], valid.long())
    return columns


def _field(key: str, known: list[str], fields: Fields) -> str | None:
    """The field that a new item's key means: its name, or `image` / `text` where there is one of that kind only."""
    if key in known:
        return key
    kind = {"image": fields.image, "text": fields.text}.get(key, [])
    used = [name for name in kind if name in known]
    if len(used) == 1:
        return used[0]
    if key in fields.names():
        return None  # a column that this model's content is not made from
    raise UserError(
        f"a new item has the field {shown(key)}, which this model does not know. Known: {listed(known, key)}"
    )


def _pictures(value: Any, where: str) -> list[bytes]:
    result = []
    for picture in value if isinstance(value, list | tuple) else [value]:
        if picture is None:
            continue
        if isinstance(picture, str | Path):
            if not Path(picture).is_file():
                raise UserError(f"{where}: there is no file {picture}")
            picture = Path(picture).read_bytes()
        if isinstance(picture, Image.Image):
            picture = _written(picture)
        if not isinstance(picture, bytes | bytearray | memoryview):
            raise UserError(f"{where}: expected a picture's path or bytes, found {type(picture).__name__}")
        picture = bytes(picture)
        reason = images.check(picture)
        if reason:
            raise UserError(f"{where}: the picture cannot be used: {reason}")
        result.append(picture)
    return result


def _written(picture: Image.Image) -> bytes:
    """A picture of Pillow as a file, nothing lost but for colours that no PNG has."""
    stream = io.BytesIO()
    (picture if picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else picture.convert("RGB")).save(stream, "PNG")
    return stream.getvalue()


def _strings(value: Any, where: str) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    for text in values:
        if text is not None and not isinstance(text, str):
            raise UserError(f"{where}: expected text, found {shown(text)}")
    return [text for text in values if text]


def vector_of(value: Any, width: int, where: str) -> np.ndarray:
    """A ready-made feature of a new item. Raises UserError where it is none of `width` numbers that can be reckoned
    with."""
    try:
        vector = np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: expected a vector of {width} numbers, found {shown(value)}") from None
    if vector.shape != (width,) or not np.isfinite(vector).all():
        raise UserError(f"{where}: expected a vector of {width} finite numbers, found one of shape {vector.shape}")
    if np.abs(vector).max(initial=0) > LARGEST:
        raise UserError(f"{where}: a vector with numbers above {LARGEST:g}, of which no length can be computed")
    return vector
