"""What the families that see pictures and words in one space have in common: CLIP and its relatives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from rawrec.config import FieldConfig
from rawrec.content.encoders.base import Kind, Stack
from rawrec.content.encoders.loading import checked_length, load_tokenizer
from rawrec.content.encoders.pictures import Pictures, read_pictures
from rawrec.content.encoders.plain import fitting
from rawrec.content.encoders.stacks import Probe, TransformerStack, native_size, probe_pixels, probe_tokens
from rawrec.content.encoders.tokens import Words
from rawrec.data.texts import Tokenizer
from rawrec.errors import UserError

Output = Literal["projected", "pooled"]


class TwoTowerStack(TransformerStack):
    """One tower of a model with `get_image_features` and `get_text_features`, which the feature comes from.

    So pooling and projection are the class's own and lie above the last layer: `top:n` and `all` train them. A subclass
    is a family: it says what lies between the pooled state and the projected feature, how texts are filled up, and how
    pictures are prepared where the folder does not say it.
    """

    name: ClassVar[str]

    def __init__(self, model: Any, kind: Kind, output: Output, probe: Probe) -> None:
        """model: whole; its other tower is taken out of it."""
        if output == "pooled":
            self.unproject(model, kind)
        setattr(model, "text_model" if kind == "image" else "vision_model", None)
        super().__init__(model, kind, probe, tower="vision_model" if kind == "image" else "text_model")
        self.description += f" {output}"

    def feature(self, inputs: dict[str, Any], mask: Tensor | None) -> Tensor:
        model: Any = self.model
        features = model.get_image_features if self.kind == "image" else model.get_text_features
        return features(**inputs).pooler_output

    def pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """The first token of a picture, the last of a text."""
        last = 0 if mask is None else mask.sum(1) - 1
        return hidden[torch.arange(len(hidden), device=hidden.device), last]

    # ------------------------------------------------------------------------------------------- what a family may say
    @classmethod
    def unproject(cls, model: Any, kind: Kind) -> None:
        """Change `model` so that its features are those before the projection."""
        setattr(model, "visual_projection" if kind == "image" else "text_projection", nn.Identity())

    @classmethod
    def usual_pictures(cls, side: int) -> Pictures:
        """Where the folder does not say how pictures are prepared."""
        raise NotImplementedError

    @classmethod
    def words(cls, tokenizer: Tokenizer, theirs: Any, config: Any, name: str) -> tuple[Tokenizer, int, int]:
        """The tokenizer as the family uses it, how many tokens are usual, and how many at most.

        theirs: the same tokenizer as an object of transformers. config: of the text tower.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------------ from files
    @classmethod
    def of_texts(cls, model: Any, folder: Path, name: str, cfg: FieldConfig) -> tuple[Stack, Words]:
        config = model.text_model.config
        tokenizer, usual, limit = cls.words(*load_tokenizer(folder, name), config, name)
        length = checked_length(cfg.max_length, usual, limit, name)
        return cls(model, "text", cfg.output, probe_tokens(tokenizer)), Words(tokenizer, length)

    @classmethod
    def of_pictures(cls, model: Any, folder: Path, name: str, cfg: FieldConfig) -> tuple[Stack, Pictures]:
        native = native_size(model.vision_model)
        if native is None:
            raise UserError(f"encoder {name}: its config.json names no image_size, which pictures are made to fit")
        pictures = (read_pictures(folder, name, native) or cls.usual_pictures(native)).sized(cfg.size)
        size = pictures.framing.side
        return fitting(lambda: cls(model, "image", cfg.output, probe_pixels(size)), name, size, native), pictures
