"""What a ranker is asked: impressions with their histories and contents."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from rawrec.models.ranking.columns import ItemColumns
from rawrec.models.ranking.context import ImpressionContext
from rawrec.models.ranking.history import HistoryContent
from rawrec.models.ranking.search import LongHistory


@dataclass
class RankingBatch:
    """Impressions of `batch` users with `candidates` items each.

    users: `[batch]` user rows, -1 = unknown. items: `[batch or 1, candidates]` item rows, -1 = not in the catalogue.
    history: `[batch, history]` item rows, oldest first, -1 = padding. content `[batch or 1, candidates, dim]` and
    history_content: None for a model without content; of the last of the history alone, where a model reads no more of
    it whatever the candidate is. columns: where rows go on beyond the ranker's own items, the columns of all of them;
    their ids are unknown. context: for a model that reads it. keys: in training, column of the interactions ->
    `[batch]` int64, equal where the values are, -1 = none. query, session: `[batch]` int64, rows of the dataset's
    queries and of its sessions, -1 = none; None where the dataset has none. query_content: `[batch or 1, 1, dim]` in
    the space of content, zeros where there is no query; None for a model that reads none. long_history: what is
    searched for items similar to the candidate; None for a model that does not search. late: `[batch, candidates]`, of
    labels that are not final, see `delayed_weights`; None: all are.
    """

    users: Tensor
    items: Tensor
    history: Tensor
    content: Tensor | None = None
    history_content: HistoryContent | None = None
    columns: ItemColumns | None = None
    context: ImpressionContext | None = None
    keys: dict[str, Tensor] = field(default_factory=dict)
    query: Tensor | None = None
    session: Tensor | None = None
    query_content: Tensor | None = None
    long_history: LongHistory | None = None
    late: Tensor | None = None
