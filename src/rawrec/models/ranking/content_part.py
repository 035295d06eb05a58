"""What a ranker makes of content: what every such part is (`ContentPart`), and EM3's (Deng et al., 2024).

EM3 adds content of the candidate and of the history, beside ids.

"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rawrec.config.ranking import ContentPartConfig
from rawrec.models.losses import ContentIdContrast
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.history import attend
from rawrec.models.ranking.inputs import Inputs, mean_vectors
from rawrec.models.ranking.tokens import Part, Past, Token
from rawrec.onednn import Linear


class Around(NamedTuple):
    """What stands around a content part: content, the width of content embeddings; dim, that of tokens and of id
    embeddings; categories, how many categorical columns an item's id may be joined with (model.cic_id=concat); inputs,
    how many tokens the ranker's inputs give; history, how many items the longest history has; queries, whether batches
    have the content of a query; marks, how many codes each mark of the histories' events has (`Marks`)."""

    content: int
    dim: int
    categories: int = 0
    inputs: int = 0
    history: int = 20
    queries: bool = False
    marks: Sequence[int] = ()


class ContentPart(nn.Module):
    """One paper's way from content to tokens. A subclass takes its settings and what is `Around` it.

    names: of the tokens that `forward` gives. histories: widths of its histories, by name. cic: the Content-ID
    contrast, None for a part without one.
    """

    names: tuple[str, ...]
    histories: dict[str, int]
    cic: ContentIdContrast | None
    same: Tensor | None

    def __init__(self, cfg: ContentPartConfig, around: Around):
        super().__init__()
        self.cfg, self.dim = cfg, around.dim
        self.register_buffer("same", None, persistent=False)  # of every item a number, equal where content is

    def forward(self, batch: RankingBatch, inputs: Part) -> Part:
        """Tokens of `batch.content` and the histories' content; inputs: what the ranker's inputs made of the batch."""
        raise NotImplementedError

    def contrast_with_ids(self, around: Around) -> ContentIdContrast:
        """The Content-ID contrast that the settings describe."""
        cfg = self.cfg
        negatives = None if cfg.cic_negatives == "all" else cfg.cic_negatives
        id_width = (1 + around.categories) * around.dim if cfg.cic_id == "concat" else around.dim
        return ContentIdContrast(around.content, around.dim, cfg.cic_temperature, negatives, id_width)

    def contrast(self, content: Tensor, items: Tensor, inputs: Inputs) -> Tensor:
        """Eq. 14 of EM3, unweighted: content `[n, width]` of distinct items `[n]` that training has ids of."""
        assert self.cic is not None
        ids = self.ids_side_by_side(items, inputs) if self.cfg.cic_id == "concat" else inputs.item_vectors(items)
        return self.cic(content, ids, None if self.same is None else self.same[items])

    @staticmethod
    def ids_side_by_side(items: Tensor, inputs: Inputs) -> Tensor:
        """The id's vector and that of every categorical column, `[n, (1 + columns) dim]` (section 3.4)."""
        parts = [inputs.ids.item(items + 1)]
        for name, bag in inputs.columns.bags.items() if len(items) else ():
            parts.append(mean_vectors(inputs.bags, {name: bag}, items))
        return torch.cat(parts, 1)


class Em3Content(ContentPart):
    """All four tokens, or those of one side (model.content_side), the candidate's content or the user's.

    The candidate's content c (eq. 6), the user's content interest u (eq. 7-8), which also meets its candidate element
    by element, the user's profile (the mean of the history's content), a bias of the content, and the Content-ID
    contrast (eq. 14).
    """

    def __init__(self, cfg: ContentPartConfig, around: Around):
        super().__init__(cfg, around)
        content_dim, dim = around.content, around.dim
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
        self.cic = self.contrast_with_ids(around)

    def forward(self, batch: RankingBatch, inputs: Part) -> Part:
        content, history = batch.content, batch.history_content
        assert content is not None and history is not None
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
