"""What tests of settings share: a config from words of the command line, and the records that one is made of."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel

from rawrec.config import Config, parse_overrides, resolve
from rawrec.config.models import MODELS
from rawrec.config.records import ModelRecord

KINDS = {"poster": "image", "title": "text", "plot": "text"}


def settled(preset: str, *words: str) -> Config:
    return resolve(preset, parse_overrides(list(words)), KINDS)


def records(kind: Any = Config) -> list[type[BaseModel]]:
    """The records that a type is made of: a record's own and its fields', a choice's branches; of a model, all ours."""
    if kind is ModelRecord:
        return list(dict.fromkeys(entry.record for entry in MODELS.values() if entry.ours))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        inner = [record for field in kind.model_fields.values() for record in records(field.annotation)]
        return [kind, *inner]
    return [record for part in get_args(kind) for record in records(part)]
