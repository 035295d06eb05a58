"""Networks of other libraries, of which nobody wrote down where they can be cut: it is tried out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rawrec.content.encoders.base import TOLERANCE, Stack
from rawrec.content.encoders.views import noting, twin, view

Probe = tuple[Tensor, Tensor | None]
"""Token ids `[2, tokens]` and which of them are no padding, or pixels `[n, 3, size, size]` and None."""


class TriedStack(Stack):
    """A network with layers, run in parts by `run`; whether that changes nothing is found out with a probe, the whole
    network being the judge, and so is what depends on what."""

    model: nn.Module
    _probe: Tensor
    _mask: Tensor | None

    def _layers(self) -> Sequence[nn.Module] | nn.ModuleList:
        raise NotImplementedError

    @torch.no_grad()
    def can_split(self, boundary: int) -> bool:
        if boundary == 0:
            return True
        whole = self.run(self._probe, self._mask, 0, self.depth)
        try:
            hidden = self.run(self._probe, self._mask, 0, boundary)
            if len(hidden) != len(self._probe) or (self._mask is not None and hidden.shape[:2] != self._mask.shape):
                return False
            parts = self.run(hidden, self._mask, boundary, self.depth)
        except Exception:  # the model's code is not ours: whatever it raises, it cannot be split here
            return False
        return parts.shape == whole.shape and torch.allclose(parts, whole, rtol=TOLERANCE, atol=TOLERANCE)

    def above(self, boundary: int | None) -> list[nn.Parameter]:
        """Those that a gradient reaches when what enters layer `boundary` is held fixed."""
        if boundary is None:
            return self._reached(None)
        held = twin(self._layers()[boundary])
        held.register_forward_pre_hook(_detach, with_kwargs=True)
        return view(self, {self._layers()[boundary]: held})._reached(None)

    def below(self, boundary: int) -> list[nn.Parameter]:
        """Those that a gradient reaches from what enters layer `boundary`."""
        return self._reached(boundary)

    def _reached(self, boundary: int | None) -> list[nn.Parameter]:
        """Those that the hidden states at `boundary`, or (None) the feature, depend on.

        The whole network runs in any case: its end may bear no other width than that of its last layer.
        """
        self.requires_grad_(True)
        outputs: list[Tensor] = []
        layers = [] if boundary is None else [self._layers()[boundary - 1]]
        with torch.enable_grad():
            heard = view(self, {layer: noting(layer, outputs) for layer in layers})
            outputs.append(heard.run(self._probe, self._mask, 0, self.depth))
            outputs[0].sum().backward()
        reached = [p for p in self.parameters() if p.grad is not None]
        self.zero_grad(set_to_none=True)
        return reached

    def layers_above(self, boundary: int) -> list[nn.Module]:
        return list(self._layers()[boundary:])

    def states(self, x: Tensor, mask: Tensor | None, at: Sequence[int]) -> list[Tensor]:
        layers, found = self._layers(), list[Tensor]()
        below = [layers[boundary - 1] for boundary in at]
        heard = view(self, {layer: noting(layer, found, lambda hidden: self.pooled(hidden, mask)) for layer in below})
        feature = heard.run(x, mask, 0, self.depth)
        return [*found, feature]


def _detach(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict]:
    if args:
        return (args[0].detach(), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": kwargs["hidden_states"].detach()}
