"""LGMRec: Local and Global Graph Learning for Multimodal Recommendation (Guo et al., AAAI 2024)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from rawrec.config.retrieval import LGMRecConfig
from rawrec.models.graph import Interactions, propagate, user_item_adjacency, user_item_matrix
from rawrec.models.losses import bpr_loss, embedding_loss
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.onednn import linear, matmul

TEMPERATURE = 0.2  # of the Gumbel softmax and of the contrast
EPSILON = 1e-7  # added to degrees
LOGITS = 2**26  # of the contrast, held at once


class LGMRec(RetrievalModel):
    """Local embeddings: ids and modalities over the user-item graph. Global ones: over hypergraphs of each modality.

    Any number of modalities: the contrast is of the first with each other one; there is none with one alone. An item
    that lacks one belongs to none of its hyperedges and has no part in its users' means and in the contrast there.

    Published code and paper differ: the regulariser is of norms as they are (`reg_norm`), and hyperedges are drawn with
    Gumbel noise in evaluation too (`gumbel_at_evaluation`), here once an epoch and kept in the state, so that a
    trained model always says the same.
    """

    of_the_epoch = ("gumbel_",)

    def __init__(
        self,
        cfg: LGMRecConfig,
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
        for name in self.modalities:
            for parameter, columns in ((f"item_{name}_trs", dim), (f"{name}_hyper", cfg.hyper_num)):
                table = nn.init.xavier_uniform_(torch.empty(self.width(name), columns))
                self.register_parameter(parameter, nn.Parameter(table))
        if cfg.gumbel_at_evaluation:
            for name, shape in self._hyperedge_shapes().items():
                self.register_buffer(f"gumbel_{name}", torch.zeros(shape))

        self.norm_adj = user_item_adjacency(pairs, epsilon=EPSILON)
        self.R = user_item_matrix(pairs, norm="none")
        known = torch.stack([self.present(m) for m in self.modalities], 1).float()
        self.register_buffer("inverse_degree", (self.R @ known + EPSILON).reciprocal(), persistent=False)

    def _hyperedge_shapes(self) -> dict[str, tuple[int, int]]:
        sizes = {"item": self.n_items, "user": self.n_users}
        return {f"{kind}_{m}": (size, self.cfg.hyper_num) for m in self.modalities for kind, size in sizes.items()}

    # ---------------------------------------------------------------------------------------------- the draws
    def _gumbel(self, generator: torch.Generator) -> dict[str, Tensor]:
        """gumbel_<item or user>_<modality>: noise of the hyperedge logits, `[n, hyper_num]`."""
        tiny = torch.finfo(torch.float32).tiny
        return {
            f"gumbel_{name}": -torch.empty(shape).exponential_(generator=generator).clamp(min=tiny).log()
            for name, shape in self._hyperedge_shapes().items()
        }

    def draw_epoch(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The noise of evaluation."""
        return self._gumbel(generator) if self.cfg.gumbel_at_evaluation else {}

    def begin_epoch(self, draws: Mapping[str, Tensor]) -> None:
        for name, values in draws.items():
            self.get_buffer(name).copy_(values)

    def draw(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """gumbel_... and, where hyperedge weights are dropped, keep_<item or user>_<modality>, `[n, hyper_num]`."""
        draws, rate = self._gumbel(generator), self.cfg.keep_rate
        if rate < 1:
            for name, shape in self._hyperedge_shapes().items():
                draws[f"keep_{name}"] = torch.rand(shape, generator=generator) < rate
        return draws

    # ---------------------------------------------------------------------------------------- representations
    def _hyperedges(self, logits: Tensor, name: str, draws: Mapping[str, Tensor]) -> Tensor:
        """How far each node belongs to each hyperedge of `<item or user>_<modality>`: `[n, hyper_num]`."""
        if f"gumbel_{name}" in draws:
            logits = logits + draws[f"gumbel_{name}"]
        weights = (logits / TEMPERATURE).softmax(1)
        return weights * draws[f"keep_{name}"] / self.cfg.keep_rate if f"keep_{name}" in draws else weights

    def _represent(self, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Users, items, and of each modality the global users and items; `[n, dim]` each."""
        cfg, sizes = self.cfg, [self.n_users, self.n_items]
        ids = self.user_embedding.weight, self.item_ids(self.item_id_embedding.weight)
        layers = cfg.n_ui_layers if cfg.cf_model == "lightgcn" else 0
        behaviour_users, behaviour_items = propagate(self.norm_adj, *ids, layers)

        local, in_hyperedges = [], []
        for m, name in enumerate(self.modalities):
            maps = torch.cat([self.get_parameter(f"item_{name}_trs"), self.get_parameter(f"{name}_hyper")], 1)
            items = matmul(self.feature(name), maps)  # views and hyperedge logits at once
            users = self.R @ items
            view = users[:, : -cfg.hyper_num] * self.get_buffer("inverse_degree")[:, m, None]
            local.append(torch.cat([view, items[:, : -cfg.hyper_num]]))
            of_items = self._hyperedges(items[:, -cfg.hyper_num :], f"item_{name}", draws)
            of_users = self._hyperedges(users[:, -cfg.hyper_num :], f"user_{name}", draws)
            in_hyperedges.append((of_users, of_items * self.present(name)[:, None]))
        views = torch.cat(local, 1)
        for _ in range(cfg.n_mm_layers):
            views = self.norm_adj @ views
        local_nodes = normalize(views.unflatten(1, (len(self.modalities), -1)), dim=2).sum(1)

        globals_ = []
        for of_users, of_items in in_hyperedges:
            users, items = behaviour_users, behaviour_items
            for _ in range(cfg.n_hyper_layer):
                hyperedges = of_items.T @ items
                users, items = of_users @ hyperedges, of_items @ hyperedges
            globals_.append((users, items))
        global_nodes = normalize(torch.stack([torch.cat(pair) for pair in globals_]).sum(0))
        nodes = torch.cat([behaviour_users, behaviour_items]) + local_nodes + cfg.alpha * global_nodes
        users, items = nodes.split(sizes)
        return users, items, globals_

    def _contrast(self, users: Tensor, positives: Tensor, globals_: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Summed over the batch: the first modality's global rows against all rows of each other modality."""
        first_users, first_items = globals_[0]
        present = [self.present(m) for m in self.modalities]
        total = first_users.new_zeros(())
        for known_other, (other_users, other_items) in zip(present[1:], globals_[1:], strict=True):
            both = present[0] & known_other
            known = both.nonzero().squeeze(1)
            place = both.cumsum(0) - 1
            rows = positives[both[positives]]
            total = total + _info_nce_sum(first_users[users], other_users, users)
            total = total + _info_nce_sum(first_items[rows], other_items[known], place[rows])
        return total

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        assert negatives is not None
        user, item, globals_ = self._represent(draws)
        u, p, n = user[users], item[positives], item[negatives]
        bpr = bpr_loss((u * p).sum(1), (u * n).sum(1))
        contrast = self._contrast(users, positives, globals_)
        reg = embedding_loss(u, p, n, squared=self.cfg.reg_norm == "squared")
        loss = bpr + self.cfg.cl_weight * contrast + self.cfg.reg_weight * reg
        return {"loss": loss, "bpr": bpr, "hypergraph_contrast": contrast, "reg": reg}

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        users, items, _ = self._represent({k: v for k, v in self.named_buffers() if k.startswith("gumbel_")})
        return users, items


def _info_nce_sum(anchors: Tensor, others: Tensor, positives: Tensor) -> Tensor:
    """Sum of -log softmax of the cosine of each anchor `[m]` and its row of `others` `[n]` among all of these.

    Above LOGITS of them, m x n are computed in parts, in the backward pass once more: never all of them at once.
    """
    anchors, others = normalize(anchors) / TEMPERATURE, normalize(others)

    def of(anchors: Tensor, positives: Tensor) -> Tensor:
        return nn.functional.cross_entropy(linear(anchors, others), positives, reduction="sum")

    rows = max(1, LOGITS // max(1, len(others)))
    if len(anchors) <= rows:
        return of(anchors, positives)
    parts = zip(anchors.split(rows), positives.split(rows), strict=True)
    return torch.stack([checkpoint(of, *part, use_reentrant=False) for part in parts]).sum()
