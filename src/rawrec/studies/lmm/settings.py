"""What a study is of: the settings that all its runs share, and the parts of its grid that were asked for.

`study.yaml` holds all of it. A later call may ask for another part of the grid; the settings stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rawrec.config.content import TRAIN_PATTERN
from rawrec.config.records import Count, Record
from rawrec.config.resolution import single
from rawrec.studies.settings import check_same, checked

Paradigm = Literal["pretrained", "two_stage", "end_to_end"]
Modalities = Literal["VT", "V", "T"]
PAPER_MODELS = ["vbpr", "mmgcn", "mmgcl", "slmrec", "lattice"]
DEFAULT_ENCODERS = ["efficientnet_lite0+minilm", "pair:efficientnet_lite0+minilm"]
MAY_CHANGE = ("data", "grid")  # between two calls on the same study folder
OF_THE_STUDY = {
    "seed": "--seeds",
    "paradigm": "--paradigms",
    "train.encoder_lr": "--encoder-lrs",
    "content.features": "--modalities",
    "content.item.encoder": "--encoders",
    "content.image.encoder": "--encoders",
    "content.text.encoder": "--encoders",
    "content.item.train": "--train",
    "content.image.train": "--train",
    "content.text.train": "--train",
}
"""Settings of runs that the grid decides, and the option that says so."""
Several = Annotated[list[Any], Field(min_length=1)]


class Part(Record):
    """A part of the grid: every combination of these. The runs of a point have the seeds 0, 1 ..."""

    models: list[str] = Field(default=PAPER_MODELS, min_length=1, description="retrieval models, or presets of them")
    encoders: list[str] = Field(
        default=DEFAULT_ENCODERS,
        min_length=1,
        description="IMAGE+TEXT; pair:IMAGE+TEXT; CLIP and its kin or VLMo by name or folder; ready:FEATURE+FEATURE",
    )
    paradigms: list[Paradigm] = Field(
        default=["pretrained", "two_stage", "end_to_end"], min_length=1, description="how the encoders are trained"
    )
    modalities: list[Modalities] = Field(
        default=["VT"], min_length=1, description="what a model reads: pictures (V), texts (T), both"
    )
    seeds: Count = Field(default=3, description="runs of each point")

    @field_validator("models", "encoders", "paradigms", "modalities", mode="before")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        words = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
        if isinstance(words, list) and len(set(map(str, words))) < len(words):
            twice = next(word for word in words if words.count(word) > 1)
            raise ValueError(f"{twice} is named twice; once is enough")
        return words


class StudyConfig(Record):
    """What `study.yaml` holds. All but `data` and `grid` stays as the first call had it."""

    study: Literal["lmm"] = Field(default="lmm", description="which paper's study it is")
    data: Path = Field(description="dataset folder")
    protocol: Literal["mmrec", "default"] = Field(
        default="mmrec", description="mmrec: lists as the paper's, patience 50; default: as `rawrec train` has them"
    )
    train: str = Field(default="top:1", description="layers of the encoders that learn end to end: top:<n>, all, lora")
    encoder_lrs: list[Annotated[float, Field(gt=0)]] = Field(
        default=[1e-5, 1e-4, 1e-3],
        min_length=1,
        description="learning rates of encoders, of which validation chooses one for each end-to-end point",
    )
    search: dict[str, Several] = Field(
        default_factory=dict, description="key: [values], of which validation chooses for every point alike"
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="of all runs, as key: value")
    finetune: dict[str, Any] = Field(default_factory=dict, description="of two_stage's tuning, as key: value")
    grid: list[Part] = Field(default_factory=list, description="the parts that were asked for")

    @field_validator("train")
    @classmethod
    def _trains(cls, value: str) -> str:
        if not TRAIN_PATTERN.match(value) or value == "none":
            raise ValueError("use top:<n>, all or lora, for example top:1")
        return value

    @field_validator("settings")
    @classmethod
    def _flat(cls, value: dict[str, Any]) -> dict[str, Any]:
        return single(value)

    @field_validator("encoder_lrs")
    @classmethod
    def _rates_once(cls, value: list[float]) -> list[float]:
        if len(set(value)) < len(value):
            raise ValueError("a rate is named twice; once is enough")
        return value

    @model_validator(mode="after")
    def _together(self) -> StudyConfig:
        for where, keys in (("search", self.search), ("settings", self.settings)):
            for key in keys:
                if key in OF_THE_STUDY:
                    raise ValueError(f"{key} is what the study compares: use {OF_THE_STUDY[key]}")
                if where == "search" and key in self.settings:
                    raise ValueError(f"{key} is given for all runs and in search; leave one out")
        if "encoder" in self.finetune or "seed" in self.finetune:
            raise ValueError("finetune: encoder and seed are the study's own affair; leave them out")
        return self


def study_config(tree: Mapping[str, Any], name: str = "the study") -> StudyConfig:
    """The settings from plain values. Raises UserError that names what is wrong."""
    return checked(StudyConfig, tree, name, Part)


def joined(before: StudyConfig, now: StudyConfig, out: Path) -> StudyConfig:
    """The study of a folder with what this call asks for. UserError where a setting of the study would change."""
    check_same(before, now, MAY_CHANGE, out)
    parts = [*before.grid, *(part for part in now.grid if part not in before.grid)]
    return now.model_copy(update={"grid": parts})
