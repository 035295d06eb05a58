"""Distinct rows of a batch, without sorting it where the rows lie close together."""

from __future__ import annotations

import torch
from torch import Tensor

SPREAD = 4
"""A span of at most so many times the rows is marked, row by row; of a wider one the rows are sorted."""


def distinct(rows: Tensor) -> Tensor:
    """`torch.unique` of int64 `rows`: each once, ascending."""
    return with_places(rows)[0]


def with_places(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and the place of each of `rows` among them, in the shape of `rows`."""
    if rows.is_cuda or not rows.numel():
        return torch.unique(rows, return_inverse=True)
    low, high = map(int, rows.aminmax())
    if high - low >= SPREAD * rows.numel():
        return torch.unique(rows, return_inverse=True)
    at = rows - low
    there = torch.zeros(high - low + 1, dtype=torch.int64)
    there[at] = 1
    return torch.nonzero(there)[:, 0] + low, (there.cumsum(0) - 1)[at]
