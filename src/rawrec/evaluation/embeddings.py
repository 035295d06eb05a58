"""How pictures and texts lie on the sphere: alignment and uniformity (Wang and Isola, ICML 2020), less is better."""

from __future__ import annotations

import math

import torch
from torch import Tensor

AT_ONCE = 2**24  # distances made at a time


@torch.no_grad()
def alignment(image: Tensor, text: Tensor) -> float:
    """Mean squared distance of the two of a pair. image, text: `[n, width]` of length 1."""
    return float((image.double() - text.double()).square().sum(1).mean())


@torch.no_grad()
def uniformity(x: Tensor) -> float:
    """Log of the mean of exp(-2 d^2) over every two of `n > 1` points, `[n, width]` of length 1; d: their distance."""
    n, total = len(x), 0.0
    for rows in torch.arange(n, device=x.device).split(max(1, AT_ONCE // n)):
        squares = (2 - 2 * (x[rows] @ x.T)).clamp_(min=0)
        near = (-2 * squares.double()).exp().scatter_(1, rows[:, None], 0.0)
        total += float(near.sum())
    return math.log(total / (n * (n - 1)))
