"""Wide & Deep (Cheng et al., DLRS 2016): a linear model and an MLP, trained together.

The wide part has no crossed features, as in the open code followed (FuxiCTR's), and one optimiser trains both parts.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rawrec.config.heads import WideDeepConfig
from rawrec.models.ranking.layers import begin, mlp
from rawrec.models.ranking.tokens import Head, Tokens
from rawrec.onednn import Linear


class WideDeep(Head):
    """Logit = linear part + MLP of all tokens (eq. 3)."""

    def __init__(self, cfg: WideDeepConfig, names: Sequence[str], dim: int, labels: int = 1):
        super().__init__()
        widths = [len(names) * dim, *cfg.hidden]
        self.mlp, self.out = mlp(widths, cfg.dropout), Linear(widths[-1], labels)
        begin(self)

    def deep(self, tokens: Tokens) -> Tensor:
        """The MLP's logits `[batch, candidates, labels]`."""
        return self.out(self.mlp(tokens.values.flatten(2)))

    def forward(self, tokens: Tokens) -> Tensor:
        return tokens.linear[..., None] + self.deep(tokens)
