"""Recommenders, by name; `config/models.py` says where the class of each is."""

from __future__ import annotations

from typing import Any

from rawrec.config.models import model_entry, model_names
from rawrec.config.wording import unknown
from rawrec.errors import UserError


def model_class(name: str) -> type[Any]:
    """The class of a model's name; it is imported here, when first used. Raises UserError for an unknown one."""
    entry = model_entry(name)
    if entry is None:
        raise UserError(unknown("model.name", name, model_names()))
    return entry.load()
