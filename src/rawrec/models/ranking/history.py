"""The past of users as attention reads it: bank rows with live ones in their place, scored and mixed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

TINY = 1e-12
"""Vectors shorter than this have no direction."""


class Attention(NamedTuple):
    """Weights that a model gave the events of a history, `[batch, m, history]`; m: candidates, or several vectors of
    each. name: of what, see `watch`."""

    name: str
    weights: Tensor


_watching: ContextVar[list[Attention] | None] = ContextVar("attention is watched", default=None)


@contextmanager
def watched() -> Iterator[list[Attention]]:
    """Inside, for this thread, what models attend to is put into the list."""
    seen: list[Attention] = []
    token = _watching.set(seen)
    try:
        yield seen
    finally:
        _watching.reset(token)


def watch(name: str, history: HistoryContent | None, weights: Tensor) -> None:
    """Tell who watches of weights `[batch, m, history]` of whole histories; those of picked events are not told.

    name: "ids" for the history of ids, "unit" for a head's own attention in its place, else what is attended to.
    """
    seen = _watching.get()
    if seen is not None and (history is None or not history.picked):
        seen.append(Attention(name, weights.detach()))


@dataclass
class HistoryContent:
    """Content of the histories of a batch: bank rows, with live rows in their place (DESIGN, rule 1).

    bank: `[batch, history, dim]`, detached. valid: `[batch, history]`, False = padding or no content.
    position: `[batch, history]` index into `live` `[n, dim]`, -1 = take the bank's row. live carries gradient.
    marks: `[batch, history, n]` int64, codes of what else is known of the events, 0 = nothing (`Marks`). picked: these
    are events chosen for one candidate, whose places say nothing of the history.
    """

    bank: Tensor
    valid: Tensor
    position: Tensor | None = None
    live: Tensor | None = None
    marks: Tensor | None = None
    picked: bool = False

    def __post_init__(self) -> None:
        """Few live rows: keep them apart, so that no gradient of the size of the history is ever made."""
        self.split = False
        if self.live is None or self.position is None or not len(self.live):
            self.live = self.position = None
            return
        self.split = len(self.live) <= 2 * self.bank.shape[1]
        self.is_live = self.position >= 0
        if not self.split:
            self.bank = torch.where(self.is_live[..., None], self.live[self.position.clamp(min=0)], self.bank)

    def last(self, length: int) -> HistoryContent:
        """The end of the histories: so many items of each, or all where there are no more."""
        rest = slice(max(self.bank.shape[1] - length, 0), None)
        position, marks = (None if x is None else x[:, rest] for x in (self.position, self.marks))
        return HistoryContent(self.bank[:, rest], self.valid[:, rest], position, self.live, marks)

    def pick(self, place: Tensor, valid: Tensor) -> HistoryContent:
        """Items of the histories by their places `[batch, candidates, n]`, as histories of `batch * candidates` users,
        without marks.

        valid: bool of the same shape, False = padding.
        """
        batch, candidates, n = place.shape
        flat = place.flatten(1)

        def of(rows: Tensor) -> Tensor:
            index = flat if rows.ndim == 2 else flat[..., None].expand(-1, -1, rows.shape[2])
            return rows.gather(1, index).unflatten(1, (candidates, n)).flatten(0, 1)

        valid = valid.expand(batch, candidates, n).flatten(0, 1) & of(self.valid)
        position = None if self.position is None else of(self.position)
        return HistoryContent(of(self.bank), valid, position, self.live, picked=True)

    def scores(self, query: Tensor) -> Tensor:
        """Dot products of `query` `[batch, candidates, dim]` with the history, `[batch, candidates, history]`."""
        scores = query @ self.bank.transpose(1, 2)
        if self.split and self.live is not None and self.position is not None:
            index = self.position.clamp(min=0)[:, None].expand_as(scores)
            scores = torch.where(self.is_live[:, None], (query @ self.live.T).gather(2, index), scores)
        return scores

    def lengths(self) -> Tensor:
        """Norms of the history's content, `[batch, history]`, padding included."""
        lengths = torch.linalg.vector_norm(self.bank, dim=2)
        if self.split and self.live is not None and self.position is not None:
            live = torch.linalg.vector_norm(self.live, dim=1)
            lengths = torch.where(self.is_live, live[self.position.clamp(min=0)], lengths)
        return lengths

    def cosines(self, query: Tensor) -> Tensor:
        """Cosines of `query` `[batch, candidates, dim]` with the history, `[batch, candidates, history]`.

        0 where the history is padding, and where a vector is 0: `valid` alone says which of the two.
        """
        query = nn.functional.normalize(query, dim=2, eps=TINY)
        return self.scores(query) * (self.valid / self.lengths().clamp(min=TINY))[:, None]

    def rows(self) -> Tensor:
        """The sequences themselves, `[batch, history, dim]`, padding 0; for attention that does more than score."""
        rows = self.bank
        if self.split and self.live is not None and self.position is not None:
            live = nn.functional.embedding(self.position.clamp(min=0), self.live)
            rows = torch.where(self.is_live[..., None], live, rows)
        return rows * self.valid[..., None]

    def mix(self, weights: Tensor) -> Tensor:
        """Weighted sums of the history's content: `[batch, candidates, history]` -> `[batch, candidates, dim]`."""
        if not (self.split and self.live is not None and self.position is not None):
            return weights @ self.bank
        live = weights * self.is_live[:, None]
        index = self.position.clamp(min=0)[:, None].expand_as(weights)
        sums = weights.new_zeros(*weights.shape[:2], len(self.live)).scatter_add(2, index, live)
        return (weights - live) @ self.bank + sums @ self.live


@dataclass
class TableHistory(HistoryContent):
    """Histories as rows of a table of all items, where that is hardly longer than they are.

    bank: the table `[items, dim]`, live rows in their places, with their gradient. index: `[batch, history]` rows of
    it. A score is looked up among those of all items, and weights are added up by item, so that nothing of batch x
    history x dim is made.
    """

    index: Tensor = field(kw_only=True)

    def __post_init__(self) -> None:
        self.split = False

    def last(self, length: int) -> TableHistory:
        rest = slice(max(self.index.shape[1] - length, 0), None)
        marks = None if self.marks is None else self.marks[:, rest]
        return TableHistory(self.bank, self.valid[:, rest], marks=marks, index=self.index[:, rest])

    def pick(self, place: Tensor, valid: Tensor) -> HistoryContent:
        flat = place.flatten(1)
        valid = valid.expand_as(place) & self.valid.gather(1, flat).view_as(place)
        rows = self.index.gather(1, flat).view_as(place).flatten(0, 1)
        return HistoryContent(nn.functional.embedding(rows, self.bank), valid.flatten(0, 1), picked=True)

    def scores(self, query: Tensor) -> Tensor:
        scores = query @ self.bank.T
        return scores.gather(2, self.index[:, None].expand(-1, query.shape[1], -1))

    def lengths(self) -> Tensor:
        return torch.linalg.vector_norm(self.bank, dim=1)[self.index]

    def rows(self) -> Tensor:
        return nn.functional.embedding(self.index, self.bank) * self.valid[..., None]

    def mix(self, weights: Tensor) -> Tensor:
        sums = weights.new_zeros(*weights.shape[:2], len(self.bank))
        return sums.scatter_add(2, self.index[:, None].expand_as(weights), weights) @ self.bank


def attend(history: HistoryContent, query: Tensor, dim: int, name: str = "content") -> Tensor:
    """User interest, eq. 7-8: `[batch, candidates, width of the history]`, zero for an empty history.

    query: `[batch or 1, candidates, width of the history]`. dim: the width of attention, which scales the scores.
    name: what `watch` tells of it.
    """
    valid = history.valid[:, None]
    scores = history.scores(query.expand(len(history.valid), -1, -1)) / math.sqrt(dim)
    weights = torch.softmax(scores.masked_fill(~valid, -1e9), 2) * valid
    watch(name, history, weights)
    return history.mix(weights)
