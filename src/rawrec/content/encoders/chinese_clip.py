"""Chinese-CLIP (Yang et al., 2022): CLIP's pictures beside a BERT of Chinese words."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from rawrec.content.encoders.clip import ClipStack
from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.two_towers import TwoTowerStack
from rawrec.data.texts import Tokenizer

LENGTH = 52  # tokens of the texts it was trained with


class ChineseClipStack(TwoTowerStack):
    """Texts: padding masked; the state of the first token, projected. Pictures: as CLIP."""

    name: ClassVar[str] = "Chinese-CLIP"

    def pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        return hidden[:, 0]

    @classmethod
    def usual_pictures(cls, side: int) -> Pictures:
        return ClipStack.usual_pictures(side)

    @classmethod
    def words(cls, tokenizer: Tokenizer, theirs: Any, config: Any, name: str) -> tuple[Tokenizer, int, int]:
        limit = int(min(config.max_position_embeddings, theirs.model_max_length))
        return tokenizer, LENGTH, limit
