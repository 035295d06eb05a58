"""SLMRec: Self-supervised Learning for Multimedia Recommendation (Tao et al., TMM 2022).

- Branches of ids and of each modality (see branches.py); a user or item is a linear map of its branches side by side.
- Main loss: InfoNCE of users and their positives over the batch, cosines, temperature `temp`.
- FAC, fine and coarse alignment of the modalities: the item's id representation goes through a chain of linear maps,
  one stage per modality; after stage m it meets a map of modality m's representation, InfoNCE over the batch's
  positives, temperature `ssl_temp`. Stages keep the width; the last of several halves it.
- FD and FM: two views, of items whose tokens have entries dropped (FD) or lack one modality drawn at random (FM), are
  propagated; InfoNCE, cosines, of the two views of each user and of each item of the batch.
- loss = main + ssl_alpha * ssl. There is no norm term: the published runs use a weight decay of 1e-4.

Scores are dot products; the published code puts a sigmoid on them, which changes no ranking, and evaluates with the
representations of the last training batch, where ours are those of the parameters as they stand.

Modalities: in order, each is a stage of the chain. The published code was made for three (image, audio, text) and with
two keeps all three maps (`fac_chain`). With a single one the only stage keeps the width. Positives that lack a modality
are left out of its term.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from rawrec.config.retrieval import SLMRecConfig
from rawrec.models.graph import Interactions, propagate, user_item_adjacency, user_item_matrix
from rawrec.models.losses import info_nce
from rawrec.models.retrieval.branches import BranchModel, Side, batch_info_nce, propagate_sides
from rawrec.onednn import Linear

Pair = tuple[Tensor, Tensor]  # of users and of items


class SLMRec(BranchModel):
    uses_negatives: ClassVar[bool] = False

    def __init__(
        self,
        cfg: SLMRecConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        d = cfg.recdim
        super().__init__(cfg, pairs, features, present, d, cfg.user_tables == "own")
        self.adjacency = (
            user_item_matrix(pairs, "symmetric", epsilon=1e-8)
            if cfg.adj_type == "pre"
            else user_item_adjacency(pairs, "row", self_loops=True)
        )
        if cfg.mm_fusion_mode == "concat":
            self.embedding_user_after_GCN = Linear(self.branches * d, d)
            self.embedding_item_after_GCN = Linear(self.branches * d, d)
        if cfg.ssl_task == "FAC":
            self._add_chain(d, len(self.modalities))

    def _add_chain(self, d: int, stages: int) -> None:
        """Widths along the chain, `[d, d, ..., d // 2]`, and the maps of its stages."""
        maps = [1] * stages
        if stages == 2 and self.cfg.fac_chain == "three":
            maps[1] = 2  # the map of the audio stage, which is not there
        ends = [d] * stages if stages == 1 else [d] * (stages - 1) + [d // 2]
        self.chain = nn.ModuleList(
            nn.Sequential(*(Linear(a, b) for a, b in pairwise([d] * count + [end])))
            for count, end in zip(maps, ends, strict=True)
        )
        for name, end in zip(self.modalities, ends, strict=True):
            self.add_module(f"{name}_align", Linear(d, end))

    def fuse(self, users: Tensor, items: Tensor) -> Pair:
        """Branches side by side `[n, branches * dim]` -> representations `[n, dim]`."""
        if self.cfg.mm_fusion_mode == "concat":
            return self.embedding_user_after_GCN(users), self.embedding_item_after_GCN(items)
        return users.unflatten(1, (self.branches, -1)).mean(1), items.unflatten(1, (self.branches, -1)).mean(1)

    def draw(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """keep: what two views of each item's tokens keep, bool `[2, n_items, modalities, dim]` (FM: `[..., 1]`)."""
        shape, task = (2, self.n_items, len(self.modalities)), self.cfg.ssl_task
        if task == "FD":
            return {"keep": torch.rand(*shape, self.cfg.recdim, generator=generator) >= self.cfg.dropout_rate}
        if task == "FM":
            masked = torch.randint(len(self.modalities), shape[:2], generator=generator)
            return {"keep": (masked[..., None] != torch.arange(len(self.modalities)))[..., None]}
        return {}

    def loss(
        self, users: Tensor, positives: Tensor, negatives: Tensor | None, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        starts = self.starts()
        items, slot, counts = torch.unique(positives, return_inverse=True, return_counts=True)
        user_branches, item_branches = self.branches_of(starts, users, items)
        u, i = (nn.functional.normalize(x) for x in self.fuse(user_branches, item_branches))
        main = batch_info_nce(u, i, slot, counts, self.cfg.temp).mean()
        if self.cfg.ssl_task == "FAC":
            ssl = self._fac(items, counts, item_branches.split(self.dim, 1))
        else:
            nodes = users.unique(), items
            views = [
                self.fuse(*self.branches_of((starts[0], self._dropped(starts[1], keep)), *nodes))
                for keep in draws["keep"]
            ]
            ssl = torch.stack([info_nce(a, b, self.cfg.ssl_temp) for a, b in zip(*views, strict=True)]).sum()
        return {"loss": main + self.cfg.ssl_alpha * ssl, "main_infonce": main, "ssl": ssl}

    def branches_of(self, starts: Pair, users: Tensor | None = None, items: Tensor | None = None) -> Pair:
        """Branches side by side after propagation, of rows of users and items or of all."""
        layers = self.cfg.layer_num
        if self.cfg.adj_type == "norm":  # self-loops: what starts at users is everywhere
            wide = starts[0].repeat(1, starts[1].shape[1] // starts[0].shape[1])
            user, item = propagate(self.adjacency, wide, starts[1], layers)
            sides = Side([], [user], 1, user.shape[1]), Side([], [item], 1, item.shape[1])
        else:
            sides = propagate_sides(self.adjacency, *starts, layers)
        return sides[0].rows(users), sides[1].rows(items)

    def _dropped(self, items: Tensor, keep: Tensor) -> Tensor:
        """Layer 0 of the items without what `keep` `[n_items, modalities, dim or 1]` drops of their tokens."""
        scale = 1 - self.cfg.dropout_rate if self.cfg.ssl_task == "FD" else 1.0
        tokens = items[:, self.dim :].unflatten(1, (-1, self.dim)) * keep / scale
        return torch.cat([items[:, : self.dim], tokens.flatten(1)], 1)

    def _fac(self, items: Tensor, counts: Tensor, branches: tuple[Tensor, ...]) -> Tensor:
        """Of distinct positives `[n]`, each `counts` times in the batch; branches: `[n, dim]` each, ids first."""
        x, total = branches[0], branches[0].new_zeros(())
        for name, stage, branch in zip(self.modalities, self.chain, branches[1:], strict=True):
            x = stage(x)
            known = self.present(name)[items].nonzero().squeeze(1)
            a, b, times = x[known], self.get_submodule(f"{name}_align")(branch[known]), counts[known]
            if self.cfg.fac_similarity == "cosine":
                a, b = nn.functional.normalize(a), nn.functional.normalize(b)
            each = batch_info_nce(a, b, torch.arange(len(a), device=a.device), times, self.cfg.ssl_temp)
            total = total + (each * times).sum() / times.sum().clamp(min=1)
        return total

    @torch.no_grad()
    def embeddings(self) -> Pair:
        return self.fuse(*self.branches_of(self.starts()))
