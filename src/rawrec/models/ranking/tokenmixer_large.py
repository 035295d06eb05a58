"""TokenMixer-Large (2026, arXiv:2602.06563), which changes RankMixer so that it can be deep.

Mixing is undone within each block, norms come first and are of the root mean square, networks are SwiGLU, residuals
reach over several blocks, and a token of its own gives the score. The open reading followed is lswhim/rankmixer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rawrec.config.heads import TokenMixerLargeConfig
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.mixing import Pieces, TokenLinear, mix
from rawrec.models.ranking.tokens import Head, Tokens
from rawrec.onednn import Linear

EPSILON = 1e-8


class SwiGLU(nn.Module):
    """(silu(x W_g + b_g) * (x W_u + b_u)) W_d + b_d with matrices of each token's own; W_d begins within +-0.01."""

    def __init__(self, tokens: int, width: int, inner: int):
        super().__init__()
        self.gate, self.up = TokenLinear(tokens, width, inner), TokenLinear(tokens, width, inner)
        self.down = TokenLinear(tokens, inner, width)
        nn.init.uniform_(self.down.weight, -0.01, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """H = Mix(X); H = H + SwiGLU(RMSNorm(H)); R = Mix(H), which undoes it; X' = X + SwiGLU(RMSNorm(R))."""

    def __init__(self, cfg: TokenMixerLargeConfig):
        super().__init__()
        size = cfg.tokens + 1, cfg.width, cfg.multiplier * cfg.width
        self.mixed_norm, self.norm = (nn.RMSNorm(cfg.width, EPSILON) for _ in range(2))
        self.mixed, self.reverted = SwiGLU(*size), SwiGLU(*size)

    def half(self, x: Tensor) -> Tensor:
        """H after its network."""
        x = mix(x)
        return x + self.mixed(self.mixed_norm(x))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.reverted(self.norm(mix(self.half(x))))


class Score(nn.Module):
    """w . RMSNorm(x) + b of the global token."""

    def __init__(self, width: int, labels: int):
        super().__init__()
        self.norm, self.map = nn.RMSNorm(width, EPSILON), Linear(width, labels)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(self.norm(x[0]))


class TokenMixerLarge(Head):
    """A global token and pieces of the tokens through blocks; the logit is a linear map of the global one.

    After every `residual_interval`-th block but the last of all, what came out of the one before is added, and a score
    of its own is learned as well: in training, their mean is an auxiliary logit.
    """

    def __init__(self, cfg: TokenMixerLargeConfig, names: Sequence[str], dim: int, labels: int = 1):
        super().__init__()
        self.cfg = cfg
        self.pieces = Pieces(len(names) * dim, cfg.tokens, cfg.width, cfg.projection)
        self.token = nn.Parameter(torch.randn(cfg.width) * 0.02)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.layers))
        joints = range(cfg.residual_interval - 1, cfg.layers - 1, cfg.residual_interval)
        self.auxiliary = nn.ModuleDict({str(k): Score(cfg.width, labels) for k in joints})
        self.score = Score(cfg.width, labels)
        self._auxiliary: Tensor | None = None

    def begin(self, tokens: Tokens) -> Tensor:
        """The global token and the pieces, `[tokens, n, width]`."""
        x = self.pieces(tokens.values.flatten(2).flatten(0, 1))
        return torch.cat([self.token.expand(1, x.shape[1], -1), x])

    def forward(self, tokens: Tokens) -> Tensor:
        x = before = self.begin(tokens)
        auxiliary = []
        for k, block in enumerate(self.blocks):
            x = block(x)
            if str(k) in self.auxiliary:
                x = before = x + before
                if self.training:
                    auxiliary.append(self.auxiliary[str(k)](x).unflatten(0, tokens.shape))
        if auxiliary:
            self._auxiliary = torch.stack(auxiliary).mean(0)
        return self.score(x).unflatten(0, tokens.shape)

    @property
    def loss_weights(self) -> dict[str, float]:
        return {"auxiliary": self.cfg.auxiliary_weight} if self.auxiliary and self.cfg.auxiliary_weight else {}

    def losses(self, tokens: Tokens, batch: RankingBatch, labels: Tensor) -> dict[str, Tensor]:
        """auxiliary: cross entropy of the auxiliary logit with the labels."""
        logits, self._auxiliary = self._auxiliary, None
        if not self.loss_weights or logits is None:
            return {}
        logits = logits[..., 0].float()
        real = (batch.items >= 0).expand_as(logits).to(logits.dtype)
        entropy = nn.functional.binary_cross_entropy_with_logits
        return {"auxiliary": entropy(logits, labels, weight=real, reduction="sum")}
