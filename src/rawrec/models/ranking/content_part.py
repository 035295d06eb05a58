"""What EM3 adds to a ranker (Deng et al., 2024): content of the candidate and of the history, beside ids.

The candidate's content c (eq. 6), the user's content interest u (eq. 7-8), which also meets its candidate element by
element, the user's profile (the mean of the history's content), a bias of the content, and the Content-ID contrast
(eq. 14).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from rawrec.config.ranking import ContentPartConfig
from rawrec.models.losses import ContentIdContrast
from rawrec.models.ranking.history import HistoryContent, attend
from rawrec.models.ranking.inputs import Inputs, mean_vectors
from rawrec.models.ranking.tokens import Part, Past, Token
from rawrec.onednn import Linear


class Em3Content(nn.Module):
    """content_dim: width of content embeddings; dim: of tokens and of id embeddings.

    names: of the tokens that `forward` gives: all four, or those of one side (model.content_side), the candidate's
    content or the user's. histories: widths of its histories, by name.
    """

    reads_query: ClassVar[bool] = False
    """Whether `forward` reads `RankingBatch.query_content`."""
    same: Tensor | None

    def __init__(self, cfg: ContentPartConfig, content_dim: int, dim: int, categories: int = 0):
        """categories: how many categorical columns an item's id may be joined with (model.cic_id=concat)."""
        super().__init__()
        self.cfg, self.dim = cfg, dim
        self.item_side, self.user_side = cfg.content_side != "user", cfg.content_side != "item"
        self.histories = {"content": content_dim} if self.user_side else {}
        both = ("content", "content_interest", "content*interest", "profile")
        self.names = {"both": both, "item": both[:1], "user": (both[1], both[3])}[cfg.content_side]
        if self.user_side:
            self.query, self.key = Linear(content_dim, dim), Linear(content_dim, dim, bias=False)
        if self.item_side:
            self.candidate = Linear(content_dim, dim)
        if self.user_side:
            self.interest, self.profile = Linear(content_dim, dim), Linear(content_dim, dim)
        if self.item_side:
            self.content_bias = Linear(content_dim, 1)
        negatives = None if cfg.cic_negatives == "all" else cfg.cic_negatives
        id_width = (1 + categories) * dim if cfg.cic_id == "concat" else dim
        self.cic = ContentIdContrast(content_dim, dim, cfg.cic_temperature, negatives, id_width)
        self.register_buffer("same", None, persistent=False)  # of every item a number, equal where content is

    def forward(self, content: Tensor, history: HistoryContent) -> Part:
        """content: `[batch or 1, candidates, content_dim]`, zeros where an item has none."""
        tokens, histories = [], {}
        known, past = (content != 0).any(2), history.valid.any(1)[:, None]
        # (W_k h)q = h(q W_k): histories are never projected
        query = self.query(content) @ self.key.weight if self.user_side else None
        if self.item_side:
            tokens.append(Token("content", self.candidate(content), known))
        if query is not None:
            interest = self.interest(attend(history, query, self.dim))
            tokens.append(Token("content_interest", interest, past))
            if self.item_side:
                tokens.append(Token("content*interest", tokens[0].values * interest, known & past))
            valid = history.valid[:, None].to(content.dtype)
            profile = history.mix(valid / valid.sum(2, keepdim=True).clamp(min=1))
            tokens.append(Token("profile", self.profile(profile), past))
            histories["content"] = Past(content, history)
        linear = [self.content_bias(content)[..., 0]] if self.item_side else []
        return Part(tokens, linear, histories)

    def contrast(self, content: Tensor, items: Tensor, inputs: Inputs) -> Tensor:
        """Eq. 14, unweighted: content `[n, content_dim]` of distinct items `[n]` that training has ids of."""
        ids = self.ids_side_by_side(items, inputs) if self.cfg.cic_id == "concat" else inputs.item_vectors(items)
        return self.cic(content, ids, None if self.same is None else self.same[items])

    @staticmethod
    def ids_side_by_side(items: Tensor, inputs: Inputs) -> Tensor:
        """The id's vector and that of every categorical column, `[n, (1 + columns) dim]` (section 3.4)."""
        parts = [inputs.ids.item(items + 1)]
        for name, bag in inputs.columns.bags.items() if len(items) else ():
            parts.append(mean_vectors(inputs.bags, {name: bag}, items))
        return torch.cat(parts, 1)
