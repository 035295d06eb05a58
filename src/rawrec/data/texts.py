"""From the strings of an item to token ids."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from rawrec.data.ragged import Ragged

CHARACTERS_PER_TOKEN = 20
_WORDS = re.compile(r"\w+|[^\w\s]")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]{3}"  # Japanese, Chinese
)


class Tokenizer(Protocol):
    """What `tokenise` needs: token ids of each text with the special tokens, and whether tokens were cut off.

    identity: changes with whatever changes the ids.
    """

    identity: str

    def __call__(self, texts: list[str], max_length: int) -> tuple[list[list[int]], list[bool]]: ...


def join(strings: Sequence[str]) -> str:
    """The strings of one text field of one item as one text: stripped, the empty dropped, one per line.

    NULs and halves of surrogate pairs, which no tokenizer takes, are removed.
    """
    parts = (s.replace("\0", "").encode("utf-8", "ignore").decode().strip() for s in strings if s)
    return "\n".join(part for part in parts if part)


def unspaced(text: str) -> bool:
    """Whether words stand side by side without spaces in it: three letters in a row of a script that writes none."""
    return _UNSPACED.search(text) is not None


def tokenise(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> tuple[Ragged, torch.Tensor]:
    """Token ids of each text, `[tokens]` int32 with special tokens, and which were cut to `max_length`, 1 or 0 `[n]`.

    An empty text has no tokens at all. Of a very long text only the beginning is looked at, so that its length costs
    nothing; it counts as cut.
    """
    limit = max_length * CHARACTERS_PER_TOKEN
    filled = [i for i, text in enumerate(texts) if text.strip()]
    ids, cut = tokenizer([texts[i][:limit] for i in filled], max_length) if filled else ([], [])
    lengths = np.zeros(len(texts), np.int64)
    lengths[filled] = [len(one) for one in ids]
    values = np.fromiter((token for one in ids for token in one), np.int32, int(lengths.sum()))
    truncated = torch.zeros(len(texts), dtype=torch.int32)
    truncated[filled] = torch.tensor([over or len(texts[i]) > limit for i, over in zip(filled, cut, strict=True)]).int()
    return Ragged.from_lengths(torch.from_numpy(values), torch.from_numpy(lengths)), truncated


class HashTokenizer:
    """A tokenizer that needs no files: every word or sign gets the id that its checksum gives. For tests.

    Ids: 0 padding, 1 begin, 2 end, 3 and more words.
    """

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.identity = f"hash({vocabulary})"

    def __call__(self, texts: list[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
        words = [_WORDS.findall(text.lower()) for text in texts]
        room = max_length - 2
        ids = [[1, *(3 + zlib.crc32(w.encode()) % (self.vocabulary - 3) for w in one[:room]), 2] for one in words]
        return ids, [len(one) > room for one in words]
