"""The contrast of LEMUR (SQDC) in training: a step's rows with live content and queries, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from rawrec.content.bank import Bank
from rawrec.content.live import LiveContent
from rawrec.models.ranking.sqdc import ContrastRows, Sqdc, earlier
from rawrec.training.tasks.base import COUNTED


class Shown(Protocol):
    """Impressions of a step: users `[n]`, items `[n, candidates]`, history `[n, history]`, labels `[n, candidates]` or
    of several `[n, candidates, labels]`; query, session `[n]`, or None where the dataset has none; -1 = none.

    neighbours: item rows that stand in for queries, `[n, candidates]`, once `StepContrast.begin` has found them.
    """

    users: Tensor
    items: Tensor
    history: Tensor
    labels: Tensor
    query: Tensor | None
    session: Tensor | None
    neighbours: Tensor | None


class StepContrast:
    """The contrast over the steps of a run. mapped: a ranker reads the bank's rows through a map of its own (frozen),
    so that only live ones are content.

    steps: int64 `[3]`: steps made, those of them in which no row had a term, and in which no term had a negative.
    """

    def __init__(self, sqdc: Sqdc, bank: Bank, mapped: bool) -> None:
        self.sqdc, self.cfg, self._bank, self._mapped = sqdc, sqdc.cfg, bank, mapped
        self.steps = torch.zeros(3, dtype=torch.int64, device=bank.device)

    def begin(self, shown: Shown) -> Tensor:
        """The item rows that the step makes anew, any shape: candidates, and what stands in for queries."""
        if self.cfg.sqdc_anchor == "query":
            return shown.items
        there = self._bank.valid[shown.history.clamp(min=0)]
        shown.neighbours = earlier(shown.history, shown.items, there).masked_fill(~_positive(shown), -1)
        alive = self.cfg.sqdc_neighbour == "live"
        return torch.cat([shown.items, shown.neighbours], 1) if alive else shown.items

    def losses(self, shown: Shown, live: LiveContent) -> dict[str, Tensor]:
        """The loss of a step, unweighted, as `sqdc`; what is counted beside it begins with COUNTED: rows that have a
        term, the share of them without a negative, negatives of each."""
        found = self.sqdc(self._rows(shown, live))
        nothing = found.anchors == 0
        self.steps += torch.stack([torch.ones_like(nothing), nothing, (found.alone == found.anchors) & ~nothing])
        each = found.anchors.clamp(min=1)
        counted = {"anchors": found.anchors.double(), "alone": found.alone / each, "negatives": found.negatives / each}
        loss = found.loss + 0 * live.leaf.sum()  # which has a gradient, if of nothing, also where no row has a term
        return {"sqdc": loss, **{f"{COUNTED}sqdc/{name}": value for name, value in counted.items()}}

    def notes(self) -> Iterator[str]:
        """What the user is told after the last epoch."""
        steps, without, alone = self.steps.tolist()
        if without:
            yield (
                f"model.sqdc_weight: in {without} of {steps} steps no clicked row had a document and what it is held "
                "against, so that there was no contrast"
            )
        if alone:
            yield (
                f"model.sqdc_weight: in {alone} of {steps} steps no clicked row had a negative, so that the contrast "
                f"was 0: raise train.batch_size, or use model.sqdc_negatives=batch (model.sqdc_mask="
                f"[{','.join(self.cfg.sqdc_mask)}])"
            )

    def _rows(self, shown: Shown, live: LiveContent) -> ContrastRows:
        candidates = shown.items.shape[1]
        documents, document = self._distinct(shown.items, live)
        if shown.neighbours is not None:
            anchors, anchor = self._distinct(shown.neighbours, live)
        else:
            assert live.queries is not None and shown.query is not None
            anchors, anchor = live.queries.leaf, live.queries.locate(shown.query).repeat_interleave(candidates)
        session = None if shown.session is None else shown.session.repeat_interleave(candidates)
        users = shown.users.repeat_interleave(candidates)
        return ContrastRows(anchors, documents, anchor, document, _positive(shown).flatten(), session, users)

    def _distinct(self, items: Tensor, live: LiveContent) -> tuple[Tensor, Tensor]:
        """Content of the distinct items among item rows `[n, candidates]`, `[m, dim]`, live where it is; and which of
        them each is, `[n * candidates]`, -1 = none, or nothing known of it."""
        bank, flat = self._bank, items.flatten()
        (position,) = bank.locate(live.rows, flat)
        known = position >= 0
        if not self._mapped:
            known |= (flat >= 0) & bank.valid[flat.clamp(min=0)] & (bank.written[flat.clamp(min=0)] >= 0)
        rows, index = torch.unique(flat[known], return_inverse=True)
        numbers = torch.full_like(flat, -1)
        numbers[known] = index
        (position,) = bank.locate(live.rows, rows)
        if self._mapped:
            return live.leaf[position], numbers
        values = bank.rows(rows)
        if len(live.leaf):
            values = torch.where((position >= 0)[:, None], live.leaf[position.clamp(min=0)], values)
        return values, numbers


def _positive(shown: Shown) -> Tensor:
    """By the main label, `[n, candidates]`; one that is not known is none."""
    return (shown.labels if shown.labels.ndim == 2 else shown.labels[..., 0]) > 0
