"""FREEDOM: A Tale of Two Graphs, Freezing and Denoising Graph Structures for Multimodal Recommendation (ACM MM 2023).

Zhou & Shen. The item graph is frozen before training; of the user-item graph, training sees a sample of the edges.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.config.retrieval import FREEDOMConfig
from rawrec.errors import UserError
from rawrec.models.graph import (
    Interactions,
    SparseMatrix,
    edge_weights,
    knn_graph,
    normalise,
    propagate,
    user_item_adjacency,
)
from rawrec.models.losses import bpr_loss
from rawrec.models.retrieval.base import RetrievalModel, distinct
from rawrec.onednn import Linear

EPSILON = 1e-7
"""Added to degrees."""


def frozen_item_graph(model: RetrievalModel, k: int, first_weight: float, ready: Path | None = None) -> SparseMatrix:
    """`S = sum_m alpha_m S_m` `[n_items, n_items]`, S_m being the normalised, unweighted kNN graph of a modality; of a
    field whose pieces are modalities each, that of their mean.

    alpha is `first_weight` for the first modality and the rest, in equal shares, for the others. An item that lacks
    modalities has their weights shared out among those it has; one that has none has no neighbours. ready: a file to
    read the graph from instead.
    """
    n = model.n_items
    if ready is not None:
        return read_item_graph(ready, n)
    others = len(model.fields) - 1
    alpha = [first_weight] + [(1 - first_weight) / others] * others if others else [1.0]
    read = [model.of_field(name) for name in model.fields]
    known = torch.stack([present for _, present in read])
    total = (known * torch.tensor(alpha, device=known.device)[:, None]).sum(0)
    parts = []
    for (features, present), weight in zip(read, alpha, strict=True):
        rows, columns, similarities = knn_graph(features.detach(), present, k).edges()
        values = normalise(rows, columns, torch.ones_like(similarities), n, epsilon=EPSILON)
        parts.append((rows, columns, values * (weight / total[rows].clamp(min=EPSILON))))
    rows, columns, values = (torch.cat(part) for part in zip(*parts, strict=True))
    return SparseMatrix.from_edges(rows, columns, values, (n, n))


def read_item_graph(path: Path, n_items: int) -> SparseMatrix:
    """An .npz with `row`, `col` and `value` of each edge; optionally `n_items`, else the last item must be in it."""
    where = f"model.item_graph={path}"
    if not path.is_file():
        raise UserError(f"{where}: there is no such file")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{where} is no .npz file; give one with arrays row, col and value")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("row", "col", "value", "n_items") if name in file}
    except (OSError, ValueError, zipfile.BadZipFile):
        raise UserError(f"{where} cannot be read; give an .npz file with arrays row, col and value") from None
    missing = [name for name in ("row", "col", "value") if name not in arrays]
    if missing:
        raise UserError(f"{where} lacks the array {missing[0]}; give an .npz file with arrays row, col and value")
    row, col, value = arrays["row"], arrays["col"], arrays["value"]
    if not (
        row.shape == col.shape == value.shape and row.ndim == 1 and row.dtype.kind in "iu" and col.dtype.kind in "iu"
    ):
        raise UserError(f"{where}: row, col (integers) and value must be of one length, one entry per edge")
    if value.dtype.kind not in "iuf" or not np.isfinite(value).all():
        raise UserError(f"{where}: value must hold finite numbers")
    ends = np.concatenate([row, col]).astype(np.int64)
    count = int(arrays["n_items"]) if "n_items" in arrays else int(ends.max(initial=-1)) + 1
    if count != n_items or (len(ends) and not 0 <= ends.min() <= ends.max() < n_items):
        raise UserError(
            f"{where} is of a catalogue of {count} items, the dataset has {n_items}; make the graph of this dataset "
            "(where its last items have no neighbours, say so by an array n_items in the file)"
        )
    rows, columns = torch.from_numpy(ends).chunk(2)
    return SparseMatrix.from_edges(rows, columns, torch.from_numpy(value.astype(np.float32)), (n_items, n_items))


def sample_edges(pairs: Interactions, dropout: float, generator: torch.Generator) -> Tensor:
    """Positions of the kept `[floor(edges (1 - dropout))]`, drawn without replacement, likelier at nodes of low degree.

    Degree-sensitive edge pruning (eq. 7): in proportion to `1 / sqrt(d_u d_i)`, by exponential races, which is what
    drawing one after the other amounts to.
    """
    weights = edge_weights(pairs, epsilon=EPSILON).cpu()
    race = torch.empty_like(weights).exponential_(generator=generator)
    return (weights / race).topk(int(len(weights) * (1 - dropout))).indices


class FREEDOM(RetrievalModel):
    """Users `u` and items `i + S^L id_i`, where (u, i) are LightGCN's; BPR, and BPR by projected features alone.

    `n_mm_layers` of the item graph are a plain power, without residual or mean. The pruned user-item graph, normalised
    by its own degrees, makes the loss; the full one makes recommendations. `reg_weight` weighs the ranking by features:
    samples of which an item lacks the modality are left out. With reg_weight 0 features only make the item graph, and
    with a ready `item_graph` they are not needed at all.
    """

    def __init__(
        self,
        cfg: FREEDOMConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        # Without the ranking by features no gradient would reach them.
        cfg = cfg.model_copy(update={"train_features": cfg.train_features and cfg.reg_weight > 0})
        super().__init__(cfg, pairs, features, present)
        self.user_embedding = nn.Embedding(pairs.n_users, cfg.embedding_size)
        self.item_id_embedding = nn.Embedding(pairs.n_items, cfg.embedding_size)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_id_embedding.weight)
        self.item_graph = frozen_item_graph(self, cfg.knn_k, cfg.mm_image_weight, cfg.item_graph)
        self.adjacency = user_item_adjacency(pairs, epsilon=EPSILON)
        self.pruned = self.adjacency
        if cfg.reg_weight:
            for name in self.modalities:
                self.add_module(f"{name}_trs", Linear(self.width(name), cfg.embedding_size))

    def draw_epoch(self, generator: torch.Generator) -> dict[str, Tensor]:
        if not self.cfg.dropout:
            return {}
        return {"kept_edges": sample_edges(self.pairs, self.cfg.dropout, generator)}

    def begin_epoch(self, draws: Mapping[str, Tensor]) -> None:
        if "kept_edges" in draws:
            self.pruned = user_item_adjacency(self.pairs, epsilon=EPSILON, edges=draws["kept_edges"])

    def propagate(self, adjacency: SparseMatrix) -> tuple[Tensor, Tensor]:
        """`[n_users, dim]` and `[n_items, dim]`."""
        ids = similar = self.item_ids(self.item_id_embedding.weight)
        for _ in range(self.cfg.n_mm_layers):
            similar = self.item_graph @ similar
        users, items = propagate(adjacency, self.user_embedding.weight, ids, self.cfg.n_ui_layers)
        return users, items + similar

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        assert negatives is not None
        user_table, item_table = self.propagate(self.pruned)
        u = user_table.index_select(0, users)
        p, n = item_table.index_select(0, positives), item_table.index_select(0, negatives)
        parts = {"bpr": bpr_loss((u * p).sum(1), (u * n).sum(1))}
        loss = parts["bpr"]
        if self.cfg.reg_weight:
            rows, (positive, negative) = distinct(positives, negatives)
            for name in self.modalities:
                projected = self.get_submodule(f"{name}_trs")(self.feature(name, rows))
                scores = [(u * projected[column]).sum(1) for column in (positive, negative)]
                known = self.present(name)[positives] & self.present(name)[negatives]
                parts[f"{name}_bpr"] = bpr_loss(*scores, known=known)
                loss = loss + self.cfg.reg_weight * parts[f"{name}_bpr"]
        return {"loss": loss, **parts}

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.propagate(self.adjacency)
