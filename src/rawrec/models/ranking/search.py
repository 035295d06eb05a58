"""Histories that are too long to be read: searched for the items most similar to a candidate, as MUSE does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rawrec.content.bank import Bank
from rawrec.models.ranking.history import TINY, HistoryContent
from rawrec.models.ranking.readouts import most_similar

AT_ONCE = 1 << 24
"""Numbers that are held at once while searching."""
BY_ROW = 64
"""A row that is read from anywhere in a large table costs as much as so many products with rows in order."""


@dataclass
class Rows:
    """Content of items: a bank's, or that of a table `[rows, dim]`. through: a map that it goes through on the way."""

    content: Bank | Tensor
    through: nn.Module | None = None

    def __len__(self) -> int:
        return len(self.content)

    @torch.no_grad()
    def rows(self, index: Tensor) -> Tensor:
        """Content `[*index.shape, dim]` float32 of item rows, in memory of its own."""
        found = self.content.rows(index) if isinstance(self.content, Bank) else self.content[index]
        return found if self.through is None else self.through(found)


@dataclass
class LongHistory:
    """The past of `batch` users, of which the items most similar to a candidate alone are read.

    items: `[batch, history]` item rows, oldest first, -1 = padding. valid: bool of the same shape, False = padding or
    no content. table: content of all items, as it is at hand. live `[n, dim]` stands in for it, with gradient, where
    `locate` (item rows -> index into `live`, -1 = the table's) says so; the search is by the table's rows all the same.
    marks: as those of `HistoryContent`.
    """

    items: Tensor
    valid: Tensor
    table: Rows
    live: Tensor | None = None
    locate: Callable[[Tensor], Tensor] | None = None
    marks: Tensor | None = None

    def search(self, candidate: Tensor, keep: int) -> HistoryContent:
        """The `keep` items of largest cosine with each candidate `[batch, candidates, dim]`, oldest first.

        Its batch is `batch * candidates`, its history `keep` long, or as long as this one where that is shorter.
        Memory: `AT_ONCE` numbers, or those of one user's history, beside what is found.
        """
        keep = min(keep, self.items.shape[1])
        with torch.no_grad():
            query = nn.functional.normalize(candidate.detach().float(), dim=2, eps=TINY)
            dense = len(self.table) * query.shape[1] <= BY_ROW * self.items.shape[1]
            places = self._through_table(query, keep) if dense else self._through_histories(query, keep)
            at = self._users(query)[:, None], places.clamp(min=0)
            found = self.items[at].masked_fill(places < 0, -1)
            marks = None if self.marks is None else self.marks[at] * (places >= 0)[..., None]
        position = None if self.locate is None else self.locate(found)
        return HistoryContent(self.table.rows(found.clamp(min=0)), found >= 0, position, self.live, marks, picked=True)

    def _best(self, cosines: Tensor, users: Tensor, keep: int) -> Tensor:
        """Places `[n, keep]` of the largest of `cosines` `[n, history]` in the histories of `users` `[n]`, -1 in front
        where there are fewer."""
        places, there = most_similar(cosines, self.valid[users], keep)
        return places.masked_fill(~there, -1).sort(dim=1).values

    @staticmethod
    def _users(query: Tensor) -> Tensor:
        """Whose history each candidate of `[batch, candidates, dim]` is held against."""
        return torch.arange(len(query), device=query.device).repeat_interleave(query.shape[1])

    def _through_table(self, query: Tensor, keep: int) -> Tensor:
        """By the cosines with all items."""
        table = self.table.rows(torch.arange(len(self.table), device=query.device))
        table = nn.functional.normalize(table, dim=1, eps=TINY)
        users = self._users(query)
        size = max(AT_ONCE // max(len(table), self.items.shape[1], 1), 1)
        parts = []
        for some, own in zip(query.flatten(0, 1).split(size), users.split(size), strict=True):
            cosines = (some @ table.T).gather(1, self.items[own].clamp(min=0))
            parts.append(self._best(cosines, own, keep))
        return torch.cat(parts)

    def _through_histories(self, query: Tensor, keep: int) -> Tensor:
        """By the rows of the histories, some users at a time."""
        (users, length), width = self.items.shape, query.shape[2]
        parts = []
        for own in torch.arange(users, device=query.device).split(max(AT_ONCE // max(length * width, 1), 1)):
            rows = self.table.rows(self.items[own].clamp(min=0))
            rows = nn.functional.normalize(rows, dim=2, eps=TINY).transpose(1, 2)
            found = []
            for some in query[own].split(max(AT_ONCE // max(length * len(own), 1), 1), 1):
                cosines = (some @ rows).flatten(0, 1)
                found.append(
                    self._best(cosines, own.repeat_interleave(some.shape[1]), keep).unflatten(0, some.shape[:2])
                )
            parts.append(torch.cat(found, 1).flatten(0, 1))
        return torch.cat(parts) if parts else query.new_zeros(0, keep, dtype=torch.int64)
