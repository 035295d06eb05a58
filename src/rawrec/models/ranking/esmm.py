"""ESMM (Ma et al., SIGIR 2018): conversions after a click, learned from all impressions.

The rate of conversions given a click is never compared with labels: it learns through pCTCVR = pCTR x pCVR (eq. 1 and
3), which is a probability of every impression, clicked or not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.tokens import Head, Tokens


class Logits(NamedTuple):
    """Of a click, and of a conversion given a click: `[batch, candidates]` each."""

    click: Tensor
    conversion: Tensor

    def of_impressions(self) -> Tensor:
        """Logits of a click and of a click that converts, `[batch, candidates, 2]`: the sigmoid of the second is
        pCTR x pCVR, so that its cross entropy is that of pCTCVR."""
        click, conversion = self.click.float(), self.conversion.float()
        # (1 - s(a) s(b)) / (s(a) s(b)) = e^-a + e^-b + e^-(a + b)
        both = -torch.logsumexp(torch.stack([-click, -conversion, -click - conversion]), 0)
        return torch.stack([click, both], -1)

    def probabilities(self) -> dict[str, Tensor]:
        """`ctr`, `cvr` and their product `ctcvr`."""
        ctr, cvr = torch.sigmoid(self.click), torch.sigmoid(self.conversion)
        return {"ctr": ctr, "cvr": cvr, "ctcvr": ctr * cvr}


class ESMM(nn.Module):
    """Two heads of one logit each over the same tokens, whose tables they share."""

    click: Head
    conversion: Head

    def __init__(self, click: Head, conversion: Head):
        super().__init__()
        self.click, self.conversion = click, conversion

    def forward(self, tokens: Tokens) -> Logits:
        return Logits(self.click(tokens)[..., 0], self.conversion(tokens)[..., 0])

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of every part that the heads have beside cross entropy."""
        return self.click.loss_weights

    def further_losses(self, tokens: Tokens, batch: RankingBatch, labels: Tensor) -> dict[str, Tensor]:
        """Those parts, summed over the heads; labels `[batch, candidates]`: clicks."""
        parts, others = (head.losses(tokens, batch, labels) for head in (self.click, self.conversion))
        return {name: value + others[name] for name, value in parts.items()}

    @staticmethod
    def losses(logits: Logits, clicked: Tensor, converted: Tensor, real: Tensor | None = None) -> dict[str, Tensor]:
        """Cross entropies of eq. 3, sums over real impressions: `ctr` with clicks, `ctcvr` with clicks that converted.

        clicked, converted: 0 or 1, `[batch, candidates]`. real: bool likewise; all unless given.
        """
        click, both = logits.of_impressions().unbind(-1)
        weight = torch.ones_like(click) if real is None else real.expand_as(click).to(click.dtype)
        entropy = nn.functional.binary_cross_entropy_with_logits
        return {
            "ctr": entropy(click, clicked, weight=weight, reduction="sum"),
            "ctcvr": entropy(both, converted, weight=weight, reduction="sum"),
        }
