"""How a ranker's scores are made: of impressions and of the whole catalogue, from the bank or a view of it.

Evaluation and the recommender score by it; training makes its batches of the same parts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from rawrec.config import Config
from rawrec.content.bank import Bank, BankView
from rawrec.content.store import rows_of
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Histories, Impressions, Samples
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.context import ContextReader, ImpressionContext, Moments
from rawrec.models.ranking.marks import Marks
from rawrec.models.ranking.ranker import Ranker
from rawrec.training.evaluate import teller
from rawrec.training.tasks.past import PastContent
from rawrec.training.tasks.queries import Queries, QueryTable
from rawrec.training.tasks.step_impressions import ContentTable, mark, slice_impressions
from rawrec.world import World

ITEM_CHUNK = 4096  # user-item pairs scored at once by `score_all` are users x this, or a quarter of it
EVENTS_AT_ONCE = 1 << 25  # of histories, in evaluation
MANY_ITEMS = 1 << 14  # in a catalogue of more, where larger pieces take memory and no less time


class Scoring(nn.Module):
    """A ranker with what it reads. bank: None for a model on ids alone. _view: what evaluation reads in its place."""

    cfg: Config
    data: Dataset
    device: torch.device
    samples: Samples
    past: PastContent
    bank: Bank | None
    queries: Queries | None
    context: ContextReader | None
    marks: Marks | None
    ranker: Ranker
    content_in: nn.Linear | None
    observe: Callable[..., None]
    world: World
    _view: BankView | None

    @property
    def ranks_by_queries(self) -> bool:
        """Whether a score depends on a query."""
        return self.queries is not None and self.cfg.model.ranks_by_queries

    @property
    def _read(self) -> Bank | None:
        """What evaluation reads content from."""
        return self._view or self.bank

    @torch.no_grad()
    def table(self) -> ContentTable | None:
        """Content of all items of the dataset from the bank (or view) as it stands; None for a model on ids alone."""
        bank = self._read
        if bank is None:
            return None
        return ContentTable(self.read_content(bank.content), bank.valid & (bank.written >= 0))

    def read_content(self, content: Tensor) -> Tensor:
        """The bank's content `[n, bank width]` -> what the ranker reads, `[n, content.dim]`."""
        if self.content_in is None:
            return content
        return torch.cat([self.content_in(part) for part in content.split(65536)])

    def _moments(self, sample: Impressions, part: int) -> Moments:
        """When impressions of a part were, and what was before them."""
        past = self.past_of(self.samples.source(part), sample.users, sample.items[:, 0], sample.times)
        return Moments(sample.users, sample.times, sample.rows, training=part == 0, past=past)

    def past_of(
        self, histories: Histories, users: np.ndarray, targets: np.ndarray | None, times: np.ndarray | None
    ) -> np.ndarray | None:
        """Rows of the interactions that histories are of, see `Moments.past`; None for a model that reads none."""
        return None if self.marks is None else histories.events(users, targets, times, self.samples.history)

    def marks_of(self, moments: Moments) -> Tensor | None:
        """What is known of the events of histories, `[n, history, marks]`; None: nothing."""
        if self.marks is None or moments.past is None:
            return None
        return torch.from_numpy(self.marks.read(moments.past, moments.times)).to(self.device)

    def _given(self, rows: np.ndarray | None) -> Tensor | None:
        """The same on the device."""
        return None if rows is None else torch.from_numpy(rows).to(self.device)

    def tensors(self, sample: Impressions, part: int) -> tuple[Tensor, Tensor, Tensor]:
        """Users `[n]`, items `[n, candidates]`, histories `[n, history]` on the device."""
        arrays = (sample.users, sample.items, self.samples.histories(sample, part))
        users, items, history = (torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for a in arrays)
        return users, items, history

    def _at_once(self, wanted: int) -> int:
        """So many impressions as are wanted, or fewer where their histories are long."""
        return max(min(wanted, EVENTS_AT_ONCE // max(self.samples.history, 1)), 1)

    def context_of(
        self, moments: Moments, items: np.ndarray, table: ContentTable | None = None
    ) -> ImpressionContext | None:
        """The context of some moments with candidates `items` `[n or 1, candidates]` on the device; None for a model
        that reads none. table: where rows go on beyond the dataset's items."""
        if self.context is None:
            return None
        columns = table.columns if table is not None and table.columns is not None else self.ranker.inputs.columns
        return self.context.read(moments, items, columns).to(self.device)

    def batch_of(
        self,
        users: Tensor,
        items: Tensor,
        history: Tensor,
        table: ContentTable | None,
        context: ImpressionContext | None = None,
    ) -> RankingBatch:
        """A batch for evaluation, all content from `table`; rows past the dataset's items have content but no id."""
        if table is None:
            return RankingBatch(users, items, history, context=context)
        at_items = items.clamp(min=0)
        content = rows_of(table.values, at_items) * ((items >= 0) & table.valid[at_items])[..., None]
        past, long = self.past.of_table(table, history)
        return RankingBatch(users, items, history, content, past, table.columns, context, long_history=long)

    @torch.no_grad()
    def score_impressions(self, sample: Impressions, part: int) -> np.ndarray:
        """Click probabilities of impressions, `[n, candidates]` float32; of several labels that each is positive,
        `[n, candidates, labels]`."""
        self.eval()
        own = slice(*self.world.bounds(len(sample.rows))[self.world.rank : self.world.rank + 2])
        mine = slice_impressions(sample, own) if self.world.several else sample
        return self.world.arrays(self._scores(mine, part), len(sample.rows), "scores")

    def _scores(self, sample: Impressions, part: int) -> np.ndarray:
        """The same, by this process alone."""
        table, size = self.table(), self._at_once(self.cfg.eval.batch_size)
        queries = self._query_table(self._given(sample.query))
        result, tell = [], teller(self.observe, "impressions", len(sample.rows))
        for start in range(0, len(sample.rows), size):
            piece = slice_impressions(sample, slice(start, start + size))
            moments = self._moments(piece, part)
            context = self.context_of(moments, piece.items)
            batch = self.batch_of(*self.tensors(piece, part), table, context)
            mark(batch, self.marks_of(moments))
            batch.query, batch.session = map(self._given, (piece.query, piece.session))
            batch.query_content = None if queries is None else queries.at(slice(start, start + size))
            logits = self.ranker.label_logits(self.ranker.tokens(batch))
            logits = logits if sample.further else logits[..., 0]
            result.append(torch.sigmoid(logits).float().cpu().numpy())
            tell(len(piece.rows))
        if result:
            return np.concatenate(result)
        return np.zeros((*sample.items.shape, *([1 + len(sample.further)] if sample.further else [])), np.float32)

    @torch.no_grad()
    def score_all(
        self,
        moments: Moments,
        history: np.ndarray,
        table: ContentTable | None,
        label: int = 0,
        only: Tensor | None = None,
    ) -> Tensor:
        """Logits of every item of the catalogue for some users, `[users, items]`, the catalogue in chunks.

        moments: the users, -1 = unknown, and when they are asked. history: item rows `[u, n]`, -1 = padding. table: see
        `table`. label: its place among `data.labels`. only: the rows of the items that are asked for, on the CPU.
        """
        self.eval()
        count = self.data.n_items if table is None else len(table.values)
        users, past = moments.users, torch.from_numpy(history).to(self.device)
        user = torch.from_numpy(users).to(self.device)
        pairs = (ITEM_CHUNK if count <= MANY_ITEMS else ITEM_CHUNK // 4) * 64
        size = max(64, pairs // max(len(users), 1))
        parts = []
        query, session = map(self._given, self.samples.asked(moments.rows))
        query_content, marks = self.query_content(moments, query), self.marks_of(moments)
        for items in (torch.arange(count) if only is None else only).split(size):
            context = self.context_of(moments, items[None].numpy(), table)
            batch = self.batch_of(user, items[None].to(self.device), past, table, context)
            batch.query, batch.session, batch.query_content = query, session, query_content
            mark(batch, marks)
            parts.append(self.ranker(batch, label))
        return torch.cat(parts, 1)

    def _query_table(self, rows: Tensor | None) -> QueryTable | None:
        """Vectors of the queries `rows` `[n]`; None for a model whose scores do not depend on them."""
        if self.queries is None or rows is None or not self.ranks_by_queries:
            return None
        return self.queries.table(rows)

    def query_content(self, moments: Moments, rows: Tensor | None = None) -> Tensor | None:
        """Of what is typed then, or of the queries `rows` `[n]`: see `RankingBatch.query_content`."""
        if self.queries is not None and self.ranks_by_queries and moments.query is not None:
            return self.queries.of_text(moments.query)
        table = self._query_table(rows)
        return None if table is None else table.at(slice(None))
