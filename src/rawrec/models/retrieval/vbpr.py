"""VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback (He & McAuley, AAAI 2016), for any modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from rawrec.config.retrieval import VBPRConfig
from rawrec.models.graph import Interactions
from rawrec.models.ids import lookup
from rawrec.models.losses import bpr_loss, embedding_loss
from rawrec.models.retrieval.base import RetrievalModel, distinct
from rawrec.onednn import Linear, linear


class VBPR(RetrievalModel):
    """`x_ui = gamma_u . gamma_i + theta_u . (E f_i)` (eq. 4), where f_i has the features of all modalities end to end.

    The modalities stand in the dataset's order; a missing one is zero. `u_embedding` holds gamma_u and theta_u side by
    side. The published code has a bias in the projection E and none in the score; `biases` has it as the paper does,
    `beta_i + beta' . f_i`, whose terms ride in the embeddings as one more dimension, where users have a one.
    """

    shares_batches: ClassVar[bool] = True

    def __init__(
        self,
        cfg: VBPRConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        width, dim = sum(map(self.width, self.modalities)), cfg.embedding_size
        self.u_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(pairs.n_users, 2 * dim)))
        self.i_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(pairs.n_items, dim)))
        self.item_linear = Linear(width, dim, bias=not cfg.biases)
        nn.init.xavier_normal_(self.item_linear.weight)
        if cfg.biases:
            self.item_bias = nn.Parameter(torch.zeros(pairs.n_items))
            self.visual_bias = nn.Parameter(torch.zeros(width))
        else:
            nn.init.zeros_(self.item_linear.bias)

    def id_tables(self) -> list[Tensor]:
        return [self.u_embedding, self.i_embedding, *([self.item_bias] if self.cfg.biases else [])]

    def _users(self, rows: Tensor) -> Tensor:
        """`[m, 2 dim]`, with `biases` `[m, 2 dim + 1]`."""
        users = lookup(self.u_embedding, rows)
        return torch.cat([users, torch.ones_like(users[:, :1])], 1) if self.cfg.biases else users

    def _items(self, rows: Tensor) -> Tensor:
        """As `_users`: id embedding, projected features, bias."""
        projected = self._linear(self.item_linear.weight, rows)
        if self.item_linear.bias is not None:
            projected = projected + self.item_linear.bias
        items = [self.item_ids(self.i_embedding, rows), projected]
        if self.cfg.biases:
            items.append(self.item_ids(self.item_bias, rows)[:, None] + self._linear(self.visual_bias[None], rows))
        return torch.cat(items, 1)

    def _linear(self, weight: Tensor, rows: Tensor) -> Tensor:
        """`weight @ f_i`, modality by modality, so that the wide features are never laid end to end."""
        parts = weight.split([self.width(name) for name in self.modalities], 1)
        products = [linear(self.feature(name, rows), part) for name, part in zip(self.modalities, parts, strict=True)]
        return torch.stack(products).sum(0)

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        assert negatives is not None
        rows, (positive, negative) = distinct(positives, negatives)
        items = self._items(rows)
        u, p, n = self._users(users), items[positive], items[negative]
        bpr = bpr_loss((u * p).sum(1), (u * n).sum(1), epsilon=1e-10)
        dim, width = self.cfg.embedding_size, self.u_embedding.shape[1]
        held = width if self.cfg.reg_on == "representations" else dim
        reg = embedding_loss(u[:, :width], p[:, :held], n[:, :held], squared=self.cfg.reg_norm == "squared")
        return {"loss": bpr + self.cfg.reg_weight * reg, "bpr": bpr, "reg": reg}

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        everyone, everything = (torch.arange(n, device=self.edge_users.device) for n in (self.n_users, self.n_items))
        return self._users(everyone), self._items(everything)
