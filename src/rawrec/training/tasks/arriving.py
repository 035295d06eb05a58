"""An item as it comes: which of its raw fields can be used, as the columns that a model reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from rawrec.content.item_model import ItemModel
from rawrec.content.new_items import new_columns, vector_of
from rawrec.data import images
from rawrec.data.dataset import Fields
from rawrec.errors import UserError
from rawrec.models.ranking.columns import ItemColumns


class Arrived(NamedTuple):
    """columns: static columns of the bank that can be made, their pieces; values: categories and numbers; named: those
    of the ranker's columns among them; problems: of each part that cannot be used, what it is."""

    columns: dict[str, Tensor]
    values: dict[str, Any]
    named: list[str]
    problems: list[str]


def arrived(values: Mapping[str, Any], fields: Fields, item_model: ItemModel | None, columns: ItemColumns) -> Arrived:
    """The usable parts of raw fields by the dataset's names: pictures are lists of bytes.

    A column is made of an item only where all the fields that it is made of are named: the others are not at hand.
    """
    raw: dict[str, Any] = {}
    named, problems = [], []
    for name, value in values.items():
        if name not in fields.names():
            problems.append("unknown_field")
        elif (name in fields.image) != _are_pictures(value) and value != []:
            problems.append("broken_picture" if name in fields.image else "no_picture_field")
        elif name in fields.image:
            whole = [picture for picture in value if isinstance(picture, bytes) and images.check(picture) is None]
            problems += ["broken_picture"] * (len(value) - len(whole))
            if whole or not value:
                raw[name] = whole
        elif name in fields.text:
            texts = value if isinstance(value, list) else [value]
            if all(isinstance(text, str) for text in texts):
                raw[name] = texts
            else:
                problems.append("no_text")
        elif name in fields.feature:
            if _is_vector(value, fields.feature[name]):
                raw[name] = value
            else:
                problems.append("no_vector")
        elif name in columns.readers:
            try:
                columns.of_new([{name: value}])
                raw[name] = value
                named.append(name)
            except UserError:
                problems.append("no_value")
    made = {} if item_model is None else _columns(raw, fields, item_model)
    return Arrived(made, {name: raw[name] for name in named}, named, problems)


def is_fact(name: str, value: Any, fields: Fields) -> bool:
    """Whether a value is one of a categorical or a numeric field: texts, or a number."""
    if name in fields.categorical:
        return all(isinstance(word, str) for word in (value if isinstance(value, list) else [value]))
    return name in fields.numeric and isinstance(value, int | float) and math.isfinite(value)


def _are_pictures(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, bytes) for one in value)


def _columns(raw: Mapping[str, Any], fields: Fields, item_model: ItemModel) -> dict[str, Tensor]:
    """Static columns of the item model, of those fields that are all given."""
    needs = {name: item_model.read_by(name) if name in item_model.reads else [name] for name in item_model.fields}
    wanted = [name for name, of in needs.items() if all(field in raw for field in of)]
    if not wanted:
        return {}
    media = {name: value for name, value in raw.items() if name in (*fields.image, *fields.text, *fields.feature)}
    found = new_columns([media], 0, fields, item_model)
    return {column: found[column].values for name in wanted if (column := item_model.column(name)) in found}


def _is_vector(value: Any, width: int) -> bool:
    try:
        vector_of(value, width, "")
    except UserError:
        return False
    return True
