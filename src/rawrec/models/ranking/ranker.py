"""A ranking model in three parts: inputs, a content part (or none), and a head, which is one paper's own.

Inputs and content part give tokens (`tokens.py`); the head makes a logit per label of them. Which content part and
which head is a setting each, so that every pair is a configuration: `id` is the head `dot_mlp` without content, `em3`
the same with EM3's content part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature

from torch import Tensor, nn

from rawrec.config.ranking import RankerConfig
from rawrec.errors import UserError
from rawrec.models import model_class
from rawrec.models.losses import delayed_weights
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.columns import ItemColumns, TableColumns
from rawrec.models.ranking.content_part import Around, ContentPart, Em3Content
from rawrec.models.ranking.context import Widths
from rawrec.models.ranking.esmm import ESMM
from rawrec.models.ranking.inputs import Inputs
from rawrec.models.ranking.lemur import LemurContent
from rawrec.models.ranking.sqdc import Sqdc
from rawrec.models.ranking.tokens import Head, Tokens

CONTENT_PARTS: dict[str, type[ContentPart]] = {"em3": Em3Content, "lemur": LemurContent}
"""Content part of every `model.content` but none."""


class Ranker(nn.Module):
    """Logits of impressions. `known_users` and `known_items`: bool, seen in training; the others share one row.

    content_dim: width of content embeddings, None for a ranker without a content part. attributes: of users; context:
    what batches have of it; each None for a ranker that reads none. further_labels: names of the labels that it learns
    beside the main one; under `model.multi_label=esmm` there is one, a conversion, and the main one is the click.
    history: how many items the longest history has. queries: whether batches have the content of a query. marks: how
    many codes each mark of the histories' events has.
    """

    def __init__(
        self,
        cfg: RankerConfig,
        known_users: Tensor,
        known_items: Tensor,
        columns: ItemColumns,
        content_dim: int | None,
        attributes: TableColumns | None = None,
        context: Widths | None = None,
        further_labels: Sequence[str] = (),
        history: int = 20,
        queries: bool = False,
        marks: Sequence[int] = (),
    ):
        super().__init__()
        self.cfg = cfg
        self.parts = ["bce", *(f"bce/{name}" for name in further_labels)]
        self.inputs = Inputs(cfg, known_users, known_items, columns, attributes, context)
        part, self.content = CONTENT_PARTS.get(cfg.content), None
        if content_dim is not None and part is not None:
            sizes = len(self.inputs.bags), len(self.inputs.names), history, queries, marks
            self.content = part(cfg, Around(content_dim, cfg.dim, *sizes))
        names = [*self.inputs.names, *(self.content.names if self.content is not None else ())]
        if not names:
            raise UserError(
                "model.user_id=false and model.item_id=false leave the ranker nothing to read; set one of them to "
                "true, name model.columns, or train `em3`"
            )
        head = model_class(cfg.name)
        histories = self.inputs.histories | ({} if self.content is None else self.content.histories)
        given = {"histories": histories} if head.attends else {}
        self.head: Head | ESMM
        if cfg.multi_label == "esmm":
            self.head = ESMM(head(cfg, names, cfg.dim, **given), head(cfg, names, cfg.dim, **given))
        else:
            several = {"labels": len(self.parts)} if further_labels else {}
            if several and "labels" not in signature(head).parameters:
                raise UserError(
                    f"model {cfg.name} takes no `labels`, so it learns one: use data.label, or for a click and what "
                    "follows it model.multi_label=esmm"
                )
            self.head = head(cfg, names, cfg.dim, **given, **several)
        self.sqdc = Sqdc(cfg) if self.content is not None and cfg.sqdc_weight else None
        self.inputs.begin()  # last, so that one seed gives the weights that it always gave

    def tokens(self, batch: RankingBatch) -> Tokens:
        """What the head reads of a batch."""
        parts = [self.inputs(batch)]
        if self.content is not None and batch.content is not None and batch.history_content is not None:
            parts.append(self.content(batch, parts[0]))
        return Tokens(parts, (len(batch.users), batch.items.shape[1]))

    def forward(self, batch: RankingBatch, label: int = 0) -> Tensor:
        """Logits of a label, the main one being 0, `[batch, candidates]`."""
        return self.label_logits(self.tokens(batch))[..., label]

    def logits(self, tokens: Tokens) -> Tensor:
        """Of the main label, `[batch, candidates]`, of what the head reads."""
        return self.label_logits(tokens)[..., 0]

    def label_logits(self, tokens: Tokens) -> Tensor:
        """Of each label, the main one first, that an impression is positive: `[batch, candidates, labels]`."""
        if isinstance(self.head, ESMM):
            return self.head(tokens).of_impressions()
        return self.head(tokens)

    def id_parameters(self) -> list[Tensor]:
        """Tables with one row per user or item, which have a weight decay of their own."""
        return self.inputs.ids.tables()

    # --------------------------------------------------------------------------------------------------------- losses
    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight in the loss of every part that `losses` and `step_losses` give."""
        weights = self.cfg.label_weights or [1.0] * len(self.parts)
        return (
            dict(zip(self.parts, weights, strict=True))
            | ({"cic": self.cfg.cic_weight} if self._contrasts else {})
            | ({"sqdc": self.cfg.sqdc_weight} if self.sqdc is not None else {})
            | self.head.loss_weights
        )

    @property
    def _contrasts(self) -> bool:
        return self.content is not None and self.cfg.cic_weight > 0

    def losses(self, batch: RankingBatch, labels: Tensor) -> dict[str, Tensor]:
        """Parts of the loss of one batch, unweighted, each a sum over its real candidates (item row >= 0).

        bce: binary cross entropy (eq. 1) with `labels` `[batch, candidates]`. A head may have others of its own.
        Of several labels, `[batch, candidates, labels]`, nan where one is unknown, each has a part, as bce/buy; a
        head's own parts read the main one, without the candidates for which it is unknown.
        """
        tokens = self.tokens(batch)
        logits = self.label_logits(tokens).float()
        real = (batch.items >= 0).expand(logits.shape[:2])
        entropy = nn.functional.binary_cross_entropy_with_logits
        if labels.ndim == 2:
            weights = real.to(logits.dtype)
            if batch.late is not None:
                weights = weights * delayed_weights(logits[..., 0].detach().sigmoid(), labels, batch.late)
            parts = {"bce": entropy(logits[..., 0], labels, weight=weights, reduction="sum")}
        else:
            known, labels = real[..., None] & ~labels.isnan(), labels.nan_to_num(0)
            parts = {
                name: entropy(logits[..., k], labels[..., k], weight=known[..., k].to(logits.dtype), reduction="sum")
                for k, name in enumerate(self.parts)
            }
            labels, items = labels[..., 0], batch.items.expand(labels.shape[:2])
            batch = replace(batch, items=items.masked_fill(~known[..., 0], -1))
        own = self.head.further_losses if isinstance(self.head, ESMM) else self.head.losses
        return parts | own(tokens, batch, labels)

    def step_losses(self, rows: Tensor, content: Tensor) -> dict[str, Tensor]:
        """Parts of the loss that are of an optimiser step as a whole, unweighted.

        rows: the distinct live candidates `[n]`; content: theirs, with gradient, `[n, content_dim]`. cic: eq. 14.
        """
        return {"cic": self.contrast(rows, content)} if self._contrasts and len(rows) else {}

    def contrast(self, items: Tensor, content: Tensor) -> Tensor:
        """Unweighted Content-ID contrast of distinct item rows `[n]` with content `[n, dim]`; without untrained ids."""
        assert self.content is not None
        known = self.inputs.ids.known_items[items]
        return self.content.contrast(content[known], items[known], self.inputs)


_PART_OF = {
    **dict.fromkeys(("user", "item", "user_bias", "item_bias"), "inputs.ids"),
    **dict.fromkeys(("id_query", "bags", "numbers", "user_numbers"), "inputs"),
    **dict.fromkeys(("query", "key", "candidate", "interest", "profile", "content_bias", "cic"), "content"),
    "mlp": "head",
}
_EARLIER = re.compile(rf"(^|\.)ranker\.(?=({'|'.join(_PART_OF)})\.)")


def present_name(name: str) -> str:
    """The name of a saved tensor, given by any version of rawrec, as rankers in three parts have it.

    `model.ranker.user.weight` -> `model.ranker.inputs.ids.user.weight`; others stay as they are.
    """
    return _EARLIER.sub(lambda found: f"{found[1]}ranker.{_PART_OF[found[2]]}.", name)
