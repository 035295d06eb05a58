"""The queries of a dataset as a model reads them: cut into words once, encoded where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rawrec.content.item_model import ItemModel
from rawrec.content.live import LiveQueries
from rawrec.data.ragged import Ragged

CHUNK = 4096  # queries cut into words, or encoded without gradient, at once


class Queries:
    """`item_model` has an encoder of queries. texts: of all rows."""

    def __init__(self, item_model: ItemModel, texts: Sequence[str], micro_batch: int) -> None:
        assert item_model.query is not None
        self._model, self._micro_batch = item_model, micro_batch
        parts = [item_model.query.prepare(texts[at : at + CHUNK]) for at in range(0, len(texts), CHUNK)]
        self._words = Ragged.cat([words for words, _ in parts])
        self.truncated = sum(int(cut.sum()) for _, cut in parts)

    def _encode(self, rows: Tensor) -> Tensor:
        return self._model.query_content(self._words.select(rows.cpu()))

    def live(self, rows: Tensor) -> LiveQueries:
        """Those of a step, each once, with gradient; rows `[batch]`, -1 = none."""
        return LiveQueries(self._encode, torch.unique(rows[rows >= 0]), self._micro_batch)

    @torch.no_grad()
    def read(self, rows: Tensor) -> Tensor:
        """Vectors of rows `[n]`, `[n, dim]` by the weights as they are, zeros for -1; each is encoded once."""
        distinct, index = torch.unique(rows, return_inverse=True)
        known = distinct >= 0
        made = [self._encode(part) for part in distinct[known].split(CHUNK)]
        width = self._model.query.width if self._model.query is not None else 0
        values = torch.zeros(len(distinct), width, device=rows.device)
        values[known] = torch.cat([values[:0], *made])
        return values[index]
