"""MMGCN: Multi-modal Graph Convolution Network for Personalized Recommendation of Micro-video (Wei et al., MM 2019).

A branch per modality, over the user-item graph of the items that have it. Layer 0 of a node: a user's preference or an
item's features (through a linear map where `latent_sizes` says so), each of unit length. Then layers, with leaky ReLUs:

- aggregation: h = leaky(mean over the neighbours of x W), without the node itself;
- combination: x_hat = leaky(linear(x)) + id, and the next x = leaky(g([h, x_hat])), or leaky(g(h) + x_hat).

A representation is the mean over the branches of their last layers; scores are dot products.
loss = BPR + reg_weight * [mean of id_u^2 + id_i^2 over the batch's positives and negatives + mean of preference^2].

The published code trains neither ids nor preferences (`train_ids`): they stay as they were drawn and are part of the
state. It evaluates with the representations of the last training batch; ours are those of the parameters as they stand.

Modalities: any number. By default the first is reduced to 256, and its preferences are those held down. An item is the
mean of the branches whose modality it has; an item that has none, as a user, is the mean of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, repeat

import torch
from torch import Tensor, nn

from rawrec.config.retrieval import MMGCNConfig
from rawrec.models.graph import Interactions, user_item_matrix
from rawrec.models.losses import bpr_loss
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.onednn import Linear, linear, matmul

Pair = tuple[Tensor, Tensor]  # of users and of items
Rows = tuple[Tensor | None, Tensor | None]  # those asked for; None: all


class MeanGraph(nn.Module):
    """Means over neighbours: `to_users` of items `[n_users, n_items]`, `to_items` of users `[n_items, n_users]`."""

    def __init__(self, pairs: Interactions):
        super().__init__()
        users, items, n_users, n_items = pairs
        self.to_users = user_item_matrix(pairs, "row")
        self.to_items = user_item_matrix(Interactions(items, users, n_items, n_users), "row")


class Layer(nn.Module):
    """From `[nodes, width]` to `[nodes, dim]`."""

    def __init__(self, width: int, cfg: MMGCNConfig):
        super().__init__()
        dim, concat = cfg.embedding_size, cfg.combine == "concat"
        self.conv = nn.Parameter(torch.empty(width, width))  # W
        self.linear = Linear(width, dim)
        self.g = Linear(width + dim if concat else width, dim)
        for weight in (self.conv, self.linear.weight, self.g.weight):
            nn.init.xavier_normal_(weight)

    def combine(self, means: Tensor, x: Tensor, ids: Tensor) -> Tensor:
        """means: of the neighbours' x W; x: the nodes' own; ids: their id embeddings."""
        h = nn.functional.leaky_relu(means)
        x_hat = nn.functional.leaky_relu(self.linear(x)) + ids
        of_h, of_x = self.g.weight.tensor_split([h.shape[1]], dim=1)
        if of_x.shape[1]:  # concat, without a copy of the two side by side
            x_hat = linear(x_hat, of_x)
        return nn.functional.leaky_relu(linear(h, of_h, self.g.bias) + x_hat)


class Branch(nn.Module):
    """One modality. latent: width to which features are reduced, 0 = as they are."""

    def __init__(self, width: int, latent: int, cfg: MMGCNConfig):
        super().__init__()
        self.reduce = Linear(width, latent) if latent else None
        if self.reduce is not None:
            nn.init.xavier_normal_(self.reduce.weight)
        self.width = latent or width
        self.layers = nn.ModuleList(
            Layer(self.width if k == 0 else cfg.embedding_size, cfg) for k in range(cfg.n_layers)
        )

    def forward(
        self, graph: MeanGraph, preferences: Tensor, features: Tensor, known: Tensor, ids: Pair, rows: Rows
    ) -> Pair:
        """Users and items, `[rows or all, dim]`. preferences `[n_users, width]`; features of all items, bool known."""
        items = features if self.reduce is None else self.reduce(features) * known[:, None]
        x = (nn.functional.normalize(preferences), nn.functional.normalize(items))
        for k, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            # A mean is linear: with W on the items' side of both, the least is multiplied.
            means = (graph.to_users @ matmul(x[1], layer.conv), matmul(graph.to_items @ x[0], layer.conv))
            wanted = rows if k == len(self.layers) - 1 else (None, None)
            users, items = (
                layer.combine(*(t if some is None else nn.functional.embedding(some, t) for t in inputs))
                for some, *inputs in zip(wanted, means, x, ids, strict=True)
            )
            x = (users, items)
        return x


class MMGCN(RetrievalModel):
    id_embedding: Tensor
    mix: Tensor

    def __init__(
        self,
        cfg: MMGCNConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        self._keep("id_embedding", pairs.n_users + pairs.n_items, cfg.embedding_size)
        has = torch.stack([self.present(name) for name in self.modalities], 1)
        has = has | ~has.any(1, keepdim=True)
        self.register_buffer("mix", has / has.sum(1, keepdim=True), persistent=False)  # [n_items, modalities]
        whole = MeanGraph(pairs)
        for name, latent in zip(self.modalities, chain(cfg.latent_sizes, repeat(0)), strict=False):
            branch, known = Branch(self.width(name), latent, cfg), self.present(name)
            self.add_module(f"{name}_branch", branch)
            self._keep(f"{name}_preference", pairs.n_users, branch.width)
            edges = known[pairs.items]
            some = Interactions(pairs.users[edges], pairs.items[edges], pairs.n_users, pairs.n_items)
            self.add_module(f"{name}_graph", whole if known.all() else MeanGraph(some))

    def _keep(self, name: str, rows: int, width: int) -> None:
        """A random table: a parameter with `train_ids`, else a part of the state that stays as it is."""
        table = nn.init.xavier_normal_(torch.empty(rows, width))
        if self.cfg.train_ids:
            self.register_parameter(name, nn.Parameter(table))
        else:
            self.register_buffer(name, table)

    def representations(self, rows: Rows = (None, None)) -> Pair:
        """Of all users and items, or of those in `rows`, `[n, dim]` each."""
        ids, last_layers = self._ids(), []
        for name in self.modalities:
            graph, preferences = getattr(self, f"{name}_graph"), getattr(self, f"{name}_preference")
            branch = getattr(self, f"{name}_branch")
            last_layers.append(branch(graph, preferences, self.feature(name), self.present(name), ids, rows))
        users, items = (torch.stack(x, 1) for x in zip(*last_layers, strict=True))  # [n, modalities, dim]
        mix = self.mix if rows[1] is None else self.mix[rows[1]]
        return users.mean(1), (items * mix[:, :, None]).sum(1)

    def _ids(self) -> Pair:
        users, items = self.id_embedding.split([self.n_users, self.n_items])
        return users, self.item_ids(items)

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        assert negatives is not None
        u, items = self.representations((users, torch.cat([positives, negatives])))
        p, n = items.chunk(2)
        bpr = bpr_loss((u * p).sum(1), (u * n).sum(1))
        user_ids, item_ids = self._ids()
        of_users, of_positives, of_negatives = user_ids[users], item_ids[positives], item_ids[negatives]
        reg_id = of_users.square().mean() + (of_positives.square().mean() + of_negatives.square().mean()) / 2
        held = self.modalities if self.cfg.reg_preferences == "all" else self.modalities[:1]
        reg_preference = torch.stack([getattr(self, f"{name}_preference").square().mean() for name in held]).sum()
        loss = bpr + self.cfg.reg_weight * (reg_id + reg_preference)
        return {"loss": loss, "bpr": bpr, "reg_id": reg_id, "reg_preference": reg_preference}

    @torch.no_grad()
    def embeddings(self) -> Pair:
        return self.representations()
