"""All settings of a run in one record, and what must hold across its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from rawrec.config.content import JOINT, BankConfig, ContentConfig
from rawrec.config.metrics import Of, followed, functions, own_metric
from rawrec.config.models import DEFAULT_MODEL, ModelConfig, model_entry
from rawrec.config.parts import NO_FUSION, WITH_LAYERS
from rawrec.config.ranking import DotMlpConfig, present_form
from rawrec.config.records import Record
from rawrec.config.training import DataConfig, EvalConfig, TrainConfig, UntrainedIds
from rawrec.shown import listed

JOINT_WIDTH = 128  # of what LEMUR's transformer makes of an item
COMPLETE = {"topk", "protocol", "batch_size", "full_ranking", "bootstrap"}
"""Settings of evaluation that stand together in the config of a run, and hardly in what a user writes."""


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
        return self.model.kind == "retrieval"

    @property
    def reads_content(self) -> bool:
        """Whether the model is a ranker with a content part, so that there is a bank of content."""
        return not self.retrieval and self.model.reads_content

    @property
    def follows_lists(self) -> bool:
        """Whether early stopping follows a metric of lists, so that they are made after every epoch."""
        return followed(self.train.metric).cut is not None

    @property
    def longest_history(self) -> int:
        """Items of a history in any phase of training."""
        return max(self.data.history, self.content.lora.history or 0)

    @property
    def label(self) -> str:
        """What the model is called in reports, comparisons and messages; see `RankerConfig.label`."""
        return self.model.name if self.retrieval else self.model.label

    @model_validator(mode="before")
    @classmethod
    def _fitting_defaults(cls, value: Any) -> Any:
        """A model without a name is the default one; a model may have defaults of its own for shared settings."""
        if not isinstance(value, Mapping) or not isinstance(value.get("model"), Mapping):
            return value
        model = present_form({"name": DEFAULT_MODEL, **value["model"]})
        value = {**value, "model": model}
        entry = model_entry(model["name"])
        if entry is None:
            return value
        value = _with_joint(value)
        train = value.get("train", {})
        older = isinstance(train, Mapping) and "checkpoint_every" in train and "optimizer" not in train
        if entry.record.kind == "retrieval" and older:  # complete, from before these were its settings
            value["train"] = {k: v for k, v in train.items() if k not in ("ema", "warmup_steps", "clip")}
        measured = value.get("eval", {})
        if entry.record.kind == "retrieval" and isinstance(measured, Mapping) and measured.keys() >= COMPLETE:
            value["eval"] = {"untrained_ids": "as_is", **measured}  # complete, from before this was a setting
        for key, default in entry.record.defaults.items():
            if not isinstance(default, Mapping):
                value.setdefault(key, default)
            elif isinstance(given := value.get(key, {}), Mapping):
                value[key] = {**default, **given}
        train = value.get("train", {})
        if "train_batch_size" in entry.record.model_fields and isinstance(train, Mapping) and "batch_size" in train:
            value["model"] = {"train_batch_size": train["batch_size"], **model}
        return value

    @model_validator(mode="after")
    def _metric_fits(self) -> Config:
        metric, name = self.train.metric, self.label
        bare, cut, *_, shown = followed(metric)
        if not self.retrieval and cut and not self.eval.full_ranking:
            raise ValueError(
                f"train.metric={metric}: model {name} makes lists of the full catalogue with eval.full_ranking=true "
                "alone; set that, or use for example auc"
            )
        if self.retrieval and not cut:
            raise ValueError(f"train.metric={metric}: model {name} is judged by lists; use for example recall@20")
        if cut and cut not in self.eval.topk:
            raise ValueError(
                f"train.metric={metric}: lists are cut at eval.topk={self.eval.topk}; add {cut} to it, or use "
                f"{bare}@{max(self.eval.topk)}"
            )
        if shown and shown not in self.eval.shown:
            raise ValueError(f"train.metric={metric}: sessions are judged at eval.shown={self.eval.shown}; add {shown}")
        for own in self.eval.metrics:
            if own_metric(own).of == "impressions" and self.retrieval:
                raise ValueError(f"eval.metrics: {own} measures impressions, and model {name} is judged by lists")
        return self

    @model_validator(mode="after")
    def _labels_fit(self) -> Config:
        names, further = self.data.label_names, self.data.further_labels
        if self.retrieval:
            if further:
                raise ValueError(
                    f"data.labels={names}: model {self.label} learns from the positives of one label; use "
                    f"data.label={names[0]}"
                )
            return self
        weights = self.model.label_weights
        if weights and len(weights) != len(names):
            raise ValueError(
                f"model.label_weights={weights}: give a weight for each label of {listed(names)} (data.labels)"
            )
        if self.model.multi_label == "esmm" and len(names) != 2:
            raise ValueError(
                f"model.multi_label=esmm needs two labels, the click first, and learns {listed(names)}; use for "
                "example data.labels=[click,buy], or model.multi_label=independent"
            )
        label = followed(self.train.metric).label
        known = [*further, *(f"{name}|{names[0]}" for name in further)]
        if label is not None and label not in known:
            raise ValueError(
                f"train.metric={self.train.metric}: {label} is none of the labels beside the main one "
                f"({listed(known, label, 'there are none')}); see data.labels"
            )
        return self

    @model_validator(mode="after")
    def _heads(self) -> Config:
        dim, fusion = self.content.dim, self.content.fusion
        if self.reads_content and self.paradigm != "frozen" and fusion.kind in WITH_LAYERS and dim % fusion.heads:
            raise ValueError(
                f"content.dim={dim} is no multiple of content.fusion.heads={fusion.heads}; "
                f"use for example content.dim={math.ceil(dim / fusion.heads) * fusion.heads}"
            )
        return self

    @model_validator(mode="after")
    def _something_learns(self) -> Config:
        if self.paradigm == "hybrid" and self.reads_content and self.content.fusion.kind == NO_FUSION:
            raise ValueError(
                "content.fusion.kind=none: paradigm=hybrid trains the fusion of features, and there would be none; use "
                "paradigm=frozen, or another fusion, for example content.fusion.kind=fqformer"
            )
        return self

    @model_validator(mode="after")
    def _content_learns_from_something(self) -> Config:
        if self.retrieval or not self.reads_content or self.model.ranking_gradient or self.paradigm == "frozen":
            return self
        if not (self.model.sqdc_weight or self.model.cic_weight or self.content.itc_weight):
            raise ValueError(
                f"model.ranking_gradient=false: with paradigm={self.paradigm} content learns by contrasts alone then, "
                "and there is none; use model.sqdc_weight, for example 0.01, or paradigm=frozen"
            )
        return self

    @model_validator(mode="after")
    def _lora(self) -> Config:
        lora, dim = self.content.lora, self.content.dim
        if lora.handover == "none" or not self.reads_content:
            return self
        if self.content.fusion.kind == NO_FUSION:
            raise ValueError(
                f"content.lora.handover={lora.handover}: with content.fusion.kind=none there are no projections and no "
                "fusion that LoRA could stand beside; leave it out"
            )
        if lora.rank > dim:
            raise ValueError(f"content.lora.rank={lora.rank} is above the width content.dim={dim}; use at most {dim}")
        if lora.after is not None and lora.after >= self.train.epochs:
            raise ValueError(
                f"content.lora.handover={lora.handover}: train.epochs={self.train.epochs} leave no epoch after it; use "
                f"train.epochs={lora.after + 1} or more"
            )
        if lora.history is not None and lora.history < self.data.history:
            raise ValueError(
                f"content.lora.history={lora.history} is shorter than data.history={self.data.history}, the histories "
                "of the first phase; give a longer one"
            )
        return self

    @model_validator(mode="after")
    def _encoders_get_gradient(self) -> Config:
        if (none := self.model.no_gradient) is None or self.paradigm != "end_to_end":
            return self
        if getattr(self.model, none.setting) == none.value:
            usual = type(self.model).model_fields[none.setting].default
            raise ValueError(
                f"paradigm=end_to_end: with model.{none.setting}={none.value} no gradient reaches the encoders, for "
                f"{none.reason}; use for example model.{none.setting}={usual}, or paradigm=hybrid"
            )
        return self

    @property
    def untrained_ids(self) -> UntrainedIds:
        """What eval.untrained_ids comes to."""
        return self.eval.untrained_ids or ("as_is" if self.eval.protocol == "mmrec" else "zero")

    @model_validator(mode="after")
    def _dropped_ids_are_defined(self) -> Config:
        rate = getattr(self.model, "id_dropout", 0.0) if self.retrieval else 0.0
        if rate and self.untrained_ids == "as_is":
            raise ValueError(
                f"model.id_dropout={rate} gives items in training what eval.untrained_ids gives those that training "
                "never saw, and that is as_is, a random row of their own; use eval.untrained_ids=zero or mean"
            )
        if rate and self.untrained_ids == "mean" and self.train.optimizer == "sparse_adam":
            raise ValueError(
                f"model.id_dropout={rate}: with eval.untrained_ids=mean every step reads the whole id table, which "
                "train.optimizer=sparse_adam never does; use eval.untrained_ids=zero, or train.optimizer=adam"
            )
        return self

    def own_metrics(self, of: Of) -> dict[str, Callable[..., Any]]:
        """The functions of the registered metrics, of impressions or of lists, that this run measures."""
        metric = followed(self.train.metric)
        return functions([*self.eval.metrics, *([] if metric.entry.ours else [metric.name])], of)

    def dump(self) -> dict[str, Any]:
        """Plain values, complete: what `config.yaml` holds."""
        return self.model_dump(mode="json")


def _with_joint(value: dict[str, Any]) -> dict[str, Any]:
    """What is usual where LEMUR's transformer makes the content: its width, no fusion above it, all of it learns."""
    content = value.get("content")
    if not isinstance(content, Mapping):
        return value
    for place in (content, content.get("fields")):
        if not isinstance(place, Mapping):
            continue
        item = place.get("item")
        if not isinstance(item, Mapping) or not str(item.get("encoder")).startswith(JOINT):
            continue
        item, fusion = {"train": "all", **item}, content.get("fusion", {})
        if value.get("paradigm", "end_to_end") == "end_to_end" and isinstance(fusion, Mapping):
            fusion = {"kind": NO_FUSION, **fusion}
        changed = {"item": item} if place is content else {"fields": {**place, "item": item}}
        return {**value, "content": {"dim": JOINT_WIDTH, **content, "fusion": fusion, **changed}}
    return value
