"""An item's words and pictures in the rows of one static column.

A row has the bytes of a piece of a picture, or, where no pictures are read, of a word: its id and the kind of its
field, int32 each. First come as many rows as these need: the numbers of words and of pictures, the words, and of each
picture the kind of its field; then the pieces of the pictures. An item without anything has no rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rawrec.content.encoders.padding import spans
from rawrec.data.ragged import Ragged

WORD = 8  # bytes of a word


class Item(NamedTuple):
    """Of `n` items. words: `[words, 2]` int32, id and kind. kinds: of pictures, `[pictures]` int32. pieces: of each
    picture `[pictures, pieces, bytes]` uint8."""

    words: Ragged
    kinds: Ragged
    pieces: Tensor


def pack(item: Item) -> Ragged:
    """As rows, `[rows, bytes]` uint8. bytes: a multiple of WORD."""
    words, kinds, pieces = item
    device, per_row, count = pieces.device, pieces.shape[2] // WORD, pieces.shape[1]
    there = (words.lengths + kinds.lengths) > 0
    ahead = _ahead(words.lengths, kinds.lengths, there, per_row)
    ptr = _ptr(ahead + count * kinds.lengths)
    rows = torch.zeros(int(ptr[-1]), per_row * WORD, dtype=torch.uint8, device=device)
    rows[spans(ptr[:-1] + ahead, count * kinds.lengths)] = pieces.flatten(0, 1)
    slots = torch.zeros(int(ahead.sum()) * per_row, 2, dtype=torch.int32, device=device)
    first = _ptr(ahead * per_row)[:-1]
    slots[first[there]] = torch.stack([words.lengths, kinds.lengths], 1)[there].int()
    slots[spans(first + 1, words.lengths)] = words.values
    slots[spans(first + 1 + words.lengths, kinds.lengths), 0] = kinds.values
    rows[spans(ptr[:-1], ahead)] = slots.view(torch.uint8).view(-1, per_row * WORD)
    return Ragged(rows, ptr)


def unpack(x: Ragged, count: int) -> Item:
    """What `pack` was given; count: the pieces of a picture."""
    starts, per_row, there = x.ptr[:-1], x.values.shape[1] // WORD, x.lengths > 0
    numbers = torch.zeros(len(x), 2, dtype=torch.int64, device=x.ptr.device)
    numbers[there] = _slots(x.values[starts[there]])[::per_row].long()
    words, pictures = numbers.unbind(1)
    ahead = _ahead(words, pictures, there, per_row)
    slots = _slots(x.values[spans(starts, ahead)])
    first = _ptr(ahead * per_row)[:-1]
    kinds = slots[spans(first + 1 + words, pictures), 0]
    pieces = x.values[spans(starts + ahead, count * pictures)].view(-1, count, per_row * WORD)
    return Item(Ragged(slots[spans(first + 1, words)], _ptr(words)), Ragged(kinds, _ptr(pictures)), pieces)


def _ahead(words: Tensor, pictures: Tensor, there: Tensor, per_row: int) -> Tensor:
    """Rows before the pieces, `[n]`."""
    return there * ((1 + words + pictures + per_row - 1) // per_row)


def _slots(rows: Tensor) -> Tensor:
    """`[rows, bytes]` -> `[words, 2]` int32."""
    return rows.contiguous().view(torch.int32).view(-1, 2)


def _ptr(lengths: Tensor) -> Tensor:
    ptr = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=lengths.device)
    torch.cumsum(lengths, 0, out=ptr[1:])
    return ptr
