"""Deep Interest Network (Zhou et al., KDD 2018): what of the past matters is asked anew for every candidate.

The open code followed where the paper is silent is FuxiCTR's. There is no first-order part: biases of ids are not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rawrec.config.heads import DINConfig
from rawrec.errors import UserError
from rawrec.models.ranking.history import watch
from rawrec.models.ranking.layers import Dice, activation_of, begin, mlp
from rawrec.models.ranking.tokens import Head, Tokens
from rawrec.onednn import Linear, linear

AT_ONCE = 1 << 24
"""Numbers of a layer that are made at once where no gradient is needed."""


NOTHING: Mapping[str, int] = {}


class AttentionUnit(nn.Module):
    """Weights of history items: an MLP of [t, h, t - h, t * h] for a candidate t and an item h, both `width` wide.

    The four parts are not laid side by side: W [t, h, t - h, t * h] = (W_1 + W_3) t + (W_2 - W_3) h + W_4 (t * h), of
    which the first is made once for a candidate and the second once for a history.
    """

    def __init__(self, cfg: DINConfig, width: int):
        super().__init__()
        self.cfg = cfg
        first, *others = [*cfg.attention_hidden, 1]
        self.first = Linear(4 * width, first)
        self.activations = nn.ModuleList(activation_of(cfg.attention_activation, w) for w in cfg.attention_hidden)
        self.others = nn.ModuleList(
            Linear(a, b) for a, b in zip(cfg.attention_hidden, others, strict=bool(cfg.attention_hidden))
        )

    def logits(self, candidate: Tensor, rows: Tensor, valid: Tensor) -> Tensor:
        """`[batch, candidates, history]`, not masked. See `forward`."""
        of_t, of_h, of_difference, of_product = self.first.weight.chunk(4, 1)
        x = linear(candidate[:, :, None] * rows[:, None], of_product)
        x = x + linear(rows, of_h - of_difference)[:, None]
        x = x + linear(candidate, of_t + of_difference, self.first.bias)[:, :, None]
        counted = None if self.cfg.dice_padding else valid[:, None]
        for activation, layer in zip(self.activations, self.others, strict=True):
            x = layer(activation(x, counted) if isinstance(activation, Dice) else activation(x))
        return x[..., 0]

    def forward(self, candidate: Tensor, rows: Tensor, valid: Tensor) -> Tensor:
        """The weighted sum of a history, `[batch, candidates, width]`; 0 for an empty one.

        candidate: `[batch or 1, candidates, width]`. rows: `[batch, history, width]`, padding 0; valid: which are none.
        """
        logits = self.logits(candidate, rows, valid)
        if self.cfg.softmax:
            logits = torch.softmax(logits.masked_fill(~valid[:, None], -1e9), 2)
        watch("unit", None, logits * valid[:, None])
        return logits @ rows

    def in_pieces(self, candidate: Tensor, rows: Tensor, valid: Tensor) -> Tensor:
        """The same for many candidates, piece by piece where no gradient is needed."""
        if torch.is_grad_enabled():
            return self(candidate, rows, valid)
        each = max(valid.numel() * max(self.first.weight.shape), 1)
        return torch.cat([self(piece, rows, valid) for piece in candidate.split(max(AT_ONCE // each, 1), 1)], 1)


class DIN(Head):
    """Logit = MLP of all tokens, the interest in ids and its product left out, and one pooled vector per history.

    histories: width of each sequence. Those of ids and, with a content part, of content have an attention unit each.
    """

    attends = True
    REPLACED = ("interest", "item*interest")

    def __init__(
        self,
        cfg: DINConfig,
        names: Sequence[str],
        dim: int,
        labels: int = 1,
        histories: Mapping[str, int] = NOTHING,
    ):
        super().__init__()
        if not histories:
            raise UserError("model din attends to histories: set model.item_id=true or model.content=em3")
        self.kept = [k for k, name in enumerate(names) if name not in self.REPLACED]
        self.units = nn.ModuleDict({name: AttentionUnit(cfg, width) for name, width in histories.items()})
        width = len(self.kept) * dim + sum(histories.values())
        widths = [width, *cfg.hidden]
        self.mlp, self.out = mlp(widths, cfg.dropout, cfg.activation), Linear(widths[-1], labels)
        begin(self)

    def inputs(self, tokens: Tokens) -> Tensor:
        """What the MLP reads, `[batch, candidates, width]`."""
        pooled = []
        for name, unit in self.units.items():
            candidate, history = tokens.histories[name]
            pooled.append(unit.in_pieces(candidate, history.rows(), history.valid))  # type: ignore[operator]
        return torch.cat([tokens.values[:, :, self.kept].flatten(2), *pooled], 2)

    def forward(self, tokens: Tokens) -> Tensor:
        return self.out(self.mlp(self.inputs(tokens)))
