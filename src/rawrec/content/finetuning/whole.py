"""VLMo, tuned by its three tasks: tell pictures and texts apart (ITC), true pairs from false ones (ITM), guess hidden
words (MLM)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from rawrec.config.finetune import FinetuneConfig
from rawrec.content import lora
from rawrec.content.contrast import softmax_contrast
from rawrec.content.encoders import Networks, loading, make_encoder
from rawrec.content.encoders.base import hash_weights
from rawrec.content.encoders.one_field import ImageEncoder, TextEncoder
from rawrec.content.encoders.padding import pad
from rawrec.content.encoders.vlmo import MLM_WEIGHT, MODEL_TYPE, Vlmo, hard_negatives
from rawrec.content.encoders.whole import RANDOM, VlmoStack
from rawrec.content.finetuning import writing
from rawrec.content.finetuning.base import Columns, Features, Tuned, field_settings
from rawrec.content.finetuning.words import IGNORED, WordPieces
from rawrec.data.texts import HashTokenizer
from rawrec.errors import UserError

HEADS = {
    "itc": ("itc_heads", "itc_vl_heads", "logit_scale", "logit_vl_scale"),
    "itm": ("itm", "pooler"),
    "mlm": ("mlm",),
}
"""Parts of the network that a task alone uses."""


class WholeItems(Tuned):
    """The network, of which `train` says what learns; the heads of the chosen tasks always do.

    Its columns are pixels and token ids, whatever is trained, since a pass over both reads both.
    """

    def __init__(self, cfg: FinetuneConfig) -> None:
        super().__init__()
        self.cfg = cfg
        settings, networks = field_settings(cfg, cfg.encoder, "all"), Networks()
        image, text = (make_encoder(kind, settings, cfg.seed, networks=networks) for kind in ("image", "text"))
        assert isinstance(image, ImageEncoder) and isinstance(text, TextEncoder)
        assert isinstance(image.stack, VlmoStack)
        self._image, self._text = image, text
        self.encoders = {"image": image, "text": text}
        self.net: Vlmo = image.stack.net
        self.digest = hash_weights(self.net)
        self.pieces = None
        if "mlm" in cfg.loss:
            self.pieces = WordPieces(text.tokenizer, self.net.cfg.vocabulary, cfg.encoder)
        if cfg.temperature is not None:
            with torch.no_grad():
                self.net.logit_scale.fill_(-math.log(cfg.temperature))
                self.net.logit_vl_scale.fill_(-math.log(cfg.temperature))
        self._choose()

    def _choose(self) -> None:
        """What learns: layers by `train`, and the heads of the losses."""
        net, cfg = self.net, self.cfg
        heads = {f"{part}" for loss in HEADS for part in HEADS[loss]}
        net.requires_grad_(False)
        if cfg.train == "lora":
            depth = self._checked(cfg.lora_layers or net.cfg.depth, "lora_layers")
            chosen = lora.inject(net, list(net.blocks[-depth:]), cfg.lora_rank, cfg.seed)
        elif cfg.train == "all":
            chosen = [p for name, p in net.named_parameters() if name.partition(".")[0] not in heads]
        else:
            depth = self._checked(int(cfg.train.removeprefix("top:")), "train")
            chosen = [*net.blocks[-depth:].parameters(), *net.norm.parameters()]
        used = {part for loss in cfg.loss for part in HEADS[loss]}
        if not cfg.learn_temperature:
            used -= {"logit_scale", "logit_vl_scale"}
        self._layers = {id(p) for p in chosen}
        own = [p for name, p in net.named_parameters() if name.partition(".")[0] in used]
        for parameter in (*chosen, *own):
            parameter.requires_grad_(True)

    def _checked(self, count: int, setting: str) -> int:
        depth = self.net.cfg.depth
        if count > depth:
            value = f"top:{count}" if setting == "train" else count
            raise UserError(f"{setting}={value}: {self.cfg.encoder} has {depth} layers; use at most {depth}")
        return count

    # ------------------------------------------------------------------------------------------------------- learning
    def _inputs(self, columns: Columns) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels, token ids and which of them are no padding."""
        pixels = (columns["image"].values.float() - self._image.mean) / self._image.std
        ids, mask = pad(columns["text"])
        return pixels, ids.long(), mask

    def encode(self, columns: Columns, contrast: bool = True) -> Features:
        """Both heads' features, those of the layers with the expert of both too, of length 1."""
        pixels, ids, mask = self._inputs(columns)
        image, text = self.net(pixels), self.net(None, ids, mask)
        made = {"image": self.net.itc(image), "text": self.net.itc(text)}
        if contrast and "itc" in self.cfg.loss:
            made |= {"image_vl": self.net.itc_vl(image), "text_vl": self.net.itc_vl(text)}
        return {name: value.float() for name, value in made.items()}

    def embed(self, features: Features) -> tuple[Tensor, Tensor]:
        return functional.normalize(features["image"], dim=-1), functional.normalize(features["text"], dim=-1)

    def itc(self, features: Features, alike: Tensor) -> Tensor:
        net = self.net
        plain = softmax_contrast(features["image"], features["text"], net.logit_scale.exp(), alike)
        both = softmax_contrast(features["image_vl"], features["text_vl"], net.logit_vl_scale.exp(), alike)
        return (plain + both) / 2

    def others(
        self, columns: Columns, features: Features, alike: Tensor, micro_batch: int, generator: torch.Generator
    ) -> Iterator[dict[str, Tensor]]:
        pixels, ids, mask = self._inputs(columns)
        if "itm" in self.cfg.loss:
            yield from self._itm(pixels, ids, mask, features, alike, micro_batch, generator)
        if self.pieces is not None:
            yield from self._mlm(self.pieces, pixels, ids, mask, micro_batch, generator)

    def _itm(
        self,
        pixels: Tensor,
        ids: Tensor,
        mask: Tensor,
        features: Features,
        alike: Tensor,
        micro_batch: int,
        generator: torch.Generator,
    ) -> Iterator[dict[str, Tensor]]:
        """Each pair, its text with a false picture, its picture with a false text; pairs that all others are alike to
        have no false ones and are left out."""
        others = ~alike
        rows = (others.fill_diagonal_(False).any(1)).nonzero()[:, 0]
        if not len(rows):
            return
        image, text = self.embed({name: value.detach() for name, value in features.items()})
        scale = self.net.logit_scale.detach()
        false = hard_negatives(image[rows], text[rows], scale, generator, alike[rows][:, rows])
        false_image, false_text = (rows[one] for one in false)
        images, texts = torch.cat([rows, false_image, rows]), torch.cat([rows, rows, false_text])
        labels = torch.zeros(len(images), dtype=torch.int64, device=ids.device)
        labels[: len(rows)] = 1
        for part in torch.arange(len(images), device=ids.device).split(micro_batch):
            seen = self.net(pixels[images[part]], ids[texts[part]], mask[texts[part]])
            logits = self.net.itm_logits(seen).float()
            loss = functional.cross_entropy(logits, labels[part], reduction="sum") / len(images)
            yield {"loss": loss, "itm": loss}

    def _mlm(
        self,
        pieces: WordPieces,
        pixels: Tensor,
        ids: Tensor,
        mask: Tensor,
        micro_batch: int,
        generator: torch.Generator,
    ) -> Iterator[dict[str, Tensor]]:
        shown, labels = (x.to(ids.device) for x in pieces.hide(ids.cpu(), generator))
        total = (labels != IGNORED).sum()
        if not int(total):
            return
        for part in torch.arange(len(ids), device=ids.device).split(micro_batch):
            logits = self.net.mlm_logits(self.net(pixels[part], shown[part], mask[part])).float()
            guessed = functional.cross_entropy(logits.flatten(0, 1), labels[part].flatten(), reduction="sum")
            loss = MLM_WEIGHT * guessed / total
            yield {"loss": loss, "mlm": loss}

    def temperature(self) -> float:
        return math.exp(-float(self.net.logit_scale.detach()))

    def groups(self) -> dict[str, dict[str, nn.Parameter]]:
        named = {name: p for name, p in self.net.named_parameters() if p.requires_grad}
        layers = {name: p for name, p in named.items() if id(p) in self._layers}
        heads = {name: p for name, p in named.items() if name not in layers}
        decaying = {name: p for name, p in heads.items() if p.ndim > 1}
        return {"encoder": layers, "model": decaying, "plain": {n: p for n, p in heads.items() if p.ndim < 2}}

    # -------------------------------------------------------------------------------------------------------- writing
    def write(self, folder: Path) -> None:
        config = {"model_type": MODEL_TYPE, **self.net.cfg.model_dump(mode="json")}
        if self.cfg.encoder == RANDOM:
            tokenizer = self._text.tokenizer
            assert isinstance(tokenizer, HashTokenizer)
            folder.mkdir(parents=True, exist_ok=True)
            writing.write_json(folder / loading.HASHED, {"vocabulary": tokenizer.vocabulary})
            writing.write(folder, writing.weights(self.net), config=config)
        else:
            writing.write(folder, writing.weights(self.net), source=Path(self.cfg.encoder), config=config)
