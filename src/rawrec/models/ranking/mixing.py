"""What RankMixer and TokenMixer-Large share: pieces of the inputs as tokens, mixing, and layers of each token's own.

Tokens stand in front, `[tokens, n, width]`, so that the products of all tokens are one batch of products.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rawrec.onednn import Linear


def mix(x: Tensor) -> Tensor:
    """Token h of the result is the h-th piece of every token, side by side: `[tokens, n, width]`. Its own inverse.

    The width is a multiple of the number of tokens.
    """
    tokens, n, width = x.shape
    return x.view(tokens, n, tokens, width // tokens).transpose(0, 2).reshape(tokens, n, width)


def begin_matrices(weight: Tensor, inputs: int) -> None:
    """As torch's linear maps of so many inputs begin."""
    bound = 1 / math.sqrt(inputs)
    nn.init.uniform_(weight, -bound, bound)


class TokenLinear(nn.Module):
    """A linear map of its own for every token, `[tokens, n, inputs]` -> `[tokens, n, outputs]`.

    The bias is kept flat, so that it is told from matrices: it has no weight decay.
    """

    def __init__(self, tokens: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tokens, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(tokens * outputs))
        begin_matrices(self.weight, inputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias.view(len(self.weight), 1, -1), x, self.weight)


class Pieces(nn.Module):
    """All inputs, side by side, cut into `tokens` pieces of equal width, the last filled with zeros, each projected.

    projection: `each` piece has a map of its own, or one is `shared`.
    """

    def __init__(self, inputs: int, tokens: int, width: int, projection: str):
        super().__init__()
        self.tokens, self.piece = tokens, -(-inputs // tokens)
        self.fill = tokens * self.piece - inputs
        self.map = TokenLinear(tokens, self.piece, width) if projection == "each" else Linear(self.piece, width)

    def forward(self, flat: Tensor) -> Tensor:
        """`[n, inputs]` -> `[tokens, n, width]`."""
        flat = nn.functional.pad(flat, (0, self.fill))
        return self.map(flat.view(len(flat), self.tokens, self.piece).transpose(0, 1))
