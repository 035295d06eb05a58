"""The live policy: which of a step's candidates are encoded, and through which of them a gradient goes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rawrec.config import BankConfig
from rawrec.content.bank import Bank
from rawrec.distinct import distinct


class LivePolicy:
    """As `bank.*` says: a share drawn anew in every step, and at most the live budget, stalest first.

    counts: training rows of each item, `[items]`. What is drawn is a function of the generator's seed.
    """

    def __init__(self, cfg: BankConfig, counts: np.ndarray):
        self.cfg, self.counts = cfg, torch.from_numpy(counts)

    def grow(self, items: int) -> None:
        """There are `items` now, those behind the others without a training row."""
        self.counts = torch.cat([self.counts, self.counts.new_zeros(items - len(self.counts))])

    def encoded(self, bank: Bank, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Those of the candidates `rows` (`[n]`, unique, with media) that are encoded; ascending where they were."""
        if self.cfg.forward_rate < 100:
            rows = rows[self._drawn(rows, self.cfg.forward_rate, len(rows), generator)]
        return bank.stalest(rows, self.cfg.live_budget, generator)

    def learning(
        self, bank: Bank, encoded: Tensor, items: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, int | None]:
        """What is encoded, those first that have a gradient, and how many these are; None: all.

        items: the candidates of the step, any shape, -1 = none; of the distinct ones bank.backward_rate is a share.
        """
        rate = self.cfg.backward_rate
        if rate is None or rate >= 100 or not len(encoded):
            return encoded, None
        candidates = distinct(items[items >= 0])
        learns = self._drawn(encoded, rate, int(bank.valid[candidates].sum()), generator)
        return torch.cat([encoded[learns], encoded[~learns]]), int(learns.sum())

    def _drawn(self, rows: Tensor, rate: float, of: int, generator: torch.Generator) -> Tensor:
        """Which of `rows` are drawn, `rate` percent of `of`, at least one and at most all; bool of their shape."""
        keys = torch.rand(len(rows), generator=generator, dtype=torch.float64)
        if self.cfg.sampling == "popularity":  # the largest u^(1/w) are drawn by the weights w, none twice
            keys = keys.log() / self.counts[rows.cpu()].clamp(min=1)
        drawn = torch.zeros(len(rows), dtype=torch.bool)
        drawn[keys.argsort(descending=True, stable=True)[: max(math.ceil(rate / 100 * of), 1)]] = True
        return drawn.to(rows.device)
