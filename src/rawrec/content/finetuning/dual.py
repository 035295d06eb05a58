"""Dual streams: CLIP and its kin, and pairs of any two encoders, which tell pictures and texts apart by cosine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rawrec.config.finetune import FinetuneConfig
from rawrec.content.contrast import sigmoid_contrast, softmax_contrast
from rawrec.content.encoders import LIBRARIES, hub, loading, make_encoder, open_clip_towers, pair, tower_of_pair
from rawrec.content.encoders.base import Kind
from rawrec.content.encoders.open_clip_towers import OpenClipStack
from rawrec.content.encoders.sequences import SequenceStack
from rawrec.content.encoders.two_towers import TwoTowerStack
from rawrec.content.finetuning import writing
from rawrec.content.finetuning.base import Columns, Features, Tuned, field_settings
from rawrec.errors import UserError
from rawrec.randomness import seeded

KINDS: tuple[Kind, ...] = ("image", "text")
LARGEST = 100.0
"""What CLIP's scale is held at in training; one that is larger to begin with may stay."""
TEMPERATURE = 0.07
ELSEWHERE = {"file": "../model.safetensors"}


class DualStream(Tuned):
    """maps: of pairs, from each encoder's feature to the space of both. log_scale: of one over the temperature; bias:
    SigLIP's. A SigLIP learns by the sigmoid, all others by the softmax."""

    def __init__(self, cfg: FinetuneConfig) -> None:
        super().__init__()
        self.cfg, self.maps = cfg, nn.ModuleDict()
        self.bias: nn.Parameter | None = None
        self.specs: dict[Kind, dict[str, Any]] = {}
        if cfg.is_pair:
            scale = self._new_pair(cfg)
        elif pair.is_pair(cfg.encoder):
            scale = self._tuned_pair(cfg)
        else:
            scale = self._two_towers(cfg)
        if cfg.temperature is not None:
            scale = torch.tensor(-math.log(cfg.temperature))
        self.log_scale = nn.Parameter(scale.detach().clone().float().reshape(()), requires_grad=cfg.learn_temperature)
        self.largest = max(math.log(LARGEST), float(self.log_scale.detach()))
        self.stacks = nn.ModuleDict({kind: encoder.stack for kind, encoder in self.encoders.items()})
        self.digest = "+".join(str(encoder.stack.digest) for encoder in self.encoders.values())

    def _new_pair(self, cfg: FinetuneConfig) -> Tensor:
        self.encoders = {}
        for kind, name in pair.names(cfg.encoder).items():
            self.encoders[kind] = make_encoder(kind, field_settings(cfg, name, cfg.train), cfg.seed)
            self.specs[kind] = {"encoder": name, "size": cfg.size, "max_length": cfg.max_length, "output": "projected"}
        with seeded(cfg.seed):
            self.maps.update({kind: pair.projection(self.encoders[kind].width, cfg.dim) for kind in KINDS})
        return torch.tensor(-math.log(TEMPERATURE))

    def _tuned_pair(self, cfg: FinetuneConfig) -> Tensor:
        self.encoders = {}
        for kind in KINDS:
            settings = field_settings(cfg, cfg.encoder, cfg.train)
            self.encoders[kind], tower = tower_of_pair(kind, cfg.encoder, settings, cfg.seed)
            self.maps[kind] = tower.projection
            given = {"size": cfg.size, "max_length": cfg.max_length}
            self.specs[kind] = {**tower.spec, **{key: value for key, value in given.items() if value is not None}}
        return pair.log_scale(cfg.encoder)

    def _two_towers(self, cfg: FinetuneConfig) -> Tensor:
        of_open_clip, folder = cfg.encoder.startswith(open_clip_towers.PREFIX), None
        if not cfg.encoder.startswith(LIBRARIES) and ("/" in cfg.encoder or Path(cfg.encoder).is_dir()):
            folder = loading.find_folder(cfg.encoder)
            loading.unfinished(folder)
            of_open_clip = open_clip_towers.is_open_clip(folder)
        config = {} if folder is None else loading.settings(folder / "config.json")
        if not of_open_clip and config.get("model_type") not in hub.FAMILIES:
            known = ", ".join(family.name for family in hub.FAMILIES.values())
            raise UserError(
                f"encoder {cfg.encoder!r}: what is tuned on pairs reads pictures and texts: a folder or hub name of "
                f"{known}, open_clip:ARCH@WEIGHTS, one of VLMo, or any two encoders as pair:IMAGE+TEXT "
                "(pair:efficientnet_lite0+minilm)"
            )
        settings = field_settings(cfg, cfg.encoder, cfg.train)
        self.encoders = {kind: make_encoder(kind, settings, cfg.seed) for kind in KINDS}
        model: Any = self._tower("image").model
        if getattr(model, "logit_bias", None) is not None:  # of SigLIP and its kin
            self.bias = nn.Parameter(model.logit_bias.detach().clone().reshape(()), requires_grad=cfg.learn_temperature)
        return model.logit_scale

    def _tower(self, kind: Kind) -> TwoTowerStack | OpenClipStack:
        stack = self.encoders[kind].stack
        assert isinstance(stack, TwoTowerStack | OpenClipStack)
        return stack

    def notes(self) -> list[str]:
        given = {"size": self.cfg.size, "max_length": self.cfg.max_length}
        chosen = [f"content.item.{key}={value}" for key, value in given.items() if value is not None]
        return [f"the folder's own settings stay what they were: use it with {' '.join(chosen)}"] * bool(
            chosen and not self.maps
        )

    # ------------------------------------------------------------------------------------------------------- learning
    @torch.no_grad()
    def begin(self, some: Iterator[Columns]) -> None:
        if not self.cfg.is_pair:
            return
        features = [self.encode(columns) for columns in some]
        for kind in KINDS:
            mapped = self.maps[kind]
            assert isinstance(mapped, nn.Linear)
            pair.spread(mapped, torch.cat([one[kind] for one in features]))

    def encode(self, columns: Columns, contrast: bool = True) -> Features:
        return {kind: self.encoders[kind].upper(columns[kind]).float() for kind in KINDS}

    def embed(self, features: Features) -> tuple[Tensor, Tensor]:
        image, text = (
            functional.normalize(self.maps[kind](features[kind]) if self.maps else features[kind], dim=-1)
            for kind in KINDS
        )
        return image, text

    def itc(self, features: Features, alike: Tensor) -> Tensor:
        image, text = self.embed(features)
        scale = self.log_scale.clamp(max=self.largest).exp()
        if self.bias is not None:
            return sigmoid_contrast(image, text, scale, self.bias, alike)
        return softmax_contrast(image, text, scale, alike)

    def temperature(self) -> float:
        return math.exp(-min(self.largest, float(self.log_scale.detach())))

    def groups(self) -> dict[str, dict[str, nn.Parameter]]:
        layers = {
            f"{kind}.{name}": p
            for kind, encoder in self.encoders.items()
            for name, p in encoder.stack.named_parameters()
            if p.requires_grad
        }
        plain = {} if not self.cfg.learn_temperature else {"log_scale": self.log_scale}
        if self.bias is not None and self.cfg.learn_temperature:
            plain["bias"] = self.bias
        maps = {f"{kind}_projection.{name}": p for kind, m in self.maps.items() for name, p in m.named_parameters()}
        plain |= {name: p for name, p in maps.items() if p.ndim < 2}
        return {"encoder": layers, "model": {n: p for n, p in maps.items() if p.ndim > 1}, "plain": plain}

    # -------------------------------------------------------------------------------------------------------- writing
    def write(self, folder: Path) -> None:
        if self.maps:
            self._write_pair(folder)
            return
        image, text = (writing.weights(self._tower(kind).model) for kind in KINDS)
        tower = self._tower("text")
        if isinstance(tower, OpenClipStack):
            self._write_open_clip(folder, {**image, **text})
            return
        of_texts = ("text_model.", "text_projection.")
        tensors = {name: value for name, value in image.items() if not name.startswith(of_texts)}
        tensors |= {name: value for name, value in text.items() if name.startswith(of_texts)}
        tensors["logit_scale"] = self.log_scale.detach().clamp(max=self.largest).reshape(image["logit_scale"].shape)
        if self.bias is not None:
            tensors["logit_bias"] = self.bias.detach().reshape(image["logit_bias"].shape)
        writing.write(folder, tensors, source=loading.find_folder(self.cfg.encoder))

    def _write_open_clip(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        tensors["logit_scale"] = self.log_scale.detach().clamp(max=self.largest).reshape(tensors["logit_scale"].shape)
        if self.bias is not None:
            tensors["logit_bias"] = self.bias.detach().reshape(tensors["logit_bias"].shape)
        images: Any = self._tower("image")
        texts: Any = self._tower("text")
        _describe(texts, folder)
        about = {**texts.about, "preprocess_cfg": images.about["preprocess_cfg"]}
        about["model_cfg"] = {**about["model_cfg"], "vision_cfg": images.about["model_cfg"]["vision_cfg"]}
        writing.write_json(folder / open_clip_towers.CONFIG, about)
        writing.write(folder, tensors, config={"model_type": open_clip_towers.MODEL_TYPE})

    def _write_pair(self, folder: Path) -> None:
        tensors = {pair.LOG_SCALE: self.log_scale.detach().clamp(max=self.largest)}
        specs = {}
        for kind, encoder in self.encoders.items():
            tensors |= {f"{kind}.{name}": value for name, value in writing.weights(encoder.stack).items()}
            mapped = self.maps[kind].state_dict()
            tensors |= {f"{kind}_projection.{name}": value for name, value in mapped.items()}
            specs[kind] = self._placed(kind, folder)
        width = tensors["image_projection.weight"].shape[0]
        writing.write(folder, tensors, config={"model_type": pair.MODEL_TYPE, "dim": width, **specs})

    def _placed(self, kind: Kind, folder: Path) -> dict[str, Any]:
        """What config.json says of one side; what is read of its own folder is copied into the new one."""
        spec = self.specs[kind]
        base, stack = spec["encoder"], self.encoders[kind].stack
        if isinstance(stack, pair.ProjectedStack):
            stack = stack.inner
        if isinstance(stack, SequenceStack):
            _describe(stack, folder / kind)
            writing.write_json(folder / kind / loading.ELSEWHERE, ELSEWHERE | {"prefix": f"{kind}."})
            return {**spec, "encoder": f"./{kind}"}
        if base.startswith("./"):
            source = Path(self.cfg.encoder) / base.removeprefix("./")
        elif "/" in base or Path(base).is_dir():
            source = loading.find_folder(base)
        else:
            return spec
        writing.copy_words(source, folder / kind)
        writing.write_json(folder / kind / loading.ELSEWHERE, ELSEWHERE | {"prefix": f"{kind}."})
        return {**spec, "encoder": f"./{kind}"}


def _describe(stack: SequenceStack, folder: Path) -> None:
    """Write what a folder must hold beside the weights of a network of another library."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(stack, OpenClipStack):
        stack.write_words(folder)
    writing.write_json(folder / stack.config_file, stack.about)
