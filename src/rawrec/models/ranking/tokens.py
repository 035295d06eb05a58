"""What stands between the parts of a ranker: inputs and content part give tokens, the head makes logits of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.history import HistoryContent


class Token(NamedTuple):
    """One vector per impression. Its name says what it is of: `item`, `user`, `interest`, `content` ...

    values: `[batch or 1, candidates or 1, dim]`. present: bool `[batch or 1, candidates or 1]`, False where nothing is
    known (an item without content, an empty history); None: always there.
    """

    name: str
    values: Tensor
    present: Tensor | None = None


class Past(NamedTuple):
    """A history as a sequence, for a head with an attention of its own (DIN).

    candidate: `[batch or 1, candidates, width]`, in the space of the `history`.
    """

    candidate: Tensor
    history: HistoryContent


@dataclass
class Part:
    """What one part of a ranker gives to the head: see `Tokens`, which joins them."""

    tokens: list[Token] = field(default_factory=list)
    linear: list[Tensor] = field(default_factory=list)
    histories: dict[str, Past] = field(default_factory=dict)


class Tokens:
    """All that a head reads.

    names: one per token, the same for every batch. values: `[batch, candidates, tokens, dim]`. linear:
    `[batch, candidates]`, the sum of the biases of ids and content: the first order of a factorisation machine.
    histories: `ids` and `content`, where the parts read them, as sequences.
    """

    def __init__(self, parts: Sequence[Part], shape: tuple[int, int]):
        tokens = [token for part in parts for token in part.tokens]
        self.shape = shape
        self.names = tuple(token.name for token in tokens)
        self.values = torch.stack([token.values.expand(*shape, -1) for token in tokens], 2)
        linear = sum((term for part in parts for term in part.linear), self.values.new_zeros(()))
        self.linear = linear.expand(shape)
        self.histories = {name: past for part in parts for name, past in part.histories.items()}
        self._present = [token.present for token in tokens]

    @property
    def mask(self) -> Tensor:
        """Which tokens are there, bool `[batch, candidates, tokens]`; made when asked for."""
        always = torch.ones((), dtype=torch.bool, device=self.values.device)
        return torch.stack([(always if p is None else p).expand(self.shape) for p in self._present], 2)


class Head(nn.Module):
    """One paper's way from tokens to a logit per label; a file of its own, named in `config/models.py`.

    A subclass takes its record of settings, the `names` of the tokens, their width `dim` and the number of `labels`;
    one that `attends` to `tokens.histories` also `histories`, the width of each by name.
    """

    attends: ClassVar[bool] = False

    def forward(self, tokens: Tokens) -> Tensor:
        """Logits `[batch, candidates, labels]`, `tokens.linear` among them where the head has a linear part."""
        raise NotImplementedError

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of every part that `losses` gives."""
        return {}

    def losses(self, tokens: Tokens, batch: RankingBatch, labels: Tensor) -> dict[str, Tensor]:
        """Parts of the loss beside cross entropy, by name, each a sum over the batch; labels `[batch, candidates]`.

        `batch.keys` has the columns of the interactions that the record names in `reads_interactions`.
        """
        return {}
