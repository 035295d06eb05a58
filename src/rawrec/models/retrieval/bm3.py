"""BM3: Bootstrap Latent Representations for Multi-modal Recommendation (Zhou et al., WWW 2023).

No negatives: representations predict dropped views of each other (section 3.2), and no gradient goes into a view.

- u, i: LightGCN's means over the layers of the user-item graph; to an item its own embedding is added once more.
- e_m: a linear map of modality m's features.
- Views: u, i, e_m with dropped entries, detached; predictions: one linear predictor, shared by all.
- With C(a, b) = 1 - mean cosine(predictor(a), view of b) over the batch's users and positives:
  loss = C(u, i) + C(i, u) + cl_weight * sum_m [C(e_m, i) + C(e_m, e_m)] + reg_weight * norms of u and i.
- Scores: predictor(u) . predictor(i).

Each modality, however many there are, adds its two terms; they are means over the positives that have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from rawrec.config.retrieval import BM3Config
from rawrec.models.graph import Interactions, propagate, user_item_adjacency
from rawrec.models.losses import embedding_loss
from rawrec.models.retrieval.base import RetrievalModel
from rawrec.onednn import Linear


class BM3(RetrievalModel):
    uses_negatives: ClassVar[bool] = False
    content_in_vectors: ClassVar[bool] = False

    def __init__(
        self,
        cfg: BM3Config,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        d = cfg.embedding_size
        self.adjacency = user_item_adjacency(pairs, epsilon=1e-7)
        self.user_embedding = nn.Embedding(pairs.n_users, d)
        self.item_id_embedding = nn.Embedding(pairs.n_items, d)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_id_embedding.weight)
        self.predictor = Linear(d, d)
        nn.init.xavier_normal_(self.predictor.weight)
        for name in self.modalities:
            trs = Linear(self.width(name), d)
            nn.init.xavier_normal_(trs.weight)
            self.add_module(f"{name}_trs", trs)

    def representations(self) -> tuple[Tensor, Tensor]:
        """u `[n_users, dim]` and i `[n_items, dim]`, before the predictor."""
        ids = self.item_ids(self.item_id_embedding.weight)
        users, items = propagate(self.adjacency, self.user_embedding.weight, ids, self.cfg.n_layers)
        return users, items + ids

    def draw(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Kept entries of the views, bool `[batch, dim]` each: a node has one view, however often it comes."""

        def kept(rows: Tensor, tables: list[str]) -> dict[str, Tensor]:
            distinct, slot = torch.unique(rows.cpu(), return_inverse=True)
            chance = torch.rand(len(tables), len(distinct), self.cfg.embedding_size, generator=generator)
            keep = chance >= self.cfg.dropout
            return {f"keep_{name}": keep[k, slot] for k, name in enumerate(tables)}

        return kept(users, ["user"]) | kept(positives, ["item", *self.modalities])

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        every_user, every_item = self.representations()
        u = nn.functional.embedding(users, every_user)
        i = nn.functional.embedding(positives, every_item)
        u_view, i_view = self._view(u, draws["keep_user"]), self._view(i, draws["keep_item"])
        parts = {"ui": _distance(self.predictor(u), i_view), "iu": _distance(self.predictor(i), u_view)}
        loss = parts["ui"] + parts["iu"]

        distinct, slot = torch.unique(positives, return_inverse=True)  # features are projected once per item
        for name in self.modalities:
            e = nn.functional.embedding(slot, self.get_submodule(f"{name}_trs")(self.feature(name, distinct)))
            known = self.present(name)[positives]
            predicted = self.predictor(e)
            to_item = _distance(predicted, i_view, known)
            to_itself = _distance(predicted, self._view(e, draws[f"keep_{name}"]), known)
            loss = loss + self.cfg.cl_weight * (to_item + to_itself)
            parts |= {f"{name}_to_item": to_item, f"{name}_to_{name}": to_itself}

        held = (every_user, every_item) if self.cfg.reg_on == "tables" else (u, i)
        reg = embedding_loss(*held, squared=self.cfg.reg_norm == "squared")
        return {"loss": loss + self.cfg.reg_weight * reg, **parts, "reg": reg}

    def _view(self, x: Tensor, keep: Tensor) -> Tensor:
        return x.detach() * keep / (1 - self.cfg.dropout)

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        users, items = self.representations()
        return self.predictor(users), self.predictor(items)


def _distance(predicted: Tensor, view: Tensor, known: Tensor | None = None) -> Tensor:
    """1 - mean cosine of rows `[batch, dim]`, over those that are `known` (0 if none is)."""
    distance = 1 - nn.functional.cosine_similarity(predicted, view, dim=1)
    return distance.mean() if known is None else (distance * known).sum() / known.sum().clamp(min=1)
