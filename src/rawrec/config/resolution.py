"""From a preset, a file and overrides of single settings to a config."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from rawrec.config import strict_yaml
from rawrec.config.content import JOINT
from rawrec.config.heads import RANKERS
from rawrec.config.idle import idle_reason
from rawrec.config.models import model_names
from rawrec.config.run import Config
from rawrec.config.validation import validate
from rawrec.config.wording import short, unknown
from rawrec.errors import IdleSetting, UserError
from rawrec.reading import SETTINGS, read_text


def presets() -> dict[str, str]:
    """Name and text of every preset that comes with the package."""
    folder = resources.files("rawrec") / "presets"
    return {p.name.removesuffix(".yaml"): p.read_text() for p in folder.iterdir() if p.name.endswith(".yaml")}


def resolve(
    preset: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Config:
    """The config of a preset's name, a YAML file or a mapping, with `{"train.epochs": 5}`-style overrides.

    kinds: "image", "text" or "feature" for the fields of the dataset, so that overrides of single ones can be judged.
    Raises UserError for what is unknown or impossible, for an override that would do nothing, and for two of one
    setting.
    """
    tree = dict(preset) if isinstance(preset, Mapping) else _read_preset(preset)
    flat = single(overrides or {})
    for key, value in sorted(flat.items(), key=lambda entry: not entry[0].startswith("content.item.")):
        _give_way(tree, key, value, kinds or {})
        _set(tree, key, value)
    try:
        cfg = validate(tree)
    except UserError:
        if _is_file(preset):
            validate(_read_preset(preset), f"{preset}: ")  # the file's own mistakes come first, under its name
        raise
    found = {key: idle_reason(cfg, key, value, kinds or {}) for key, value in flat.items()}
    idle = {key: reason for key, reason in found.items() if reason is not None}
    for key, reason in idle.items():
        raise IdleSetting(key, f"{key}={short(flat[key])} would do nothing: {reason}", tuple(idle))
    return cfg


def _is_file(preset: str | Path | Mapping[str, Any]) -> TypeGuard[str | Path]:
    if isinstance(preset, Mapping) or str(preset) in {*presets(), *model_names()}:
        return False
    return Path(preset).suffix in (".yaml", ".yml")


def _read_preset(preset: str | Path) -> dict[str, Any]:
    known, path = presets(), Path(preset)
    if str(preset) in known:
        text = known[str(preset)]
    elif str(preset) in RANKERS:  # a head alone: all else is as the preset em3 has it
        em3 = strict_yaml.load(known["em3"])
        return {**em3, "model": {"name": str(preset)}}
    elif str(preset) in model_names():
        return {"model": {"name": str(preset)}}
    elif _is_file(preset):
        if not path.is_file():
            raise UserError(f"config file {path} does not exist")
        text = read_text(path, SETTINGS, links=True)
    else:
        raise UserError(
            unknown("model", str(preset), sorted({*known, *model_names()})) + ", or the path of a .yaml file"
        )
    try:
        tree = strict_yaml.load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{preset} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{preset} must hold settings as `key: value`, found {type(tree).__name__}")
    return tree


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """`["train.epochs=5", "content={dim: 8}"]` -> `{"train.epochs": 5, "content.dim": 8}`; values are YAML.

    Raises UserError for what is no such word, and where two of them say what one setting is.
    """
    return single(*map(_parse, words))


def _parse(word: str) -> dict[str, Any]:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise UserError(f"override {word!r} is not of the form key=value, for example train.epochs=5")
    try:
        return single({key: strict_yaml.load(_float(text))})
    except strict_yaml.GivenTwice as error:
        raise UserError(f"override {word!r}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"override {word!r}: the value is not valid YAML") from None


def _float(text: str) -> str:
    """YAML 1.1 reads 1e-3 as a string; people mean a number."""
    return repr(float(text)) if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", text) else text


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Overrides as single settings: `{"content.image": {"train": "all"}}` is `content.image.train`."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield re.sub(r"^content\.fields\.", "content.", f"{prefix}{key}"), value


def single(*overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides as single settings, see `flatten`. Raises UserError where two of them say what one setting is."""
    found: dict[str, Any] = {}
    for key, value in (pair for one in overrides for pair in flatten(one)):
        for other, before in found.items():
            if other == key:
                raise UserError(f"{key} is given twice: {short(before)} and {short(value)}; give it once")
            if f"{other}.".startswith(f"{key}.") or f"{key}.".startswith(f"{other}."):
                one, two = f"{other}={short(before)}", f"{key}={short(value)}"
                raise UserError(f"{one} and {two} both say what {max(key, other, key=len)} is; give one of them")
        found[key] = value
    return found


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for i, part in enumerate(parents):
        sub = tree.get(part)
        if sub is not None and not isinstance(sub, Mapping):
            raise UserError(f"{key}: {'.'.join(parents[: i + 1])} holds the value {sub!r}, not settings of its own")
        tree[part] = dict(sub or {})  # a copy: the preset may be the caller's own
        tree = tree[part]
    tree[last] = value


def _give_way(tree: dict[str, Any], key: str, value: Any, kinds: Mapping[str, str]) -> None:
    """An override for all fields, or for all of a kind, replaces what the preset says of single kinds, and a complete
    config (of a run) of every field. An encoder that makes the content of all also replaces what of theirs learns."""
    part = key.split(".")
    replaced = {part[-1], *(("train",) if key == "content.item.encoder" and str(value).startswith(JOINT) else ())}
    content = tree.get("content")
    if len(part) != 3 or part[0] != "content" or part[1] not in ("image", "text", "item") or content is None:
        return

    def without(of: Mapping[str, Any]) -> dict[str, Any]:
        wide = part[1] == "item" and "item" not in kinds
        return {
            name: {k: v for k, v in one.items() if k not in replaced}
            if isinstance(one, Mapping) and (wide or kinds.get(name) == part[1])
            else one
            for name, one in of.items()
        }

    if isinstance(content, Mapping):
        rest = {name: value for name, value in content.items() if name not in ("fusion", "lora", "query", "fields")}
        new = {**content, **(without(rest) if part[1] == "item" else {})}
        if isinstance(content.get("fields"), Mapping):
            new["fields"] = without(content["fields"])
        tree["content"] = new
