"""MMGCL: Multi-modal Graph Contrastive Learning for Micro-video Recommendation (Yi et al., SIGIR 2022).

- Branches of ids and of each modality (see branches.py); a user or item is a linear read-out of its branches side by
  side. Scores are dot products; main loss: BPR.
- Views: ED, all branches on the graph without a share of its edges; MM, one modality drawn with the chances `mask_p`
  is masked: its branch runs on the graph without the edges of some users and items, or (`masking`) on the whole graph
  from random numbers; the others are as they were.
- Contrast in a view: InfoNCE of users and their positives over the batch, cosines, temperature `ssl_temp`. ssl is the
  sum over two views: ED twice, or ED and MM.
- CN, composed negatives: an item put together from branches of the positive and of the negative, which users shall tell
  from the positive. ED view: the last modality is the negative's; MM view: all modalities are.
- loss = bpr + ssl_alpha * ssl. There is no norm term: the published runs use a weight decay of 1e-4.

The published code leaves CN out of the sum and, with MM, counts the ED view twice, so that by default nothing of MM and
CN is computed in training. It has no ranking of its own; scores are those of the read-outs.

Modalities: any number. The first is the one whose tokens a masked other modality swaps with its own (`swap_tokens`);
the last is the one that CN's first view takes from the negative.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rawrec.config.retrieval import MMGCLConfig
from rawrec.errors import UserError
from rawrec.models.graph import Interactions, user_item_matrix
from rawrec.models.losses import bpr_loss, info_nce
from rawrec.models.retrieval.branches import BranchModel, Side, batch_info_nce, propagate_sides
from rawrec.onednn import Linear
from rawrec.shown import listed

Pair = tuple[Tensor, Tensor]  # of users and of items
Sides = tuple[Side, Side]


class MMGCL(BranchModel):
    def __init__(
        self,
        cfg: MMGCLConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present, cfg.latent_dim, cfg.user_tables == "own")
        self.matrix = user_item_matrix(pairs)
        self.read_user = Linear(self.branches * cfg.latent_dim, cfg.latent_dim)
        self.read_item = Linear(self.branches * cfg.latent_dim, cfg.latent_dim)
        self.mask_p = torch.tensor(cfg.mask_p or [1.0] * len(self.modalities))
        if len(self.mask_p) != len(self.modalities) or not self.mask_p.any():
            raise UserError(
                f"model.mask_p={cfg.mask_p}: give one number for each of {listed(self.modalities)}, not all zero"
            )

    def draw(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """view1_kept_edges, view2_kept_edges (ED): positions in the training pairs. view2_modality (MM): its number.

        view2_dropped_users, view2_dropped_items: rows; or view2_start_users, view2_start_items: `[n, dim]`.
        """

        def chosen(n: int, count: int) -> Tensor:
            return torch.randperm(n, generator=generator)[:count]

        edges, rate = len(self.edge_users), self.cfg.dropout_rate
        draws = {"view1_kept_edges": chosen(edges, int(edges * (1 - rate)))}
        if self.cfg.ssl_task == "ED":
            draws["view2_kept_edges"] = chosen(edges, int(edges * (1 - rate)))
        elif self.cfg.masks:
            draws["view2_modality"] = torch.multinomial(self.mask_p, 1, generator=generator)[0]
            for kind, n in (("users", self.n_users), ("items", self.n_items)):
                if self.cfg.masking == "nodes":
                    draws[f"view2_dropped_{kind}"] = chosen(n, int(n * rate))
                else:
                    start = torch.empty(n, self.dim)
                    draws[f"view2_start_{kind}"] = nn.init.xavier_uniform_(start, generator=generator)
        return draws

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        assert negatives is not None
        starts = self.starts()
        clean = propagate_sides(self.matrix, *starts, self.cfg.layer_num)
        u, p = self.read(clean, users, positives)
        n = self.read_item(clean[1].rows(negatives))
        bpr = bpr_loss((u * p).sum(1), (u * n).sum(1), epsilon=1e-5)

        views = [self.edge_view(starts, draws["view1_kept_edges"])]
        if self.cfg.ssl_task == "ED":
            views.append(self.edge_view(starts, draws["view2_kept_edges"]))
        elif self.cfg.masks:
            views.append(self.masking_view(starts, clean, draws))
        ssl = self._contrast(views, users, positives)
        if self.cfg.composes:
            for view, others in zip(views, (1, len(self.modalities)), strict=True):
                ssl = ssl + self.composed_contrast(view, users, positives, negatives, others)
        return {"loss": bpr + self.cfg.ssl_alpha * ssl, "bpr": bpr, "ssl": ssl}

    def read(self, sides: Sides, users: Tensor | None = None, items: Tensor | None = None) -> Pair:
        """Read-outs `[n, dim]` of rows of users and items, or of all."""
        return self.read_user(sides[0].rows(users)), self.read_item(sides[1].rows(items))

    def edge_view(self, starts: Pair, kept: Tensor) -> Sides:
        """ED: all branches on the graph of the `kept` pairs."""
        return propagate_sides(user_item_matrix(self._pairs(kept)), *starts, self.cfg.layer_num)

    def masking_view(self, starts: Pair, clean: Sides, draws: Mapping[str, Tensor]) -> Sides:
        """MM: another branch in the place of modality m's; clean: all branches on the whole graph.

        swap_tokens: the branch that runs without the dropped nodes is the first modality's, and it takes the place of
        m's, while m's own takes the place of the first's.
        """
        m = 1 + int(draws["view2_modality"])
        if self.cfg.masking == "nodes":
            runs, matrix = 1 if self.cfg.swap_tokens else m, user_item_matrix(self._pairs(self._undropped(draws)))
            block = slice(runs * self.dim, (runs + 1) * self.dim)
            users, items = starts[0] if starts[0].shape[1] == self.dim else starts[0][:, block], starts[1][:, block]
        else:
            runs, matrix = m, self.matrix
            users, items = draws["view2_start_users"], draws["view2_start_items"]
        view = []
        for whole, new in zip(clean, propagate_sides(matrix, users, items, self.cfg.layer_num), strict=True):
            blocks = list(whole.rows().split(self.dim, 1))
            blocks[runs], blocks[m] = blocks[m], new.rows()
            view.append(Side([], [torch.cat(blocks, 1)], 1, whole.width))
        return view[0], view[1]

    def _undropped(self, draws: Mapping[str, Tensor]) -> Tensor:
        """bool `[edges]`: the pairs of users and items that stay."""
        users = self.edge_users.new_ones(self.n_users).index_fill(0, draws["view2_dropped_users"], 0)
        items = self.edge_items.new_ones(self.n_items).index_fill(0, draws["view2_dropped_items"], 0)
        return (users[self.edge_users] & items[self.edge_items]).bool()

    def _pairs(self, kept: Tensor) -> Interactions:
        return Interactions(self.edge_users[kept], self.edge_items[kept], self.n_users, self.n_items)

    def _contrast(self, views: list[Sides], users: Tensor, positives: Tensor) -> Tensor:
        """Of the batch, in one view or two."""
        items, slot, counts = torch.unique(positives, return_inverse=True, return_counts=True)
        if self.cfg.contrast == "nodes":
            nodes = (self.read(view, users.unique(), items) for view in views)
            return torch.stack([info_nce(a, b, self.cfg.ssl_temp) for a, b in zip(*nodes, strict=True)]).sum()
        both = self.cfg.ssl_task == "ED" or self.cfg.second_view
        terms = []
        for view in views if both else views[:1]:
            u, i = (nn.functional.normalize(x) for x in self.read(view, users, items))
            terms.append(batch_info_nce(u, i, slot, counts, self.cfg.ssl_temp).mean())
        return torch.stack(terms).sum() if both else 2 * terms[0]

    def compose(self, items: Side, positives: Tensor, negatives: Tensor, others: int) -> Tensor:
        """CN: read-outs of the positives with their last `others` branches taken from the negatives, `[batch, dim]`."""
        own = self.dim * (self.branches - others)
        return self.read_item(torch.cat([items.rows(positives)[:, :own], items.rows(negatives)[:, own:]], 1))

    def composed_contrast(
        self, view: Sides, users: Tensor, positives: Tensor, negatives: Tensor, others: int
    ) -> Tensor:
        """Minus the InfoNCE of users and their composed negatives."""
        u = self.read_user(view[0].rows(users))
        return -info_nce(u, self.compose(view[1], positives, negatives, others), self.cfg.ssl_temp)

    @torch.no_grad()
    def embeddings(self) -> Pair:
        return self.read(propagate_sides(self.matrix, *self.starts(), self.cfg.layer_num))
