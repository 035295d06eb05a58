"""Semantic-aware target attention (SA-TA) of MUSE (Wu et al., 2025, arXiv:2512.07216).

The scores of an attention are joined with the cosines of content: b_0 q.k + b_1 m + b_2 (q.k) m, m = cosine / tau.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rawrec.onednn import Linear

FLOOR = 1e-7
"""Added to every weight after the softmax, as published."""


def maps(width: int, shapes: Sequence[int]) -> nn.Sequential:
    """Linear maps one after the other, nothing between them, silu after the last."""
    layers = [Linear(a, b) for a, b in zip([width, *shapes], shapes, strict=False)]
    return nn.Sequential(*layers, nn.SiLU())


class SATA(nn.Module):
    """Attention of a candidate over `width` wide rows of its history, with up to two cosines of each.

    shapes: widths of the maps of queries, keys and values, one after the other; MUSE has one, as wide as the rows.
    There are as many heads as the first of them goes into `width`, at least one, each with maps from the full
    width. tau `[2, heads]`: divisors of the cosines; b `[3, heads]`: weights of score, cosine and their product. Scores
    are not scaled.
    """

    def __init__(self, width: int, shapes: Sequence[int]):
        super().__init__()
        self.heads = max(width // shapes[0], 1)
        self.query, self.key, self.value = (
            nn.ModuleList(maps(width, shapes) for _ in range(self.heads)) for _ in range(3)
        )
        self.tau = nn.Parameter(torch.full((2, self.heads), 0.1))
        self.b = nn.Parameter(torch.ones(3, self.heads))

    @property
    def width(self) -> int:
        """How wide `forward` is."""
        return self.heads * self.value[0][-2].out_features  # type: ignore[index, union-attr]

    def attention(self, candidate: Tensor, rows: Tensor, valid: Tensor, *cosines: Tensor) -> Tensor:
        """Weights `[heads, n, history]`, 0 where not `valid`.

        Masked after scores and cosines are joined: the published code masks the scores before, where a negative factor
        of them turns the mask into its opposite.
        """
        found = []
        for head in range(self.heads):
            score = (self.key[head](rows) @ self.query[head](candidate)[..., None])[..., 0]
            if cosines:
                m = sum(cosine / self.tau[k, head] for k, cosine in enumerate(cosines))
                b = self.b[:, head]
                score = b[0] * score + b[1] * m + b[2] * score * m
            weights = torch.softmax(score.masked_fill(~valid, -1e9), -1) + FLOOR
            found.append(weights * valid)
        return torch.stack(found)

    def forward(self, candidate: Tensor, rows: Tensor, valid: Tensor, *cosines: Tensor) -> Tensor:
        """`[n, width]`, the heads side by side, zeros for an empty history.

        candidate: `[n, width]`; rows: `[n, history, width]`; valid: bool `[n, history]`; cosines: none, one or two,
        `[n, history]` each.
        """
        weights = self.attention(candidate, rows, valid, *cosines)
        heads = zip(weights, self.value, strict=True)
        return torch.cat([(weight[:, None] @ value(rows))[:, 0] for weight, value in heads], 1)
