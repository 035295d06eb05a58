"""A small trained network beside a frozen one (`train=side:<n>`), after IISAN (Fu et al., SIGIR 2024).

It reads what n layers of the frozen network say of an item, which is made once and cached: training runs the network
neither forward nor backward. As there, a layer's state goes through a bottleneck, and a learned gate mixes it with
what came from the layers below. Ours: the state beside the layers is narrow all the way up, so that layers may differ
in width; states are normalised first; and the outcome is added to the network's own feature, from nothing at first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

HASTE = 0.1
"""A gate is the sigmoid of its parameter over this, so that it moves with the rates that suit the other weights."""


class SideNetwork(nn.Module):
    """From the states of layers to the feature. At the beginning it is the last state, bit by bit.

    widths: of the states, of the lowest layer first; the last is the frozen network's feature. inside: of the network.
    """

    def __init__(self, widths: list[int], inside: int) -> None:
        super().__init__()
        self.widths, self.width = widths, widths[-1]
        self.down = nn.ModuleList([nn.Linear(width, inside) for width in widths])
        self.block = nn.ModuleList([nn.Linear(inside, inside) for _ in widths])
        self.gates = nn.Parameter(torch.zeros(len(widths) - 1)) if len(widths) > 1 else None
        self.out = nn.Linear(inside, self.width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, states: Tensor) -> Tensor:
        """`[n, sum of widths]` float32, the states side by side -> `[n, width]` float32."""
        parts = states.split(self.widths, 1)
        beside = None
        for k, (state, down, block) in enumerate(zip(parts, self.down, self.block, strict=True)):
            own = down(functional.layer_norm(state, state.shape[1:]))
            if beside is not None and self.gates is not None:
                gate = torch.sigmoid(self.gates[k - 1] / HASTE)
                own = gate * own + (1 - gate) * beside
            beside = own + block(functional.gelu(own))
        assert beside is not None
        return parts[-1] + self.out(functional.gelu(beside)).float()


def evenly(count: int, depth: int) -> list[int]:
    """`count` of the boundaries above layers, 1 to `depth`, at even distances; the last is `depth`."""
    return [(k + 1) * depth // count for k in range(count)]
