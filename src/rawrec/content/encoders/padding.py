"""Rows of varying length side by side: padded, averaged, and put into buckets of similar length."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rawrec.data.ragged import Ragged

TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 65536}  # with padding
LEAST_ITEMS, LEAST_FILL = 8, 0.75  # a bucket ends where texts get shorter than this share of its longest


def pad(x: Ragged) -> tuple[Tensor, Tensor]:
    """`[n, longest, ...]` with zeros as padding, and the mask `[n, longest]` bool of what is no padding."""
    lengths = x.lengths
    steps = torch.arange(int(lengths.max()) if len(x) else 0, device=lengths.device)
    mask = steps < lengths[:, None]
    padded = x.values.new_zeros(*mask.shape, *x.values.shape[1:])
    padded[mask] = x.values
    return padded, mask


def mean(padded: Tensor, mask: Tensor) -> Tensor:
    """Mean of each item's pieces, `[n, longest, width]` -> `[n, width]` float32; zeros for an item without any."""
    weights = mask.float()
    total = (padded.float() * weights[..., None]).sum(1)
    return total / weights.sum(1, keepdim=True).clamp(min=1)


def rows(ptr: Tensor, items: Tensor) -> Tensor:
    """The rows of `items`, one item after the other, `[sum of lengths]` int64."""
    return spans(ptr[items], ptr[items + 1] - ptr[items])


def spans(starts: Tensor, lengths: Tensor) -> Tensor:
    """The numbers from each start on, as many as its length says, `[sum of lengths]` int64."""
    begins = torch.repeat_interleave(starts - (lengths.cumsum(0) - lengths), lengths)
    return begins + torch.arange(len(begins), device=starts.device)


def buckets(lengths: Tensor) -> Iterator[Tensor]:
    """The items that have pieces, longest first, in groups of similar length and a bounded number of padded tokens."""
    budget = TOKENS_AT_ONCE.get(lengths.device.type, 65536)
    ordered, order = torch.sort(lengths, descending=True, stable=True)
    sizes = ordered.cpu()
    total = int((sizes > 0).sum())
    start = 0
    while start < total:
        longest = int(sizes[start])
        similar = int(torch.searchsorted(-sizes[:total], -longest * LEAST_FILL, right=True))
        end = min(total, start + max(1, budget // longest), max(similar, start + LEAST_ITEMS))
        yield order[start:end]
        start = end
