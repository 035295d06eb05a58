"""Item models as settings ask for them: encoders of units, made now or when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rawrec.config import Config
from rawrec.config.parts import NO_FUSION
from rawrec.content.encoders import Encoder, JointField, Networks, joint_length, make_encoder, make_joint, make_query
from rawrec.content.item_model import ItemModel
from rawrec.content.later import Known, Later, key_of, known_again
from rawrec.content.units import Unit, units_of_pieces
from rawrec.data.dataset import Fields
from rawrec.errors import UserError


def build_item_model(
    cfg: Config,
    fields: Fields,
    units: Mapping[str, Unit],
    fused: bool = True,
    reads_queries: bool = False,
    known: Known = None,
) -> ItemModel:
    """The item model of a dataset's `units` (see `content_units`); not `fused`: its encoders alone. reads_queries: with
    an encoder of queries. known: what `run.json` says of encoders; those that are as it says are made when they are
    asked for."""
    units = units_of_pieces(units) if fused else units
    keys = {name: key_of(cfg, unit) for name, unit in units.items()}
    about = None if known is None or reads_queries else known_again(known, keys)

    def make() -> dict[str, Encoder]:
        return _encoders(cfg, units)

    encoders = make() if about is None else Later(about, make)
    frozen = cfg.paradigm == "frozen" or not fused
    settings = cfg.content if cfg.paradigm == "end_to_end" else cfg.content.model_copy(update={"itc_weight": 0.0})
    reads = {name: unit.reads for name, unit in units.items()}
    pieces = {name: (unit.base, unit.pieces) for name, unit in units.items() if unit.pieces is not None}
    made = ItemModel(encoders, dict(fields.feature), settings, frozen, reads, pieces, joined=fused, keys=keys)
    made.seed = cfg.seed
    if made.itc is not None:
        _check_contrast(made)
    if reads_queries:
        query, document = cfg.content.query, next((encoder for _, encoder in made.raw_encoders()), None)
        try:
            made.query = make_query(
                query.encoder, query.layers, query.max_length, query.train == "all", cfg.content.dim, cfg.seed, document
            )
        except UserError as error:
            raise _placed("content.query", error) from None
    return made


def _encoders(cfg: Config, units: Mapping[str, Unit]) -> dict[str, Encoder]:
    """The encoders of units."""
    encoders: dict[str, Encoder] = {}
    networks = Networks()
    own = {unit.base: Networks(networks) for unit in units.values()}
    for name, unit in units.items():
        shared = networks if unit.shared or unit.settings.train == "none" else own[unit.base]
        try:
            if unit.own is not None:
                encoders[name] = _joint(cfg, unit)
            else:
                encoders[name] = make_encoder(unit.reading, unit.settings, cfg.seed, networks=shared)
        except UserError as error:
            raise _placed(unit.setting, error) from None
    return encoders


def _placed(place: str, error: UserError) -> UserError:
    """With the place of its setting, with whose name an error begins, or with "encoder"."""
    return UserError(f"{place}.{error}" if "=" in str(error).split()[0] else f"{place}: {error}")


def _joint(cfg: Config, unit: Unit) -> Encoder:
    """LEMUR's transformer, which makes an item's content of all its fields."""
    assert unit.own is not None
    fields = [
        JointField(name, kind, own.max_length or joint_length(unit.settings.encoder or "", name, kind), own.max_images)
        for (name, own), kind in zip(unit.own.items(), unit.kinds, strict=True)
    ]
    images = next((own for own, kind in zip(unit.own.values(), unit.kinds, strict=True) if kind == "image"), None)
    query = cfg.content.query
    length = query.max_length if query.encoder == "shared" else None
    exact = cfg.paradigm == "frozen" and cfg.content.fusion.kind == NO_FUSION  # content as it is, to the last digit
    dtype = torch.float32 if exact else torch.float16
    return make_joint(fields, images, unit.settings, cfg.content.dim, length, cfg.seed, dtype)


def _check_contrast(made: ItemModel) -> None:
    pairs = made.itc_pairs()
    if not pairs:
        raise UserError(
            "content.itc_weight holds pictures against texts, and here no encoder of both kinds is trained; set "
            "content.image.train and content.text.train, or content.item.train"
        )
    for image, text in pairs:
        if made.widths[image] != made.widths[text]:
            raise UserError(
                f"content.itc_weight: the features of {image} and {text} are {made.widths[image]} and "
                f"{made.widths[text]} wide, in no common space; use content.item.encoder with CLIP or its kin, or VLMo"
            )
