"""`study.yaml`: what a study is of, read, checked, and held against what a later call asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from rawrec.config import strict_yaml
from rawrec.config.records import Record
from rawrec.config.resolution import single
from rawrec.config.wording import short, unknown
from rawrec.errors import UserError
from rawrec.reading import SETTINGS, read_text
from rawrec.shown import several

R = TypeVar("R", bound=Record)
Several = Annotated[list[Any], Field(min_length=1)]


class StudySettings(Record):
    """What every `study.yaml` holds.

    compared: settings of runs that the study decides, and the option that says so. not_tuned: what is said where
    `finetune` names the encoder or the seed.
    """

    compared: ClassVar[Mapping[str, str]]
    not_tuned: ClassVar[str]

    study: str = Field(description="which paper's study it is")
    data: Path = Field(description="dataset folder")
    search: dict[str, Several] = Field(
        default_factory=dict, description="key: [values], of which validation chooses for everything compared alike"
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="of all runs, as key: value")
    finetune: dict[str, Any] = Field(default_factory=dict, description="of the encoder's tuning, as key: value")

    @field_validator("settings")
    @classmethod
    def _flat(cls, value: dict[str, Any]) -> dict[str, Any]:
        return single(value)

    @model_validator(mode="after")
    def _together(self) -> Self:
        for where, keys in (("search", self.search), ("settings", self.settings)):
            for key in keys:
                if key in self.compared:
                    raise ValueError(f"{key} is what the study compares: use {self.compared[key]}")
                if where == "search" and key in self.settings:
                    raise ValueError(f"{key} is given for all runs and in search; leave one out")
        if "encoder" in self.finetune or "seed" in self.finetune:
            raise ValueError(f"finetune: {self.not_tuned}; leave them out")
        return self


def each_once(value: Any) -> Any:
    """The words of a list, or of a text between commas. Raises ValueError where one is there twice."""
    words = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
    if isinstance(words, list) and len(set(map(str, words))) < len(words):
        twice = next(word for word in words if words.count(word) > 1)
        raise ValueError(f"{twice} is named twice; once is enough")
    return words


def checked(record: type[R], tree: Mapping[str, Any], name: str, part: type[Record] | None = None) -> R:
    """The settings of a study from plain values. part: the record of the entries of `grid`, where there is one.

    Raises UserError that names what is wrong.
    """
    try:
        return record.model_validate(tree)
    except ValidationError as error:
        raise UserError(several(_explain(one, name, record, part) for one in error.errors())) from None


def _explain(error: Any, name: str, record: type[Record], part: type[Record] | None) -> str:
    path = [str(part) for part in error["loc"]]
    if path[:1] == ["grid"]:
        path = path[2:]
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = part if part is not None and len(error["loc"]) > 1 else record
        return f"{name}: " + unknown("setting", path[-1], list(known.model_fields))
    if error["type"] == "missing":
        return f"{name}: {'.'.join(path)} is missing"
    if not path:
        return message
    value = error["input"]
    shown = ",".join(map(str, value)) if isinstance(value, list) else short(value)
    option = path[0].replace("_", "-")
    return f"--{option} {shown}: {message[:1].lower()}{message[1:]}"


def load(path: Path) -> Mapping[str, Any]:
    """What a `study.yaml` holds."""
    try:
        tree = strict_yaml.load(read_text(path, SETTINGS))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(tree, Mapping):
        raise UserError(f"{path} is damaged: it must hold settings as `key: value`")
    return tree


def check_same(before: Record, now: Record, may_change: tuple[str, ...], out: Path) -> None:
    """Raises UserError where a setting of the study in `out` would change."""
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    changed = [key for key in new if key not in may_change and old[key] != new[key]]
    if changed:
        key = changed[0]
        there, here = _differing(old[key], new[key])
        raise UserError(
            f"{out} holds a study with {key}: {there}, and here it is {here}. Points under different settings cannot "
            "be compared: choose another --out, or begin anew with --overwrite"
        )


def _differing(old: Any, new: Any) -> tuple[str, str]:
    """Two values in words; of settings by name those that differ."""
    if not isinstance(old, dict):
        return _shown(old), _shown(new)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    one, other = (" ".join(f"{key}={_shown(of[key])}" for key in keys if key in of) for of in (old, new))
    return one or "no " + ", ".join(keys), other or "not given"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else short(value)
