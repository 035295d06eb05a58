"""CLIP with vision transformers, as OpenAI and open_clip keep it -> CLIPModel of transformers, the same features.

Both compute alike, so that weights are only renamed: queries, keys and values are one matrix there and three here, and
projections stand the other way round.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rawrec.content.convert.reading import CONFIG, Checkpoint, as_float32
from rawrec.content.convert.writing import Made, Words
from rawrec.content.encoders.clip import MEAN, OLD_END, STD
from rawrec.content.encoders.loading import check_weights
from rawrec.errors import UserError

ACTIVATIONS = ("quick_gelu", "gelu")
HEAD = 64  # width of an attention head, where nothing else is known
WIDE = {1280: "H", 1408: "g", 1664: "bigG", 1792: "e"}
"""Widths of image towers that open_clip published with wider heads, 16 of them in each."""
OPENAI_WORDS = 49408
SIZES = ("input_resolution", "context_length", "vocab_size")  # which OpenAI kept among its weights
TURNED = ("visual.proj", "text_projection")
RESAMPLING = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers

USUAL: dict[str, dict[str, Any]] = {
    "model_cfg": {
        "custom_text": ..., "init_logit_scale": ..., "init_logit_bias": None, "nonscalar_logit_scale": False,
        "embed_dim": ..., "quick_gelu": ..., "vision_cfg": ..., "text_cfg": ..., "output_dict": ...,
    },
    "vision_cfg": {
        "layers": ..., "width": ..., "head_width": ..., "mlp_ratio": ..., "patch_size": ..., "image_size": ...,
        "patch_dropout": ..., "output_tokens": ..., "attn_pooler_queries": ..., "attn_pooler_heads": ...,
        "timm_model_name": None, "timm_model_pretrained": ..., "timm_pool": ..., "timm_proj": ...,
        "timm_proj_bias": ..., "timm_drop": ..., "timm_drop_path": ..., "ls_init_value": None,
        "attentional_pool": False, "no_ln_pre": False,
        "input_patchnorm": False, "global_average_pool": False, "pos_embed_type": "learnable", "pool_type": "tok",
        "final_ln_after_pool": False, "act_kwargs": None, "norm_kwargs": None,
    },
    "text_cfg": {
        "layers": ..., "width": ..., "heads": ..., "mlp_ratio": ..., "context_length": ..., "vocab_size": ...,
        "pad_id": ..., "output_tokens": ..., "text_mask": ..., "hf_model_name": None, "hf_model_pretrained": ...,
        "hf_proj_type": ..., "hf_pooler_type": ..., "hf_tokenizer_name": None, "tokenizer_kwargs": None,
        "ls_init_value": None, "embed_cls": False, "no_causal_mask": False, "pool_type": "argmax", "proj_bias": False,
        "proj_type": "linear", "final_ln_after_pool": False, "act_kwargs": None, "norm_kwargs": None,
    },
    "preprocess_cfg": {
        "size": ..., "mode": "RGB", "mean": ..., "std": ..., "interpolation": ..., "resize_mode": ...,
        "fill_color": ...,
    },
}  # fmt: skip
"""Settings of open_clip_config.json under which open_clip computes what CLIPModel does; `...`: whatever the value is,
since it is checked elsewhere or changes no feature."""


@dataclass(frozen=True)
class Tower:
    """The sizes of one of the two transformers."""

    width: int
    hidden: int
    layers: int
    heads: int


def convert_clip(given: Checkpoint, activation: str | None) -> Made:
    """activation: what the user says of it."""
    config = _checked_config(given)
    model: dict[str, Any] = config.get("model_cfg", {})
    state = _one_layout(given)
    notes: list[str] = []
    act = _activation(given, model, activation, notes)

    conv = _shape(state, "visual.conv1.weight", 4, given)
    places = _shape(state, "visual.positional_embedding", 2, given)
    words = _shape(state, "token_embedding.weight", 2, given)
    positions = _shape(state, "positional_embedding", 2, given)
    projection = _shape(state, "text_projection", 2, given)[1]
    vision = _tower(state, "visual.transformer.", conv[0], _image_heads(given, model, conv[0], notes), given)
    text = _tower(state, "transformer.", words[1], _text_heads(given, model, words[1]), given)
    grid = math.isqrt(max(places[0] - 1, 0))
    if grid < 1 or grid**2 + 1 != places[0]:
        raise UserError(f"{given.path}: {places[0] - 1} patches make no square; such a CLIP is not supported")
    image_size = grid * conv[2]
    _agree(given, model, {
        "embed_dim": projection, "vision_cfg.width": vision.width, "vision_cfg.layers": vision.layers,
        "vision_cfg.patch_size": conv[2], "vision_cfg.image_size": image_size, "text_cfg.width": text.width,
        "text_cfg.layers": text.layers, "text_cfg.context_length": positions[0], "text_cfg.vocab_size": words[0],
    })  # fmt: skip
    _check_extras(given, state, dict(zip(SIZES, (image_size, positions[0], words[0]), strict=True)))

    plan = _plan(vision, text, conv, places, words, positions, projection)
    check_weights(state, {key: torch.Size(shape) for key, (shape, _) in plan.items()}, str(given.path))
    tensors = {}
    for key, value in as_float32(state, given.path, notes).items():
        value = value.T if key in TURNED else value
        _, names = plan[key]
        parts = [value] if len(names) == 1 else [part.clone() for part in value.chunk(len(names))]
        tensors |= {name: part.contiguous() for name, part in zip(names, parts, strict=True)}

    openai = words[0] == OPENAI_WORDS  # there the highest id, at which the feature is read, is that of the end token
    written = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "projection_dim": projection,
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": words[0],
            "max_position_embeddings": positions[0],
            **_of_transformers(text, act, projection),
            **(
                {"bos_token_id": 49406, "eos_token_id": 49407}
                if openai
                else {"bos_token_id": None, "eos_token_id": OLD_END}
            ),
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": image_size,
            "patch_size": conv[2],
            **_of_transformers(vision, act, projection),
        },
    }
    where = "of openai/clip-vit-base-patch32" if openai else "of the same model"
    processor = _pictures(given, config.get("preprocess_cfg", {}), image_size, notes)
    what = (
        f"CLIP ViT-{conv[2]} of {image_size} pixels: {vision.layers} layers of {vision.width} for pictures "
        f"({vision.heads} heads), {text.layers} of {text.width} for texts ({text.heads} heads), features of "
        f"{projection}, {act}"
    )
    needed = Words(words[0], (("tokenizer.json",), ("vocab.json", "merges.txt")), where)
    return Made("clip", what, tensors, {"config.json": written, "preprocessor_config.json": processor}, needed, notes)


# --------------------------------------------------------------------------------------------------------- the weights
def _one_layout(given: Checkpoint) -> dict[str, Tensor]:
    """Weights of the text tower without `text.`, which open_clip puts before them in some models."""
    moved = {key: key.removeprefix("text.") for key in given.tensors}
    twice = [key for key, name in moved.items() if key != name and name in given.tensors]
    if twice:
        raise UserError(f"{given.path} has both {twice[0]} and {moved[twice[0]]}: it is not known which one counts")
    return {moved[key]: value for key, value in given.tensors.items()}


def _shape(state: Mapping[str, Tensor], key: str, dimensions: int, given: Checkpoint) -> torch.Size:
    if key not in state:
        raise UserError(f"{given.path} lacks {key}, which every CLIP with a vision transformer has")
    if state[key].ndim != dimensions:
        raise UserError(f"{given.path}: {key} has the shape {list(state[key].shape)}, which CLIP's never has")
    return state[key].shape


def _image_heads(given: Checkpoint, model: Mapping[str, Any], width: int, notes: list[str]) -> int:
    if not model and width in WIDE:
        notes.append(f"16 heads for pictures, as ViT-{WIDE[width]} of open_clip has, since nothing says how many")
        return 16
    return width // (_stated(given, model, "vision_cfg", "head_width") or _usual_head(given, width))


def _text_heads(given: Checkpoint, model: Mapping[str, Any], width: int) -> int:
    stated = _stated(given, model, "text_cfg", "heads") or (8 if model else None)  # 8 is open_clip's
    return stated or width // _usual_head(given, width)


def _usual_head(given: Checkpoint, width: int) -> int:
    if width % HEAD:
        raise UserError(
            f"{given.path}: {width} is no multiple of {HEAD}, the usual width of CLIP's attention heads, and nothing "
            f"says how many there are; put the model's {CONFIG} beside it, with vision_cfg.head_width and "
            "text_cfg.heads"
        )
    return HEAD


def _tower(state: Mapping[str, Tensor], prefix: str, width: int, heads: int, given: Checkpoint) -> Tower:
    numbers = [int(m[1]) for key in state if (m := re.match(rf"{re.escape(prefix)}resblocks\.(\d+)\.", key))]
    hidden = _shape(state, f"{prefix}resblocks.0.mlp.c_fc.weight", 2, given)[0]
    if heads < 1 or width % heads:
        raise UserError(f"{given.path.parent / CONFIG}: {heads} heads do not divide the width {width}")
    return Tower(width, hidden, max(numbers) + 1, heads)


Plan = dict[str, tuple[tuple[int, ...], list[str]]]
"""Their name -> its shape, and ours, several where it is cut in equal parts."""


def _plan(
    vision: Tower, text: Tower, conv: torch.Size, places: torch.Size, words: torch.Size, positions: torch.Size, out: int
) -> Plan:
    plan: Plan = {
        "visual.class_embedding": ((vision.width,), ["vision_model.embeddings.class_embedding"]),
        "visual.conv1.weight": (
            (vision.width, 3, conv[2], conv[2]), ["vision_model.embeddings.patch_embedding.weight"]
        ),
        "visual.positional_embedding": (
            (places[0], vision.width), ["vision_model.embeddings.position_embedding.weight"]
        ),
        "visual.proj": ((vision.width, out), ["visual_projection.weight"]),
        "token_embedding.weight": ((words[0], text.width), ["text_model.embeddings.token_embedding.weight"]),
        "positional_embedding": ((positions[0], text.width), ["text_model.embeddings.position_embedding.weight"]),
        "text_projection": ((text.width, out), ["text_projection.weight"]),
        "logit_scale": ((), ["logit_scale"]),
    }  # fmt: skip
    plan |= _norm("visual.ln_pre", "vision_model.pre_layrnorm", vision.width)
    plan |= _norm("visual.ln_post", "vision_model.post_layernorm", vision.width)
    plan |= _norm("ln_final", "text_model.final_layer_norm", text.width)
    for tower, theirs, ours in ((vision, "visual.transformer", "vision_model"), (text, "transformer", "text_model")):
        for number in range(tower.layers):
            plan |= _layer(f"{theirs}.resblocks.{number}", f"{ours}.encoder.layers.{number}", tower.width, tower.hidden)
    return plan


def _layer(theirs: str, ours: str, width: int, hidden: int) -> Plan:
    three = [f"{ours}.self_attn.{part}_proj" for part in ("q", "k", "v")]
    return {
        **_norm(f"{theirs}.ln_1", f"{ours}.layer_norm1", width),
        f"{theirs}.attn.in_proj_weight": ((3 * width, width), [f"{name}.weight" for name in three]),
        f"{theirs}.attn.in_proj_bias": ((3 * width,), [f"{name}.bias" for name in three]),
        **_linear(f"{theirs}.attn.out_proj", f"{ours}.self_attn.out_proj", width, width),
        **_norm(f"{theirs}.ln_2", f"{ours}.layer_norm2", width),
        **_linear(f"{theirs}.mlp.c_fc", f"{ours}.mlp.fc1", width, hidden),
        **_linear(f"{theirs}.mlp.c_proj", f"{ours}.mlp.fc2", hidden, width),
    }


def _norm(theirs: str, ours: str, width: int) -> Plan:
    return {f"{theirs}.{part}": ((width,), [f"{ours}.{part}"]) for part in ("weight", "bias")}


def _linear(theirs: str, ours: str, width: int, out: int) -> Plan:
    return {
        f"{theirs}.weight": ((out, width), [f"{ours}.weight"]),
        f"{theirs}.bias": ((out,), [f"{ours}.bias"]),
    }


def _check_extras(given: Checkpoint, state: dict[str, Tensor], sizes: Mapping[str, int]) -> None:
    """Take out of `state` what is no weight: sizes that OpenAI kept there, and the mask that older open_clip did."""
    for name, size in sizes.items():
        if name in state and int(state.pop(name)) != size:
            raise UserError(f"{given.path}: it says another {name} than its weights, which say {size}")
    mask = state.pop("attn_mask", None)
    if mask is not None and not torch.equal(mask, torch.full_like(mask, -math.inf).triu_(1)):
        raise UserError(f"{given.path}: its text tower has an attn_mask of its own, which is not supported")


# ------------------------------------------------------------------------------------------------- what the config says
def _checked_config(given: Checkpoint) -> dict[str, Any]:
    """open_clip_config.json, refused where it asks for something else than CLIPModel computes."""
    config, path = given.config, given.path.parent / CONFIG
    model = config.get("model_cfg", {})
    places = {"model_cfg": model, "preprocess_cfg": config.get("preprocess_cfg", {})}
    places |= {name: model.get(name, {}) for name in ("vision_cfg", "text_cfg") if isinstance(model, Mapping)}
    for place, values in places.items():
        if not isinstance(values, Mapping):
            raise UserError(f"{path}: {place} holds settings by name, found a {type(values).__name__}")
        for key, value in values.items():
            if key not in USUAL[place]:
                raise UserError(f"{path}: {place}.{key}={value} is not known, and may change what the network computes")
            usual = USUAL[place][key]
            if usual is not ... and value != usual:
                raise UserError(
                    f"{path}: {place}.{key}={value}: CLIPModel of transformers has no such thing, only {key}={usual}"
                )
    return config


def _stated(given: Checkpoint, model: Mapping[str, Any], place: str, name: str) -> int | None:
    """A count that a config says; None: it does not."""
    value = model.get(place, {}).get(name)
    if value is not None and not (type(value) is int and value > 0):
        raise UserError(f"{given.path.parent / CONFIG}: {place}.{name}={value!r}: a whole number above 0 is expected")
    return value


def _agree(given: Checkpoint, model: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """That a config's sizes are those of the weights."""
    for key, size in sizes.items():
        place, _, name = key.rpartition(".")
        stated = (model.get(place, {}) if place else model).get(name)
        if stated is not None and stated not in (size, [size, size]):
            raise UserError(
                f"{given.path.parent / CONFIG}: {key}={stated}, and the weights say {size}: of another model?"
            )


def _activation(given: Checkpoint, model: Mapping[str, Any], asked: str | None, notes: list[str]) -> str:
    """quick_gelu or gelu: by the config, by a name, or by the user; never by guessing."""
    if asked is not None and asked not in ACTIVATIONS:
        raise UserError(f"--activation {asked!r} is unknown. Known: {', '.join(ACTIVATIONS)}")
    quick = [name for name in given.names if "quickgelu" in name.lower().replace("-", "").replace("_", "")]
    if model:
        said, where = ("quick_gelu" if model.get("quick_gelu") else "gelu"), str(given.path.parent / CONFIG)
        if quick and said == "gelu":
            raise UserError(
                f"{where} does not ask for quick_gelu, and {quick[0]!r} is named after it: mend one of them"
            )
    elif quick:
        said, where = "quick_gelu", f"the name {quick[0]!r}"
    elif asked is None:
        raise UserError(
            f"{given.path} does not say which activation it was trained with, and the wrong one loads without an "
            "error: give --activation quick_gelu (OpenAI, DFN, MetaCLIP) or --activation gelu (LAION, DataComp)"
        )
    else:
        return asked
    if asked is not None and asked != said:
        raise UserError(f"--activation {asked}: {where} says {said}; leave the option out")
    notes.append(f"activation {said}, as {where} says")
    return said


def _of_transformers(tower: Tower, act: str, projection: int) -> dict[str, Any]:
    return {
        "hidden_size": tower.width,
        "intermediate_size": tower.hidden,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "hidden_act": act,
        "layer_norm_eps": 1e-5,
        "projection_dim": projection,
    }


def _pictures(given: Checkpoint, said: Mapping[str, Any], side: int, notes: list[str]) -> dict[str, Any]:
    """preprocessor_config.json. said: preprocess_cfg of open_clip."""
    path = given.path.parent / CONFIG
    if not said:
        notes.append("pictures are prepared as is usual for CLIP; the source does not say how")
    if said.get("size", side) not in (side, [side, side]):
        raise UserError(f"{path}: preprocess_cfg.size={said['size']}, and the weights say {side}")
    filter_, mode = said.get("interpolation", "bicubic"), said.get("resize_mode", "shortest")
    if str(filter_) not in RESAMPLING or mode not in ("shortest", "squash"):
        raise UserError(
            f"{path}: preprocess_cfg has interpolation={filter_} and resize_mode={mode}; known are "
            f"{', '.join(RESAMPLING)}, and shortest, squash"
        )
    mean, std = said.get("mean", MEAN), said.get("std", STD)
    for name, values in {"mean": mean, "std": std}.items():
        if not isinstance(values, list | tuple) or [type(v) in (int, float) for v in values] != [True] * 3:
            raise UserError(f"{path}: preprocess_cfg.{name}={values!r}: three numbers are expected")
    square = {"height": side, "width": side}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side} if mode == "shortest" else square,
        "resample": RESAMPLING[filter_],
        "do_center_crop": mode == "shortest",
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }
