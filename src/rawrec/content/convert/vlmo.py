"""VLMo's published files (Base, Base Plus, Large) -> a folder for `load_vlmo`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from pydantic import ValidationError
from torch import Tensor

from rawrec.content.convert.reading import Checkpoint, as_float32
from rawrec.content.convert.writing import Made, Words
from rawrec.content.encoders.loading import check_weights
from rawrec.content.encoders.vlmo import MODEL_TYPE, PRESETS, VlmoConfig, bare, relative_index
from rawrec.errors import UserError

BIAS_TABLE = "relative_position_bias_table"  # of all layers side by side
PATCHES = "transformer.patch_embed.proj.weight"
PLACES = "transformer.pos_embed"
TEXT_PLACES = "text_embeddings.position_embeddings.weight"
NUMBERS = "text_embeddings.position_ids"
INDEX = {name: f"{name}relative_position_index" for name in ("", "text_", "text_imag_")}
"""Of pictures, texts, both: numbers that follow from the sizes, and stand beside the weights in some files."""
WORDS = "vocab.txt of google-bert/bert-base-uncased"
_BLOCK = r"^blocks\.(\d+)\."
_AUTHORS = (
    (r"^patches\.", "transformer.patch_embed.proj."),
    (r"^image_cls$", "transformer.cls_token"),
    (r"^image_positions$", "transformer.pos_embed"),
    (r"^words\.", "text_embeddings.word_embeddings."),
    (r"^text_positions\.", "text_embeddings.position_embeddings."),
    (r"^segments\.", "text_embeddings.token_type_embeddings."),
    (r"^text_norm\.", "text_embeddings.LayerNorm."),
    (r"^kinds\.", "token_type_embeddings."),
    (_BLOCK + r"bias$", BIAS_TABLE),
    (_BLOCK + r"attention\.norm\.", r"transformer.blocks.\1.norm1."),
    (_BLOCK + r"attention\.", r"transformer.blocks.\1.attn."),
    (_BLOCK + r"attention_scale$", r"transformer.blocks.\1.gamma_1"),
    (_BLOCK + r"expert_scale$", r"transformer.blocks.\1.gamma_2"),
    (_BLOCK + r"experts\.image\.", r"blocks.\1.experts.imag."),
    (_BLOCK + r"experts\.(\w+)\.norm\.", r"transformer.blocks.\1.norm2_\2."),
    (_BLOCK + r"experts\.(\w+)\.", r"transformer.blocks.\1.mlp_\2."),
    (r"^norm\.", "transformer.norm."),
    (r"^pooler\.", "pooler.dense."),
    (r"^itm\.", "itm_score.fc."),
    (r"^itc_(vl_)?heads\.(\w+)\.", r"itc_\1\2_proj.fc."),
    (r"^mlm\.dense\.", "mlm_score.transform.dense."),
    (r"^mlm\.norm\.", "mlm_score.transform.LayerNorm."),
    (r"^mlm\.decoder\.weight$", "mlm_score.decoder.weight"),
    (r"^mlm\.decoder\.bias$", "mlm_score.bias"),
)


def convert_vlmo(given: Checkpoint, heads: int | None, image_size: int | None) -> Made:
    """heads, image_size: what the user says of them."""
    notes: list[str] = []
    cfg = _architecture(given, heads, image_size, notes)
    state = _weights(given, cfg, notes)
    expected = {authors_key(n): t.shape for n, t in bare(cfg).state_dict().items()}
    if cfg.relative_bias:
        expected[BIAS_TABLE] = torch.Size([cfg.bias_rows, cfg.heads * cfg.depth])
    check_weights(state, expected, str(given.path))
    tensors = from_authors(as_float32(state, given.path, notes), cfg)
    preset = next((name for name, known in PRESETS.items() if cfg == known), None)
    what = (
        f"VLMo{f' {preset}' if preset else ''}: {cfg.depth} layers of {cfg.width}, {cfg.heads} heads, the expert of "
        f"both from layer {cfg.vl_layer}, pictures of {cfg.image_size} pixels, texts of {cfg.max_text} tokens"
    )
    words = Words(
        cfg.vocabulary,
        (("vocab.txt",), ("tokenizer.json",)),
        WORDS,
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": cfg.max_text},
    )
    return Made("vlmo", what, tensors, {"config.json": {"model_type": MODEL_TYPE, **cfg.model_dump()}}, words, notes)


def _architecture(given: Checkpoint, heads: int | None, image_size: int | None, notes: list[str]) -> VlmoConfig:
    """What the shapes say; heads and picture size also by the published sizes, or by the user."""
    state = given.tensors
    layers = [int(m[1]) for key in state if (m := re.match(r"transformer\.blocks\.(\d+)\.", key))]
    joint = [int(m[1]) for key in state if (m := re.match(r"transformer\.blocks\.(\d+)\.mlp_vl\.", key))]
    depth = max(layers) + 1
    width, _, patch, _ = _shape(given, PATCHES, 4)
    table = state.get(BIAS_TABLE)
    heads = _heads(given, width, depth, table, heads)
    grid = _grid(given, table, patch, image_size, notes)
    try:
        return VlmoConfig(
            width=width,
            depth=depth,
            heads=heads,
            hidden=_shape(given, "transformer.blocks.0.mlp_text.fc1.weight", 2)[0],
            patch=patch,
            image_size=grid * patch,
            vl_layer=min(joint, default=depth),
            vocabulary=_shape(given, "text_embeddings.word_embeddings.weight", 2)[0],
            max_text=_shape(given, TEXT_PLACES, 2)[0],
            relative_bias=table is not None,
            **({} if table is None else {"reach": _reach(len(table), grid) or 0}),
            image_positions=PLACES in state,
            layer_scale=0.1 if "transformer.blocks.0.gamma_1" in state else None,
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        raise UserError(
            f"{given.path}: its weights make no VLMo: {'.'.join(map(str, wrong['loc']))} {wrong['msg']}"
        ) from None


def _shape(given: Checkpoint, key: str, dimensions: int) -> torch.Size:
    if key not in given.tensors or given.tensors[key].ndim != dimensions:
        raise UserError(f"{given.path} lacks {key} of {dimensions} dimensions, which every VLMo has")
    return given.tensors[key].shape


def _heads(given: Checkpoint, width: int, depth: int, table: Tensor | None, asked: int | None) -> int:
    known = {(p.width, p.depth): p.heads for p in PRESETS.values()}.get((width, depth))
    if table is not None:
        if table.ndim != 2 or table.shape[1] % depth:
            raise UserError(
                f"{given.path}: {BIAS_TABLE} {list(table.shape)} has no equal share for each of {depth} layers"
            )
        known = table.shape[1] // depth
    if known is None and asked is None:
        raise UserError(
            f"{given.path}: {depth} layers of {width} are no published VLMo, and its weights do not say how many heads "
            "attention has: give --heads N"
        )
    if known is not None and asked is not None and known != asked:
        raise UserError(f"--heads {asked}: {given.path} has {known}; leave the option out")
    return known or asked or 0


def _reach(rows: int, grid: int) -> int | None:
    """For how many words a table of biases has room beside pictures of `grid` patches a side; None: it cannot be."""
    rest = rows - (2 * grid - 1) ** 2 - 5
    return rest // 2 if rest >= 4 and rest % 2 == 0 else None


def _grid(given: Checkpoint, table: Tensor | None, patch: int, asked: int | None, notes: list[str]) -> int:
    """Patches along a side: by positions, by the index beside the weights, as asked, by the usual room for words."""
    state = given.tensors
    tokens = state[PLACES].shape[1] if PLACES in state else len(state[INDEX[""]]) if INDEX[""] in state else None
    known = None
    if tokens is not None:
        known = math.isqrt(tokens - 1)
        if known**2 + 1 != tokens:
            raise UserError(f"{given.path}: {tokens - 1} patches make no square; such a VLMo is not supported")
    elif asked is None and table is not None:
        reach = PRESETS["base"].reach
        known = next((g for g in range(1, 1 + math.isqrt(len(table))) if _reach(len(table), g) == reach), None)
        if known is not None:
            notes.append(
                f"pictures of {known * patch} pixels, since the table of biases has room for {reach} words then"
            )
    if known is None and asked is None:
        raise UserError(
            f"{given.path}: its weights do not say how large its pictures are: give --image-size N, in pixels"
        )
    if asked is not None and asked % patch:
        raise UserError(f"--image-size {asked} is no multiple of {patch}, the side of a patch in {given.path}")
    if known is not None and asked is not None and asked != known * patch:
        raise UserError(f"--image-size {asked}: {given.path} is of {known * patch} pixels; leave the option out")
    grid = known or (asked or 0) // patch
    if table is not None and _reach(len(table), grid) is None:
        raise UserError(
            f"{given.path}: {BIAS_TABLE} of {len(table)} rows does not fit pictures of {grid * patch} pixels"
        )
    return grid


def _weights(given: Checkpoint, cfg: VlmoConfig, notes: list[str]) -> dict[str, Tensor]:
    """What is a weight in use. What follows from the sizes must be what follows from them."""
    state = dict(given.tensors)
    numbers = state.pop(NUMBERS, None)
    if numbers is not None and not torch.equal(numbers.flatten().long(), torch.arange(cfg.max_text)):
        raise UserError(f"{given.path}: {NUMBERS} are not 0, 1, 2 ...: such a VLMo is not supported")
    if cfg.relative_bias:
        state.pop(TEXT_PLACES)
        notes.append(f"left out {TEXT_PLACES}, which is not used where biases say positions")
        index = relative_index(cfg)
        parts = (index[cfg.max_text :, cfg.max_text :], index[: cfg.max_text, : cfg.max_text], index)
        for name, part in zip(INDEX.values(), parts, strict=True):
            found = state.pop(name, None)
            if found is not None and not torch.equal(found.long(), part.long()):
                raise UserError(f"{given.path}: {name} numbers positions in another way: such a VLMo is not supported")
    return state


# ---------------------------------------------------------------------------------------------------------------- names
def authors_key(name: str) -> str:
    """The authors' name of a parameter; `BIAS_TABLE` has the biases of all layers side by side."""
    for ours, theirs in _AUTHORS:
        name = re.sub(ours, theirs, name)
    return name


def from_authors(state: Mapping[str, Tensor], cfg: VlmoConfig) -> dict[str, Tensor]:
    """Weights (or gradients) by the authors' names -> by ours. What is none of the network's is left out."""
    ours = {authors_key(name): name for name in bare(cfg).state_dict()}
    made = {ours[key]: value for key, value in state.items() if key in ours and key != BIAS_TABLE}
    if cfg.relative_bias and BIAS_TABLE in state:
        parts = state[BIAS_TABLE].split(cfg.heads, 1)
        made |= {f"blocks.{number}.bias": part.contiguous() for number, part in enumerate(parts)}
    return made
