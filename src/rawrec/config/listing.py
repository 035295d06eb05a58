"""Models and settings as lists: what `rawrec models` and `rawrec settings` show."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel

from rawrec import plugins
from rawrec.config.content import FieldConfig, FusionConfig
from rawrec.config.models import model_entry, model_names
from rawrec.config.page import Setting, rows
from rawrec.config.ranking import PRESETS
from rawrec.config.run import Config
from rawrec.config.wording import unknown
from rawrec.errors import UserError


class Model(NamedTuple):
    """A model in a line: what it is, and the package that brings it."""

    name: str
    kind: str
    what: str
    package: str


def models() -> list[Model]:
    """All models. One that cannot be loaded has the reason in its line."""
    found = []
    for name in model_names():
        if name in PRESETS:
            head, content = PRESETS[name]
            found.append(Model(name, "ranking", f"short for {head} with model.content={content}", "rawrec"))
            continue
        try:
            entry = model_entry(name)
        except UserError as error:
            found.append(Model(name, "?", str(error), "?"))
            continue
        if entry is not None:
            package = "rawrec" if entry.ours else str(plugins.package_of(entry.module) or entry.module)
            found.append(Model(name, entry.record.kind, _first_line(entry.record), package))
    return found


def _first_line(record: type[BaseModel]) -> str:
    return (record.__doc__ or "").strip().partition("\n")[0]


def settings(name: str) -> tuple[str, list[Setting]]:
    """The settings of a model, or of a part of the config (train, eval, ...): what they are of, and a line for each.

    Raises UserError for an unknown name.
    """
    parts: dict[str, type[BaseModel]] = {"content.fusion": FusionConfig, "content.<field>": FieldConfig}
    for key, field in Config.model_fields.items():
        if key != "model" and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            parts[key] = field.annotation
    if name in parts:
        return _first_line(parts[name]), rows(parts[name], f"{name}.")
    entry = model_entry(PRESETS[name][0] if name in PRESETS else name)
    if entry is None:
        raise UserError(unknown("settings", name, [*model_names(), *parts]))
    return _first_line(entry.record), rows(entry.record, "model.")
