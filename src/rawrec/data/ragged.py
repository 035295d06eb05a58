"""Rows of varying length in one flat tensor: pictures of an item, tokens of a text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Ragged:
    """`n` items, each with any number of pieces (also none), laid end to end.

    values: `[pieces, ...]`; the pieces of item `i` are `values[ptr[i]:ptr[i + 1]]`.
    ptr: `[n + 1]` int64, ascending, from 0 to `pieces`.
    """

    values: Tensor
    ptr: Tensor

    def __len__(self) -> int:
        return len(self.ptr) - 1

    @property
    def lengths(self) -> Tensor:
        """Number of pieces of each item, `[n]` int64."""
        return self.ptr[1:] - self.ptr[:-1]

    def owners(self) -> Tensor:
        """The item each piece belongs to, `[pieces]` int64."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.ptr.device), self.lengths)

    def select(self, rows: Tensor) -> Ragged:
        """The items `rows` (`[m]` int64, repeats allowed), in that order."""
        lengths = self.lengths[rows]
        ptr = torch.zeros(len(rows) + 1, dtype=torch.int64, device=self.ptr.device)
        torch.cumsum(lengths, 0, out=ptr[1:])
        index = torch.arange(int(ptr[-1]), device=self.ptr.device)
        index += torch.repeat_interleave(self.ptr[rows] - ptr[:-1], lengths)
        return Ragged(self.values[index], ptr)

    def to(self, device: torch.device | str) -> Ragged:
        return Ragged(self.values.to(device), self.ptr.to(device))

    @staticmethod
    def from_lengths(values: Tensor, lengths: Tensor) -> Ragged:
        ptr = torch.zeros(len(lengths) + 1, dtype=torch.int64)
        torch.cumsum(lengths, 0, out=ptr[1:])
        return Ragged(values, ptr)

    @staticmethod
    def cat(parts: list[Ragged]) -> Ragged:
        """The items of all `parts`, one after the other."""
        return Ragged.from_lengths(torch.cat([p.values for p in parts]), torch.cat([p.lengths for p in parts]))
