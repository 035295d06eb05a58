"""Negatives of every model: items of a named pool that a user has not taken, drawn by rank, without rejection."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Negatives:
    """Uniform draws among the items of a pool that were launched by then, less the user's known positives.

    The pool stands in order of launch, so that what was there at any time is a prefix of it. Each user's positives are
    kept as `rank - place`: rank in the pool, place among the user's own. That is how many free items come before each,
    so the r-th free item is found by one binary search, and it lies in whatever prefix has more than r free ones.

    users, items: int64 `[n]` each, the pairs to keep clear of, in any order and number. pool: int64 `[width]`, distinct
    item rows. launched: int64 `[n_items]`, from when each item was there; None: always. All on one device.
    """

    def __init__(
        self,
        users: Tensor,
        items: Tensor,
        n_users: int,
        n_items: int,
        pool: Tensor,
        launched: Tensor | None = None,
    ):
        self.pool, self._launched = pool, None
        if launched is not None:
            self._launched, order = launched[pool].sort(stable=True)
            self.pool = pool[order]
        self._width = len(pool)
        rank = torch.full((n_items,), -1, device=pool.device)
        rank[self.pool] = torch.arange(self._width, device=pool.device)
        ranks = rank[items]
        keys = torch.unique((users * self._width + ranks)[ranks >= 0])
        owners = keys // self._width if len(keys) else keys
        degree = torch.bincount(owners, minlength=n_users)
        self._ptr = degree.cumsum(0) - degree
        self.free = self._width - degree
        """`[n_users]`: how many items of the pool the user may be given; 0: has taken all there is."""
        self._before = keys - (torch.arange(len(keys), device=keys.device) - self._ptr[owners])
        self._taken = None if self._launched is None else keys

    def free_by(self, users: Tensor, times: Tensor | None) -> Tensor:
        """`[batch]`: how many items each of `users` `[batch]` may be given at `times` `[batch]`; None: at any time."""
        if times is None or self._launched is None or self._taken is None:
            return self.free[users]
        there = torch.searchsorted(self._launched, times, right=True)
        return there - (torch.searchsorted(self._taken, users * self._width + there) - self._ptr[users])

    def at(self, users: Tensor, ranks: Tensor) -> Tensor:
        """Item rows: of each user the free item of that rank, from 0, in order of launch. Both of one shape."""
        before = torch.searchsorted(self._before, users * self._width + ranks, right=True) - self._ptr[users]
        return self.pool[ranks + before]

    def draw(self, users: Tensor, generator: torch.Generator) -> Tensor:
        """One of any time for each of `users` `[batch]`, who must have free items. The generator is a CPU's."""
        place = torch.rand(len(users), generator=generator, dtype=torch.float64).to(users.device)
        free = self.free[users]
        return self.at(users, torch.minimum((place * free).long(), free - 1))

    def draw_by(
        self, users: np.ndarray, times: np.ndarray | None, n: int, generator: np.random.Generator
    ) -> np.ndarray:
        """`[batch, n]` int64, with replacement, for `users` `[batch]` at `times`; on the CPU.

        Raises ValueError where someone has nothing free: leave such samples out, see `free_by`.
        """
        who = torch.from_numpy(users.astype(np.int64))
        free = self.free_by(who, None if times is None else torch.from_numpy(times.astype(np.int64))).numpy()
        if len(free) and free.min() < 1:
            raise ValueError("a user has no free item to draw")
        ranks = torch.from_numpy(generator.integers(0, free[:, None], (len(users), n)))
        return self.at(who[:, None].expand(-1, n), ranks).numpy()
