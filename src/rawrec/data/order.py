"""The order of an epoch among more rows than a permutation in memory should be of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[Any]
BLOCK = 1024
"""Rows that stand together in the order of the dataset, and are read together."""


class WindowOrder:
    """`rows` `[n]`, each once, in an order that is a function of seed and epoch: blocks of neighbours by chance, so
    many together as make a `window` of rows, and the rows of a window by chance.

    It is read like an array, by slices; a window of it is in memory, and 8 bytes for every block.
    """

    def __init__(self, rows: Ints, seed: int, epoch: int, window: int):
        self._rows, self._seed = rows, [seed, epoch]
        self._block = max(1, min(BLOCK, window // 64))
        count = -(-len(rows) // self._block)
        self._blocks = np.random.default_rng(self._seed).permutation(count)
        self._each = max(1, window // self._block)
        sizes = np.minimum(self._block, len(rows) - self._blocks * self._block)
        self._starts = np.append(np.concatenate([[0], np.cumsum(sizes)])[: count : self._each], len(rows))
        self._held: tuple[int, Ints] = (-1, rows[:0])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, part: slice) -> Ints:
        """The rows at some places of the order, `[stop - start]`."""
        start, stop, _ = part.indices(len(self))
        found = []
        while start < stop:
            window = int(np.searchsorted(self._starts, start, side="right")) - 1
            first, end = self._starts[window], min(stop, int(self._starts[window + 1]))
            found.append(self._window(window)[start - first : end - first])
            start = end
        return np.concatenate(found) if found else self._rows[:0]

    def _window(self, number: int) -> Ints:
        if self._held[0] != number:
            blocks = self._blocks[number * self._each : (number + 1) * self._each] * self._block
            rows = np.concatenate([self._rows[start : start + self._block] for start in blocks.tolist()])
            order = np.random.default_rng([*self._seed, number]).permutation(len(rows))
            self._held = number, rows[order]
        return self._held[1]
