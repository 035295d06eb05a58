"""A column of items of which some rows are others than those on disk, or stand behind them."""

from __future__ import annotations

import torch
from torch import Tensor

from rawrec.data.ragged import Ragged


class Overlay:
    """Rows of `below`, and in their place or behind them those that were put. A row behind, put or not, has pieces only
    once it was put."""

    def __init__(self, below: Ragged) -> None:
        self.below = below
        self._own: dict[int, Tensor] = {}

    def put(self, row: int, pieces: Tensor) -> None:
        """pieces: `[pieces, ...]`, as those of `below` are."""
        self._own[row] = pieces.to(self.below.values.dtype)

    def select(self, rows: Tensor) -> Ragged:
        """The items `rows` (`[m]` int64, repeats allowed), in that order."""
        numbers = rows.tolist()
        if not any(row in self._own or row >= len(self.below) for row in numbers):
            return self.below.select(rows)
        old = [row if row < len(self.below) and row not in self._own else -1 for row in numbers]
        found = self.below.select(torch.tensor([row for row in old if row >= 0], dtype=torch.int64))
        parts, at, none = [], 0, self.below.values[:0]
        for row, of_below in zip(numbers, old, strict=True):
            if of_below >= 0:
                parts.append(found.values[found.ptr[at] : found.ptr[at + 1]])
                at += 1
            else:
                parts.append(self._own.get(row, none))
        lengths = torch.tensor([len(part) for part in parts], dtype=torch.int64)
        return Ragged.from_lengths(torch.cat(parts), lengths)

    def state(self) -> dict[str, Tensor]:
        """What was put, for a checkpoint: rows, and their pieces, end to end."""
        pieces = list(self._own.values())
        return {
            "rows": torch.tensor(list(self._own), dtype=torch.int64),
            "lengths": torch.tensor([len(part) for part in pieces], dtype=torch.int64),
            "values": torch.cat([self.below.values[:0], *pieces]),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The reverse of `state`."""
        parts = state["values"].split(state["lengths"].tolist())
        self._own = {row: part.clone() for row, part in zip(state["rows"].tolist(), parts, strict=True)}
