"""Popularity: the score of an item is the number of users with a training positive of it, whoever asks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rawrec.config.baselines import PopConfig
from rawrec.models.graph import Interactions
from rawrec.models.retrieval.base import FittedModel


class Pop(FittedModel):
    """`s_ui = |{v : (v, i) in training}|`. Items without a training positive have 0, in the order of ties."""

    popularity: Tensor

    def __init__(
        self,
        cfg: PopConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        self.register_buffer("popularity", torch.zeros(pairs.n_items, dtype=torch.int64))

    def fit(self, generator: torch.Generator) -> None:
        self.popularity.copy_(torch.bincount(self.edge_items, minlength=self.n_items))

    def scores(self, users: Tensor) -> Tensor:
        return self.popularity.float().repeat(len(users), 1)
