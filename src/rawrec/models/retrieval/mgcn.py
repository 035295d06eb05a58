"""MGCN: Multi-View Graph Convolutional Network for Multimedia Recommendation (Yu et al., ACM MM 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rawrec.config.retrieval import MGCNConfig, SMOREConfig
from rawrec.models.graph import (
    Interactions,
    SparseMatrix,
    knn_graph,
    normalise,
    propagate,
    user_item_adjacency,
    user_item_matrix,
)
from rawrec.models.losses import bpr_loss, embedding_loss, info_nce
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.onednn import Linear


def similarity_edges(features: Tensor, present: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each item and its `k` nearest by cosine: rows, columns and weights `D^-1/2 W D^-1/2` of the similarities."""
    rows, columns, similarities = knn_graph(features, present, k).edges()
    return rows, columns, normalise(rows, columns, similarities, len(features))


class MGCN(RetrievalModel):
    """Three steps: features are purified by behaviour, propagated in a view of their own, and fused by preference.

    Any number of modalities: what they share is a mix by attention, and each adds what it alone says, so the fused
    representation is a mean of one part more than there are modalities. A modality that an item lacks has no part in
    its mix, its fusion or its users' views.
    """

    node_present: Tensor

    def __init__(
        self,
        cfg: MGCNConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        dim = cfg.embedding_size
        self.user_embedding = nn.Embedding(pairs.n_users, dim)
        self.item_id_embedding = nn.Embedding(pairs.n_items, dim)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_id_embedding.weight)
        self.query_common = nn.Sequential(Linear(dim, dim), nn.Tanh(), Linear(dim, 1, bias=False))
        for name in self.modalities:
            self.add_module(f"{name}_trs", Linear(self.width(name), dim))
            self.add_module(f"gate_{name}", nn.Sequential(Linear(dim, dim), nn.Sigmoid()))
            self.add_module(f"gate_{name}_prefer", nn.Sequential(Linear(dim, dim), nn.Sigmoid()))

        self.norm_adj = user_item_adjacency(pairs)
        self.R = user_item_matrix(pairs)
        edges = [similarity_edges(self.feature(m).detach(), self.present(m), cfg.knn_k) for m in self.modalities]
        shape = (pairs.n_items, pairs.n_items)
        self.item_graphs = nn.ModuleList(SparseMatrix.from_edges(*e, shape) for e in edges)
        items = torch.stack([self.present(m) for m in self.modalities], 1)
        users = torch.ones(pairs.n_users, len(self.modalities), dtype=torch.bool)
        self.register_buffer("node_present", torch.cat([users, items]), persistent=False)

    def _views(self) -> tuple[Tensor, Tensor]:
        """Of all nodes, users first: behaviour `[nodes, dim]` and modalities `[nodes, modalities, dim]`."""
        users, ids = self.user_embedding.weight, self.item_ids(self.item_id_embedding.weight)
        behaviour = torch.cat(propagate(self.norm_adj, users, ids, self.cfg.n_ui_layers))
        views = []
        for name, graph in zip(self.modalities, self.item_graphs, strict=True):
            purified = self.get_submodule(f"gate_{name}")(self.get_submodule(f"{name}_trs")(self.feature(name)))
            items = ids * purified * self.present(name)[:, None]
            for _ in range(self.cfg.n_layers):
                items = graph @ items  # type: ignore[operator]
            views.append(items)
        items = torch.stack(views, 1)
        users = (self.R @ items.flatten(1)).unflatten(1, items.shape[1:])
        return behaviour, torch.cat([users, items])

    def _side(self, behaviour: Tensor, views: Tensor, present: Tensor) -> Tensor:
        """The fuser, for nodes `[n]`: what modalities share, and what each alone says as far as it is preferred."""
        scores = self.query_common(views).masked_fill(~present[:, :, None], torch.finfo(views.dtype).min)
        common = (scores.softmax(1) * views).sum(1)
        preferences = torch.stack([self.get_submodule(f"gate_{m}_prefer")(behaviour) for m in self.modalities], 1)
        specific = preferences * (views - common[:, None]) * present[:, :, None]
        return (specific.sum(1) + common) / (present.sum(1, keepdim=True) + 1)

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """contrast_users and contrast_items: InfoNCE of fused features and behaviour within the batch."""
        assert negatives is not None
        behaviour, views = self._views()
        nodes = torch.cat([users, positives + self.n_users, negatives + self.n_users])  # only these need the fuser
        ids = behaviour[nodes]
        side = self._side(ids, views[nodes], self.node_present[nodes])
        return side_losses(self.cfg, side, ids)

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        behaviour, views = self._views()
        users, items = (behaviour + self._side(behaviour, views, self.node_present)).split([self.n_users, self.n_items])
        return users, items


def side_losses(cfg: MGCNConfig | SMOREConfig, side: Tensor, behaviour: Tensor) -> dict[str, Tensor]:
    """Ranking, regulariser and contrast of a batch; rows `[3 * batch, dim]` are users, positives and negatives."""
    u, p, n = (side + behaviour).chunk(3)
    bpr = bpr_loss((u * p).sum(1), (u * n).sum(1))
    reg = embedding_loss(u, p, n, squared=True) * len(u) / (cfg.train_batch_size or len(u))
    (side_u, side_p, _), (behaviour_u, behaviour_p, _) = side.chunk(3), behaviour.chunk(3)
    contrast_users = info_nce(side_u, behaviour_u, cfg.temperature)
    contrast_items = info_nce(side_p, behaviour_p, cfg.temperature)
    loss = bpr + cfg.reg_weight * reg + cfg.cl_loss * (contrast_items + contrast_users)
    return {
        "loss": loss,
        "bpr": bpr,
        "reg": reg,
        "contrast_items": contrast_items,
        "contrast_users": contrast_users,
    }
