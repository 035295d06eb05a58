"""A run evaluated as if no item had pictures, or texts, or one field: what that field adds.

Weights, users and impressions are the run's own; what a ranker reads of an item, candidate or in a history, lacks the
field, and an item that has nothing else has no content. Of a retrieval model the features are zeros and told to be
missing; graphs of items that were made of features stay as they are. A model trained without the field might do better
than this one without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from rawrec.config.wording import unknown
from rawrec.content.bank import Bank
from rawrec.content.encoders import JointEncoder
from rawrec.content.encoders.base import Encoder, Kind
from rawrec.content.encoders.joint_rows import Item, pack, unpack
from rawrec.content.item_model import CHUNK, ItemModel
from rawrec.data.dataset import Dataset
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError
from rawrec.models.retrieval.base import field_of
from rawrec.shown import listed
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.pairs import PairTask

AT_ONCE = 4096  # items
KINDS: tuple[Kind, ...] = ("image", "text")


def fields_of(data: Dataset, without: Sequence[str]) -> set[str]:
    """The fields that are left out: all image fields for `image`, all text fields for `text`, else the one named, among
    them ready-made features. UserError for one that the dataset lacks."""
    kinds = {"image": data.fields.image, "text": data.fields.text}
    names = [*data.fields.image, *data.fields.text, *data.fields.feature]
    found: set[str] = set()
    for word in without:
        own = {*kinds.get(word, ()), *([word] if word in names else [])}
        if not own:
            known = dict.fromkeys([*(kind for kind, of in kinds.items() if of), *names])
            raise UserError(unknown("without", word, list(known)))
        found |= own
    return found


@contextmanager
def masked(task: ImpressionTask | PairTask, without: Sequence[str], rows: Tensor | None = None) -> Iterator[None]:
    """Inside, `task` evaluates without these kinds or fields. rows: the items whose content will be read (None: all).

    Raises UserError where the model reads none of them.
    """
    fields = fields_of(task.data, without)
    with _pairs(task, fields) if isinstance(task, PairTask) else _impressions(task, fields, rows):
        yield


@contextmanager
def _impressions(task: ImpressionTask, fields: set[str], rows: Tensor | None) -> Iterator[None]:
    model, bank = task.item_model, task.bank
    if model is None or bank is None:
        raise UserError(f"{task.label} reads no content: there is nothing to leave out")
    kept = {model.column(name): _column(task, model, bank, name, fields, rows) for name in model.fields}
    if all(kept[name] is column for name, column in bank.static.items()):
        raise UserError(f"{task.label} does not read {listed(sorted(fields))}: leaving it out would change nothing")
    widths = {name: model.widths[name] for name in model.trained}
    task.bank = Bank(task.data.n_items, model.dim, kept, widths, task.device)
    try:
        task.refresh(rows, 1)
        yield
    finally:
        task.bank = bank


def _column(
    task: ImpressionTask, model: ItemModel, bank: Bank, name: str, fields: set[str], rows: Tensor | None
) -> Ragged:
    """A static column, without what it holds of `fields`."""
    column = bank.static[model.column(name)]
    assert isinstance(column, Ragged)  # what goes on online alone has others
    reads = model.read_by(name) if name in model.reads else [name]
    left = [field for field in reads if field not in fields]
    if len(left) == len(reads):
        return column
    if not left:
        return Ragged(column.values[:0], torch.zeros_like(column.ptr))
    encoder = dict(model.raw_encoders())[name]
    kinds = {field: kind for kind, own in zip(encoder.kinds, model.reads[name], strict=True) for field in own}
    kind = next((kind for kind in KINDS if {f for f in reads if kinds[f] == kind} == set(left)), None)
    if kind is not None and isinstance(encoder, JointEncoder) and encoder.lower_is_identity:
        return only(column, encoder, kind)
    wanted = torch.arange(len(column)) if rows is None else rows.cpu()
    return _anew(task.data, model, name, encoder, set(left), wanted, len(column))


def _anew(
    data: Dataset, model: ItemModel, name: str, encoder: Encoder, left: set[str], rows: Tensor, count: int
) -> Ragged:
    """The column of an encoder of several fields, made again of those that are `left`, for the items `rows` alone."""
    parts = []
    for part in rows.split(CHUNK):
        raw = {}
        for field in model.read_by(name):
            read = data.images if field in data.fields.image else data.texts
            raw[field] = read(field, part.numpy()) if field in left else [[]] * len(part)
        parts.append(model.lower(name, model.by_kind(name, raw))[0])
    made = Ragged.cat(parts)
    lengths = torch.zeros(count, dtype=torch.int64).index_copy(0, rows, made.lengths)
    order = torch.argsort(rows, stable=True)
    return Ragged.from_lengths(made.select(order).values, lengths)


def only(column: Ragged, encoder: JointEncoder, kind: str) -> Ragged:
    """A static column of a joint transformer with the tokens of fields of `kind` alone; no rows for an item without
    any."""
    parts = [
        _only(column.select(rows), 1 if encoder.pieces is None else encoder.pieces.count, kind)
        for rows in torch.arange(len(column)).split(AT_ONCE)
    ]
    return Ragged.cat(parts)


def _only(rows: Ragged, count: int, kind: str) -> Ragged:
    words, kinds, pieces = unpack(rows, count)
    is_word = words.values[:, 1] > 0  # [cls] is of no field
    owners = words.owners()
    if kind == "text":
        there = torch.zeros(len(rows), dtype=torch.bool).index_fill(0, owners[is_word], True)
        kinds, pieces = Ragged(kinds.values[:0], torch.zeros_like(kinds.ptr)), pieces[:0]
        keep = there[owners]
    else:
        there = kinds.lengths > 0
        keep = ~is_word & there[owners]
    lengths = torch.zeros(len(rows), dtype=torch.int64).index_add(0, owners[keep], torch.ones_like(owners[keep]))
    return pack(Item(Ragged.from_lengths(words.values[keep], lengths), kinds, pieces))


@contextmanager
def _pairs(task: PairTask, fields: set[str]) -> Iterator[None]:
    model = task.model
    data = task.data.fields
    joined = [name for name in model.modalities if field_of(name) not in (*data.image, *data.text, *data.feature)]
    if joined:
        raise UserError(
            f"{task.label} reads {listed(joined)}, made of pictures and texts at once: neither can be left out"
        )
    names = [name for name in model.modalities if field_of(name) in fields]
    if not names:
        raise UserError(f"{task.label} does not read {listed(sorted(fields))}: leaving it out would change nothing")
    if not model.content_in_vectors:
        raise UserError(
            f"{task.label} learns from content, but recommends by its ids alone: there is nothing to leave out"
        )
    before, live = {name: model.present(name).clone() for name in names}, model.live
    rows = torch.arange(model.n_items, device=task.device)
    try:
        model.live = {name: (rows, torch.zeros(len(rows), model.width(name), device=task.device)) for name in names}
        for name in names:
            model.present(name).fill_(False)
        yield
    finally:
        model.live = live
        for name, present in before.items():
            model.present(name).copy_(present)
