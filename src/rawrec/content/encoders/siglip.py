"""SigLIP (Zhai et al., 2023) and SigLIP 2 of fixed size (Tschannen et al., 2025)."""

from __future__ import annotations

import string
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rawrec.content.encoders.base import Kind
from rawrec.content.encoders.loading import lower_case
from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.tokens import Cleaned, Filled
from rawrec.content.encoders.two_towers import TwoTowerStack
from rawrec.data.images import Framing
from rawrec.data.texts import Tokenizer
from rawrec.errors import UserError

_PUNCTUATION = str.maketrans("", "", string.punctuation)


class SiglipStack(TwoTowerStack):
    """Texts: filled up, padding is seen like words; the state at the last place, through a linear head. Pictures: the
    head's attention over all patches, and its MLP."""

    name: ClassVar[str] = "SigLIP"

    def attention_mask(self, mask: Tensor) -> dict[str, Tensor]:
        return {}

    def pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """The mean over a picture's patches: the head's attention is made for the last layer."""
        return hidden.float().mean(1) if mask is None else super().pooled(hidden, mask)

    @classmethod
    def unproject(cls, model: Any, kind: Kind) -> None:
        if kind == "text":
            model.text_model.head = nn.Identity()
        else:  # what the attention puts out, to which the MLP would add
            model.vision_model.head.layernorm, model.vision_model.head.mlp = nn.Identity(), _Nothing()

    @classmethod
    def usual_pictures(cls, side: int) -> Pictures:
        return Pictures.of(Framing(side, None, "BICUBIC", quick=False), [0.5] * 3, [0.5] * 3)

    @classmethod
    def words(cls, tokenizer: Tokenizer, theirs: Any, config: Any, name: str) -> tuple[Tokenizer, int, int]:
        if theirs.pad_token_id is None:
            raise UserError(f"encoder {name}: its tokenizer has no padding token, with which its texts are filled up")
        length = config.max_position_embeddings
        clean = without_punctuation if type(theirs).__name__.startswith("SiglipTokenizer") else lower_case
        filled = Filled(Cleaned(tokenizer, clean), length, theirs.pad_token_id, theirs.padding_side == "left")
        return filled, length, length


def without_punctuation(text: str) -> str:
    """As SigLIP's texts were made before training: small letters, no punctuation, single spaces."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


class _Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)
