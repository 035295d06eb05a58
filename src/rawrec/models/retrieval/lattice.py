"""LATTICE: Mining Latent Structures for Multimedia Recommendation (Zhang et al., ACM MM 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, leaky_relu, normalize

from rawrec.config.retrieval import LATTICEConfig
from rawrec.errors import UserError
from rawrec.models.graph import Interactions, SparseMatrix, knn_graph, propagate, user_item_adjacency
from rawrec.models.losses import bpr_loss, embedding_loss
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.onednn import Linear


class LATTICE(RetrievalModel):
    """An item graph learned from the features, on top of a collaborative backbone (`cf_model`).

    Of each modality: a frozen graph of the raw features' nearest neighbours, a learned one of the projected features',
    cosines as weights. Items are the backbone's plus `h / |h|`, h the ids propagated over the mix of these graphs.

    Any number of modalities: each has a frozen and a learned graph and a weight in their mix, which one modality alone
    has whole. An item that lacks one has no edges there and its own weights are renormalised over those it has.

    Published code and paper differ: the learned graphs are mixed, then normalised (`normalise_learned`); the backbone's
    graph has self loops and rows that sum to one (`adjacency`). In both, neighbours are searched anew once an epoch
    (`rebuild`): the first batch after `begin_epoch` gives gradient to features, projections and modality weights, the
    later ones read that graph as a constant. Evaluation makes its own of the present parameters. With live features
    (end-to-end training) each later batch recomputes, with gradient, the edges at which a live item stands.
    """

    frozen_neighbours: Tensor
    frozen_weights: Tensor
    item_present: Tensor

    def __init__(
        self,
        cfg: LATTICEConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        dim = cfg.embedding_size
        if cfg.cf_model == "ngcf" and set(cfg.weight_size) - {dim}:
            raise UserError(
                f"model.weight_size={cfg.weight_size}: layers are averaged, so with model.cf_model=ngcf each is "
                f"model.embedding_size={dim} wide"
            )
        self.user_embedding = nn.Embedding(pairs.n_users, dim)
        self.item_id_embedding = nn.Embedding(pairs.n_items, dim)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_id_embedding.weight)
        if cfg.cf_model == "ngcf" and len(cfg.mess_dropout) != len(cfg.weight_size):
            raise UserError(
                f"model.mess_dropout={cfg.mess_dropout} has {len(cfg.mess_dropout)} entries for "
                f"{len(cfg.weight_size)} layers of model.weight_size; give one for each"
            )
        if cfg.cf_model == "ngcf":
            self.GC_Linear_list = nn.ModuleList(Linear(dim, dim) for _ in cfg.weight_size)
            self.Bi_Linear_list = nn.ModuleList(Linear(dim, dim) for _ in cfg.weight_size)
        for name in self.modalities:
            self.add_module(f"{name}_trs", Linear(self.width(name), cfg.feat_embed_dim))
        self.modal_weight = nn.Parameter(torch.full((len(self.modalities),), 0.5))

        published = cfg.adjacency == "row_self_loops"
        self.norm_adj = user_item_adjacency(pairs, "row" if published else "symmetric", self_loops=published)
        self.register_buffer("item_present", torch.stack([self.present(m) for m in self.modalities], 1), False)
        frozen = [knn_graph(self.feature(m).detach(), self.present(m), cfg.knn_k) for m in self.modalities]
        self.register_buffer("frozen_neighbours", torch.stack([graph.items for graph in frozen]), False)
        weights = [_normalised(graph.similarities, graph.items) for graph in frozen]
        self.register_buffer("frozen_weights", torch.stack(weights), False)
        self.begin_epoch({})

    # -------------------------------------------------------------------------------------------------- the item graph
    def _tokens(self) -> list[Tensor]:
        """Projected features of each modality, set to length one: `[n_items, feat_embed_dim]`."""
        return [normalize(self.get_submodule(f"{m}_trs")(self.feature(m))) for m in self.modalities]

    def _search(self, tokens: list[Tensor]) -> Tensor:
        """Neighbours of each item by the learned similarity, -1 = none: `[modalities, n_items, k]`."""
        k = self.cfg.knn_k
        graphs = [knn_graph(x.detach(), self.present(m), k) for m, x in zip(self.modalities, tokens, strict=True)]
        return torch.stack([graph.items for graph in graphs])

    def _similarities(self, tokens: list[Tensor], neighbours: Tensor) -> Tensor:
        """Cosine of each item and its neighbours, 0 where there is none: `[modalities, n_items, k]`."""
        pairs = zip(tokens, neighbours.clamp(min=0), strict=True)
        return torch.stack([torch.einsum("nd,nkd->nk", x, x[near]) for x, near in pairs]) * (neighbours >= 0)

    def _live_similarities(self) -> Tensor:
        """Those of the last search, with the edges at which a live item stands recomputed from its features."""
        updated = []
        for m, name in enumerate(self.modalities):
            similarities, neighbours = self.similarities[m], self.neighbours[m]
            if name in self.live:
                rows, values = self.live[name]
                token = normalize(self.get_submodule(f"{name}_trs")(values))
                tokens = self.tokens[m].index_copy(0, rows, token)
                live = torch.zeros(self.n_items, dtype=torch.bool, device=rows.device).index_fill(0, rows, True)
                touched = (neighbours >= 0) & (live[:, None] | live[neighbours.clamp(min=0)])
                row, slot = touched.nonzero(as_tuple=True)
                edge = (tokens[row] * tokens[neighbours[row, slot]]).sum(1)
                similarities = similarities.index_put((row, slot), edge)
            updated.append(similarities)
        return torch.stack(updated)

    def _mix(self, similarities: Tensor, neighbours: Tensor) -> tuple[Tensor, Tensor]:
        """The item graph, `(1 - lambda) norm(sum_m w_m learned_m) + lambda sum_m w_m frozen_m`, w a softmax.

        Columns, 0 where there is no edge, and weights: `[n_items, 2 * modalities * k]` each.
        """
        share = self.modal_weight.softmax(0) * self.item_present
        share = share / share.sum(1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)  # [n_items, modalities]
        columns = torch.cat([*neighbours, *self.frozen_neighbours], 1)
        if self.cfg.normalise_learned == "each":
            similarities = torch.stack([_normalised(s, near) for s, near in zip(similarities, neighbours, strict=True)])
        learned = (similarities * share.T[:, :, None]).transpose(0, 1).flatten(1)
        if self.cfg.normalise_learned == "mixed":
            learned = _normalised(learned, torch.cat([*neighbours], 1))
        frozen = (self.frozen_weights * share.T[:, :, None]).transpose(0, 1).flatten(1)
        keep = self.cfg.lambda_coeff
        return columns.clamp(min=0), torch.cat([(1 - keep) * learned, keep * frozen], 1)

    def _constant(self, columns: Tensor, weights: Tensor) -> SparseMatrix:
        rows = torch.arange(self.n_items, device=columns.device).repeat_interleave(columns.shape[1])
        shape = (self.n_items, self.n_items)
        return SparseMatrix.from_edges(rows, columns.flatten(), weights.detach().flatten(), shape)

    def begin_epoch(self, draws: Mapping[str, Tensor]) -> None:
        """The next batch searches neighbours anew."""
        self.item_graph: SparseMatrix | None = None

    def _training_items(self) -> Tensor:
        """`h`, ids after propagation over the item graph, in a training step: `[n_items, dim]`."""
        if self.item_graph is None or self.cfg.rebuild == "step":
            tokens = self._tokens()
            self.neighbours = self._search(tokens)
            similarities = self._similarities(tokens, self.neighbours)
            columns, weights = self._mix(similarities, self.neighbours)
            self.item_graph = self._constant(columns, weights)
            self.tokens, self.similarities = [x.detach() for x in tokens], similarities.detach()
        elif self.live:
            columns, weights = self._mix(self._live_similarities(), self.neighbours)
        else:
            return self._propagate_items(self.item_graph)
        h = self.item_ids(self.item_id_embedding.weight)
        for _ in range(self.cfg.n_layers):
            h = embedding_bag(columns, h, per_sample_weights=weights, mode="sum")
        return h

    def _propagate_items(self, graph: SparseMatrix) -> Tensor:
        h = self.item_ids(self.item_id_embedding.weight)
        for _ in range(self.cfg.n_layers):
            h = graph @ h
        return h

    # ------------------------------------------------------------------------------------------------ the whole model
    def _backbone(self, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        users, items = self.user_embedding.weight, self.item_ids(self.item_id_embedding.weight)
        layers = len(self.cfg.weight_size)
        if self.cfg.cf_model == "mf":
            return users, items
        if self.cfg.cf_model == "lightgcn":
            return propagate(self.norm_adj, users, items, layers)
        total = ego = torch.cat([users, items])
        for i, (linear, product) in enumerate(zip(self.GC_Linear_list, self.Bi_Linear_list, strict=True)):
            side = self.norm_adj @ ego
            ego = leaky_relu(linear(side)) + leaky_relu(product(ego * side))
            if f"keep_message_{i}" in draws:
                ego = ego * draws[f"keep_message_{i}"] / (1 - self.cfg.mess_dropout[i])
            total = total + normalize(ego)
        mean_users, mean_items = (total / (layers + 1)).split([self.n_users, self.n_items])
        return mean_users, mean_items

    def draw(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """keep_message_<layer>: what dropout keeps of a layer of NGCF, `[n_users + n_items, dim]`."""
        if self.cfg.cf_model != "ngcf":
            return {}
        shape = (self.n_users + self.n_items, self.cfg.embedding_size)
        return {
            f"keep_message_{i}": torch.rand(shape, generator=generator) >= rate
            for i, rate in enumerate(self.cfg.mess_dropout)
            if rate > 0
        }

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        assert negatives is not None
        user, item = self._backbone(draws)
        item = item + normalize(self._training_items())
        u, p, n = user[users], item[positives], item[negatives]
        bpr = bpr_loss((u * p).sum(1), (u * n).sum(1))
        reg = embedding_loss(u, p, n, squared=True) * len(u) / (self.cfg.train_batch_size or len(u))
        return {"loss": bpr + self.cfg.reg_weight * reg, "bpr": bpr, "reg": reg}

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        tokens = self._tokens()
        neighbours = self._search(tokens)
        graph = self._constant(*self._mix(self._similarities(tokens, neighbours), neighbours))
        users, items = self._backbone({})
        return users.detach(), items + normalize(self._propagate_items(graph))


def _normalised(weights: Tensor, neighbours: Tensor) -> Tensor:
    """`D^-1/2 W D^-1/2`, D the row sums on both sides; weights and neighbours `[n, edges per node]`.

    Differentiable in the weights; a row whose sum is not positive gets zeros, and so do the edges to it.
    """
    degree = weights.sum(1)
    inverse = torch.where(degree > 0, degree, 1).rsqrt() * (degree > 0)
    return weights * inverse[:, None] * inverse[neighbours.clamp(min=0)]
