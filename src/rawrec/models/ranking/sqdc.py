"""SQDC, LEMUR's session-masked contrast of a query with the document that was clicked for it (2025).

    l = sum over rows i with label 1 of  -log  exp(T cos(q_i, d_i)) / sum_j A_ij exp(T cos(q_i, d_j))

A row is one document shown for one query; A_ij is 0 where i and j are two rows of the same query, and 1 elsewhere. T
multiplies, and is fixed. Where there are no queries, an item takes the place of q: the user's closest earlier positive.
Ours: further masks, several positives, both directions, T learned, the mean in the place of the sum.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rawrec.config.ranking import ContentPartConfig, SqdcMask

HIGHEST = 100.0
"""A learned T goes no further, unless it begins there."""


class ContrastRows(NamedTuple):
    """Rows of a step. anchors `[anchors, dim]`: distinct queries (or items in their place); documents
    `[documents, dim]`: distinct ones; both with gradient, where they are live.

    anchor, document: which of them are a row's, `[n]`, -1 = none. positive: bool `[n]`. session, user: numbers `[n]`,
    -1 = none.
    """

    anchors: Tensor
    documents: Tensor
    anchor: Tensor
    document: Tensor
    positive: Tensor
    session: Tensor | None = None
    user: Tensor | None = None

    def key(self, mask: SqdcMask) -> Tensor:
        """Rows of equal number are no negatives of each other under the mask; -1 is equal to none."""
        found = {"query": self.anchor, "document": self.document, "session": self.session, "user": self.user}[mask]
        return torch.full_like(self.document, -1) if found is None else found


class Contrast(NamedTuple):
    """loss: the contrast, unweighted. anchors: rows that have a term; alone: those of them without any negative, whose
    term is 0; negatives: of all of them together."""

    loss: Tensor
    anchors: Tensor
    alone: Tensor
    negatives: Tensor


class Sqdc(nn.Module):
    """The contrast, as the settings `model.sqdc_*` have it."""

    def __init__(self, cfg: ContentPartConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.most = max(HIGHEST, cfg.sqdc_scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(cfg.sqdc_scale))) if cfg.sqdc_learned_scale else None

    def scale(self) -> Tensor | float:
        """T."""
        return self.cfg.sqdc_scale if self.log_scale is None else self.log_scale.exp().clamp(max=self.most)

    def forward(self, rows: ContrastRows) -> Contrast:
        """Its loss is 0, with gradient 0, where no row has a term."""
        cfg = self.cfg
        anchors, documents = (functional.normalize(x.float(), dim=1) for x in (rows.anchors, rows.documents))
        there = rows.document >= 0
        terms = (rows.positive & there & (rows.anchor >= 0)).nonzero()[:, 0]
        columns = (there & rows.positive if cfg.sqdc_negatives == "positives" else there).nonzero()[:, 0]
        queries, own = anchors[rows.anchor[terms]], documents[rows.document[terms]]
        losses, negatives = self._towards(rows, terms, columns, queries, documents[rows.document[columns]])
        loss = losses.sum()
        if cfg.sqdc_directions == "both":
            asked = columns[rows.anchor[columns] >= 0]
            back, _ = self._towards(rows, terms, asked, own, anchors[rows.anchor[asked]])
            loss = (loss + back.sum()) / 2
        if cfg.sqdc_reduction == "mean":
            loss = loss / max(len(terms), 1)
        count = torch.tensor(len(terms), device=loss.device)
        return Contrast(loss, count, (negatives == 0).sum(), negatives.sum())

    def _towards(
        self, rows: ContrastRows, terms: Tensor, columns: Tensor, left: Tensor, right: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of each of `terms` its loss against `columns`, among which it is, and how many negatives it has, `[terms]`.

        left: vectors of `terms`; right: of `columns`, of length 1.
        """
        logits = self.scale() * left @ right.T
        own = terms[:, None] == columns
        apart = ~own
        for key in map(rows.key, self.cfg.sqdc_mask):
            apart &= (key[terms][:, None] != key[columns]) | (key[columns] < 0)
        positive = own
        if self.cfg.sqdc_positives == "all":
            positive = own | (rows.positive[columns] & (rows.anchor[terms][:, None] == rows.anchor[columns]))
        nothing = torch.finfo(logits.dtype).min
        counted = logits.masked_fill(~(apart | positive), nothing).logsumexp(1)
        return counted - logits.masked_fill(~positive, nothing).logsumexp(1), (apart & ~positive).sum(1)


def earlier(history: Tensor, items: Tensor, there: Tensor) -> Tensor:
    """The closest earlier positive of each candidate, which stands in for a query; -1 where there is none.

    history: item rows `[batch, history]`, oldest first, -1 = padding; there: bool of the same shape, the item has
    content. items: `[batch, candidates]`. An item is no pair with itself: the one before it is taken.
    """
    usable = (there & (history >= 0))[:, None] & (history[:, None] != items[..., None])
    last = history.shape[1] - 1 - usable.flip(2).int().argmax(2)
    return history.gather(1, last).masked_fill(~usable.any(2), -1)
