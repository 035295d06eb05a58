"""What the cosines of a candidate with the items of a history are read out as.

LEMUR's similarity module (arXiv:2511.10962): the vector of cosines in the order of the history, and the same vector
sorted. SimTier (arXiv:2407.19467): how many of them lie in each tier. MUSE (arXiv:2512.07216) searches by them: the
most similar items alone are attended to (`sata.py`). Padding never counts; a real cosine may be 0.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


def last(cosines: Tensor, length: int) -> Tensor:
    """The last `length` of cosines `[..., history]`, `[..., length]`; where there are fewer, zeros stand in front."""
    found = cosines[..., max(cosines.shape[-1] - length, 0) :]
    return nn.functional.pad(found, (length - found.shape[-1], 0))


def descending(cosines: Tensor, valid: Tensor) -> Tensor:
    """Cosines `[..., history]` in descending order, then a zero for everything that is not `valid`.

    valid: bool, broadcast to the shape of the cosines.
    """
    known = cosines.masked_fill(~valid, -torch.inf)
    found = known.gather(-1, _descending(known.detach()))
    return found.masked_fill(found == -torch.inf, 0.0)


def _descending(values: Tensor) -> Tensor:
    """Places of the values in descending order; numpy's, which takes half the time of torch's, on a CPU."""
    if values.device.type != "cpu":
        return values.argsort(dim=-1, descending=True)
    return torch.from_numpy(np.argsort(-values.numpy(), axis=-1))


def most_similar(cosines: Tensor, valid: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """MUSE's search: positions `[..., keep]` of the largest cosines, best first, and which of them are items.

    cosines: `[..., history]`; valid: bool, broadcast to them. The published code takes a cosine of exactly 0 for
    padding; here `valid` says what is. Where there are fewer than `keep` items, what follows them is False.
    """
    keep = min(keep, cosines.shape[-1])
    best = cosines.detach().masked_fill(~valid, -torch.inf).topk(keep, dim=-1)
    return best.indices, best.values > -torch.inf


class SimTier(nn.Module):
    """Similarity tiers (Sheng et al., CIKM 2024) as in MUSE's code: log(count + 1) of every tier times its vector.

    A tier of `width` holds the cosines in (k width, (k + 1) width], from -1 up; the last one those that rounding takes
    above 1. The counts have no gradient: only the vectors of the tiers learn. The paper feeds the counts themselves.
    Padding is left out where `valid` says what is padding; the published code counts it, as cosines of 0.
    """

    def __init__(self, width: float, dim: int = 1):
        super().__init__()
        self.shift = math.floor(1 / width)
        self.tiers = 2 * self.shift + 2
        self.emb = nn.Parameter(torch.rand(self.tiers, dim))
        self.register_buffer("scale", torch.tensor(1 / width, dtype=torch.float32), persistent=False)

    scale: Tensor

    @property
    def width(self) -> int:
        """How many numbers `forward` gives."""
        return self.emb.numel()

    def tier(self, cosines: Tensor) -> Tensor:
        """Int64 of the same shape, 0 to `tiers` - 1."""
        return (torch.ceil(cosines * self.scale).long() + self.shift).clamp(0, self.tiers - 1)

    def counts(self, cosines: Tensor, valid: Tensor | None = None) -> Tensor:
        """How many cosines `[..., history]` lie in every tier, `[..., tiers]`; valid: bool, broadcast to them."""
        ones = torch.ones((), device=cosines.device) if valid is None else valid.to(cosines.dtype)
        counts = cosines.new_zeros(*cosines.shape[:-1], self.tiers)
        return counts.scatter_add_(-1, self.tier(cosines.detach()), ones.expand(cosines.shape))

    def forward(self, cosines: Tensor, valid: Tensor | None = None) -> Tensor:
        """`[..., tiers * dim]`, tier by tier."""
        return (torch.log(self.counts(cosines, valid) + 1)[..., None] * self.emb).flatten(-2)
