"""Fusions: the features of an item's modalities -> one content embedding (EM3 section 3.2).

Every fusion takes tokens `[n, modalities, dim]` and a mask `[n, modalities]` (True = the item has the modality) and
returns `[n, dim]`; what an item lacks has no influence on its embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rawrec.config import FusionConfig
from rawrec.config.parts import fusion_entry, fusion_names
from rawrec.config.wording import unknown
from rawrec.errors import UserError
from rawrec.onednn import Linear
from rawrec.plugins import own_code


class SelfAttention(nn.Module):
    """Multi-head projections, named as in the published code."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        if dim % heads:
            raise UserError(f"content.fusion.heads={heads}: content.dim={dim} is not divisible by it")
        self.heads = heads
        self.query, self.key, self.value = (Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`[n, tokens, dim]`; mask `[n, tokens]`, True = visible. Logits are divided by sqrt(head_dim + 1e-5)."""
        n, tokens, dim = x.shape
        width = dim // self.heads
        q, k, v = (f(x).view(n, tokens, self.heads, width).transpose(1, 2) for f in (self.query, self.key, self.value))
        out = nn.functional.scaled_dot_product_attention(
            q, k, v, None if mask is None else mask[:, None, None, :], scale=1 / math.sqrt(dim / self.heads + 1e-5)
        )
        return out.transpose(1, 2).reshape(n, tokens, dim)


class SelfOutput(nn.Module):
    """Output projection, dropout, residual, post-LayerNorm."""

    def __init__(self, dim: int, dropout: float, inner: int | None = None):
        super().__init__()
        self.dense = Linear(inner or dim, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=1e-5)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + self.dropout(self.dense(x)))


class FQFormerLayer(nn.Module):
    """Self-attention over all tokens; with `ffn` also the feed-forward sublayer that the published code leaves out."""

    def __init__(self, dim: int, heads: int, dropout: float, ffn: bool):
        super().__init__()
        self.self = SelfAttention(dim, heads)
        self.output = SelfOutput(dim, dropout)
        self.intermediate = Linear(dim, 4 * dim) if ffn else None
        self.ffn_output = SelfOutput(dim, dropout, 4 * dim) if ffn else None

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.output(self.self(x, mask), x)
        if self.intermediate is not None and self.ffn_output is not None:
            x = self.ffn_output(nn.functional.gelu(self.intermediate(x)), x)
        return x


class FQFormer(nn.Module):
    """Fusion-Q-Former, eq. 6: transformer layers over [queries, modality tokens], no positions, all see all.

    The queries are shared by all items. Output `[n, queries + modalities, dim]`, queries first.
    """

    def __init__(self, dim: int, queries: int = 2, layers: int = 1, heads: int = 4, dropout: float = 0.0, ffn=False):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, queries, dim) * 0.02)
        self.layers = nn.ModuleList(FQFormerLayer(dim, heads, dropout, ffn) for _ in range(layers))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        x = torch.cat([self.queries.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], 1)
        if mask is not None:
            mask = torch.cat([mask.new_ones(len(mask), self.queries.shape[1]), mask], 1)
        for layer in self.layers:
            x = layer(x, mask)
        return x


class FQFormerFusion(nn.Module):
    """The first Q outputs of the FQ-Former, flattened and projected (`mm_proj`)."""

    def __init__(self, dim: int, modalities: int, cfg: FusionConfig):
        super().__init__()
        self.fusion = FQFormer(dim, cfg.queries, cfg.layers, cfg.heads, cfg.dropout, cfg.ffn)
        self.mm_proj = Linear(cfg.queries * dim, dim)
        self.queries = cfg.queries

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.mm_proj(self.fusion(tokens, mask)[:, : self.queries].flatten(1))


class ConcatFusion(nn.Module):
    """Tokens side by side (zeros and a flag where one is missing), then one linear map."""

    def __init__(self, dim: int, modalities: int, cfg: FusionConfig):
        super().__init__()
        self.proj = Linear(modalities * (dim + 1), dim)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        flags = mask.to(tokens.dtype)
        tokens = tokens * flags[..., None]
        return self.proj(self.dropout(torch.cat([tokens.flatten(1), 1 - flags], 1)))


class SumFusion(nn.Module):
    """Mean of the tokens that are there."""

    def __init__(self, dim: int, modalities: int, cfg: FusionConfig):
        super().__init__()
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        flags = mask.to(tokens.dtype)[..., None]
        return self.dropout((tokens * flags).sum(1) / flags.sum(1).clamp(min=1))


def make_fusion(dim: int, modalities: int, cfg: FusionConfig) -> nn.Module:
    """The fusion that `cfg.kind` names, one of ours or a registered one. Raises UserError for an unknown name."""
    entry = fusion_entry(cfg.kind)
    if entry is None:
        raise UserError(unknown("content.fusion.kind", cfg.kind, fusion_names()))
    if entry.ours:
        return entry.load()(dim, modalities, cfg)
    with own_code("fusion", cfg.kind):
        return entry.load()(dim, modalities, cfg)
