"""Which encoder reads which fields of a dataset, and what it makes: the settings `content.*`, resolved.

A **unit** is one feature of an item and the encoder that makes it. Usually it reads one field and has the field's name.
`content.item` gives all fields one encoder, whose networks they share: CLIP and its kin have one tower for all image
fields and one for all text fields, and each field its feature; VLMo reads an item as a whole and makes three
features; LEMUR's transformer reads all of an item's texts and makes one, which is its content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rawrec.config import Config, FieldConfig
from rawrec.content.encoders import DEFAULTS, JOINT, WHOLE, joint_pictures, known_or_whole, reads_whole_items
from rawrec.content.encoders.base import Kind
from rawrec.content.encoders.vlmo import Kind as PassKind
from rawrec.data.dataset import Fields
from rawrec.errors import UserError
from rawrec.shown import listed

ITEM = "item"
"""Settings of the one encoder of all fields."""
CONTENT = "content"
"""The feature that LEMUR's transformer makes."""
OWN = ("use", "max_images", "tokens", "max_texts")
"""What fields that share a network may differ in."""


@dataclass(frozen=True)
class Unit:
    """name: of the feature. kinds: what its encoder reads, in the order of its arguments. reads: the dataset's fields
    of each of these kinds. pieces: which of an item's pictures or texts, where it is not all. of: the unit that it is
    of the pieces of, whose projection and trained network it shares."""

    name: str
    kinds: tuple[Kind, ...]
    reads: tuple[tuple[str, ...], ...]
    settings: FieldConfig
    shared: bool = False
    """Its network is that of every other unit of the same kind and encoder."""
    pieces: slice | None = None
    of: str = ""
    own: Mapping[str, FieldConfig] | None = None
    """Of an encoder that reads several fields of one kind, each as it is: the settings of each."""

    @property
    def base(self) -> str:
        return self.of or self.name

    @property
    def setting(self) -> str:
        """Where its encoder is set."""
        return f"content.{ITEM if self.own is not None else self.base}"

    @property
    def reading(self) -> PassKind:
        return "image_text" if len(self.kinds) == 2 else self.kinds[0]


def content_units(cfg: Config, fields: Fields) -> dict[str, Unit]:
    """The units of a dataset's raw fields, by name; images first. UserError where settings do not fit the fields."""
    kinds: dict[str, Kind] = {**dict.fromkeys(fields.image, "image"), **dict.fromkeys(fields.text, "text")}
    general = ("image", "text", ITEM)
    for name in cfg.content.fields:
        if name not in kinds and name not in general:
            known = listed(dict.fromkeys([*kinds, *general]), name)
            raise UserError(f"content.{name}: the dataset has no image or text field {name!r}. Known: {known}")
    item = _item(cfg) if ITEM not in kinds else None
    settings = {name: _of_field(cfg, name, kind, item) for name, kind in kinds.items()}
    if item is not None and (item.encoder or "").startswith(JOINT):
        result = _of_joint(cfg, item, settings, kinds, fields)
        _check(cfg, fields, result)
        return result
    if item is not None:
        _agree(settings, kinds)
    used: dict[str, Kind] = {name: kind for name, kind in kinds.items() if settings[name].use}
    if item is not None and item.encoder is not None and reads_whole_items(item.encoder):
        result = _of_whole_items(settings, used, fields)
    else:
        shared = item is not None
        result = {name: Unit(name, (kind,), ((name,),), settings[name], shared) for name, kind in used.items()}
    if cfg.content.features is not None:
        result = _chosen(cfg.content.features, result)
    _check(cfg, fields, result)
    return result


def units_of_pieces(units: Mapping[str, Unit]) -> dict[str, Unit]:
    """The same, with content.<field>.tokens=each: in the place of a unit one for its first picture or text, of its
    name, one for the second, `name[2]`, and so on up to the limit; the last reads all further ones, of which it encodes
    the first picture, or the texts as one."""
    result = {}
    for name, unit in units.items():
        if unit.settings.tokens == "mean":
            result[name] = unit
            continue
        if (
            unit.own is not None
            or len(unit.kinds) > 1
            or (unit.settings.encoder is not None and reads_whole_items(unit.settings.encoder))
        ):
            raise UserError(
                f"content.{ITEM}.tokens=each: {unit.settings.encoder} makes one feature of all pieces; use mean"
            )
        if unit.settings.side:
            raise UserError(
                f"content.{name}.tokens=each: train={unit.settings.train} has a network for one feature of an item; "
                "use none, top:<n>, lora or all, or tokens=mean"
            )
        settings = unit.settings.model_copy(update={"max_images": 1})
        count = unit.settings.max_images if unit.reading == "image" else unit.settings.max_texts
        for k in range(count):
            own = name if not k else f"{name}[{k + 1}]"
            pieces = slice(k, k + 1 if k + 1 < count else None)
            result[own] = replace(unit, name=own, settings=settings, pieces=pieces, of=name)
    return result


def _chosen(names: list[str], units: dict[str, Unit]) -> dict[str, Unit]:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"content.features: {name} is named {names.count(name)} times; once is enough")
        if name not in units:
            raise UserError(f"content.features: no encoder makes {name!r} here. Known: {listed(units, name)}")
    return {name: unit for name, unit in units.items() if name in names}


def resolved(cfg: Config, fields: Fields, units: dict[str, Unit]) -> dict[str, FieldConfig]:
    """`content.fields`, complete: a run that is loaded again reads the same fields in the same way."""
    kinds: dict[str, Kind] = {**dict.fromkeys(fields.image, "image"), **dict.fromkeys(fields.text, "text")}
    item = _item(cfg) if any(unit.shared for unit in units.values()) else None
    read = {
        field: unit.settings if unit.own is None else unit.own[field]
        for unit in units.values()
        for fields in unit.reads
        for field in fields
    }
    joint = any(unit.own is not None for unit in units.values())
    rest = {name: _of_field(cfg, name, kind, item) for name, kind in kinds.items() if name not in read}
    unread = {name: own if own.use and not joint else FieldConfig(use=False) for name, own in rest.items()}
    return ({} if item is None else {ITEM: item}) | read | unread


def _item(cfg: Config) -> FieldConfig | None:
    """The settings of the one encoder of all fields, if there is one."""
    item = cfg.content.fields.get(ITEM)
    if item is None or item.encoder is None:
        return item
    return item.model_copy(update={"encoder": known_or_whole(item.encoder)})


def _of_field(cfg: Config, name: str, kind: Kind, item: FieldConfig | None, default: str | None = None) -> FieldConfig:
    """The settings of a field: its own, over those of its kind, over those of all, over the defaults."""
    merged: dict = {} if item is None else item.model_dump(exclude_unset=True)
    for key in dict.fromkeys((kind, name)):
        if key in cfg.content.fields:
            merged.update(cfg.content.fields[key].model_dump(exclude_unset=True))
    merged["encoder"] = known_or_whole(merged.get("encoder") or default or DEFAULTS[kind])
    if cfg.paradigm != "end_to_end":
        merged["train"] = "none"
    return FieldConfig.model_validate(merged)


def _agree(settings: dict[str, FieldConfig], kinds: dict[str, Kind]) -> None:
    """Raise UserError where two fields in use whose network is one want different ones."""
    first: dict[Kind, str] = {}
    for name, own in settings.items():
        if own.use:
            _agree_on(settings, first.setdefault(kinds[name], name), name, OWN)


def _agree_on(settings: dict[str, FieldConfig], other: str, name: str, free: tuple[str, ...]) -> None:
    for setting, value in settings[name]:
        theirs = getattr(settings[other], setting)
        if setting not in free and value != theirs:
            raise UserError(
                f"content.{name}.{setting}={value}: with content.item it shares a network with {other}, where "
                f"{setting}={theirs}; set content.item.{setting}, or leave content.item out and give each field a "
                "network of its own"
            )


def _of_whole_items(settings: dict[str, FieldConfig], used: dict[str, Kind], fields: Fields) -> dict[str, Unit]:
    """One unit for each feature that an encoder of whole items makes, of those whose fields there are; all by the same
    settings, since the network is one."""
    first = {kind: settings[field] for field, kind in reversed(used.items())}
    if "image" not in first:
        named = next((own.encoder for own in settings.values()), None)
        raise UserError(
            f"content.item.encoder={named}: it reads pictures together with texts, and no image field is in use"
        )
    one = first["image"]
    if "text" in first:
        _agree_on({"image": one, "text": first["text"]}, "image", "text", (*OWN, "size", "max_length"))
        one = one.model_copy(update={"max_length": first["text"].max_length})
    if clash := sorted(set(WHOLE) & set(fields.feature)):
        raise UserError(f"the dataset has a ready-made feature {clash[0]!r}, which the encoder makes, too; rename it")
    result = {}
    for name, kinds in WHOLE.items():
        reads = tuple(tuple(field for field, its in used.items() if its == kind) for kind in kinds)
        if all(reads):
            result[name] = Unit(name, kinds, reads, one, shared=True)
    return result


def _of_joint(
    cfg: Config, item: FieldConfig, settings: dict[str, FieldConfig], kinds: dict[str, Kind], fields: Fields
) -> dict[str, Unit]:
    """The unit of LEMUR's transformer: all text fields in use, and the image fields with an encoder of their own."""
    item = _of_field(cfg, ITEM, "text", item).model_copy(update={"encoder": item.encoder})
    own: dict[str, FieldConfig] = {}
    images: dict[str, FieldConfig] = {}
    brought = joint_pictures(item.encoder or "")
    for name, kind in kinds.items():
        if kind == "text" and settings[name].use:
            _agree_on({ITEM: item, name: settings[name]}, ITEM, name, (*OWN, "max_length"))
            own[name] = settings[name]
        elif kind == "image":
            alone = _of_field(cfg, name, kind, None, default=brought.get("encoder") or item.encoder)
            if alone.encoder == brought.get("encoder") and alone.size is None:
                alone = alone.model_copy(update={"size": brought.get("size")})
            if alone.use and alone.encoder != item.encoder:
                images[name] = alone
    for name in images:
        _agree_on(images, next(iter(images)), name, OWN)
    own |= images
    if not own:
        raise UserError(
            f"content.item.encoder={item.encoder}: it reads texts, and no text field is in use; pictures are read "
            "where content.image.encoder=patches, or an encoder, says so"
        )
    if CONTENT in fields.feature:
        raise UserError(
            f"the dataset has a ready-made feature {CONTENT!r}, which content.item.encoder={item.encoder} makes, too; "
            "rename it"
        )
    reads = tuple((name,) for name in own)
    return {CONTENT: Unit(CONTENT, tuple(kinds[name] for name in own), reads, item, shared=True, own=own)}


def _check(cfg: Config, fields: Fields, units: dict[str, Unit]) -> None:
    if cfg.paradigm != "end_to_end":
        return
    if not units and fields.feature:
        raise UserError(
            f"paradigm=end_to_end trains encoders, but the content of this dataset is ready-made features "
            f"({listed(fields.feature)}): choose paradigm=hybrid or paradigm=frozen"
        )
    if units and all(unit.settings.train == "none" for unit in units.values()):
        hints = dict.fromkeys(
            f"content.{ITEM if unit.shared else name}.train={'top:1' if unit.own is None else 'all'}"
            for name, unit in units.items()
        )
        raise UserError(
            "paradigm=end_to_end trains encoders, but every field has train=none; set for example "
            + " ".join(hints)
            + ", or choose paradigm=hybrid"
        )
