"""What `rawrec study em3` is of: `study.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from rawrec.config.records import Count
from rawrec.studies.settings import StudySettings, check_same, checked, each_once

TABLES = (1, 2, 3, 4, 5, 6, 7, 8, 9)
"""The paper's tables of rankers that the command makes."""
LISTS = 10
"""That of retrieval models on public data."""
MAY_CHANGE = ("data", "tables", "seeds")  # between two calls on the same study folder
OF_THE_STUDY = {
    "seed": "--seeds",
    "model.name": "--heads",
    "model.content": "the study's own affair: every head is trained with it and without; leave it out",
    "paradigm": "--paradigm",
    "data.label": "--labels",
    "content.lora.handover": "--handover",
    "content.lora.history": "--lengths",
}
"""Settings of runs that the study decides, and the option that says so."""


class Em3StudyConfig(StudySettings):
    """What `study.yaml` holds. All but `data`, `tables` and `seeds` stays as the first call had it."""

    compared = OF_THE_STUDY
    not_tuned = "the encoder is --encoder, and the seed the study's own affair"

    study: Literal["em3"] = Field(default="em3", description="which paper's study it is")  # pyright: ignore[reportIncompatibleVariableOverride]
    tables: list[int] = Field(default=list(TABLES), min_length=1, description="the paper's tables to make")
    seeds: Count = Field(default=5, description="runs of each row")
    heads: list[str] = Field(
        default=["din", "rankmixer"],
        min_length=1,
        description="rankers that are trained with content and without; ablations are of the first",
    )
    labels: list[str] = Field(
        default_factory=list,
        description="labels of table 1, each a ranker of its own; ablations are of the first; none: all of the dataset",
    )
    paradigm: Literal["hybrid", "end_to_end"] = Field(
        default="hybrid",
        description="what learns with the ranker: projections and fusion, as in the paper (hybrid), encoders as well",
    )
    lengths: list[Count] = Field(
        default=[20, 50, 100], min_length=2, description="lengths of histories in table 4; LoRA begins at the first"
    )
    handover: str = Field(
        default="settled", description="table 4: when LoRA begins (content.lora.handover): settled, epoch:<n>"
    )
    encoder: str = Field(
        default="pair:efficientnet_lite0+minilm",
        description="what is tuned on the catalogue for `PE` and for similarity of material",
    )
    rivals: list[str] = Field(default=["freedom"], description="table 10: retrieval models beside em3_freedom")

    _once = field_validator("tables", "heads", "labels", "lengths", "rivals", mode="before")(each_once)

    @field_validator("tables")
    @classmethod
    def _known(cls, value: list[int]) -> list[int]:
        if unknown := [number for number in value if number not in (*TABLES, LISTS)]:
            raise ValueError(f"there is no table {unknown[0]}; the study makes {', '.join(map(str, (*TABLES, LISTS)))}")
        if LISTS in value and len(value) > 1:
            raise ValueError(
                f"table {LISTS} is of retrieval models, whose settings are others: make it in a folder of its own"
            )
        return sorted(value)

    @field_validator("lengths")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        return sorted(value)


def study_config(tree: Mapping[str, Any], name: str = "the study") -> Em3StudyConfig:
    """The settings from plain values. Raises UserError that names what is wrong."""
    return checked(Em3StudyConfig, tree, name)


def joined(before: Em3StudyConfig, now: Em3StudyConfig, out: Path) -> Em3StudyConfig:
    """The study of a folder with what this call asks for. UserError where a setting of the study would change."""
    check_same(before, now, MAY_CHANGE, out)
    tables = sorted({*before.tables, *now.tables})
    return study_config(now.model_dump() | {"tables": tables, "seeds": max(before.seeds, now.seeds)})
