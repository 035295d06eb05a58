"""Settings of `rawrec finetune`: an encoder tuned on the catalogue's own pictures and texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from rawrec.config.content import TRAIN_PATTERN
from rawrec.config.records import Record, Size
from rawrec.config.training import TrainConfig, known_device
from rawrec.config.wording import short, unknown
from rawrec.errors import IdleSetting, UserError
from rawrec.shown import several

Loss = Literal["itc", "itm", "mlm"]
METRIC = re.compile(r"recall|(image_to_text|text_to_image)/recall@(1|5|10)")
SHARED = (
    "epochs",
    "batch_size",
    "lr_decay",
    "encoder_lr_decay",
    "warmup_steps",
    "weight_decay",
    "clip",
    "patience",
    "device",
    "precision",
    "checkpoint_every",
    "checkpoint_share",
    "on_interrupt",
    "threads",
)
"""What it has in common with the training of models."""


class FinetuneConfig(Record):
    """An encoder tuned on pairs of picture and text: `rawrec finetune DATA --encoder NAME --out FOLDER`."""

    encoder: str = Field(
        description="folder or hub name of CLIP and its kin or of VLMo; pair:IMAGE+TEXT, any two encoders; random:vlmo"
    )
    loss: list[Loss] = Field(
        default=["itc"],
        min_length=1,
        description="itc: tell pictures and texts apart; VLMo alone also itm: true pairs from false ones that look "
        "alike, and mlm: hidden words",
    )
    image_fields: list[str] | None = Field(default=None, min_length=1, description="null: all image fields")
    text_fields: list[str] | None = Field(
        default=None, min_length=1, description="null: all text fields; they are joined"
    )
    pictures: Literal["first", "draw"] = Field(
        default="first",
        description="an item's first picture, or one drawn anew in each epoch from the first max_images",
    )
    max_images: int = Field(default=4, ge=1, description="pictures=draw: of the first so many")
    held_out: float = Field(
        default=0.1, gt=0, lt=1, description="share of the pairs that is measured and not trained on, by item id"
    )
    train: str = Field(
        default="all",
        description="all | top:<n> | lora: which layers learn; of pair: also none, so that the projections learn alone",
    )
    lora_rank: int = Field(default=8, ge=1, description="rank of LoRA's matrices")
    lora_layers: int | None = Field(default=None, ge=1, description="LoRA in the top n layers only; null: in all")
    recompute: bool = Field(
        default=False, description="layers are computed again in the backward pass: less memory, more time"
    )
    dim: Size = Field(default=256, description="pair: width of the space that both share")
    temperature: float | None = Field(
        default=None, gt=0, description="at the beginning; null: the encoder's own, of pair: 0.07"
    )
    learn_temperature: bool = Field(default=True, description="the temperature, and SigLIP's bias, learn, too")
    size: int | None = Field(default=None, ge=16, le=1024, description="side of pictures; null: as the encoder has it")
    max_length: int | None = Field(
        default=None, ge=4, le=8192, description="tokens of a text; null: as the encoder has it"
    )
    epochs: int = Field(default=10, ge=1, description="at most so many passes over the pairs")
    batch_size: int = Field(default=256, ge=2, description="pairs of a step: each is told from all others of them")
    micro_batch: int = Field(
        default=64, ge=1, description="pairs encoded at once with gradient; more are done with gradient caching"
    )
    lr: float = Field(default=1e-5, gt=0, description="learning rate of the encoder's layers")
    encoder_lr_decay: float = Field(
        default=1.0, gt=0, le=1, description="factor of lr from a layer to the one below it; the last one learns at lr"
    )
    projection_lr: float = Field(
        default=1e-3, gt=0, description="learning rate of what is beside them: pair's projections, temperature, heads"
    )
    lr_decay: float = Field(default=1.0, gt=0, le=1, description="factor of the rates per 50 epochs, gradually")
    warmup_steps: int = Field(default=50, ge=0, description="steps over which the learning rates rise")
    weight_decay: float = Field(default=0.1, ge=0, description="of pair's projections and VLMo's heads (AdamW)")
    clip: float | None = Field(default=1.0, gt=0, description="largest norm of the gradient; null: any")
    patience: int = Field(default=3, ge=1, description="epochs without improvement before it stops")
    metric: str = Field(
        default="recall",
        description="of held-out pairs, which early stopping follows: recall (mean of recall@1, 5, 10 both ways), or "
        "one of them, as image_to_text/recall@1",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="of order, drawn pictures, hidden words, new weights")
    device: str = Field(default="auto", description="auto | cpu | cuda | cuda:<n>")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware has it"
    )
    checkpoint_every: int = Field(default=500, ge=1, description="steps between checkpoints inside an epoch")
    checkpoint_share: float = Field(default=0.05, gt=0, le=1, description="checkpoints take at most this share of time")
    on_interrupt: Literal["keep", "finish"] = Field(
        default="keep", description="what Ctrl-C leaves: keep, a run to resume; finish, the best epoch so far"
    )
    threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads; null: those that are there")

    @field_validator("loss", "image_fields", "text_fields", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        """One name in the place of a list, or several between commas."""
        return [word.strip() for word in value.split(",")] if isinstance(value, str) else value

    @field_validator("train")
    @classmethod
    def _train(cls, value: str) -> str:
        if not TRAIN_PATTERN.match(value):
            raise ValueError("use all, lora or top:<n> with n >= 1, for example top:1")
        if value.startswith("side:"):
            raise ValueError(
                "a network beside the layers is a part of a model, not of an encoder's folder; use top:<n>"
            )
        return value

    _device = field_validator("device")(known_device)

    @field_validator("metric")
    @classmethod
    def _metric(cls, value: str) -> str:
        if not METRIC.fullmatch(value):
            raise ValueError("use recall, or recall@1, @5 or @10 of one way, as image_to_text/recall@1")
        return value

    @model_validator(mode="after")
    def _fits(self) -> FinetuneConfig:
        if len(set(self.loss)) < len(self.loss):
            raise ValueError(f"loss={','.join(self.loss)}: name each once")
        if self.train == "none" and not self.is_pair:
            raise ValueError("train=none: nothing of the encoder would learn; use all, top:<n> or lora")
        if self.train == "none" and self.pictures == "draw":
            raise ValueError("pictures=draw: with train=none pictures are encoded once; use pictures=first")
        return self

    @property
    def is_pair(self) -> bool:
        return self.encoder.startswith("pair:")

    @property
    def label(self) -> str:
        return f"finetune {self.encoder}"

    def schedule(self) -> TrainConfig:
        """What the training loop and the optimiser read."""
        shared = {name: getattr(self, name) for name in SHARED}
        return TrainConfig(**shared, lr=self.projection_lr, encoder_lr=self.lr, ema=0.0, optimizer="adamw")

    def dump(self) -> dict[str, Any]:
        """Plain values, complete: what `config.yaml` holds."""
        return self.model_dump(mode="json")


def finetune_config(tree: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> FinetuneConfig:
    """The settings from plain values. given: those that the user named, which must have an effect.

    Every mistake becomes a `UserError` that names it.
    """
    try:
        cfg = FinetuneConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(several(_explain(e) for e in error.errors())) from None
    for key in given or {}:
        if (reason := _idle(cfg, key)) is not None:
            raise IdleSetting(key, f"{key}={short((given or {})[key])} would do nothing: {reason}")
    return cfg


def _explain(error: Any) -> str:
    where, message = ".".join(map(str, error["loc"][:1])), error["msg"].removeprefix("Value error, ")
    if where and where not in FinetuneConfig.model_fields:
        key = where.partition(".")[0]
        return unknown("finetune", key, list(FinetuneConfig.model_fields))
    if error["type"] == "missing":
        return f"{where}: give it"
    if not where:  # a check across settings, which names them itself
        return message
    return f"{where}={short(error['input'])}: {message[:1].lower()}{message[1:]}"


def _idle(cfg: FinetuneConfig, key: str) -> str | None:
    """Why a setting has no effect under the others; None where it has one."""
    rules = {
        "max_images": (cfg.pictures == "first", "pictures=first reads one picture; use pictures=draw"),
        "lora_rank": (cfg.train != "lora", f"train={cfg.train} has no LoRA; use train=lora"),
        "lora_layers": (cfg.train != "lora", f"train={cfg.train} has no LoRA; use train=lora"),
        "dim": (not cfg.is_pair, f"{cfg.encoder} has a space of its own; only pair:IMAGE+TEXT gets a new one"),
        "encoder_lr_decay": (
            cfg.train in ("none", "top:1") or (cfg.train == "lora" and cfg.lora_layers == 1),
            f"train={cfg.train} trains no two layers of an encoder",
        ),
        "lr": (cfg.train == "none", "train=none trains no layer of the encoders; use projection_lr"),
        "recompute": (cfg.train == "none", "train=none trains no layer of the encoders"),
        "precision": (False, ""),
    }
    holds, reason = rules.get(key, (False, ""))
    return reason if holds else None
