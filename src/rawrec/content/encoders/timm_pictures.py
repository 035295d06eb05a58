"""Networks of the timm library (Wightman, 2019): `timm:MODEL[@WEIGHTS]`, and its folders on the hub."""

from __future__ import annotations

import difflib
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rawrec.config import FieldConfig
from rawrec.content.encoders import loading
from rawrec.content.encoders.pictures import Pictures
from rawrec.content.encoders.plain import fitting
from rawrec.content.encoders.sequences import SequenceStack
from rawrec.content.encoders.weight_files import PICKLED, read_weights
from rawrec.data.images import Framing
from rawrec.errors import UserError
from rawrec.shown import listed

PREFIX = "timm:"
RANDOM = "random"
RESAMPLINGS = ("bicubic", "bilinear", "lanczos", "nearest", "box", "hamming")
FILES = ("model.safetensors", "pytorch_model.bin")


class TimmStack(SequenceStack):
    """A network without its classifier; the feature is what it pools. Layers: its blocks or stages."""

    def __init__(self, model: nn.Module, side: int, about: dict[str, Any]) -> None:
        """about: what config.json of its folder says."""
        self.about = about
        picture = torch.linspace(-1, 1, 3 * side * side).view(1, 3, side, side).sin()
        super().__init__(model, "image", (torch.cat([picture, picture.flip(3)]), None), f"timm {json.dumps(about)}")

    def whole(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.model(x)

    def stand_in(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x.new_zeros(1, *self._probe.shape[1:])

    def pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """The first token where the network's own feature is one, else the mean over the picture."""
        model: Any = self.model
        if hidden.ndim == 4 and getattr(model, "output_fmt", "NCHW") == "NHWC":
            return hidden.float().mean((1, 2))
        if hidden.ndim == 3 and getattr(model, "global_pool", "") == "token":
            return hidden[:, 0]
        return super().pooled(hidden, None)


def is_timm(config: dict[str, Any]) -> bool:
    """Whether config.json is one of timm's."""
    return "model_type" not in config and isinstance(config.get("architecture"), str) and "pretrained_cfg" in config


def by_name(name: str, cfg: FieldConfig) -> tuple[TimmStack, Pictures]:
    """The network `timm:MODEL[@WEIGHTS]`. Raises ImportError where timm is missing."""
    timm = _library()
    architecture, given, weights = name.removeprefix(PREFIX).partition("@")
    if not timm.is_model(architecture.partition(".")[0]):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=1)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
        raise UserError(f"encoder {name}: timm has no model {architecture!r}{hint} timm.list_models() names all")
    if given and not weights:
        raise UserError(f"encoder {name}: nothing stands behind @; give a file, a folder or {RANDOM}, or leave @ out")
    try:
        pretrained: dict[str, Any] = timm.get_pretrained_cfg(architecture, allow_unregistered=False).to_dict()
    except (RuntimeError, ValueError, AttributeError) as error:
        raise UserError(f"encoder {name}: {said(error)}") from None
    about = {"architecture": architecture.partition(".")[0], "pretrained_cfg": pretrained}
    if weights == RANDOM:
        return _network(about, None, name, cfg)
    if not weights:
        if not pretrained.get("hf_hub_id"):
            raise UserError(f"encoder {name}: the hub has no weights of it; give a file as {PREFIX}{architecture}@FILE")
        return from_folder(loading.find_folder(pretrained["hf_hub_id"], name), name, cfg)
    path = Path(weights).expanduser()
    if not path.is_dir():
        return _network(about, path, name, cfg)
    config = loading.settings(path / "config.json")
    if not config:
        return _network(about, weights_in(path, name, FILES), name, cfg)
    if config.get("architecture") != about["architecture"]:
        raise UserError(
            f"encoder {name}: config.json in {path} is of {config.get('architecture') or config.get('model_type')}, "
            f"not of {about['architecture']}"
        )
    return from_folder(path, name, cfg)


def from_folder(folder: Path, name: str, cfg: FieldConfig) -> tuple[TimmStack, Pictures]:
    """The network in a folder as timm has it on the hub. Raises ImportError where timm is missing."""
    about = loading.settings(folder / "config.json")
    if not _library().is_model(str(about["architecture"])):
        raise UserError(f"encoder {name}: timm has no model {about['architecture']!r}, which its config.json names")
    if not isinstance(about["pretrained_cfg"], dict):
        raise UserError(f"encoder {name}: pretrained_cfg in its config.json holds no settings by name")
    elsewhere = (folder / loading.ELSEWHERE).is_file()
    return _network(about, None if elsewhere else weights_in(folder, name, FILES), name, cfg)


def weights_in(folder: Path, name: str, usual: tuple[str, ...]) -> Path:
    """The file of weights in a folder: one of the usual names, else the only one there is."""
    found = [folder / file for file in usual if (folder / file).is_file()]
    found = found or sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", *PICKLED))
    if not found or (len(found) > 1 and found[0].name not in usual):
        what = listed(p.name for p in found)
        raise UserError(f"encoder {name}: of files of weights there are {what} in {folder}; name the one that is meant")
    return found[0]


def _network(about: dict[str, Any], path: Path | None, name: str, cfg: FieldConfig) -> tuple[TimmStack, Pictures]:
    """path: of the weights; None: random ones."""
    given: dict[str, Any] = about["pretrained_cfg"]
    pictures = prepared(given, name).sized(cfg.size)
    side, native = pictures.framing.side, int(given["input_size"][1])
    extra: dict[str, Any] = dict(about.get("model_args") or {})
    if side != native:
        if given.get("fixed_input_size"):
            extra["img_size"] = side
        given = {**given, "input_size": (3, side, side)}
    model = fitting(lambda: _loaded(str(about["architecture"]), given, extra, path, name), name, side, native)
    saved = {**about, "num_classes": 0, "pretrained_cfg": {**given, "num_classes": 0}}
    stack = fitting(lambda: TimmStack(model, side, saved), name, side, native)
    stack.check(cfg, name)
    return stack, pictures


def prepared(given: dict[str, Any], name: str) -> Pictures:
    """How pictures are prepared where the network is evaluated, as its `pretrained_cfg` says."""
    size = [*(given.get("input_size") or ())]
    if len(size) != 3 or size[0] != 3 or size[1] != size[2]:
        raise UserError(f"encoder {name}: it reads input of {size}; known are square pictures of three colours")
    how, resampling = given.get("crop_mode") or "center", given.get("interpolation") or "bilinear"
    side, share = int(size[1]), float(given.get("crop_pct") or 0.875)
    edge = math.floor(side / share)
    if (
        resampling not in RESAMPLINGS
        or edge < side
        or how not in ("center", "squash")
        or (how == "squash" and edge > side)
    ):
        raise UserError(
            f"encoder {name}: pictures are prepared by crop_mode {how} with crop_pct {share:g} and {resampling}, which "
            "is not known here; choose another encoder"
        )
    framing = Framing(side, edge if how == "center" else None, resampling.upper(), quick=False)
    return Pictures.of(framing, given.get("mean") or [0.5] * 3, given.get("std") or [0.5] * 3)


def _loaded(architecture: str, given: dict[str, Any], extra: dict[str, Any], path: Path | None, name: str) -> nn.Module:
    """The network without its classifier. Weights go through timm's own loader, which knows older names of them and
    other sizes of pictures, with the classifier they have, so that every weight must have its place."""
    timm = _library()
    with _quiet():
        model = timm.create_model(architecture, num_classes=0, **extra)
    if path is None:
        return model
    state = read_weights(path).tensors
    known = {field.name for field in fields(timm.models.PretrainedCfg)}
    usual = timm.get_pretrained_cfg(architecture).to_dict() | {k: v for k, v in given.items() if k in known}
    classifier = usual.get("classifier")
    first = classifier if isinstance(classifier, str) else (classifier or ("",))[0]
    head = state.get(f"{first}.weight")
    errors: list[Exception] = []
    for classes in dict.fromkeys([int(usual.get("num_classes") or 0) if head is None else len(head), 0]):
        own = {"num_classes": classes, "state_dict": {**state}, "source": "", "custom_load": False, "label_offset": 0}
        try:
            with _quiet():
                full = timm.create_model(
                    architecture, pretrained=True, num_classes=classes, pretrained_cfg=usual | own, **extra
                )
        except (RuntimeError, KeyError, ValueError, AttributeError, AssertionError) as error:
            errors.append(error)
            continue
        found = full.state_dict()
        model.load_state_dict({key: found[key].float() for key in model.state_dict()})
        return model
    raise UserError(f"encoder {name}: the weights in {path} do not fit the network: {said(errors[0])}")


def said(error: Exception) -> str:
    """What an error says, in one line: torch names the keys in the lines after the first."""
    return " ".join(str(error).split())[:400] or type(error).__name__


def _library() -> Any:
    import timm  # pyright: ignore[reportMissingImports]

    return timm


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
