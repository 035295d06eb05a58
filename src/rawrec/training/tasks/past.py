"""Content of histories, as a ranker reads it: of a step from the bank, live rows in their places; else from a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rawrec.config import Config
from rawrec.content.bank import Bank
from rawrec.content.live import LiveContent
from rawrec.models.ranking.history import HistoryContent, TableHistory
from rawrec.models.ranking.search import LongHistory, Rows
from rawrec.training.tasks.step_impressions import ContentTable, last

TABLE = 4
"""A catalogue of at most so many times the items of a history is read by products with all of it."""


class PastContent:
    """Of histories `[n, history]` of item rows (-1 = padding): the end that is read whatever the candidate is, and the
    end that is searched for items like it, None where nothing is."""

    def __init__(self, cfg: Config):
        self._model, self._length, self._width = cfg.model, cfg.longest_history, cfg.content.dim

    def whole(self, history: Tensor) -> Tensor:
        """The end of histories that is read whatever the candidate is."""
        return last(history, self._model.whole(self._length))

    def _searched(self, history: Tensor) -> Tensor | None:
        length = self._model.searched(self._length)
        return last(history, length) if length else None

    def of_step(
        self, bank: Bank, through: nn.Module | None, history: Tensor, candidates: int, live: LiveContent, keep: Tensor
    ) -> tuple[HistoryContent, LongHistory | None]:
        """keep: content of the live rows, with the gradient that it is to have here. through: a map that bank rows go
        through, of which all in the whole part are live (frozen). The whole part may be in the bank's own memory: good
        until the next step."""
        whole = self._of_step(bank, through, self.whole(history), candidates, live, keep)
        searched = self._searched(history)
        if searched is None:
            return whole, None
        at = searched.clamp(min=0)
        there = (searched >= 0) & bank.valid[at] & (bank.written[at] >= 0)
        return whole, LongHistory(
            searched, there, Rows(bank, through), keep, lambda found: bank.locate(live.rows, found)[0]
        )

    def _of_step(
        self, bank: Bank, through: nn.Module | None, rows: Tensor, candidates: int, live: LiveContent, keep: Tensor
    ) -> HistoryContent:
        (position,) = bank.locate(live.rows, rows)
        at = rows.clamp(min=0)
        valid = (rows >= 0) & bank.valid[at] & ((position >= 0) | (bank.written[at] >= 0))
        apart = self._model.live_apart
        if not apart and len(bank) * candidates <= TABLE * rows.shape[1]:
            table = bank.content if through is None else torch.zeros(len(bank), self._width, device=rows.device)
            table = table.index_copy(0, live.rows, keep) if len(live.rows) else table
            return TableHistory(table, valid, index=at)
        past = bank.gather(rows) if through is None else torch.zeros(*rows.shape, self._width, device=rows.device)
        if apart or keep.requires_grad:
            return HistoryContent(past, valid, position, keep)
        there = position >= 0  # put in, at the cost of these rows alone
        past[there] = keep[position[there]]
        return HistoryContent(past, valid)

    def of_table(self, table: ContentTable, history: Tensor) -> tuple[HistoryContent, LongHistory | None]:
        """The same of evaluation."""
        rows, searched = self.whole(history), self._searched(history)
        at = rows.clamp(min=0)
        whole = HistoryContent(table.values[at], (rows >= 0) & table.valid[at])
        if searched is None:
            return whole, None
        there = (searched >= 0) & table.valid[searched.clamp(min=0)]
        return whole, LongHistory(searched, there, Rows(table.values))
