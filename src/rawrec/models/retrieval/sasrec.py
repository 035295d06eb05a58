"""SASRec: Self-Attentive Sequential Recommendation (Kang & McAuley, ICDM 2018)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from rawrec.config.sequences import SASRecConfig
from rawrec.models.graph import Interactions
from rawrec.models.ids import lookup
from rawrec.models.retrieval.sequences import SequenceModel

EPSILON = 1e-8
"""Of layer normalisation, as published."""


class Block(nn.Module):
    """Self-attention, each place reading those up to it (section III-B), then the same two layers at every place."""

    def __init__(self, cfg: SASRecConfig):
        super().__init__()
        dim = cfg.embedding_size
        self.cfg = cfg
        self.attention_norm, self.feed_forward_norm = (nn.LayerNorm(dim, eps=EPSILON) for _ in range(2))
        self.query, self.key, self.value, self.inner, self.outer = (nn.Linear(dim, dim) for _ in range(5))
        for layer in (self.query, self.key, self.value, self.inner, self.outer):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, known: Tensor, keep: Mapping[str, Tensor]) -> Tensor:
        """x `[n, length, dim]`, known `[n, length]` bool; keep: what dropout leaves, by layer, empty in evaluation."""
        published = self.cfg.residual == "normalised"
        q = self.attention_norm(x)
        x = (q if published else x) + self._attention(q, x if published else q, known, keep.get("attention"))
        y = self.feed_forward_norm(x)
        hidden = dropped(self.inner(y).relu(), keep.get("inner"), self.cfg.dropout)
        return (y if published else x) + dropped(self.outer(hidden), keep.get("outer"), self.cfg.dropout)

    def _attention(self, q: Tensor, x: Tensor, known: Tensor, keep: Tensor | None) -> Tensor:
        n, length, dim = q.shape
        heads = self.cfg.n_heads

        def split(values: Tensor) -> Tensor:
            return values.view(n, length, heads, dim // heads).transpose(1, 2)

        query, key, value = split(self.query(q)), split(self.key(x)), split(self.value(x))
        logits = query @ key.transpose(2, 3) / math.sqrt(dim // heads)
        past = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        readable = past & known[:, None, None]
        # A place before the sequence begins reads nothing that is known: whatever comes out of it is cut off.
        weights = logits.masked_fill(~readable, torch.finfo(logits.dtype).min).softmax(3)
        read = dropped(weights, keep, self.cfg.dropout) @ value
        return read.transpose(1, 2).reshape(n, length, dim)


def dropped(x: Tensor, keep: Tensor | None, rate: float) -> Tensor:
    """Dropout with a given mask (True = kept); None: none."""
    return x if keep is None else x * keep / (1 - rate)


class SASRec(SequenceModel):
    """`E = sqrt(d) M_s + P` of the items of a sequence and their places (section III-A), blocks (III-B, III-C), and
    `r_ti = LN(F_t) . M_i` with the table of the input (III-D).

    Loss (III-E): `-log sigma(r_tp) - log(1 - sigma(r_tn))`, p what follows place t and n an item that the user has not
    taken, the mean over places. Places are counted from the end of the sequence.
    """

    cfg: SASRecConfig
    shares_batches: ClassVar[bool] = True

    def __init__(
        self,
        cfg: SASRecConfig,
        pairs: Interactions,
        features: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(cfg, pairs, features, present)
        self.item_embedding = nn.Embedding(pairs.n_items, cfg.embedding_size)
        self.position_embedding = nn.Embedding(cfg.max_length, cfg.embedding_size)
        nn.init.xavier_uniform_(self.item_embedding.weight)
        nn.init.xavier_uniform_(self.position_embedding.weight)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layers))
        self.norm = nn.LayerNorm(cfg.embedding_size, eps=EPSILON)

    def draw_sequences(self, shape: torch.Size, generator: torch.Generator) -> dict[str, Tensor]:
        """Kept entries, bool: of the embeddings `[n, length, dim]`, and of every block's attention `[n, heads, length,
        length]` and of both layers after it."""
        if not self.cfg.dropout:
            return {}
        (n, length), dim = shape, self.cfg.embedding_size
        sizes: dict[str, tuple[int, ...]] = {"embedding": (n, length, dim)}
        for k in range(self.cfg.n_layers):
            sizes[f"{k}.attention"] = (n, self.cfg.n_heads, length, length)
            sizes |= {f"{k}.{name}": (n, length, dim) for name in ("inner", "outer")}
        return {name: torch.rand(size, generator=generator) >= self.cfg.dropout for name, size in sizes.items()}

    def encode(self, sequences: Tensor, draws: Mapping[str, Tensor] | None = None) -> Tensor:
        draws, known = draws or {}, sequences >= 0
        n, length = sequences.shape
        items = self._rows(sequences.clamp(min=0).flatten()).view(n, length, -1)
        x = items * math.sqrt(self.cfg.embedding_size) + self.position_embedding.weight[-length:]
        there = known[..., None]
        x = dropped(x, draws.get("embedding"), self.cfg.dropout).masked_fill(~there, 0)
        for k, block in enumerate(self.blocks):
            keep = {name.partition(".")[2]: mask for name, mask in draws.items() if name.startswith(f"{k}.")}
            x = block(x, known, keep).masked_fill(~there, 0)
        return self.norm(x)

    def _rows(self, items: Tensor) -> Tensor:
        """The id rows of items `[m]`."""
        return self.item_ids(self.item_embedding.weight, items)

    def item_vectors(self) -> Tensor:
        return self.item_ids(self.item_embedding.weight)

    def sequence_loss(
        self, inputs: Tensor, positives: Tensor, negatives: Tensor, draws: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        known = inputs >= 0
        read = self.encode(inputs, draws)[known]
        wanted, other = (lookup(self.item_embedding.weight, rows[known]) for rows in (positives, negatives))
        good = -nn.functional.logsigmoid((read * wanted).sum(1)).mean()
        bad = -nn.functional.logsigmoid(-(read * other).sum(1)).mean()
        return {"loss": good + bad, "positive": good, "negative": bad}
