"""The queries of a dataset as a model reads them: cut into words once, encoded where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rawrec.content.encoders.joint import UNSPACED
from rawrec.content.item_model import ItemModel
from rawrec.content.live import LiveQueries
from rawrec.data.ragged import Ragged
from rawrec.data.texts import unspaced
from rawrec.training.tasks.unread import INSTEAD
from rawrec.world import ALONE, World

CHUNK = 4096  # queries cut into words, or encoded without gradient, at once


class QueryTable:
    """Vectors of the queries of some impressions, each query's once. values: `[distinct, dim]`; index: `[n]`."""

    def __init__(self, values: Tensor, index: Tensor) -> None:
        self._values, self._index = values, index

    def at(self, part: slice) -> Tensor:
        """`[n, 1, dim]`, zeros for an impression without a query."""
        return self._values[self._index[part]][:, None]


class Queries:
    """`item_model` has an encoder of queries. texts: of all rows."""

    def __init__(self, item_model: ItemModel, texts: Sequence[str], micro_batch: int) -> None:
        assert item_model.query is not None
        self._model, self._micro_batch, self._width = item_model, micro_batch, item_model.query.width
        none = Ragged(torch.zeros(0, dtype=torch.int32), torch.zeros(1, dtype=torch.int64))
        parts = [item_model.query.prepare(texts[at : at + CHUNK]) for at in range(0, len(texts), CHUNK)]
        self._words = Ragged.cat([none, *(words for words, _ in parts)])
        self.lost = {"truncated": sum(int(cut.sum()) for _, cut in parts)}
        """How many are longer than is read, or are read as one word each sentence."""
        if item_model.query.words.hashed:
            self.lost[UNSPACED] = sum(map(unspaced, texts))

    def unread(self, text: str) -> dict[str, str]:
        """What the model does not read of a text that somebody types, by what is lost of it, in words."""
        query = self._model.query
        assert query is not None
        said = {}
        if query.prepare([text])[1].any():
            said["truncated"] = f"query: only its first {query.max_length} words are read (content.query.max_length)"
        if query.words.hashed and unspaced(text):
            said[UNSPACED] = f"query: it is in a script without spaces, and its words {INSTEAD}"
        return said

    def _encode(self, rows: Tensor) -> Tensor:
        return self._model.query_content(self._words.select(rows.cpu()))

    def live(self, rows: Tensor, world: World = ALONE) -> LiveQueries:
        """Those of a step, each once, with gradient; rows `[batch]`, -1 = none."""
        return LiveQueries(self._encode, torch.unique(rows[rows >= 0]), self._micro_batch, world)

    @torch.no_grad()
    def table(self, rows: Tensor) -> QueryTable:
        """Of rows `[n]`, -1 = none, by the weights as they are."""
        distinct, index = torch.unique(rows, return_inverse=True)
        known = distinct >= 0
        made = [self._encode(part) for part in distinct[known].split(CHUNK)]
        values = torch.zeros(len(distinct), self._width, device=rows.device)
        values[known] = torch.cat([values[:0], *made])
        return QueryTable(values, index)

    @torch.no_grad()
    def of_text(self, text: str) -> Tensor:
        """The vector of any text, `[1, 1, dim]`."""
        return self._model.encode_queries([text])[:, None]
