"""What `rawrec study lemur` is of: `study.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from rawrec.config.records import Count
from rawrec.studies.settings import StudySettings, check_same, checked, each_once

TABLES = {1: "cumulative", 2: "training", 3: "ablations", 4: "sampling", 5: "staleness", 6: "modalities"}
"""The numbers and names of the tables; they are ours."""
MAY_CHANGE = ("data", "tables", "seeds")  # between two calls on the same study folder
OF_THE_STUDY = {
    "seed": "--seeds",
    "model.name": "--head and --baseline",
    "model.content": "the study's own affair: rankers are trained with it and without; leave it out",
    "model.ranking_gradient": "--tables 2,3",
    "paradigm": "the study's own affair: content learns end to end, or is frozen after a first stage; leave it out",
}
"""Settings of runs that the study decides, and the option that says so."""


class LemurStudyConfig(StudySettings):
    """What `study.yaml` holds. All but `data`, `tables` and `seeds` stays as the first call had it."""

    compared = OF_THE_STUDY
    not_tuned = "no encoder is tuned here"

    study: Literal["lemur"] = Field(default="lemur", description="which paper's study it is")  # pyright: ignore[reportIncompatibleVariableOverride]
    tables: list[int] = Field(default=list(TABLES), min_length=1, description="the tables to make, by number or name")
    seeds: Count = Field(default=5, description="runs of each row")
    head: str = Field(default="rankmixer", description="the ranker of all rows but the first of table 1")
    baseline: str = Field(default="dot_mlp", description="the ranker that table 1 begins with")
    images: str = Field(
        default="patches",
        description="table 6: how pictures are read beside the texts (content.image.encoder): patches, or an image "
        "encoder whose grid is read",
    )

    @field_validator("tables", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        names = {name: number for number, name in TABLES.items()}
        words = each_once(value)
        if not isinstance(words, list):
            return words
        return each_once([names.get(word) or (int(word) if str(word).isdigit() else word) for word in words])

    @field_validator("tables")
    @classmethod
    def _known(cls, value: list[int]) -> list[int]:
        if unknown := [number for number in value if number not in TABLES]:
            known = ", ".join(f"{number} ({name})" for number, name in TABLES.items())
            raise ValueError(f"there is no table {unknown[0]}; the study makes {known}")
        return sorted(value)


def study_config(tree: Mapping[str, Any], name: str = "the study") -> LemurStudyConfig:
    """The settings from plain values. Raises UserError that names what is wrong."""
    return checked(LemurStudyConfig, tree, name)


def joined(before: LemurStudyConfig, now: LemurStudyConfig, out: Path) -> LemurStudyConfig:
    """The study of a folder with what this call asks for. UserError where a setting of the study would change."""
    check_same(before, now, MAY_CHANGE, out)
    tables = sorted({*before.tables, *now.tables})
    return study_config(now.model_dump() | {"tables": tables, "seeds": max(before.seeds, now.seeds)})
