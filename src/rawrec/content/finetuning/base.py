"""What the task of a catalogue asks of an encoder that is tuned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from rawrec.config import FieldConfig
from rawrec.config.finetune import FinetuneConfig
from rawrec.content.encoders.base import Encoder, Kind
from rawrec.data.ragged import Ragged

Columns = dict[Kind, Ragged]
"""What is cached of each of some pairs: pictures and texts, at the boundary below what is trained."""
Features = dict[str, Tensor]


class Tuned(nn.Module):
    """encoders: of pictures and of texts. digest: of the weights that it starts from."""

    encoders: dict[Kind, Encoder]
    digest: str

    def notes(self) -> list[str]:
        """What the user should know before the first step."""
        return []

    def begin(self, some: Iterator[Columns]) -> None:
        """Before all else: what is new begins where `some` of the pairs that it will learn from say."""

    def encode(self, columns: Columns, contrast: bool = True) -> Features:
        """What `itc` compares (contrast), or `embed` alone needs, `[n, width]` each, with gradient."""
        raise NotImplementedError

    def embed(self, features: Features) -> tuple[Tensor, Tensor]:
        """Pictures and texts in one space, `[n, dim]` of length 1."""
        raise NotImplementedError

    def itc(self, features: Features, alike: Tensor) -> Tensor:
        """The contrast of the pairs; alike: see `data.pairs.alike`."""
        raise NotImplementedError

    def others(
        self, columns: Columns, features: Features, alike: Tensor, micro_batch: int, generator: torch.Generator
    ) -> Iterator[dict[str, Tensor]]:
        """Further losses, some pairs at a time, each to be minimised at once: "loss" and its part's name."""
        return iter(())

    def temperature(self) -> float:
        raise NotImplementedError

    def groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """What learns, by name: `encoder`, `model` (maps and heads), `plain` (which never decay)."""
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        """Make `folder` the folder of the encoder as it is now; config.json is written last."""
        raise NotImplementedError

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        return {name: p for group in self.groups().values() for name, p in group.items()}


def field_settings(cfg: FinetuneConfig, encoder: str, train: str) -> FieldConfig:
    """The settings of one side."""
    return FieldConfig(
        encoder=encoder,
        train=train,
        lora_rank=cfg.lora_rank,
        lora_layers=cfg.lora_layers,
        recompute=cfg.recompute,
        size=cfg.size,
        max_images=1 if cfg.pictures == "first" else cfg.max_images,
        max_length=cfg.max_length,
    )
