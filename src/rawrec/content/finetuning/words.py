"""Hidden words (MLM): whole words of a text, 15 % of them, whose pieces are to be guessed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rawrec.content.encoders.tokens import Cleaned, FastTokenizer
from rawrec.data.texts import Tokenizer
from rawrec.errors import UserError

SHARE = 0.15
MASKED, DRAWN = 0.8, 0.1
"""Of the pieces to be guessed: shown as [MASK], as a word that was drawn; the rest is shown as it is."""
MASK, CONTINUES = "[MASK]", "##"
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
IGNORED = -100


class WordPieces:
    """What is known of a tokenizer's pieces, and whole words hidden.

    continues, special: `[vocabulary]` bool: pieces that go on with the word before them, and those that are of none.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, name: str) -> None:
        """UserError for a tokenizer that does not cut words into pieces as BERT's does."""
        inner: Any = tokenizer
        while isinstance(inner, Cleaned):
            inner = inner.tokenizer
        known: dict[str, int] = inner.backend.get_vocab() if isinstance(inner, FastTokenizer) else {}
        if MASK not in known or not any(piece.startswith(CONTINUES) for piece in known):
            raise UserError(
                f"loss=mlm hides whole words, and needs a tokenizer of word pieces, with {MASK} and pieces that begin "
                f"with {CONTINUES}; that of {name} has none: leave mlm out"
            )
        self.mask = known[MASK]
        self.continues, self.special = (torch.zeros(vocabulary, dtype=torch.bool) for _ in range(2))
        for piece, number in known.items():
            if number < vocabulary:
                self.continues[number] = piece.startswith(CONTINUES)
                self.special[number] = piece in SPECIAL
        self.ordinary = (~self.special).nonzero()[:, 0]

    def hide(self, ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """ids: `[n, tokens]`, 0 is padding -> what is shown, and the labels, IGNORED where nothing is to be guessed.

        Of each text a share of the words is chosen, one at least; all pieces of a word with it.
        """
        words = self.words(ids)
        count = words.amax(1) + 1  # of words in each text
        draw = torch.rand(ids.shape, generator=generator)  # one number for each word; more than there are
        draw[torch.arange(ids.shape[1]) >= count[:, None]] = torch.inf
        wanted = (count * SHARE).round().long().clamp(min=1)
        place = draw.argsort(1).argsort(1)
        chosen = (place < wanted[:, None]) & draw.isfinite()  # [n, words]
        hidden = chosen.gather(1, words.clamp(min=0)) & (words >= 0)
        labels = torch.where(hidden, ids, IGNORED)
        how = torch.rand(ids.shape, generator=generator)
        drawn = self.ordinary[torch.randint(len(self.ordinary), ids.shape, generator=generator)]
        shown = torch.where(hidden & (how < MASKED), self.mask, ids)
        return torch.where(hidden & (how >= MASKED) & (how < MASKED + DRAWN), drawn, shown), labels

    def words(self, ids: Tensor) -> Tensor:
        """Which word of its text each token is of, from 0; -1: of none. `[n, tokens]`."""
        special = self.special[ids] | (ids == 0)
        after = torch.ones_like(special)  # a piece that follows no word begins one
        after[:, 1:] = special[:, :-1]
        begins = ~special & (~self.continues[ids] | after)
        return torch.where(special, -1, begins.cumsum(1) - 1)
