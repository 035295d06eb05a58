"""EM3 on FREEDOM: End-to-end training of Multimodal Model and ranking Model (Deng et al. 2024), section 4.6.

The FQ-Former, or another fusion, makes the content of every item, which travels the graphs of FREEDOM beside the ids;
the content-id contrast aligns the two.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rawrec.config import FusionConfig
from rawrec.config.parts import WITH_LAYERS
from rawrec.config.retrieval import EM3FreedomConfig
from rawrec.content.fusion import make_fusion
from rawrec.errors import UserError
from rawrec.models.graph import Interactions, SparseMatrix, propagate, user_item_adjacency
from rawrec.models.losses import bpr_loss, info_nce
from rawrec.models.retrieval.base import RetrievalModel, distinct, field_of
from rawrec.models.retrieval.freedom import EPSILON, frozen_item_graph, sample_edges
from rawrec.onednn import Linear


class GivenDropout(nn.Module):
    """Dropout by the mask in `kept`, of the input's shape (True = kept); None: none. shape: of the last input, without
    its first dimension."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.kept: Tensor | None = None
        self.shape: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        self.shape = x.shape[1:]
        return x if self.kept is None else x * self.kept / (1 - self.rate)


class EM3(RetrievalModel):
    """Scores are those of ids plus those of content, both after propagation: embeddings are `[id, content]`.

    Tokens of the fusion are linear maps of the features, as they are; a token that an item lacks is not attended to.
    With content.<field>.tokens=each (ours) each of an item's pictures or texts is a token, by the map of its field.
    In fusion=two_flow the first field is the picture flow, and the others are the text flow.
    Content travels the user-item graph from items, users starting from zero. The pruned graph makes the loss, the full
    one recommendations.
    """

    def __init__(
        self,
        cfg: EM3FreedomConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        dim = cfg.embedding_size
        if cfg.fusion in WITH_LAYERS and dim % cfg.num_heads:
            raise UserError(f"model.num_heads={cfg.num_heads} is no divisor of model.embedding_size={dim}")
        self.user_embedding = nn.Embedding(pairs.n_users, dim)
        self.item_id_embedding = nn.Embedding(pairs.n_items, dim)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_id_embedding.weight)
        for name in self.fields:
            self.add_module(f"{name}_linear", Linear(self.width(name), dim))
        fusion = FusionConfig(
            kind=cfg.fusion, queries=cfg.query_num, layers=cfg.layer_num, heads=cfg.num_heads, ffn=cfg.ffn
        )
        others = [k for k, name in enumerate(self.modalities) if field_of(name) != self.fields[0]]
        self.content = make_fusion(dim, len(self.modalities), fusion, others)
        self.dropouts: list[GivenDropout] = []
        for layer in list(self.content.modules()):
            for name, part in layer.named_children():
                if isinstance(part, nn.Dropout):
                    self.dropouts.append(GivenDropout(cfg.hidden_dropout_prob))
                    layer.add_module(name, self.dropouts[-1])
        count = len(self.modalities)
        self.content(torch.zeros(1, count, dim), torch.ones(1, count, dtype=torch.bool))  # dropouts learn their shapes
        self.cic_content_linear = Linear(dim, dim)  # f_CIC, eq. 10
        self.cic_id_linear = Linear(dim, dim)  # f'_CIC, eq. 11
        self.item_graph = frozen_item_graph(self, cfg.knn_k, cfg.mm_image_weight, cfg.item_graph)
        self.adjacency = user_item_adjacency(pairs, epsilon=EPSILON)
        self.pruned = self.adjacency

    def draw_epoch(self, generator: torch.Generator) -> dict[str, Tensor]:
        if not self.cfg.dropout:
            return {}
        return {"kept_edges": sample_edges(self.pairs, self.cfg.dropout, generator)}

    def begin_epoch(self, draws: Mapping[str, Tensor]) -> None:
        if "kept_edges" in draws:
            self.pruned = user_item_adjacency(self.pairs, epsilon=EPSILON, edges=draws["kept_edges"])

    def draw(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Contrast samples `[n_items, cic_neg_num]`; of each dropout of the fusion a mask `[n_items, *its shape]`."""
        draws = {}
        if self.cfg.cic_weight and self.cfg.cic_negatives == "catalogue":
            samples = torch.randint(self.n_items, (self.n_items, self.cfg.cic_neg_num), generator=generator)
            draws["cic_negatives"] = samples
        if self.cfg.hidden_dropout_prob:
            for k, dropout in enumerate(self.dropouts):
                drawn = torch.rand((self.n_items, *dropout.shape), generator=generator)
                draws[f"fusion_kept_{k}"] = drawn >= self.cfg.hidden_dropout_prob
        return draws

    def fuse(self, draws: Mapping[str, Tensor]) -> Tensor:
        """The content of every item, `[n_items, dim]` (eq. 5-7); draws: masks of dropout, {} for none."""
        tokens = [self.get_submodule(f"{field_of(name)}_linear")(self.feature(name)) for name in self.modalities]
        known = torch.stack([self.present(name) for name in self.modalities], 1)
        for k, dropout in enumerate(self.dropouts):
            dropout.kept = draws.get(f"fusion_kept_{k}")
        return self.content(torch.stack(tokens, 1), known)

    def propagate(self, adjacency: SparseMatrix, content: Tensor) -> tuple[Tensor, Tensor]:
        """`[n_users, 2 dim]` and `[n_items, 2 dim]`: ids and content, side by side through both graphs."""
        user_ids, item_ids = self.user_embedding.weight, self.item_ids(self.item_id_embedding.weight)
        similar = start = torch.cat([item_ids, content], 1)
        for layer in range(self.cfg.n_mm_layers):
            if layer and self.cfg.content_layers == "one":
                ids, first = similar.chunk(2, 1)
                similar = torch.cat([self.item_graph @ ids, first], 1)
            else:
                similar = self.item_graph @ similar
        users = torch.cat([user_ids, torch.zeros_like(user_ids)], 1)
        users, items = propagate(adjacency, users, start, self.cfg.n_ui_layers)
        return users, items + similar

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        assert negatives is not None
        content = self.fuse(draws)
        user_table, item_table = self.propagate(self.pruned, content)
        u = user_table.index_select(0, users)
        p, n = item_table.index_select(0, positives), item_table.index_select(0, negatives)
        bpr = bpr_loss((u * p).sum(1), (u * n).sum(1))
        if not self.cfg.cic_weight:
            return {"loss": bpr, "bpr": bpr}
        ids = self.item_id_embedding.weight
        if self.cfg.cic_on == "propagated":
            ids, content = item_table.chunk(2, 1)
        if self.cfg.cic_negatives == "batch":
            rows, _ = distinct(positives)
            ids, content = ids[rows], content[rows]
        cic = self.contrast(content, ids, draws.get("cic_negatives"))
        return {"loss": bpr + self.cfg.cic_weight * cic, "bpr": bpr, "cic": cic}

    def contrast(self, content: Tensor, ids: Tensor, samples: Tensor | None) -> Tensor:
        """Eq. 10-14, the mean of both directions, of items `[n, dim]`.

        samples: rows `[n, H]` of the negatives, the same in both directions; None: all others.
        """
        c, i = self.cic_content_linear(content), self.cic_id_linear(ids)
        if samples is None:
            return 0.5 * (info_nce(c, i, self.cfg.cic_temperature) + info_nce(i, c, self.cfg.cic_temperature))
        c, i = (nn.functional.normalize(x, dim=1, eps=1e-5) for x in (c, i))
        positive = (c * i).sum(1, keepdim=True)
        directions = []
        for anchors, others in ((c, i), (i, c)):
            negative = (nn.functional.embedding(samples, others) @ anchors[:, :, None]).squeeze(2)
            logits = torch.cat([positive, negative], 1) / self.cfg.cic_temperature
            directions.append(-logits.log_softmax(1)[:, 0].mean())
        return 0.5 * (directions[0] + directions[1])

    @torch.no_grad()
    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.propagate(self.adjacency, self.fuse({}))
