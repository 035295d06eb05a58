"""LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation (He et al., SIGIR 2020)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rawrec.config.retrieval import LightGCNConfig
from rawrec.models.graph import Interactions, layer_mean, propagate, user_item_adjacency
from rawrec.models.losses import bpr_loss, embedding_loss
from rawrec.models.retrieval.base import RetrievalModel


class LightGCN(RetrievalModel):
    """`E(k+1) = D^-1/2 A D^-1/2 E(k)` (eq. 7), the mean over layers (eq. 4), inner product (eq. 5), BPR (eq. 15).

    Degrees have 1e-7 added. The regularisation is of layer 0, repeated rows counted repeatedly, as in the paper.
    """

    def __init__(
        self,
        cfg: LightGCNConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        self.adjacency = user_item_adjacency(pairs, epsilon=1e-7)
        self.user_embedding = nn.Embedding(pairs.n_users, cfg.embedding_size)
        self.item_embedding = nn.Embedding(pairs.n_items, cfg.embedding_size)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_embedding.weight)

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        assert negatives is not None
        nodes = torch.cat([self.user_embedding.weight, self.item_embedding.weight])
        rows = torch.cat([users, positives + self.n_users, negatives + self.n_users])
        u, p, n = layer_mean(self.adjacency, nodes, self.cfg.n_layers).index_select(0, rows).chunk(3)
        bpr = bpr_loss((u * p).sum(1), (u * n).sum(1), epsilon=1e-10)
        reg = embedding_loss(*nodes.index_select(0, rows).chunk(3), squared=self.cfg.reg_norm == "squared")
        return {"loss": bpr + self.cfg.reg_weight * reg, "bpr": bpr, "reg": reg}

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        items = self.item_ids(self.item_embedding.weight)
        return propagate(self.adjacency, self.user_embedding.weight, items, self.cfg.n_layers)
