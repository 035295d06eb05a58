"""Positions of patches for pictures of another size than a network was made for."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Interpolation = Literal["geometric", "bicubic"]


def interpolate_positions(positions: Tensor, grid: int) -> Tensor:
    """Positions `[1, 1 + patches, width]` for a grid of `grid` patches a side, bicubic; that of [CLS] stays."""
    first, rest = positions[:, :1], positions[:, 1:]
    side = math.isqrt(rest.shape[1])
    if side == grid:
        return positions
    rest = rest.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    rest = functional.interpolate(rest, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([first, rest.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def interpolate_bias(table: Tensor, old: int, new: int, how: Interpolation) -> Tensor:
    """A layer's table of biases `[rows, heads]` for a grid of `new` patches a side, from one of `old`.

    bicubic: distances are stretched evenly. geometric (the published code): a step between two old distances becomes
    longer the further they are, and cubic splines run through them, so that near patches stay as near as they were.
    """
    if old == new:
        return table
    spans = 2 * old - 1, 2 * new - 1
    patches, rest = table[: spans[0] ** 2], table[spans[0] ** 2 :]
    grids = patches.T.unflatten(1, (spans[0], spans[0]))
    if how == "bicubic" or old == 1:
        made = functional.interpolate(grids[None], size=(spans[1],) * 2, mode="bicubic", align_corners=False)[0]
    else:
        made = _splines(grids, old, new)
    return torch.cat([made.flatten(1).T, rest])


def _splines(grids: Tensor, old: int, new: int) -> Tensor:
    """`[heads, 2 old - 1, 2 old - 1]` at geometric distances -> `[heads, 2 new - 1, 2 new - 1]` at even ones."""
    from scipy.interpolate import RectBivariateSpline

    at = geometric_distances(old, new).numpy()
    wanted = torch.arange(1 - new, new).double().numpy()
    degree = min(3, len(at) - 1)
    made = [RectBivariateSpline(at, at, g, kx=degree, ky=degree)(wanted, wanted) for g in grids.double().cpu().numpy()]
    return torch.stack([torch.from_numpy(m) for m in made]).to(grids)


def geometric_distances(old: int, new: int) -> Tensor:
    """Where the distances from `1 - old` to `old - 1` lie in the grid of `new` patches, `[2 old - 1]`.

    Steps grow by a factor, which is searched between 1.01 and 1.5 so that the last distance becomes `new - 1`.
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        factor = (low + high) / 2
        low, high = (low, factor) if (1 - factor ** (old - 1)) / (1 - factor) > new - 1 else (factor, high)
    steps = ((low + high) / 2) ** torch.arange(old - 1, dtype=torch.float64)
    away = steps.cumsum(0)
    return torch.cat([-away.flip(0), away.new_zeros(1), away])
