"""EASE: Embarrassingly Shallow Autoencoders for Sparse Data (Steck, WWW 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rawrec import memory
from rawrec.config.baselines import EASEConfig
from rawrec.errors import UserError
from rawrec.models.graph import Interactions
from rawrec.models.retrieval.base import FittedModel, of_users

BYTES = 16
"""Of a pair of items, while the model is fitted: two matrices of float64."""
ROWS = 1024
"""Of a matrix that are made at once."""


class EASE(FittedModel):
    """`min_B |X - X B|^2 + lambda |B|^2` with `diag(B) = 0` (eq. 2 to 4), X `[users, items]` of training positives.

    `P = (X^T X + lambda I)^-1`, `B_ij = -P_ij / P_jj`, `B_jj = 0` (eq. 8); scores are `X B`. Items without a training
    positive have zeros in B, and 0 as a score: B is held of the others alone, `[taught, taught]` float32.
    """

    cfg: EASEConfig
    weights: Tensor
    rows: Tensor
    offsets: Tensor
    columns: Tensor

    def __init__(
        self,
        cfg: EASEConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        taken = of_users(pairs)
        self.register_buffer("rows", self.taught, persistent=False)
        place = torch.zeros(pairs.n_items, dtype=torch.int64)
        place[self.rows.cpu()] = torch.arange(len(self.rows))
        self.register_buffer("offsets", torch.from_numpy(taken.indptr).long(), persistent=False)
        self.register_buffer("columns", place[torch.from_numpy(taken.indices).long()], persistent=False)
        self._check_memory(4)
        self.register_buffer("weights", torch.zeros(len(self.rows), len(self.rows)))

    def _check_memory(self, size: int) -> None:
        """Raises UserError where `size` bytes for each pair of items are more than there are."""
        taken, there = size * len(self.rows) ** 2, memory.available()
        if there is not None and taken > there:
            raise UserError(
                f"model ease holds a number for each pair of the {len(self.rows):,} items with a training positive, "
                f"which takes {taken / 2**30:,.1f} GiB of memory, and {there / 2**30:,.1f} GiB are available: use "
                "itemknn, which holds neighbours alone, or a larger machine"
            )

    def fit(self, generator: torch.Generator) -> None:
        self._check_memory(BYTES)
        size, taken = len(self.rows), of_users(self.pairs)[:, self.rows.cpu().numpy()].astype("float64")
        gram, items = torch.empty(size, size, dtype=torch.float64), taken.T.tocsr()
        for start in range(0, size, ROWS):
            gram[start : start + ROWS] = torch.from_numpy((items[start : start + ROWS] @ taken).toarray())
        gram.diagonal().add_(self.cfg.l2_weight)
        factor = torch.linalg.cholesky(gram)
        del gram
        inverse = torch.cholesky_inverse(factor)
        del factor
        scale = -1 / inverse.diagonal()
        for start in range(0, size, ROWS):
            self.weights[start : start + ROWS] = inverse[start : start + ROWS] * scale
        self.weights.fill_diagonal_(0)

    def scores(self, users: Tensor) -> Tensor:
        first, sizes = self.offsets[users], self.offsets[users + 1] - self.offsets[users]
        begins = sizes.cumsum(0) - sizes
        place = torch.arange(int(sizes.sum()), device=users.device)
        taken = self.columns[place + (first - begins).repeat_interleave(sizes)]
        found = nn.functional.embedding_bag(taken, self.weights, begins, mode="sum")
        return found.new_zeros(len(users), self.n_items).index_copy_(1, self.rows, found)
