"""Models of the transformers library, by folder or hub name: each read as its family is, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rawrec.config import FieldConfig
from rawrec.content.encoders import open_clip_towers, plain, timm_pictures
from rawrec.content.encoders.base import Kind, Stack
from rawrec.content.encoders.chinese_clip import ChineseClipStack
from rawrec.content.encoders.clip import ClipStack
from rawrec.content.encoders.loading import find_folder, load_model, settings, strange
from rawrec.content.encoders.metaclip2 import MetaClip2Stack
from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.siglip import SiglipStack
from rawrec.content.encoders.timm_pictures import is_timm
from rawrec.content.encoders.tokens import Words
from rawrec.content.encoders.two_towers import TwoTowerStack
from rawrec.errors import UserError

FAMILIES: dict[str, type[TwoTowerStack]] = {
    "clip": ClipStack,
    "metaclip_2": MetaClip2Stack,
    "siglip": SiglipStack,
    "chinese_clip": ChineseClipStack,
}
"""By the model_type of config.json. SigLIP 2 of fixed size says siglip; siglip2 is the one that reads any shape."""
NAFLEX = "siglip2"


def texts(name: str, cfg: FieldConfig) -> tuple[Stack, Words]:
    """The text encoder in the folder or hub repository `name`, and how its texts become tokens."""
    folder = find_folder(name)
    with strange(name):
        return _texts(folder, name, cfg)


def _texts(folder: Path, name: str, cfg: FieldConfig) -> tuple[Stack, Words]:
    config = settings(folder / "config.json")
    if is_timm(config):
        raise UserError(f"encoder {name}: a network of timm reads pictures, but the field is of kind text")
    if open_clip_towers.is_open_clip(folder):
        return _of_open_clip("text", folder, name, cfg)
    _refuse(config, name, "text")
    model: Any = load_model(folder, name)
    family = FAMILIES.get(model.config.model_type)
    return (family.of_texts if family else plain.text_stack)(model, folder, name, cfg)


def pictures(name: str, cfg: FieldConfig) -> tuple[Stack, Pictures]:
    """The vision encoder in the folder or hub repository `name`, and how its pictures are prepared."""
    folder = find_folder(name)
    with strange(name):
        return _pictures(folder, name, cfg)


def _pictures(folder: Path, name: str, cfg: FieldConfig) -> tuple[Stack, Pictures]:
    config = settings(folder / "config.json")
    if is_timm(config):
        return timm_pictures.from_folder(folder, name, cfg)
    if open_clip_towers.is_open_clip(folder):
        return _of_open_clip("image", folder, name, cfg)
    _refuse(config, name, "image")
    model: Any = load_model(folder, name)
    family = FAMILIES.get(model.config.model_type)
    return (family.of_pictures if family else plain.image_stack)(model, folder, name, cfg)


def _of_open_clip(kind: Kind, folder: Path, name: str, cfg: FieldConfig) -> tuple[Stack, Any]:
    try:
        return open_clip_towers.from_folder(kind, folder, name, cfg)
    except ImportError as error:
        raise UserError(
            f"encoder {name}: a folder of open_clip, which is not installed ({error}): pip install "
            f"'rawrec[open_clip]', or make one of transformers of it: rawrec convert {folder} --out NEW"
        ) from None


def _refuse(config: dict[str, Any], name: str, kind: Kind) -> None:
    """Models that would load, and make features of which nothing is known."""
    model_type = str(config.get("model_type"))
    if model_type in FAMILIES:
        return
    known = ", ".join(family.name for family in FAMILIES.values())
    if model_type.startswith(NAFLEX):
        raise UserError(
            f"encoder {name}: SigLIP 2 NaFlex ({model_type}), which reads pictures of any shape, is not supported; use "
            "the same model with a fixed size, whose config.json says siglip (google/siglip2-base-patch16-224)"
        )
    tower = next((f for f in FAMILIES if model_type.startswith(f"{f}_")), None)
    if tower:
        raise UserError(
            f"encoder {name}: one tower of {FAMILIES[tower].name} ({model_type}) without what joins it to the other; "
            f"use a folder with the whole model, whose config.json says {tower}"
        )
    if "vision_config" in config or ("text_config" in config and kind == "image"):
        raise UserError(
            f"encoder {name}: how a {model_type} makes one vector of a picture or a text is not known. Of models that "
            f"read both, {known} are; or choose one that reads the field's kind alone"
        )
