"""All settings of a run in one record, and what must hold across its parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from rawrec.config.content import BankConfig, ContentConfig
from rawrec.config.models import RETRIEVAL, ModelConfig, record_name
from rawrec.config.ranking import DotMlpConfig, present_form
from rawrec.config.records import Record
from rawrec.config.training import LIST_METRIC, DataConfig, EvalConfig, TrainConfig
from rawrec.models.retrieval.configs import RetrievalConfig

NO_GRADIENT: dict[str, tuple[str, float, str]] = {
    "freedom": ("reg_weight", 0, "features only make the frozen item graph"),
    "bm3": ("cl_weight", 0, "features have no part in the loss"),
    "lattice": ("lambda_coeff", 1, "the item graph is the frozen one alone"),
}
"""Retrieval model -> a setting, the value under which no gradient of the loss reaches the features, and why."""
RETRIEVAL_DEFAULTS: dict[str, Any] = {
    "paradigm": "hybrid",
    "train": {
        "epochs": 1000,
        "batch_size": 2048,
        "lr": 1e-3,
        "optimizer": "adam",
        "weight_decay": 0.0,
        "ema": 0.0,
        "warmup_steps": 0,
        "clip": None,
        "patience": 20,
        "metric": "recall@20",
    },
}
"""What the settings that rankers share are for a retrieval model unless given: as its published runs had them."""


class Config(Record):
    """Every setting of a run; `config.yaml` of a run folder holds all of it, resolved."""

    model: ModelConfig = Field(
        default_factory=DotMlpConfig, description="the model; its name says which settings it has"
    )
    paradigm: Literal["frozen", "hybrid", "end_to_end"] = Field(
        default="end_to_end",
        description="what is trained of the content: nothing (frozen), fusion (hybrid), encoders too (end_to_end); "
        "retrieval models map and join features in ways of their own, so that frozen and hybrid are the same for them",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="of weights, order and negatives; the same seed gives the same run"
    )
    data: DataConfig = Field(default_factory=DataConfig, description="what is read")
    content: ContentConfig = Field(default_factory=ContentConfig, description="from raw fields to content embeddings")
    bank: BankConfig = Field(default_factory=BankConfig, description="the table of content that histories read")
    train: TrainConfig = Field(default_factory=TrainConfig, description="the training loop")
    eval: EvalConfig = Field(default_factory=EvalConfig, description="what is measured")

    @property
    def retrieval(self) -> bool:
        """Whether the model scores all items for a user (retrieval) or one impression (ranking)."""
        return isinstance(self.model, RetrievalConfig)

    @property
    def reads_content(self) -> bool:
        """Whether the model is a ranker with a content part, so that there is a bank of content."""
        return not self.retrieval and self.model.reads_content

    @property
    def label(self) -> str:
        """What the model is called in reports, comparisons and messages; see `RankerConfig.label`."""
        return self.model.name if self.retrieval else self.model.label

    @model_validator(mode="before")
    @classmethod
    def _fitting_defaults(cls, value: Any) -> Any:
        """A model without a name is the default one; a retrieval model has defaults of its own."""
        if not isinstance(value, Mapping) or not isinstance(value.get("model"), Mapping):
            return value
        model = present_form({"name": DotMlpConfig().name, **value["model"]})
        value = {**value, "model": model}
        name = record_name(model)
        if name is None or name not in RETRIEVAL or not isinstance(value.get("train", {}), Mapping):
            return value
        train = value.get("train", {})
        if "checkpoint_every" in train and "optimizer" not in train:  # complete, and older than these were settings
            train = {key: value for key, value in train.items() if key not in ("ema", "warmup_steps", "clip")}
        train = {**RETRIEVAL_DEFAULTS["train"], **train}
        if "train_batch_size" in RETRIEVAL[name].model_fields:
            model = {"train_batch_size": train["batch_size"], **model}
        return {**RETRIEVAL_DEFAULTS, **value, "train": train, "model": model}

    @model_validator(mode="after")
    def _metric_fits(self) -> Config:
        metric, name = self.train.metric, self.label
        cut = LIST_METRIC.match(metric)
        if not self.retrieval and cut:
            raise ValueError(f"train.metric={metric}: model {name} is judged by impressions; use for example auc")
        if self.retrieval and not cut:
            raise ValueError(f"train.metric={metric}: model {name} is judged by lists; use for example recall@20")
        if cut and int(cut[4]) not in self.eval.topk:
            raise ValueError(
                f"train.metric={metric}: lists are cut at eval.topk={self.eval.topk}; add {cut[4]} to it, or use "
                f"{cut[3]}@{max(self.eval.topk)}"
            )
        return self

    @model_validator(mode="after")
    def _heads(self) -> Config:
        dim, fusion = self.content.dim, self.content.fusion
        if self.reads_content and self.paradigm != "frozen" and fusion.kind == "fqformer" and dim % fusion.heads:
            raise ValueError(
                f"content.dim={dim} is no multiple of content.fusion.heads={fusion.heads}; "
                f"use for example content.dim={math.ceil(dim / fusion.heads) * fusion.heads}"
            )
        return self

    @model_validator(mode="after")
    def _encoders_get_gradient(self) -> Config:
        setting, value, reason = NO_GRADIENT.get(self.model.name, ("name", None, ""))
        if self.paradigm == "end_to_end" and getattr(self.model, setting) == value:
            usual = type(self.model).model_fields[setting].default
            raise ValueError(
                f"paradigm=end_to_end: with model.{setting}={value} no gradient reaches the encoders, for {reason}; "
                f"use for example model.{setting}={usual}, or paradigm=hybrid"
            )
        return self

    def dump(self) -> dict[str, Any]:
        """Plain values, complete: what `config.yaml` holds."""
        return self.model_dump(mode="json")
