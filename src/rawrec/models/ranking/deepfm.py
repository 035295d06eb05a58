"""DeepFM (Guo et al., IJCAI 2017): a factorisation machine and an MLP over the same vectors.

The open code followed where the paper is silent is FuxiCTR's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rawrec.config.heads import DeepFMConfig
from rawrec.models.ranking.layers import begin, mlp
from rawrec.models.ranking.tokens import Head, Tokens
from rawrec.onednn import Linear


class DeepFM(Head):
    """Logit = first order + inner products of every two tokens (eq. 2) + MLP of all tokens (eq. 3 and 4)."""

    def __init__(self, cfg: DeepFMConfig, names: Sequence[str], dim: int, labels: int = 1):
        super().__init__()
        widths = [len(names) * dim, *cfg.hidden]
        self.mlp, self.out = mlp(widths, cfg.dropout), Linear(widths[-1], labels)
        begin(self)

    @staticmethod
    def second_order(values: Tensor) -> Tensor:
        """Sum of the inner products of every two of `[..., tokens, dim]`."""
        return (values.sum(-2).square() - values.square().sum(-2)).sum(-1) / 2

    def deep(self, tokens: Tokens) -> Tensor:
        """The MLP's logits `[batch, candidates, labels]`."""
        return self.out(self.mlp(tokens.values.flatten(2)))

    def forward(self, tokens: Tokens) -> Tensor:
        return (tokens.linear + self.second_order(tokens.values))[..., None] + self.deep(tokens)
