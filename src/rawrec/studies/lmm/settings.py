"""What a study is of: the settings that all its runs share, and the parts of its grid that were asked for.

`study.yaml` holds all of it. A later call may ask for another part of the grid; the settings stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from rawrec.config.content import TRAIN_PATTERN
from rawrec.config.records import Count, Record
from rawrec.studies.settings import StudySettings, check_same, checked, each_once

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

    _once = field_validator("models", "encoders", "paradigms", "modalities", mode="before")(each_once)


class StudyConfig(StudySettings):
    """What `study.yaml` holds. All but `data` and `grid` stays as the first call had it."""

    compared = OF_THE_STUDY
    not_tuned = "encoder and seed are the study's own affair"

    study: Literal["lmm"] = Field(default="lmm", description="which paper's study it is")  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol: Literal["mmrec", "default"] = Field(
        default="mmrec", description="mmrec: lists as the paper's, patience 50; default: as `rawrec train` has them"
    )
    train: str = Field(default="top:1", description="layers of the encoders that learn end to end: top:<n>, all, lora")
    encoder_lrs: list[Annotated[float, Field(gt=0)]] = Field(
        default=[1e-5, 1e-4, 1e-3],
        min_length=1,
        description="learning rates of encoders, of which validation chooses one for each end-to-end point",
    )
    grid: list[Part] = Field(default_factory=list, description="the parts that were asked for")

    @field_validator("train")
    @classmethod
    def _trains(cls, value: str) -> str:
        if not TRAIN_PATTERN.match(value) or value == "none":
            raise ValueError("use top:<n>, all or lora, for example top:1")
        return value

    @field_validator("encoder_lrs")
    @classmethod
    def _rates_once(cls, value: list[float]) -> list[float]:
        if len(set(value)) < len(value):
            raise ValueError("a rate is named twice; once is enough")
        return value


def study_config(tree: Mapping[str, Any], name: str = "the study") -> StudyConfig:
    """The settings from plain values. Raises UserError that names what is wrong."""
    return checked(StudyConfig, tree, name, Part)


def joined(before: StudyConfig, now: StudyConfig, out: Path) -> StudyConfig:
    """The study of a folder with what this call asks for. UserError where a setting of the study would change."""
    check_same(before, now, MAY_CHANGE, out)
    parts = [*before.grid, *(part for part in now.grid if part not in before.grid)]
    return now.model_copy(update={"grid": parts})
