"""Which encoder reads which fields of a dataset, and what it makes: the settings `content.*`, resolved.

A **unit** is one feature of an item and the encoder that makes it. Usually it reads one field and has the field's name.
`content.item` gives all fields one encoder, whose networks they share: CLIP and its kin have one tower for all image
fields and one for all text fields, and each field its feature; VLMo reads an item as a whole and makes three features.
"""

from __future__ import annotations

from dataclasses import dataclass

from rawrec.config import Config, FieldConfig
from rawrec.content.encoders import DEFAULTS, WHOLE, reads_whole_items
from rawrec.content.encoders.base import Kind
from rawrec.data.dataset import Fields
from rawrec.errors import UserError

ITEM = "item"
"""Settings of the one encoder of all fields."""
OWN = ("use", "max_images")
"""What fields that share a network may differ in."""


@dataclass(frozen=True)
class Unit:
    """name: of the feature. kinds: what its encoder reads, in the order of its arguments. reads: the dataset's fields
    of each of these kinds."""

    name: str
    kinds: tuple[Kind, ...]
    reads: tuple[tuple[str, ...], ...]
    settings: FieldConfig
    shared: bool = False
    """Its network is that of every other unit of the same kind and encoder."""


def content_units(cfg: Config, fields: Fields) -> dict[str, Unit]:
    """The units of a dataset's raw fields, by name; images first. UserError where settings do not fit the fields."""
    kinds: dict[str, Kind] = {**dict.fromkeys(fields.image, "image"), **dict.fromkeys(fields.text, "text")}
    general = ("image", "text", ITEM)
    for name in cfg.content.fields:
        if name not in kinds and name not in general:
            known = ", ".join(dict.fromkeys([*kinds, *general]))
            raise UserError(f"content.{name}: the dataset has no image or text field {name!r}. Known: {known}")
    item = cfg.content.fields.get(ITEM) if ITEM not in kinds else None
    settings = {name: _of_field(cfg, name, kind, item) for name, kind in kinds.items()}
    if item is not None:
        _agree(settings, kinds)
    used: dict[str, Kind] = {name: kind for name, kind in kinds.items() if settings[name].use}
    if item is not None and item.encoder is not None and reads_whole_items(item.encoder):
        result = _of_whole_items(settings, used, fields)
    else:
        shared = item is not None
        result = {name: Unit(name, (kind,), ((name,),), settings[name], shared) for name, kind in used.items()}
    _check(cfg, fields, result)
    return result


def resolved(cfg: Config, fields: Fields, units: dict[str, Unit]) -> dict[str, FieldConfig]:
    """`content.fields`, complete: a run that is loaded again reads the same fields in the same way."""
    settings = {field: unit.settings for unit in units.values() for fields in unit.reads for field in fields}
    unused = {name: FieldConfig(use=False) for name in (*fields.image, *fields.text) if name not in settings}
    item = cfg.content.fields.get(ITEM) if any(unit.shared for unit in units.values()) else None
    return ({} if item is None else {ITEM: item}) | settings | unused


def _of_field(cfg: Config, name: str, kind: Kind, item: FieldConfig | None) -> FieldConfig:
    """The settings of a field: its own, over those of its kind, over those of all, over the defaults."""
    merged: dict = {} if item is None else item.model_dump(exclude_unset=True)
    for key in dict.fromkeys((kind, name)):
        if key in cfg.content.fields:
            merged.update(cfg.content.fields[key].model_dump(exclude_unset=True))
    merged["encoder"] = merged.get("encoder") or DEFAULTS[kind]
    if cfg.paradigm != "end_to_end":
        merged["train"] = "none"
    return FieldConfig.model_validate(merged)


def _agree(settings: dict[str, FieldConfig], kinds: dict[str, Kind]) -> None:
    """Raise UserError where two fields in use whose network is one want different ones."""
    first: dict[Kind, str] = {}
    for name, own in settings.items():
        if not own.use:
            continue
        other = first.setdefault(kinds[name], name)
        for setting, value in own:
            theirs = getattr(settings[other], setting)
            if setting not in OWN and value != theirs:
                raise UserError(
                    f"content.{name}.{setting}={value}: with content.item all {kinds[name]} fields share one network, "
                    f"and content.{other} has {setting}={theirs}; set content.{kinds[name]}.{setting}, or leave "
                    "content.item out and give each field a network of its own"
                )


def _of_whole_items(settings: dict[str, FieldConfig], used: dict[str, Kind], fields: Fields) -> dict[str, Unit]:
    """One unit for each feature that an encoder of whole items makes, of those whose fields there are."""
    result = {}
    for name, kinds in WHOLE.items():
        reads = tuple(tuple(field for field, its in used.items() if its == kind) for kind in kinds)
        if all(reads):
            result[name] = Unit(name, kinds, reads, settings[reads[0][0]], shared=True)
    if "image" not in used.values():
        raise UserError(
            f"content.item.encoder={next(iter(settings.values())).encoder if settings else None}: it reads pictures "
            "together with texts, and no image field is in use"
        )
    if clash := sorted(set(result) & set(fields.feature)):
        raise UserError(f"the dataset has a ready-made feature {clash[0]!r}, which the encoder makes, too; rename it")
    return result


def _check(cfg: Config, fields: Fields, units: dict[str, Unit]) -> None:
    if cfg.paradigm != "end_to_end":
        return
    if not units and fields.feature:
        raise UserError(
            f"paradigm=end_to_end trains encoders, but the content of this dataset is ready-made features "
            f"({', '.join(fields.feature)}): choose paradigm=hybrid or paradigm=frozen"
        )
    if units and all(unit.settings.train == "none" for unit in units.values()):
        hints = dict.fromkeys(f"content.{ITEM if unit.shared else name}.train=top:1" for name, unit in units.items())
        raise UserError(
            "paradigm=end_to_end trains encoders, but every field has train=none; set for example "
            + " ".join(hints)
            + ", or choose paradigm=hybrid"
        )
