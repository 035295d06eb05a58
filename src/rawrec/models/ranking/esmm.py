"""ESMM (Ma et al., SIGIR 2018): conversions after a click, learned from all impressions.

The rate of conversions given a click is never compared with labels: it learns through pCTCVR = pCTR x pCVR (eq. 1 and
3), which is a probability of every impression, clicked or not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rawrec.models.ranking.tokens import Head, Tokens


class Logits(NamedTuple):
    """Of a click, and of a conversion given a click: `[batch, candidates]` each."""

    click: Tensor
    conversion: Tensor

    def probabilities(self) -> dict[str, Tensor]:
        """`ctr`, `cvr` and their product `ctcvr`."""
        ctr, cvr = torch.sigmoid(self.click), torch.sigmoid(self.conversion)
        return {"ctr": ctr, "cvr": cvr, "ctcvr": ctr * cvr}


class ESMM(nn.Module):
    """Two heads of one logit each over the same tokens, whose tables they share."""

    def __init__(self, click: Head, conversion: Head):
        super().__init__()
        self.click, self.conversion = click, conversion

    def forward(self, tokens: Tokens) -> Logits:
        return Logits(self.click(tokens)[..., 0], self.conversion(tokens)[..., 0])

    @staticmethod
    def losses(logits: Logits, clicked: Tensor, converted: Tensor, real: Tensor | None = None) -> dict[str, Tensor]:
        """Cross entropies of eq. 3, sums over real impressions: `ctr` with clicks, `ctcvr` with clicks that converted.

        clicked, converted: 0 or 1, `[batch, candidates]`. real: bool likewise; all unless given.
        """
        click, conversion = logits.click.float(), logits.conversion.float()
        weight = torch.ones_like(click) if real is None else real.expand_as(click).to(click.dtype)
        both = nn.functional.logsigmoid(click) + nn.functional.logsigmoid(conversion)
        # 1 - s(a) s(b) = (e^-a + e^-b + e^-(a + b)) s(a) s(b)
        not_both = torch.logsumexp(torch.stack([-click, -conversion, -click - conversion]), 0) + both
        ctr = nn.functional.binary_cross_entropy_with_logits(click, clicked, weight=weight, reduction="sum")
        return {"ctr": ctr, "ctcvr": -(weight * (converted * both + (1 - converted) * not_both)).sum()}
