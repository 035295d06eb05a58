"""All settings in words, made from the records: the page `docs/settings.md`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rawrec.config.content import FieldConfig, FusionConfig, LoraConfig
from rawrec.config.finetune import FinetuneConfig
from rawrec.config.heads import RANKERS
from rawrec.config.lemur import LemurConfig
from rawrec.config.models import RETRIEVAL
from rawrec.config.online import PREFIX, OnlineConfig
from rawrec.config.resolution import flatten
from rawrec.config.retrieval import RETRIEVAL_DEFAULTS
from rawrec.config.run import Config

BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
KINDS = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", type(None): "null"}


def describe() -> str:
    """All settings as a Markdown page, made from the records: what `docs/settings.md` holds."""
    lines = [
        "# Settings",
        "",
        "Every setting of a run, with its default. Give them as `key=value` after `rawrec train MODEL`, or in a YAML",
        "file whose path stands in place of the model's name. `config.yaml` of a run folder holds all of them.",
        "",
        "This page is generated from `rawrec.config` (`python -m rawrec.config > docs/settings.md`).",
        "",
        *_table("Run", Config, ""),
    ]
    for name, record in {**RANKERS, **RETRIEVAL}.items():
        lines += _table(f"model ({name})", record, "model.")
    lines += _table("model.lemur", LemurConfig, "model.lemur.")
    lines += _retrieval_defaults()
    for name, field in Config.model_fields.items():
        record = field.annotation
        if name != "model" and isinstance(record, type) and issubclass(record, BaseModel):
            lines += _table(name, record, f"{name}.")
    lines += _table("content.fusion", FusionConfig, "content.fusion.")
    lines += _table("content.lora", LoraConfig, "content.lora.")
    lines += _table("content.<field>", FieldConfig, "content.<field>.")
    lines += _table("finetune", FinetuneConfig, "")
    lines += _table("online", OnlineConfig, PREFIX)
    return "\n".join(lines)


def _retrieval_defaults() -> list[str]:
    flat = dict(flatten(RETRIEVAL_DEFAULTS))
    return [
        "## Defaults of retrieval models",
        "",
        "Retrieval models have other defaults than the tables below say, those of their published runs:",
        ", ".join(f"`{key}={value}`" for key, value in flat.items()) + ".",
        "",
    ]


def _table(title: str, record: type[BaseModel], prefix: str) -> list[str]:
    doc = " ".join((record.__doc__ or "").split())
    heading = f"`{title}`" if "<" in title else title
    lines = [f"## {heading}", "", doc, "", "| setting | values | default | meaning |", "|---|---|---|---|"]
    for name, values, default, text in rows(record, prefix):
        bar = "\\|"
        lines.append(f"| `{name}` | {values.replace('|', bar)} | `{default}` | {text.replace('|', bar)} |")
    return [*lines, ""]


class Setting(NamedTuple):
    """A setting in words."""

    setting: str
    values: str
    default: str
    meaning: str


def rows(record: type[BaseModel], prefix: str) -> list[Setting]:
    """The settings of a record, without those that are records of their own."""
    found = []
    for name, field in record.model_fields.items():
        if field.annotation is not None and not _is_record(field.annotation):
            default = "" if field.is_required() else written(field.get_default(call_default_factory=True))  # type: ignore[call-arg]
            found.append(Setting(f"{prefix}{name}", values_of(field), default, field.description or ""))
    return found


def written(value: Any) -> str:
    """A value as one gives it on the command line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).splitlines()[0]


def _is_record(kind: Any) -> bool:
    """Whether a field's type is a record, or a choice between records."""
    return (isinstance(kind, type) and issubclass(kind, BaseModel)) or any(map(_is_record, get_args(kind)))


def values_of(field: FieldInfo) -> str:
    """The values that a setting takes, in words."""
    bounds = [f"{sign} {getattr(m, key)}" for m in field.metadata for key, sign in BOUNDS.items() if hasattr(m, key)]
    return ", ".join([_kind(field.annotation), *bounds])


def _kind(kind: Any) -> str:
    """A type in words."""
    if kind in KINDS:
        return KINDS[kind]
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return " | ".join(f"`{part}`" for part in parts)
    if get_origin(kind) is list:
        return f"list of {_kind(parts[0])}s"
    if get_origin(kind) is Annotated:
        return _kind(parts[0])
    return " or ".join(_kind(part) for part in parts)
