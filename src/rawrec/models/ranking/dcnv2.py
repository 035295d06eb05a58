"""DCN V2 (Wang et al., WWW 2021): layers that multiply the inputs with learned maps of what the layer below gives.

The open code followed where the paper is silent is FuxiCTR's. There is no first-order part: biases of ids are not read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rawrec.config.heads import DCNv2Config
from rawrec.models.ranking.layers import begin, mlp
from rawrec.models.ranking.tokens import Head, Tokens
from rawrec.onednn import Linear, matmul


class CrossLayer(nn.Module):
    """Eq. 1: x_(l+1) = x_0 * (W x_l + b) + x_l; eq. 2 with a rank: W = U V^T."""

    def __init__(self, width: int, rank: int | None):
        super().__init__()
        self.down = None if rank is None else Linear(width, rank, bias=False)
        self.map = Linear(width if rank is None else rank, width)

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        return torch.addcmul(x, first, self.map(x if self.down is None else self.down(x)))


class MixtureLayer(nn.Module):
    """Eq. 4 and 5: x_(l+1) = sum_e g_e(x_l) x_0 * (U_e tanh(C_e tanh(V_e^T x_l)) + b) + x_l, b of all experts.

    The gates g sum to 1, so that x_0 and b stand outside the sum, and the sum is one product of matrices: those of the
    experts lie side by side, V `[experts * rank, width]`, C `[experts, rank, rank]`, U `[width, experts * rank]`.
    """

    def __init__(self, width: int, rank: int, experts: int):
        super().__init__()
        self.experts = experts
        self.V, self.C = (nn.Parameter(torch.empty(*s)) for s in ((experts * rank, width), (experts, rank, rank)))
        self.U, self.bias = nn.Parameter(torch.empty(width, experts * rank)), nn.Parameter(torch.zeros(width))

    def begin(self) -> None:
        """Xavier's normal values for the matrices of each expert."""
        for matrices in (self.V.chunk(self.experts, 0), self.C, self.U.chunk(self.experts, 1)):
            for matrix in matrices:
                nn.init.xavier_normal_(matrix.data)

    def forward(self, first: Tensor, x: Tensor, gates: Tensor) -> Tensor:
        """gates: `[..., experts]`."""
        shape = x.shape[:-1]
        low = torch.tanh(matmul(x, self.V.T)).view(-1, self.experts, self.C.shape[1])
        low = torch.tanh(torch.bmm(low.transpose(0, 1), self.C.transpose(1, 2))).transpose(0, 1)
        low = (low * gates.reshape(-1, self.experts, 1)).reshape(*shape, -1)
        return torch.addcmul(x, first, matmul(low, self.U.T) + self.bias)


class DCNv2(Head):
    """Logit = w . [x_L, MLP(x_0)] + b (parallel), w . MLP(x_L) + b (stacked) or w . x_L + b (cross); x_0: all tokens.

    The gate of an expert, softmax_e(G_e . x_l), is one for all layers, as the paper's equation has it without an index.
    """

    def __init__(self, cfg: DCNv2Config, names: Sequence[str], dim: int, labels: int = 1):
        super().__init__()
        self.cfg, width = cfg, len(names) * dim
        self.gates = Linear(width, cfg.experts, bias=False) if cfg.cross == "mixture" else None
        rank = cfg.rank if cfg.cross == "low_rank" else None
        self.cross = nn.ModuleList(
            CrossLayer(width, rank) if self.gates is None else MixtureLayer(width, cfg.rank, cfg.experts)
            for _ in range(cfg.cross_layers)
        )
        hidden = [] if cfg.structure == "cross" else cfg.hidden
        self.mlp = mlp([width, *hidden], cfg.dropout)
        above = (hidden or [width])[-1]
        self.out = Linear(width + above if cfg.structure == "parallel" else above, labels)
        begin(self)
        for layer in self.cross:
            if isinstance(layer, MixtureLayer):
                layer.begin()

    def crossed(self, first: Tensor) -> Tensor:
        """x_L of x_0 `[..., width]`."""
        x = first
        for layer in self.cross:
            x = layer(first, x) if self.gates is None else layer(first, x, torch.softmax(self.gates(x), -1))
        return x

    def forward(self, tokens: Tokens) -> Tensor:
        first = tokens.values.flatten(2)
        x = self.crossed(first)
        if self.cfg.structure == "parallel":
            return self.out(torch.cat([x, self.mlp(first)], 2))
        return self.out(self.mlp(x))
