"""SMORE: Spectrum-based Modality Representation Fusion Graph Convolutional Network (Ong & Khong, WSDM 2025)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rawrec.config.retrieval import SMOREConfig
from rawrec.errors import UserError
from rawrec.models.graph import Interactions, SparseMatrix, propagate, user_item_adjacency, user_item_matrix
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.models.retrieval.mgcn import side_losses, similarity_edges
from rawrec.onednn import Linear


class SMORE(RetrievalModel):
    """Modalities are filtered and fused as spectra, then propagated in views of their own, fusion among them.

    Any number of modalities: the fusion is the product of their spectra, so a single one is fused with nothing. The
    first has `image_knn_k` neighbours, all others `text_knn_k`. A modality that an item lacks has no part in its fusion
    and its side representation; the fusion graph has the edges of all modalities, each at its largest weight.

    Loss and contrast are those of MGCN.
    """

    node_present: Tensor

    def __init__(
        self,
        cfg: SMOREConfig,
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
        if "fusion" in self.modalities:
            raise UserError(
                "model.name=smore calls its own view fusion; a field of the items cannot have that name too"
            )
        self.views = (*self.modalities, "fusion")
        for name in self.modalities:
            self.add_module(f"{name}_trs", Linear(self.width(name), dim))
            query = nn.Sequential(Linear(dim, dim), nn.Tanh(), Linear(dim, dim, bias=False))
            self.add_module(f"query_{name}", query)
        for view in self.views:
            self.register_parameter(f"{view}_complex_weight", nn.Parameter(0.02 * torch.randn(1, dim // 2 + 1, 2)))
            self.add_module(f"gate_{view}", nn.Sequential(Linear(dim, dim), nn.Sigmoid()))
            self.add_module(f"gate_{view}_prefer", nn.Sequential(Linear(dim, dim), nn.Sigmoid()))

        self.norm_adj = user_item_adjacency(pairs)
        self.R = user_item_matrix(pairs)
        self.item_graphs = nn.ModuleList(self._item_graphs())
        items = torch.stack([self.present(m) for m in self.modalities], 1)
        items = torch.cat([items, items.any(1, keepdim=True)], 1)
        users = torch.ones(pairs.n_users, len(self.views), dtype=torch.bool)
        self.register_buffer("node_present", torch.cat([users, items]), persistent=False)

    def _item_graphs(self) -> list[SparseMatrix]:
        """Each modality's graph of nearest items, and last the union of their edges, each at its largest weight."""
        n, edges = self.n_items, []
        for m, name in enumerate(self.modalities):
            setting = "text_knn_k" if m else "image_knn_k"
            k = getattr(self.cfg, setting)
            if k > n:
                raise UserError(f"model.{setting}={k}: the catalogue has {n} items; use at most {n}")
            edges.append(similarity_edges(self.feature(name).detach(), self.present(name), k))
        keys, place = torch.cat([rows * n + columns for rows, columns, _ in edges]).unique(return_inverse=True)
        values = torch.cat([values for _, _, values in edges])
        largest = values.new_empty(len(keys)).scatter_reduce(0, place, values, "amax", include_self=False)
        edges.append((keys // n, keys % n, largest))
        return [SparseMatrix.from_edges(rows, columns, values, (n, n)) for rows, columns, values in edges]

    def _signals(self) -> list[Tensor]:
        """Projected features of each view after its filter in the frequency domain: `[n_items, dim]` each."""
        dim, signals, fused = self.cfg.embedding_size, [], None
        for name in self.modalities:
            spectrum = torch.fft.rfft(self.get_submodule(f"{name}_trs")(self.feature(name)), norm="ortho")
            signals.append(torch.fft.irfft(spectrum * self._filter(name), n=dim, norm="ortho"))
            spectrum = torch.where(self.present(name)[:, None], spectrum, 1)
            fused = spectrum if fused is None else fused * spectrum
        assert fused is not None
        return [*signals, torch.fft.irfft(fused * self._filter("fusion"), n=dim, norm="ortho")]

    def _filter(self, view: str) -> Tensor:
        return torch.view_as_complex(self.get_parameter(f"{view}_complex_weight"))

    def _views(self) -> tuple[Tensor, Tensor]:
        """Of all nodes, users first: behaviour `[nodes, dim]` and views `[nodes, views, dim]`."""
        users, ids = self.user_embedding.weight, self.item_ids(self.item_id_embedding.weight)
        behaviour = torch.cat(propagate(self.norm_adj, users, ids, self.cfg.n_ui_layers))
        views = []
        for m, (signal, graph) in enumerate(zip(self._signals(), self.item_graphs, strict=True)):
            items = (
                ids * self.get_submodule(f"gate_{self.views[m]}")(signal) * self.node_present[self.n_users :, m, None]
            )
            for _ in range(self.cfg.n_layers):
                items = graph @ items  # type: ignore[operator]
            views.append(items)
        items = torch.stack(views, 1)
        users = (self.R @ items.flatten(1)).unflatten(1, items.shape[1:])
        return behaviour, torch.cat([users, items])

    def _side(self, behaviour: Tensor, views: Tensor, present: Tensor, kept: Mapping[str, Tensor]) -> Tensor:
        """Of nodes `[n]`: the mean of their views, modalities seen through the fusion, all as far as preferred.

        kept: per view what dropout keeps of its preferences, `[n, dim]`; empty = everything.
        """
        fusion = views[:, -1]
        sides = []
        for m, view in enumerate(self.views):
            attended = views[:, m]
            if view != "fusion":  # attention over the dimensions of the embedding
                attended = attended * self.get_submodule(f"query_{view}")(fusion).softmax(1)
            preference = self.get_submodule(f"gate_{view}_prefer")(behaviour)
            if kept:
                preference = preference * kept[f"keep_{view}"] / (1 - self.cfg.dropout_rate)
            sides.append(attended * preference)
        return (torch.stack(sides, 1) * present[:, :, None]).sum(1) / present.sum(1, keepdim=True).clamp(min=1)

    def draw(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """keep_<view>: what dropout keeps of the preferences of all nodes, `[n_users + n_items, dim]`."""
        rate, shape = self.cfg.dropout_rate, (self.n_users + self.n_items, self.cfg.embedding_size)
        return {f"keep_{view}": torch.rand(shape, generator=generator) >= rate for view in self.views if rate > 0}

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        assert negatives is not None
        behaviour, views = self._views()
        nodes = torch.cat([users, positives + self.n_users, negatives + self.n_users])
        ids = behaviour[nodes]
        kept = {name: draws[name][nodes] for name in map("keep_{}".format, self.views) if draws}
        return side_losses(self.cfg, self._side(ids, views[nodes], self.node_present[nodes], kept), ids)

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        behaviour, views = self._views()
        nodes = behaviour + self._side(behaviour, views, self.node_present, {})
        users, items = nodes.split([self.n_users, self.n_items])
        return users, items
