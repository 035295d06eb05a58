"""Weights as others keep them, small, written by tests: CLIP of OpenAI and open_clip, VLMo of its authors."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rawrec.content.convert.vlmo import BIAS_TABLE, authors_key
from rawrec.content.encoders import vlmo

State = dict[str, Tensor]


# -------------------------------------------------------------------------- CLIP, written as its papers' layers have it
class Quick(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Layer(nn.Module):
    def __init__(self, width: int, hidden: int, heads: int, act: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        parts = {"c_fc": nn.Linear(width, hidden), "gelu": act, "c_proj": nn.Linear(hidden, width)}
        self.mlp = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Layers(nn.Module):
    def __init__(self, layers: int, *sizes: Any) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Layer(*sizes) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for layer in self.resblocks:
            x = layer(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self, act: nn.Module, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 128, 8, 8, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(128))
        self.positional_embedding = nn.Parameter(torch.zeros(10, 128))
        self.ln_pre, self.ln_post = nn.LayerNorm(128), nn.LayerNorm(128)
        self.transformer = Layers(3, 128, 96, 2, act)
        self.proj = nn.Parameter(torch.zeros(128, out))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv1(pixels).flatten(2).mT
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class Clip(nn.Module):
    """Two towers of other depths and widths; keys are those of OpenAI's and open_clip's files."""

    def __init__(self, act: type[nn.Module], words: int, out: int = 40) -> None:
        super().__init__()
        self.visual = Visual(act(), out)
        self.transformer = Layers(2, 64, 112, 1, act())
        self.token_embedding = nn.Embedding(words, 64)
        self.positional_embedding = nn.Parameter(torch.zeros(9, 64))
        self.ln_final = nn.LayerNorm(64)
        self.text_projection = nn.Parameter(torch.zeros(64, out))
        self.logit_scale = nn.Parameter(torch.tensor(3.0))

    def texts(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding
        mask = torch.full((9, 9), -math.inf).triu_(1)
        x = self.ln_final(self.transformer(x, mask))
        return x[torch.arange(len(x)), ids.argmax(1)] @ self.text_projection


def clip(act: type[nn.Module] = nn.GELU, words: int = 60) -> Clip:
    torch.manual_seed(1)
    model = Clip(act, words)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


OPEN_CLIP: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 40,
        "vision_cfg": {"image_size": 24, "layers": 3, "width": 128, "patch_size": 8},
        "text_cfg": {"context_length": 9, "vocab_size": 60, "width": 64, "heads": 1, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic"},
}


def open_clip_folder(folder: Path, model: Clip, **changes: Any) -> Path:
    """changes: of settings, `vision_cfg__width=64`."""
    folder.mkdir()
    config = json.loads(json.dumps(OPEN_CLIP))
    for key, value in changes.items():
        *places, last = key.split("__")
        inner = config["preprocess_cfg"] if places == ["preprocess_cfg"] else config["model_cfg"]
        for place in [] if places == ["preprocess_cfg"] else places:
            inner = inner[place]
        inner[last] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def wrapped(state: State) -> dict[str, Any]:
    return {"epoch": 3, "name": "run 1", "state_dict": {f"module.{k}": v for k, v in state.items()}, "optimizer": {}}


def words_of_clip(folder: Path, size: int = 60) -> None:
    """A tokenizer of `size` words, as its files."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {f"w{k}": k for k in range(size - 2)} | {"<start>": size - 2, "<end>": size - 1}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [("<start>", size - 2), ("<end>", size - 1)]
    backend.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=special)
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 9, "unk_token": "w0"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


# ---------------------------------------------------------------------------------------------------------------- VLMo
def as_published(model: vlmo.Vlmo) -> State:
    """By the authors' names, with what stands beside the weights in their files."""
    cfg, state = model.cfg, model.state_dict()
    made = {authors_key(name): value for name, value in state.items()}
    made.pop(BIAS_TABLE, None)
    made["text_embeddings.position_ids"] = torch.arange(cfg.max_text)[None]
    if cfg.relative_bias:
        made[BIAS_TABLE] = torch.cat([state[f"blocks.{k}.bias"] for k in range(cfg.depth)], 1)
        made["text_embeddings.position_embeddings.weight"] = torch.randn(cfg.max_text, cfg.width)
        index, texts = vlmo.relative_index(cfg).long(), cfg.max_text
        made["relative_position_index"] = index[texts:, texts:].clone()
        made["text_relative_position_index"] = index[:texts, :texts].clone()
        made["text_imag_relative_position_index"] = index.float()
    return {k: v.clone() for k, v in made.items()}


def small_vlmo(**changes: Any) -> vlmo.Vlmo:
    sizes: dict[str, Any] = {"width": 24, "depth": 3, "heads": 3, "hidden": 40, "patch": 4, "image_size": 12}
    sizes |= {"vl_layer": 2, "vocabulary": 30, "max_text": 7, "reach": 9}
    torch.manual_seed(0)
    model = vlmo.Vlmo(vlmo.VlmoConfig(**sizes | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()
