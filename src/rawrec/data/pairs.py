"""The pairs of a catalogue: items with a picture and a text, which of them are held out, and which look or read alike.

What an encoder of pictures and texts is tuned on. Two items with the same text, or the same picture to the byte, are
no negatives of each other: which of them is meant cannot be told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rawrec.arguments import shown
from rawrec.data import texts
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError
from rawrec.shown import listed

CHUNK = 256  # items read at once
DIGEST = 16


@dataclass(frozen=True)
class Pairs:
    """rows: `[n]` item rows, ascending. held_out: `[n]` bool. pictures: of every item of the dataset, a number for each
    picture; text: `[n_items]`, a number for each text. Equal numbers: equal content."""

    rows: Tensor
    held_out: Tensor
    pictures: Ragged
    text: Tensor

    @property
    def train(self) -> Tensor:
        return self.rows[~self.held_out]

    @property
    def valid(self) -> Tensor:
        return self.rows[self.held_out]

    def picture(self, rows: Tensor, picked: Tensor | None = None) -> Tensor:
        """The number of a picture of each of the item rows: the one `picked` (`[m]`, from 0), or the first."""
        index = self.pictures.ptr[rows] + (0 if picked is None else picked)
        return self.pictures.values[index]

    def notes(self) -> list[str]:
        """What the user should know of them."""
        train, valid = self.train, self.valid
        said = [f"pairs: {len(train):,} to train on, {len(valid):,} held out"]
        seen = torch.isin(self.text[valid], self.text[train]) | torch.isin(self.picture(valid), self.picture(train))
        if shared := int(seen.sum()):
            said.append(f"held-out pairs with the text or the first picture of a training pair: {shared:,}")
        return said


def alike(picture: Tensor, text: Tensor) -> Tensor:
    """Which of `n` pairs are no negatives of each other, `[n, n]` bool, false on the diagonal.

    picture, text: `[n]`, their numbers in `Pairs`.
    """
    return ((text[:, None] == text) | (picture[:, None] == picture)).fill_diagonal_(False)


def pair_fields(
    fields: Fields, images: Sequence[str] | None = None, words: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """The image and the text fields that pairs are made of: those named, or all. UserError where there are none."""
    found = []
    for what, option, names, there in (
        ("picture", "image_fields", images, fields.image),
        ("text", "text_fields", words, fields.text),
    ):
        if not there:
            raise UserError(
                f"the dataset has no {what} field, and a pair is of a picture and a text: import it with pictures and "
                "texts (docs/data.md)"
            )
        for name in names or []:
            if name not in there:
                raise UserError(
                    f"{option}: the dataset has no {what} field {shown(name)}. Known: {listed(there, name)}"
                )
        found.append([name for name in there if names is None or name in names])
    return found[0], found[1]


def catalogue_pairs(
    data: Dataset, images: list[str], words: list[str], usable: Tensor, tokens: Tensor, max_images: int, held_out: float
) -> Pairs:
    """The pairs of a dataset.

    images, words: fields. usable: `[n_items]`, how many of the first `max_images` pictures can be read. tokens:
    `[n_items]`, of the text. held_out: share, chosen by the item's id, so that other versions of the dataset hold out
    the same items. UserError where nothing can be learned or measured.
    """
    rows = ((usable > 0) & (tokens > 0)).nonzero()[:, 0]
    where = f"of {data.n_items:,} items {int((usable > 0).sum()):,} have a picture ({listed(images)})"
    where += f", {int((tokens > 0).sum()):,} a text ({listed(words)})"
    if len(rows) < 2:
        raise UserError(f"{where}, and {len(rows)} have both: at least two pairs are needed to tell one from the other")
    pictures, text = content_numbers(data, images, words, usable, max_images)
    if len(torch.unique(text[rows])) < 2:
        raise UserError(
            f"all {len(rows):,} pairs have the same text ({listed(words)}): nothing can be told apart. Choose other "
            "fields with --text-field"
        )
    if len(torch.unique(pictures.values[pictures.ptr[rows]])) < 2:
        raise UserError(
            f"all {len(rows):,} pairs have the same picture ({listed(images)}): nothing can be told apart. Choose "
            "other fields with --image-field"
        )
    kept = torch.from_numpy(id_shares(data.item_ids[rows.numpy()]) < held_out)
    for count, what, hint in ((int(kept.sum()), "held out", "raise"), (int((~kept).sum()), "trained on", "lower")):
        if count < 2:
            raise UserError(f"held_out={held_out}: {count} of {len(rows)} pairs are {what}, two are needed; {hint} it")
    return Pairs(rows, kept, pictures, text)


def id_shares(ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """A number from 0 to 1 for each id, as if drawn, and the same wherever the id stands, `[n]` float64."""
    digests = b"".join(hashlib.blake2b(str(one).encode(), digest_size=8).digest() for one in ids)
    return np.frombuffer(digests, "<u8") / 2.0**64


def content_numbers(
    data: Dataset, images: list[str], words: list[str], usable: Tensor, max_images: int
) -> tuple[Ragged, Tensor]:
    """`Pairs.pictures` and `Pairs.text` of all items of a dataset.

    Where an item has pictures that cannot be read, which those are is not known here: its pictures are like no other.
    """
    seen: list[bytes] = []
    said: list[bytes] = []
    whole = usable.tolist()
    for start in range(0, data.n_items, CHUNK):
        rows = range(start, min(start + CHUNK, data.n_items))
        pieces = [data.images(field, rows) for field in images]
        strings = [data.texts(field, rows) for field in words]
        for place, row in enumerate(rows):
            own = [picture for field in pieces for picture in field[place]][:max_images]
            known = len(own) == whole[row]
            seen += [_digest(picture) for picture in own] if known else [b""] * whole[row]
            said.append(_digest(texts.join([text for field in strings for text in field[place]]).encode()))
    return Ragged.from_lengths(_numbers(seen), usable.long()), _numbers(said)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()


def _numbers(digests: list[bytes]) -> Tensor:
    """Equal numbers for equal digests; a number of its own, below zero, for an empty one."""
    known: dict[bytes, int] = {}
    numbers = [known.setdefault(one, len(known)) if one else -1 - k for k, one in enumerate(digests)]
    return torch.tensor(numbers, dtype=torch.int64)
