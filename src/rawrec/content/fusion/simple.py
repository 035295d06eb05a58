"""Fusions without attention: side by side, and the mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rawrec.config import FusionConfig
from rawrec.onednn import Linear


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
