"""Transformer layers of the fusions, named as in EM3's published code: post-norm, no positions."""

from __future__ import annotations

import math

from torch import Tensor, nn

from rawrec.errors import UserError
from rawrec.onednn import Linear


class SelfAttention(nn.Module):
    """Multi-head attention of tokens over themselves, or over the tokens of another flow."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        if dim % heads:
            raise UserError(f"content.fusion.heads={heads}: content.dim={dim} is not divisible by it")
        self.heads = heads
        self.query, self.key, self.value = (Linear(dim, dim) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor | None, source: Tensor | None = None) -> Tensor:
        """`[n, tokens, dim]`, attending to `source` `[n, others, dim]`, x itself where there is none.

        mask: `[n, others]`, True = visible. Logits are divided by sqrt(head_dim + 1e-5).
        """
        n, tokens, dim = x.shape
        width = dim // self.heads
        source = x if source is None else source
        q, k, v = (
            f(y).view(n, y.shape[1], self.heads, width).transpose(1, 2)
            for f, y in ((self.query, x), (self.key, source), (self.value, source))
        )
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


class TransformerLayer(nn.Module):
    """Attention; with `ffn` also the feed-forward sublayer that the published code leaves out."""

    def __init__(self, dim: int, heads: int, dropout: float, ffn: bool):
        super().__init__()
        self.self = SelfAttention(dim, heads)
        self.output = SelfOutput(dim, dropout)
        self.intermediate = Linear(dim, 4 * dim) if ffn else None
        self.ffn_output = SelfOutput(dim, dropout, 4 * dim) if ffn else None

    def forward(self, x: Tensor, mask: Tensor | None, source: Tensor | None = None) -> Tensor:
        """See `SelfAttention`."""
        x = self.output(self.self(x, mask, source), x)
        if self.intermediate is not None and self.ffn_output is not None:
            x = self.ffn_output(nn.functional.gelu(self.intermediate(x)), x)
        return x
