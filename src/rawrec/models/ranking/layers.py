"""Layers that several heads are made of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rawrec.onednn import Linear


def mlp(widths: Sequence[int], dropout: float, activation: str = "relu") -> nn.Sequential:
    """Linear, activation and dropout for every width after the first, which is the input's; the last is `widths[-1]`.

    activation: `relu`, `prelu` or `dice`.
    """
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [Linear(a, b), activation_of(activation, b), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


def activation_of(name: str, width: int) -> nn.Module:
    """An activation of vectors `[..., width]`."""
    return {"relu": lambda _: nn.ReLU(), "prelu": PReLU, "dice": Dice}[name](width)


def begin(module: nn.Module) -> None:
    """Linear maps as the published CTR models begin: Xavier's normal weights, biases at zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class PReLU(nn.Module):
    """x where positive, alpha x elsewhere, one alpha per column of `[..., width]`, at first 0.25."""

    def __init__(self, width: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.full((width,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0) + self.alpha * x.clamp(max=0)


class Dice(nn.Module):
    """Data-adaptive activation (Zhou et al., KDD 2018, eq. 9): p x + (1 - p) alpha x, p = sigmoid of standardised x.

    Mean and variance are those of each column of `[..., width]`: of the batch in training, running averages otherwise.
    alpha is 0 at first. Running averages are plain means over the first 100 batches and forget by 1 % per batch from
    there, as published; the published ones begin at mean 0 and variance 1 and need some hundred batches to leave them.
    """

    MOMENTUM = 0.01
    EPSILON = 1e-9
    mean: Tensor
    var: Tensor
    batches: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """counted: bool, broadcast over `x` without its last dimension: which vectors statistics are made of."""
        if not self.training:
            return self._mixed(x, (x - self.mean) * torch.rsqrt(self.var + self.EPSILON))
        rows = x.reshape(-1, x.shape[-1])
        if counted is None:
            weights, count = rows.new_ones(len(rows)), rows.new_full((), len(rows))
        else:
            weights = counted.expand(x.shape[:-1]).reshape(-1).to(x.dtype)
            count = weights.sum()
        weights = weights / count.clamp(min=1)
        mean = weights @ rows
        centred = rows - mean
        var = weights @ centred.square()
        self._remember(mean.detach(), var.detach(), count)
        return self._mixed(x, (centred * torch.rsqrt(var + self.EPSILON)).view_as(x))

    def _mixed(self, x: Tensor, standardised: Tensor) -> Tensor:
        return x * torch.lerp(self.alpha, torch.ones_like(self.alpha), torch.sigmoid(standardised))

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Nothing where there is no more than one vector, which has no variance."""
        share = torch.where(count > 1, torch.clamp(1 / (self.batches + 1), min=self.MOMENTUM), 0.0)
        self.mean.lerp_(mean, share)
        self.var.lerp_(var * count / (count - 1).clamp(min=1), share)
        self.batches += (count > 1).long()
