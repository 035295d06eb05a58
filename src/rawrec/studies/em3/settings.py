"""What `rawrec study em3` is of: `study.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rawrec.config.records import Count, Record
from rawrec.config.resolution import single
from rawrec.studies.settings import check_same, checked

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
Several = Annotated[list[Any], Field(min_length=1)]


class Em3StudyConfig(Record):
    """What `study.yaml` holds. All but `data`, `tables` and `seeds` stays as the first call had it."""

    study: Literal["em3"] = Field(default="em3", description="which paper's study it is")
    data: Path = Field(description="dataset folder")
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
    search: dict[str, Several] = Field(
        default_factory=dict, description="key: [values], of which validation chooses for every row alike"
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="of all runs, as key: value")
    finetune: dict[str, Any] = Field(default_factory=dict, description="of the encoder's tuning, as key: value")

    @field_validator("tables", "heads", "labels", "lengths", "rivals", mode="before")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        words = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
        if isinstance(words, list) and len(set(map(str, words))) < len(words):
            twice = next(word for word in words if words.count(word) > 1)
            raise ValueError(f"{twice} is named twice; once is enough")
        return words

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

    @field_validator("settings")
    @classmethod
    def _flat(cls, value: dict[str, Any]) -> dict[str, Any]:
        return single(value)

    @model_validator(mode="after")
    def _together(self) -> Em3StudyConfig:
        for where, keys in (("search", self.search), ("settings", self.settings)):
            for key in keys:
                if key in OF_THE_STUDY:
                    raise ValueError(f"{key} is what the study compares: use {OF_THE_STUDY[key]}")
                if where == "search" and key in self.settings:
                    raise ValueError(f"{key} is given for all runs and in search; leave one out")
        if "encoder" in self.finetune or "seed" in self.finetune:
            raise ValueError("finetune: the encoder is --encoder, and the seed the study's own affair; leave them out")
        return self


def study_config(tree: Mapping[str, Any], name: str = "the study") -> Em3StudyConfig:
    """The settings from plain values. Raises UserError that names what is wrong."""
    return checked(Em3StudyConfig, tree, name)


def joined(before: Em3StudyConfig, now: Em3StudyConfig, out: Path) -> Em3StudyConfig:
    """The study of a folder with what this call asks for. UserError where a setting of the study would change."""
    check_same(before, now, MAY_CHANGE, out)
    tables = sorted({*before.tables, *now.tables})
    return study_config(now.model_dump() | {"tables": tables, "seeds": max(before.seeds, now.seeds)})
