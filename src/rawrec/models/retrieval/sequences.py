"""What every sequence model is: a loss over all places of users' sequences, and a vector of each sequence's end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rawrec.models.graph import Interactions
from rawrec.models.retrieval.base import RetrievalModel

AT_ONCE = 2**16
"""Places of sequences that are encoded at once where nothing is learned."""


def ends(sequences: Tensor) -> Tensor:
    """Sequences `[n, length]` of item rows, padded with -1 at the front, without the places that all of them lack."""
    some = (sequences >= 0).any(0).nonzero()
    return sequences[:, int(some[0]) if len(some) else -1 :]


class SequenceModel(RetrievalModel):
    """Base of the models that read a user's items in the order in which they took them, and no id of the user.

    Sequences are item rows `[n, length]`, oldest first, padded with -1 at the front; of any length up to
    `cfg.max_length`. All randomness is in `draw_sequences`.
    """

    sequences: Tensor

    def __init__(
        self,
        cfg: Any,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        self.register_buffer("sequences", torch.full((pairs.n_users, 1), -1), persistent=False)

    def read(self, sequences: Tensor) -> None:
        """Make `embeddings` of these sequences, one of each user, `[n_users, length]`."""
        self.sequences = sequences

    def draw_sequences(self, shape: torch.Size, generator: torch.Generator) -> dict[str, Tensor]:
        """Random draws of a batch of sequences of this shape; on the CPU, as the generator."""
        return {}

    def encode(self, sequences: Tensor, draws: Mapping[str, Tensor] | None = None) -> Tensor:
        """`[n, length, dim]`: at every place what is read of the sequence up to it, itself among it."""
        raise NotImplementedError

    def item_vectors(self) -> Tensor:
        """`[n_items, dim]`: an item's score at a place is its product with what stands there."""
        raise NotImplementedError

    def sequence_loss(
        self, inputs: Tensor, positives: Tensor, negatives: Tensor, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Of a batch, each `[n, length]` item rows: at a place the positive follows the input, and the negative is one
        that the user has not taken; -1 in all three where there is nothing. As `loss` otherwise."""
        raise NotImplementedError

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Users are the ends of what they `read`; one without anything is zero."""
        items = self.item_vectors().detach()
        users = items.new_zeros(self.n_users, items.shape[1])
        lengths = (self.sequences >= 0).sum(1)
        order = lengths.argsort(stable=True)
        order = order[lengths[order] > 0]
        size = max(1, AT_ONCE // self.sequences.shape[1])
        for rows in order.split(size):  # of like length
            users[rows] = self.encode(ends(self.sequences[rows]))[:, -1]
        return users, items
