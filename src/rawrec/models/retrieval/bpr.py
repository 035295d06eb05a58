"""BPR: Bayesian Personalized Ranking from Implicit Feedback (Rendle et al., UAI 2009), matrix factorisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from rawrec.config.retrieval import BPRConfig
from rawrec.models.graph import Interactions
from rawrec.models.ids import lookup
from rawrec.models.losses import bpr_loss, embedding_loss
from rawrec.models.retrieval.base import RetrievalModel


class BPR(RetrievalModel):
    """Score `x_ui = w_u . h_i` (section 4.3.1), loss BPR-OPT (section 4.1); no item bias, as in the published code."""

    shares_batches: ClassVar[bool] = True

    def __init__(
        self,
        cfg: BPRConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        self.user_embedding = nn.Embedding(pairs.n_users, cfg.embedding_size)
        self.item_embedding = nn.Embedding(pairs.n_items, cfg.embedding_size)
        nn.init.xavier_normal_(self.user_embedding.weight)
        nn.init.xavier_normal_(self.item_embedding.weight)

    def id_tables(self) -> list[Tensor]:
        return [self.user_embedding.weight, self.item_embedding.weight]

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        assert negatives is not None
        u = lookup(self.user_embedding.weight, users)
        p, n = lookup(self.item_embedding.weight, torch.cat([positives, negatives])).chunk(2)
        bpr = bpr_loss((u * p).sum(1), (u * n).sum(1), epsilon=1e-10)
        reg = embedding_loss(u, p, n, squared=self.cfg.reg_norm == "squared")
        return {"loss": bpr + self.cfg.reg_weight * reg, "bpr": bpr, "reg": reg}

    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.user_embedding.weight.detach(), self.item_ids(self.item_embedding.weight).detach()
