"""Chance: the score of a user and an item is drawn at random, the same whenever it is asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rawrec.config.baselines import RandomConfig
from rawrec.models.graph import Interactions
from rawrec.models.retrieval.base import FittedModel

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
"""2^64 over the golden ratio, which numbers SplitMix64's streams; signed, as all here."""
FIRST, SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
BITS = 24
"""Of a float32: so many are drawn."""


class Random(FittedModel):
    """`s_ui = h(h(seed + g (u + 1)) + g (i + 1)) / 2^64`, uniform in [0, 1): h is the mixing function of SplitMix64, g
    its constant (Steele, Lea & Flood, OOPSLA 2014). The seed is drawn by that of the run.
    """

    seed: Tensor

    def __init__(
        self,
        cfg: RandomConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64))

    def fit(self, generator: torch.Generator) -> None:
        self.seed.copy_(torch.randint(2**62, (), generator=generator))

    def scores(self, users: Tensor) -> Tensor:
        of_users = mixed(self.seed + GOLDEN * (users + 1))
        items = GOLDEN * torch.arange(1, self.n_items + 1, device=users.device)
        drawn = mixed(of_users[:, None] + items)
        return shifted(drawn, 64 - BITS).float() / 2**BITS


def shifted(x: Tensor, bits: int) -> Tensor:
    """int64 shifted right as if it had no sign."""
    return (x >> bits) & (2 ** (64 - bits) - 1)


def mixed(x: Tensor) -> Tensor:
    """int64 -> int64, one to one, every bit of the result dependent on every bit of `x`; products wrap."""
    x = (x ^ shifted(x, 30)) * FIRST
    x = (x ^ shifted(x, 27)) * SECOND
    return x ^ shifted(x, 31)
