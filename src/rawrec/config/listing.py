"""Models, sources and settings in words: what `rawrec models`, `settings`, `sources`, `train MODEL --help` show."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from rawrec import plugins
from rawrec.config.content import FieldConfig, FusionConfig, LoraConfig
from rawrec.config.finetune import FinetuneConfig
from rawrec.config.idle import idle_reason
from rawrec.config.lemur import LemurConfig
from rawrec.config.models import model_entry, model_names
from rawrec.config.online import PREFIX, OnlineConfig
from rawrec.config.page import Setting, rows, written
from rawrec.config.ranking import ABOUT, PRESETS
from rawrec.config.resolution import flatten, resolve, single
from rawrec.config.run import Config
from rawrec.config.sources import source_entry, source_names
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
            found.append(Model(name, entry.record.kind, _first_line(entry.record), _package(entry)))
    return found


def _package(entry: plugins.Entry) -> str:
    return "rawrec" if entry.ours else str(plugins.package_of(entry.module) or entry.module)


def _first_line(record: type[BaseModel]) -> str:
    return (record.__doc__ or "").strip().partition("\n")[0]


class OwnSource(NamedTuple):
    """A source of another package in a line."""

    name: str
    what: str
    package: str


def own_sources() -> list[OwnSource]:
    """The sources that are not ours. One that cannot be loaded has the reason in its line."""
    found = []
    for name in source_names():
        try:
            entry = source_entry(name)
        except UserError as error:
            found.append(OwnSource(name, str(error), "?"))
            continue
        if entry is not None and entry.record is not None:
            found.append(OwnSource(name, _first_line(entry.record), _package(entry)))
    return found


def settings(name: str) -> tuple[str, list[Setting]]:
    """The settings of a model, or of a part of the config (train, eval, ...): what they are of, and a line for each.

    "run": those of no part. Raises UserError for an unknown name.
    """
    if name == "run":
        return _first_line(Config), rows(Config, "")
    if name == "finetune":
        return _first_line(FinetuneConfig), rows(FinetuneConfig, "")
    if name == "online":
        return _first_line(OnlineConfig), rows(OnlineConfig, PREFIX)
    parts: dict[str, type[BaseModel]] = {
        "model.lemur": LemurConfig,
        "content.fusion": FusionConfig,
        "content.lora": LoraConfig,
        "content.<field>": FieldConfig,
    }
    for key, field in Config.model_fields.items():
        if key != "model" and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            parts[key] = field.annotation
    if name in parts:
        return _first_line(parts[name]), rows(parts[name], f"{name}.")
    entry = model_entry(PRESETS[name][0] if name in PRESETS else name)
    if entry is None:
        raise UserError(unknown("settings", name, [*model_names(), "run", "finetune", "online", *parts]))
    return _first_line(entry.record), _of_model(entry.record, PRESETS.get(name, ("", None))[1])


def _of_model(record: type[BaseModel], content: str | None) -> list[Setting]:
    """The settings of a model with a content part, or none."""
    return rows(record, "model.") + (rows(LemurConfig, "model.lemur.") if content == "lemur" else [])


class Page(NamedTuple):
    """What there is to say of a model before it is trained.

    what: paragraphs. settings: its own, `model.*`, where `default` is the value that a run takes; given: those of them
    that were given. shared, others: settings of all models, those that it sets itself and those that were given.
    """

    what: str
    package: str
    settings: list[Setting]
    given: set[str]
    shared: dict[str, str]
    others: dict[str, str]


def page(preset: str, overrides: Mapping[str, Any]) -> Page:
    """The page of a model, or of a YAML file that names one, under what else is given.

    Raises UserError for an unknown model, and for settings that are unknown, impossible or without effect.
    """
    given = single(overrides)
    cfg = resolve(preset, given)
    record, values = type(cfg.model), cfg.model.model_dump(mode="json")
    entry = model_entry(cfg.model.name)
    assert entry is not None
    what = inspect.cleandoc(record.__doc__ or "")
    values |= {f"lemur.{key}": value for key, value in values.get("lemur", {}).items()}
    own = _of_model(record, values.get("content"))
    set_by_it = dict(flatten(cfg.model_dump(mode="json", exclude={"model"}, exclude_defaults=True)))
    shared = {
        key: written(value)
        for key, value in set_by_it.items()
        if key not in given and value != {} and idle_reason(cfg, key, value, {}) is None
    }
    return Page(
        what=f"{ABOUT[cfg.label]}\n\n{what}" if cfg.label in ABOUT else what,
        package=_package(entry),
        settings=[line._replace(default=written(values[line.setting.removeprefix("model.")])) for line in own],
        given={key for key in given if key.startswith("model.")},
        shared=shared,
        others={key: written(value) for key, value in given.items() if not key.startswith("model.")},
    )
