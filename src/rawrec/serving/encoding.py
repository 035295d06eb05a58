"""Features of a dataset by a frozen encoder, without a model: `rawrec encode`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rawrec.arguments import COUNT, checked, one_of, shown
from rawrec.config.parts import encoder_entry
from rawrec.content.caches import Cache
from rawrec.content.columns import static_columns
from rawrec.content.encoders import IMAGE_ENCODERS, JOINT, TEXT_ENCODERS, reads_whole_items
from rawrec.content.item_model import dense
from rawrec.content.units import ITEM, content_units
from rawrec.data.dataset import Dataset
from rawrec.data.vectors import VECTOR_FORMS, Vectors, check_form, write_vectors
from rawrec.errors import UserError
from rawrec.folders import is_within
from rawrec.serving.encoding_on_ray import encoders, encoding_model
from rawrec.shown import listed
from rawrec.training.configuring import configure
from rawrec.training.watching import chunks_told

WRITTEN = 4096  # items written at once


@dataclass
class Encoded:
    """What was made.

    features: name -> width and the number of items that have it. lost: name -> what was cut off or lost on the way.
    seconds: that it took; next to none where all was in the cache. file: written, if asked for. cached: the dataset's
    cache has what was made; False where it could not be written, and a file was asked for.
    """

    features: dict[str, tuple[int, int]]
    lost: dict[str, dict[str, int]]
    items: int
    seconds: float
    file: Path | None = None
    cached: bool = True


@checked(on=one_of("ray", None), workers=COUNT)
def encode(
    data: Dataset | str | Path,
    encoder: str | None = None,
    *,
    field: str | None = None,
    feature: str | None = None,
    out: str | Path | None = None,
    index: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    observer: Callable[..., None] | None = None,
    on: str | None = None,
    workers: int = 2,
    address: str | None = None,
) -> Encoded:
    """Encode all items into the dataset's cache, where runs with the same encoder find them, and to `out`, if given.

    encoder: by name, folder or hub name; None: the usual ones of each field. field: the only one to be encoded.
    feature: the only one to be kept, of an encoder that makes several. out, index: as of `Recommender.export_features`.
    overrides: further settings, as content.image.size. on: `ray`, where so many workers of a cluster of Ray's encode,
    which see the dataset under the same path (address: see `ray_cluster.cluster`); None: this process. What was encoded
    before a kill is not encoded again. Raises UserError for what does not fit together.
    """
    data = data if isinstance(data, Dataset) else Dataset.open(data)
    path = None if out is None else Path(out)
    if path is not None:
        if path.suffix not in VECTOR_FORMS:
            raise UserError(f"{path}: the name of a file of vectors ends with {', '.join(VECTOR_FORMS)}")
        check_form(path, index)
        if is_within(path, data.path):
            raise UserError(f"{path} is in the folder of the dataset: give another one")
    given = _settings(data, encoder, field) | ({"content.features": [feature]} if feature else {})
    cfg = configure("em3", data, {"paradigm": "frozen", **given, **(overrides or {})})
    units = content_units(cfg, data.fields)
    if not units:
        raise UserError(f"{data.path} has no image or text field that could be encoded")
    if path is not None and len(units) > 1:
        raise UserError(
            f"--out {path} takes one feature, and {len(units)} are made: {listed(units)}. Name one with --field, or "
            "with --feature; without --out all of them go into the dataset's cache"
        )
    item_model = encoding_model(cfg, data, units)
    began = time.perf_counter()
    observe = observer or (lambda event, **values: None)
    cache = Cache(data.path / "cache", elsewhere=path is not None)
    with ExitStack() as stack:
        elsewhere = None
        if on == "ray":
            elsewhere = stack.enter_context(encoders(cfg, data, workers, address))
        progress = partial(chunks_told, observe)
        columns, lost = static_columns(item_model, data, cache, progress, elsewhere)
    result = Encoded({}, lost, data.n_items, time.perf_counter() - began, path, cache.kept)
    for name in units:
        column = columns[item_model.column(name)]
        result.features[name] = item_model.widths[name], int((column.lengths > 0).sum())
        if path is not None:
            parts = (column.select(rows) for rows in torch.arange(data.n_items).split(WRITTEN))
            pieces = ((dense(part, item_model.widths[name]).numpy(), (part.lengths > 0).numpy()) for part in parts)
            write_vectors(Vectors([str(item) for item in data.item_ids], item_model.widths[name], pieces), path, index)
    return result


def _settings(data: Dataset, encoder: str | None, field: str | None) -> dict[str, Any]:
    """The settings of content for an encoder and a field."""
    kinds = dict.fromkeys(data.fields.image, "image") | dict.fromkeys(data.fields.text, "text")
    if field is not None and field not in kinds:
        raise UserError(
            f"--field {shown(field)}: the dataset has no such image or text field. Known: {listed(kinds, field)}"
        )
    others = {f"content.{name}.use": False for name in kinds if field is not None and name != field}
    if encoder is None:
        return others
    if field is not None:
        return {f"content.{field}.encoder": encoder, **others}
    if reads_whole_items(encoder) or encoder.startswith(JOINT):
        return {f"content.{ITEM}.encoder": encoder}
    entry = encoder_entry(encoder) if "/" not in encoder else None
    reads = "image" if encoder in IMAGE_ENCODERS else "text" if encoder in TEXT_ENCODERS else entry and entry.kind
    if reads is None:
        if set(kinds.values()) == {"image", "text"}:
            return {f"content.{ITEM}.encoder": encoder}
        reads = next(iter(kinds.values()), "image")
    return {f"content.{name}.{'encoder' if kind == reads else 'use'}": encoder if kind == reads else False
            for name, kind in kinds.items()}  # fmt: skip
