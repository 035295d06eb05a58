"""Fusion-Q-Former (EM3 eq. 6), and the masked one of table 3, whose queries bring no value."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rawrec.config import FusionConfig
from rawrec.content.fusion.layers import TransformerLayer
from rawrec.onednn import Linear


class FQFormer(nn.Module):
    """Fusion-Q-Former, eq. 6: transformer layers over [queries, modality tokens], no positions, all see all.

    The queries are shared by all items. Output `[n, queries + modalities, dim]`, queries first.

    masked: nobody sees the queries; they look at the modality tokens alone.
    """

    def __init__(
        self, dim: int, queries: int = 2, layers: int = 1, heads: int = 4, dropout: float = 0.0, ffn=False, masked=False
    ):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, queries, dim) * 0.02)
        self.layers = nn.ModuleList(TransformerLayer(dim, heads, dropout, ffn) for _ in range(layers))
        self.masked = masked

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        x = torch.cat([self.queries.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], 1)
        if self.masked and mask is None:
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if mask is not None:
            queries = mask.new_ones(len(mask), self.queries.shape[1])
            if self.masked:  # but an item without any token: attention over nothing is not defined
                queries = queries & ~mask.any(1, keepdim=True)
            mask = torch.cat([queries, mask], 1)
        for layer in self.layers:
            x = layer(x, mask)
        return x


class FQFormerFusion(nn.Module):
    """The first Q outputs of the FQ-Former, flattened and projected (`mm_proj`)."""

    masked = False

    def __init__(self, dim: int, modalities: int, cfg: FusionConfig):
        super().__init__()
        self.fusion = FQFormer(dim, cfg.queries, cfg.layers, cfg.heads, cfg.dropout, cfg.ffn, self.masked)
        self.mm_proj = Linear(cfg.queries * dim, dim)
        self.queries = cfg.queries

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.mm_proj(self.fusion(tokens, mask)[:, : self.queries].flatten(1))


class MaskedFQFormerFusion(FQFormerFusion):
    """The same, the queries being no keys: they attend to the modalities, and their values are pooled by none.

    An item without any modality sees the queries, as in the FQ-Former.
    """

    masked = True
