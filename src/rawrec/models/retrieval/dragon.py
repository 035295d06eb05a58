"""DRAGON: Enhancing Dyadic Relations with Homogeneous Graphs for Multimodal Recommendation (Zhou et al., ECAI 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from math import log

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, leaky_relu, normalize

from rawrec.config.retrieval import DRAGONConfig
from rawrec.models.graph import Interactions, user_item_adjacency
from rawrec.models.losses import bpr_loss
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.freedom import frozen_item_graph
from rawrec.onednn import Linear


def nearest_users(pairs: Interactions, k: int, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """Of each user the `k` others with the most items in common, most first: users, and how many items, `[n_users, k]`.

    Equal counts are ordered by number; a user with fewer neighbours has 0 items in common with user 0 in their place.
    """
    users, items, n = pairs.users.cpu().numpy(), pairs.items.cpu().numpy(), pairs.n_users
    matrix = sparse.csr_array((np.ones(len(users), np.int32), (users, items)), shape=(n, pairs.n_items))
    transposed = matrix.T.tocsr()
    neighbours, counts = np.zeros((n, k), np.int64), np.zeros((n, k), np.int64)
    for start in range(0, n, chunk):
        common = (matrix[start : start + chunk] @ transposed).tocoo()
        row, column, count = (x[common.row + start != common.col] for x in (common.row, common.col, common.data))
        order = np.lexsort((column, -count, row))
        row, column, count = row[order], column[order], count[order]
        slot = np.arange(len(row)) - np.searchsorted(row, row)
        near = slot < k
        neighbours[start + row[near], slot[near]] = column[near]
        counts[start + row[near], slot[near]] = count[near]
    return torch.from_numpy(neighbours), torch.from_numpy(counts)


class DRAGON(RetrievalModel):
    """Every modality is propagated over the user-item graph by itself; side by side they go over user and item graphs.

    Any number of modalities: a user weighs each; the first one's item graph has `mm_image_weight` in the mix, the
    others share the rest, one alone has all. An item that lacks one starts there from zero, has no edges in its graph,
    and its weights in the mix are renormalised.

    There are no id embeddings of items, and the published code's options and tables without effect are left out. Its
    ranking loss has a logarithm of base 2 (`log_base`), its user weights a softmax at initialisation only
    (`softmax_user_weights`), its neighbour lists are filled up by repetition, drawn every epoch (`pad_neighbours`);
    evaluation has the lists of the last epoch, which are part of the state. Its edges are never dropped.
    """

    user_neighbours: Tensor
    user_neighbour_weights: Tensor

    of_the_epoch = ("user_neighbour",)

    def __init__(
        self,
        cfg: DRAGONConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        dim = cfg.embedding_size
        for name in self.modalities:
            self.register_parameter(f"{name}_preference", nn.Parameter(torch.empty(pairs.n_users, dim)))
            nn.init.xavier_normal_(self.get_parameter(f"{name}_preference"))
            self.add_module(f"{name}_hidden", Linear(self.width(name), 4 * dim))
            self.add_module(f"{name}_latent", Linear(4 * dim, dim))
        weights = torch.empty(pairs.n_users, len(self.modalities), 1)
        self.weight_u = nn.Parameter(nn.init.xavier_normal_(weights).softmax(1))

        self.norm_adj = user_item_adjacency(pairs)
        self.mm_adj = frozen_item_graph(self, cfg.knn_k, cfg.mm_image_weight)
        self.nearest, self.in_common = nearest_users(pairs, cfg.user_neighbours)
        self.register_buffer("user_neighbours", self.nearest.clone())
        self.register_buffer("user_neighbour_weights", torch.zeros(self.nearest.shape))
        self.begin_epoch(self._neighbours(self.nearest, self.in_common))

    def _neighbours(self, users: Tensor, in_common: Tensor) -> dict[str, Tensor]:
        """Neighbours of each user and their weights, softmax of the items in common over those that have any."""
        scores = in_common.float().masked_fill(in_common == 0, torch.finfo(torch.float32).min)
        return {"user_neighbours": users, "user_neighbour_weights": scores.softmax(1) * (in_common > 0)}

    def draw_epoch(self, generator: torch.Generator) -> dict[str, Tensor]:
        """user_neighbours and user_neighbour_weights `[n_users, user_neighbours]`."""
        if not self.cfg.pad_neighbours:
            return {}
        known = (self.in_common > 0).sum(1, keepdim=True)
        slots = torch.arange(self.nearest.shape[1]).expand_as(self.nearest)
        repeated = (torch.rand(self.nearest.shape, generator=generator) * known).long()
        slots = torch.where(slots < known, slots, repeated)
        return self._neighbours(self.nearest.gather(1, slots), self.in_common.gather(1, slots))

    def begin_epoch(self, draws: Mapping[str, Tensor]) -> None:
        for name, values in draws.items():
            self.get_buffer(name).copy_(values)

    def _weights(self) -> Tensor:
        return self.weight_u.softmax(1) if self.cfg.softmax_user_weights else self.weight_u

    def _representations(self) -> tuple[Tensor, Tensor]:
        """Before the user graph and after the item graph, modalities side by side: `[n, modalities * dim]` each."""
        starts = []
        for name in self.modalities:
            hidden = leaky_relu(self.get_submodule(f"{name}_hidden")(self.feature(name)))
            items = self.get_submodule(f"{name}_latent")(hidden) * self.present(name)[:, None]
            starts.append(normalize(torch.cat([self.get_parameter(f"{name}_preference"), items])))
        x = torch.cat(starts, 1)
        near = self.norm_adj @ x
        users, items = (x + near + self.norm_adj @ near).split([self.n_users, self.n_items])
        users = (users.unflatten(1, (len(self.modalities), -1)) * self._weights()).flatten(1)
        propagated = items
        for _ in range(self.cfg.n_mm_layers):
            propagated = self.mm_adj @ propagated
        return users, items + propagated

    def _listen(self, users: Tensor, rows: Tensor | slice) -> Tensor:
        """Users and the weighted sum of their neighbours: `[rows, modalities * dim]`."""
        neighbours, weights = self.user_neighbours[rows], self.user_neighbour_weights[rows]
        return users[rows] + embedding_bag(neighbours, users, per_sample_weights=weights, mode="sum")

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """reg_<modality>_preference and reg_user_weight: the means of squares that reg_weight holds down."""
        assert negatives is not None
        user_table, item_table = self._representations()
        u, p, n = self._listen(user_table, users), item_table[positives], item_table[negatives]
        bpr = bpr_loss((u * p).sum(1), (u * n).sum(1)) / (log(2) if self.cfg.log_base == "2" else 1)
        parts = {
            f"reg_{m}_preference": self.get_parameter(f"{m}_preference")[users].square().mean() for m in self.modalities
        }
        parts["reg_user_weight"] = self._weights().square().mean()
        reg = torch.stack(list(parts.values())).sum()
        return {"loss": bpr + self.cfg.reg_weight * reg, "bpr": bpr, **parts}

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        users, items = self._representations()
        return self._listen(users, slice(None)), items
