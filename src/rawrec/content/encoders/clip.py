"""CLIP (Radford et al., 2021), also as OpenCLIP, LAION, MetaCLIP (the first) and others trained it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.tokens import CutAtEnd
from rawrec.content.encoders.two_towers import TwoTowerStack
from rawrec.data.images import Framing
from rawrec.data.texts import Tokenizer
from rawrec.errors import UserError

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
OLD_END = 2
"""Configs of before mid-2023 have this end id, which is none: the highest id of a text is its end."""


class ClipStack(TwoTowerStack):
    """Texts: causal; the state at the end token, projected. Pictures: the class token, projected."""

    name: ClassVar[str] = "CLIP"

    def stand_ins(self, mask: Tensor) -> Tensor:
        """The end token at the last place of each text, and nothing that is taken for one before it."""
        model: Any = self.model
        end: int = model.text_model.eos_token_id
        ids = torch.full(mask.shape, end - 1 if end else 1, dtype=torch.int64, device=mask.device)
        return ids.scatter_(1, mask.sum(1, keepdim=True) - 1, end)

    @classmethod
    def usual_pictures(cls, side: int) -> Pictures:
        return Pictures.of(Framing(side, side, "BICUBIC", quick=False), MEAN, STD)

    @classmethod
    def end(cls, config: Any) -> int | None:
        """The id of the end token; None: the highest of the text."""
        return None if config.eos_token_id == OLD_END else config.eos_token_id

    @classmethod
    def words(cls, tokenizer: Tokenizer, theirs: Any, config: Any, name: str) -> tuple[Tokenizer, int, int]:
        if not isinstance(config.eos_token_id, int):
            raise UserError(f"encoder {name}: its config.json names no end token (text_config.eos_token_id)")
        end = cls.end(config)
        (ids,), _ = tokenizer(["a probe"], config.max_position_embeddings)
        if not ids or ids[-1] != (max(ids) if end is None else end) or (end is None and len(set(ids)) == 1):
            wanted = "the highest id" if end is None else f"id {end}"
            raise UserError(
                f"encoder {name}: its tokenizer does not end texts with the end token ({wanted}), where the feature is "
                "read; the tokenizer's files do not belong to config.json"
            )
        limit = int(min(config.max_position_embeddings, theirs.model_max_length))
        return CutAtEnd(tokenizer, end), limit, limit
