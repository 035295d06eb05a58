"""Tables with one row per user or item, of which a step touches the rows of its batch and no others.

Such a table is marked by `touch_by_rows`: `lookup` then gives it a sparse gradient, so that nothing of the table's size
is ever made, and `training/optimiser.py` updates the rows that the gradient names. What a step costs does not depend
on how many users and items there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

MARK = "touched_by_rows"
SHARDS = "shards"
"""The attribute of a table of which this process holds some rows alone: its `Shards` and its number there."""
_left_out: ContextVar[bool] = ContextVar("ids are left out", default=False)
_popularity_left_out: ContextVar[bool] = ContextVar("popularity is left out", default=False)


def touch_by_rows(*tables: Tensor) -> None:
    """From now on the gradients of these tables (`[rows, dim]` or `[rows]`) are sparse, and so are their updates."""
    for table in tables:
        setattr(table, MARK, True)


def is_touched_by_rows(table: Tensor) -> bool:
    return getattr(table, MARK, False)


def is_sharded(table: Tensor) -> bool:
    """Whether this process holds a share of its rows, see `models/shards.py`."""
    return hasattr(table, SHARDS)


def lookup(table: Tensor, rows: Tensor) -> Tensor:
    """The rows of a table: `[*rows.shape, dim]`, or `[*rows.shape]` of a table `[n]`; rows: int64, of any shape."""
    shards = getattr(table, SHARDS, None)
    if shards is not None:
        return shards[0].lookup(shards[1], rows)
    sparse = is_touched_by_rows(table)
    if table.ndim == 1:
        return torch.gather(table, 0, rows.flatten(), sparse_grad=sparse).view(rows.shape)
    return nn.functional.embedding(rows, table, sparse=sparse)


@contextmanager
def ids_left_out() -> Iterator[None]:
    """Inside, for this thread, every user and item reads the row of what training never saw in every `IdTable`."""
    token = _left_out.set(True)
    try:
        yield
    finally:
        _left_out.reset(token)


@contextmanager
def popularity_left_out() -> Iterator[None]:
    """Inside, for this thread, every user and item is as popular as what training never saw; ids are read as ever."""
    token = _popularity_left_out.set(True)
    try:
        yield
    finally:
        _popularity_left_out.reset(token)


def reads_popularity() -> bool:
    """Whether it is not left out."""
    return not _popularity_left_out.get()


class IdTable(nn.Module):
    """Embeddings of users or items, `weight` `[ids + 1, dim]`: row 0 is shared by all that training never saw.

    known: bool `[ids]`, seen in training. std: deviation of the first values; 0: zeros. It is small: weight decay works
    on what is used, so an id that is seldom used keeps its first values, and they are noise.
    """

    known: Tensor

    def __init__(self, known: Tensor, dim: int, std: float = 0.01):
        super().__init__()
        self.register_buffer("known", known, persistent=False)
        weight = torch.empty(len(known) + 1, dim)
        self.weight = nn.Parameter(weight.normal_(std=std) if std else weight.zero_())
        touch_by_rows(self.weight)

    def ids(self, rows: Tensor, dropout: float = 0.0) -> Tensor:
        """Rows of the table for user or item rows: row + 1, or 0 for -1, beyond the table and what training never saw.

        dropout: while training, this share reads row 0 as well, which is what trains it.
        """
        count = len(self.known)
        inside = (rows >= 0) & (rows < count)
        ids = torch.where(inside & self.known[rows.clamp(0, max(count - 1, 0))], rows + 1, 0)
        if self.training and dropout:
            ids = ids * (torch.rand(ids.shape, device=ids.device) >= dropout)
        return torch.zeros_like(ids) if _left_out.get() else ids

    @torch.no_grad()
    def grow(self, count: int) -> None:
        """Rows for `count` ids in all, zeros behind those that are there; of nothing that training has seen."""
        more = count - len(self.known)
        self.known = torch.cat([self.known, self.known.new_zeros(more)])
        self.weight.data = torch.cat([self.weight.data, self.weight.new_zeros(more, self.weight.shape[1])])

    @torch.no_grad()
    def admit(self, row: int) -> None:
        """From now on the id of this row has a row of its own, which begins as the one that it has read until now."""
        self.weight[row + 1] = self.weight[0]
        self.known[row] = True

    @torch.no_grad()
    def forget(self, rows: Tensor) -> None:
        """From now on the ids of these rows read the row of what training never saw; theirs are zeros."""
        self.weight[rows + 1] = 0.0
        self.known[rows] = False

    def forward(self, ids: Tensor) -> Tensor:
        """`[*ids.shape, dim]`; see `ids`."""
        return lookup(self.weight, ids)
