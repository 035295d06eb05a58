"""The items of one optimiser step whose content has a gradient: each is made once, however often it stands there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rawrec.randomness import seed_draws


class LiveContent:
    """The items of one optimiser step whose content has a gradient, made once however often they stand in it.

    rows: `[n]` their item rows, unique; all go through projections and fusion: `fuse(rows, encoded, features)` makes
    `[n, dim]`. encoded: `[m]` of them that go through the trained encoders as well: `encode(rows)` makes field ->
    `[m, width]`; the features of the others are the bank's. `leaf` `[n, dim]` collects the gradient of every use, and
    `features` that of losses which read them themselves; `backward` carries both on. Where the encoded items fit in one
    micro-batch their graph is kept; else each micro-batch is encoded once without a graph and, when its gradient is
    known, once more (gradient caching). Encoders have no dropout, so both times give the same. `settle` makes
    `content`, what the bank is to hold: without dropout, by the weights before the update.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], dict[str, Tensor]],
        fuse: Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor],
        rows: Tensor,
        encoded: Tensor,
        micro_batch: int,
        seed: int,
        settled: Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor] | None = None,
    ):
        self.rows, self.encoded, self._encode, self._settled = rows, encoded, encode, settled
        self._parts = list(encoded.split(micro_batch)) if len(encoded) > micro_batch else []
        self._made: dict[str, Tensor] = {}
        if self._parts:
            with torch.no_grad():
                parts = [encode(part) for part in self._parts]
            self.features = {name: torch.cat([p[name] for p in parts]).requires_grad_() for name in parts[0]}
        else:
            self._made = encode(encoded)
            self.features = {name: v.detach().requires_grad_(v.requires_grad) for name, v in self._made.items()}
        seed_draws(seed, rows.device)
        self._content = fuse(rows, encoded, self.features)
        self.leaf = self._content.detach().requires_grad_()
        self.content = self.leaf.detach()

    def backward(self) -> None:
        if self.leaf.grad is not None and self._content.requires_grad:
            self._content.backward(self.leaf.grad)
        self._carry_on([(values, self.features[name].grad) for name, values in self._made.items()])
        start = 0
        for part in self._parts:
            stop = start + len(part)
            again = self._encode(part)
            grads = {name: values.grad for name, values in self.features.items()}
            self._carry_on([(v, None if (g := grads[name]) is None else g[start:stop]) for name, v in again.items()])
            start = stop

    @staticmethod
    def _carry_on(pairs: list[tuple[Tensor, Tensor | None]]) -> None:
        """Features and their gradients; an encoder whose field none of the items has makes no graph."""
        known = [(values, grad) for values, grad in pairs if grad is not None and values.requires_grad]
        if known:
            torch.autograd.backward([values for values, _ in known], [grad for _, grad in known])

    def settle(self) -> None:
        """Make `content` as evaluation would, where training drops part of it: no such sample stays in the bank."""
        if self._settled is not None:
            with torch.no_grad():
                features = {name: values.detach() for name, values in self.features.items()}
                self.content = self._settled(self.rows, self.encoded, features)
