"""The head of EM3's experiments: tokens and their pairwise dot products go into an MLP (the paper leaves it open)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rawrec.config.ranking import DotMlpConfig
from rawrec.models.ranking.tokens import Head, Tokens
from rawrec.onednn import Linear


class DotMlp(Head):
    """Logit = linear part + MLP(tokens, dot products of every two of them)."""

    def __init__(self, cfg: DotMlpConfig, names: Sequence[str], dim: int, labels: int = 1):
        super().__init__()
        self.cfg, tokens = cfg, len(names)
        widths = [tokens * dim + tokens * (tokens - 1) // 2, *cfg.hidden]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [Linear(a, b), nn.ReLU(), nn.Dropout(cfg.dropout)]
        self.mlp = nn.Sequential(*layers, Linear(widths[-1], labels))

    def forward(self, tokens: Tokens) -> Tensor:
        values = tokens.values
        i, j = torch.triu_indices(values.shape[2], values.shape[2], 1, device=values.device)
        products = (values @ values.transpose(2, 3))[..., i, j]
        return tokens.linear[..., None] + self.mlp(torch.cat([values.flatten(2), products], 2))
