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
        mean, var = self._statistics(x, counted) if self.training else (self.mean, self.var)
        p = torch.sigmoid((x - mean) * torch.rsqrt(var + self.EPSILON))
        return x * (self.alpha + (1 - self.alpha) * p)

    def _statistics(self, x: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the batch, which go into the running ones; these where there is nothing."""
        over = list(range(x.ndim - 1))
        if counted is None:
            count = x[..., 0].numel()
            if not count:
                return self.mean, self.var
            var, mean = torch.var_mean(x, over, correction=0)
            self._remember(mean.detach(), var.detach(), x.new_full((), count))
            return mean, var
        weights = counted.expand(x.shape[:-1]).to(x.dtype)
        count = weights.sum()
        weights = (weights / count.clamp(min=1))[..., None]
        mean = (x * weights).sum(over)
        var = ((x - mean).square() * weights).sum(over)
        self._remember(mean.detach(), var.detach(), count)
        return mean, var

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Nothing where there is no more than one vector, which has no variance."""
        share = torch.where(count > 1, torch.clamp(1 / (self.batches + 1), min=self.MOMENTUM), 0.0)
        self.mean.lerp_(mean, share)
        self.var.lerp_(var * count / (count - 1).clamp(min=1), share)
        self.batches += (count > 1).long()
