"""ItemKNN: Item-based collaborative filtering recommendation algorithms (Sarwar et al., WWW 2001), positives alone.

The shrinkage is that of Ferrari Dacrema et al. (RecSys 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from rawrec.config.baselines import ItemKNNConfig
from rawrec.models.graph import Interactions
from rawrec.models.retrieval.base import FittedModel, of_users

AT_ONCE = 2**23
"""So many pairs of users' items are counted at a time, at most, but for those of one item."""


class ItemKNN(FittedModel):
    """`s_ij = |U_i and U_j| / (sqrt(|U_i| |U_j|) + shrinkage)`, U_i the training users of item i.

    `x_ui = sum of s_ij over the items j that u took and that are among the k most similar ones of i`, i itself left
    out. Only what has a user in common is ever held. neighbours: `[n_items, k]`, the most similar first, -1 where there
    are no more; similarities: theirs.
    """

    cfg: ItemKNNConfig
    neighbours: Tensor
    similarities: Tensor

    def __init__(
        self,
        cfg: ItemKNNConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        shape = pairs.n_items, max(min(cfg.neighbours, pairs.n_items - 1), 1)
        self.register_buffer("neighbours", torch.full(shape, -1, dtype=torch.int32))
        self.register_buffer("similarities", torch.zeros(shape))
        self._matrices: tuple[Any, Any] | None = None
        self.register_load_state_dict_post_hook(lambda module, keys: self._forget())

    def _forget(self) -> None:
        self._matrices = None

    def fit(self, generator: torch.Generator) -> None:
        """generator: of the order in which items that are equally similar are chosen."""
        taken = of_users(self.pairs)
        order = torch.randperm(self.n_items, generator=generator).numpy()
        neighbours, similarities = self.neighbours.cpu().numpy(), self.similarities.cpu().numpy()
        neighbours[:], similarities[:] = -1, 0
        users = np.diff(taken.tocsc().indptr)
        for start, stop in _parts(taken):
            common = (taken.T.tocsr()[start:stop] @ taken).tocoo()
            other = common.row + start != common.col
            rows, columns, count = common.row[other], common.col[other], common.data[other].astype(np.float64)
            values = count / (np.sqrt(users[rows + start] * users[columns].astype(np.float64)) + self.cfg.shrinkage)
            best = np.lexsort((order[columns], -values, rows))
            rows, columns, values = rows[best], columns[best], values[best]
            place = np.arange(len(rows)) - np.searchsorted(rows, rows)  # among those of its item
            kept = place < neighbours.shape[1]
            neighbours[rows[kept] + start, place[kept]] = columns[kept]
            similarities[rows[kept] + start, place[kept]] = values[kept]
        self.neighbours.copy_(torch.from_numpy(neighbours))
        self.similarities.copy_(torch.from_numpy(similarities))
        self._forget()

    def scores(self, users: Tensor) -> Tensor:
        if self._matrices is None:
            neighbours, similarities = self.neighbours.cpu().numpy(), self.similarities.cpu().numpy()
            there = neighbours >= 0
            speaks = neighbours[there], np.nonzero(there)[0]  # for the item of its row
            shape = (self.n_items, self.n_items)
            self._matrices = of_users(self.pairs), sparse.csr_array((similarities[there], speaks), shape)
        taken, speaks_for = self._matrices
        found: NDArray[np.float32] = (taken[users.cpu().numpy()] @ speaks_for).toarray()
        return torch.from_numpy(found).to(users.device)


def _parts(taken: Any) -> Iterator[tuple[int, int]]:
    """First and last row of parts of the items, in each of which so few pairs are to be counted as are held at once."""
    work = np.cumsum(taken.T @ np.diff(taken.indptr).astype(np.float64))
    start, n_items = 0, taken.shape[1]
    while start < n_items:
        done = work[start - 1] if start else 0.0
        stop = max(int(np.searchsorted(work, done + AT_ONCE, side="right")), start + 1)
        yield start, stop
        start = stop
