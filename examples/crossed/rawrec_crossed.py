"""A head of rankers: cross layers x <- x0 * (W x + b) + x, as in DCN v2 (Wang et al., WWW 2021)."""

from pydantic import Field
from torch import nn

import rawrec
from rawrec.models.ranking.tokens import Head


class CrossedConfig(rawrec.RankerConfig):
    """Cross layers over all that the ranker reads, then a linear map."""

    layers: int = Field(default=2, ge=1, description="cross layers")


@rawrec.register_model("crossed", CrossedConfig)
class Crossed(Head):
    def __init__(self, cfg, names, dim, labels=1):
        super().__init__()
        width = len(names) * dim
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(cfg.layers))
        self.out = nn.Linear(width, labels)

    def forward(self, tokens):
        """tokens.values [batch, candidates, tokens, dim] -> logits [batch, candidates, labels]"""
        x = first = tokens.values.flatten(2)
        for layer in self.cross:
            x = first * layer(x) + x
        return tokens.linear[..., None] + self.out(x)
