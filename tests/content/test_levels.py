"""Learning rates by layer: how many layers lie above a parameter's own, in every family, and what follows of it."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from test_encoders import make, save_vision
from test_two_towers import CLASSES, save
from test_whole import made as whole_items

from rawrec.config import FieldConfig
from rawrec.content.encoders import Encoder
from rawrec.content.encoders.one_field import TextEncoder
from rawrec.content.encoders.plain import PlainStack
from rawrec.content.encoders.stacks import probe_tokens
from rawrec.content.encoders.tokens import Words
from rawrec.data.texts import HashTokenizer

LAYER = re.compile(r"(?:layers?|blocks)\.(\d+)\.")
BELOW = ("embeddings", "pre_layrnorm", "words", "segments", "patches", "image_cls", "kinds", "text_norm")


def named_levels(encoder: Encoder) -> dict[str, int]:
    levels = encoder.levels()
    found = {name: levels[id(p)] for name, p in encoder.stack.named_parameters() if p.requires_grad}
    assert len(found) == len(levels)
    return found


def expected(name: str, depth: int) -> int:
    match = LAYER.search(name)
    if match:
        return depth - 1 - int(match[1])
    return depth if any(part in name for part in BELOW) else 0


def of_texts(model: torch.nn.Module) -> Encoder:
    words = Words(HashTokenizer(64), 16)
    stack = PlainStack(model, "text", probe_tokens(words.tokenizer), pooling="mean")
    return TextEncoder("mine", stack, words, FieldConfig(train="all"), 0, torch.float32)


def check(encoder: Encoder, *present: int) -> None:
    found = named_levels(encoder)
    assert found == {name: expected(name, encoder.stack.depth) for name in found}
    assert set(found.values()) == set(present), found


@pytest.mark.parametrize(
    ("kind", "name", "depth", "embedded"),
    [("text", "random:bert", 2, True), ("image", "random:vit", 2, True), ("image", "random:conv", 4, False)],
)
def test_of_networks_of_one_kind(kind: str, name: str, depth: int, embedded: bool) -> None:
    check(make(kind, name, "all"), *range(depth + embedded))
    check(make(kind, name, "top:1"), 0)
    check(make(kind, name, "top:2"), 0, 1)
    check(make(kind, name, "lora"), *range(depth))
    check(make(kind, name, "lora", lora_layers=1), 0)
    assert set(make(kind, name, "side:2").levels().values()) == {0}
    assert make(kind, name).levels() == {}


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("kind", ["image", "text"])
def test_of_clip_and_its_kin(family: str, kind: str, tmp_path: Path) -> None:
    folder = str(save(tmp_path, family))
    check(make(kind, folder, "all", size=None), 0, 1, 2, 3)
    check(make(kind, folder, "top:2", size=None), 0, 1)
    check(make(kind, folder, "lora", size=None), 0, 1, 2)


@pytest.mark.parametrize(("family", "depth", "layer"), [("swin", 2, "layers"), ("convnext", 3, "stages")])
def test_of_networks_with_stages(family: str, depth: int, layer: str, tmp_path: Path) -> None:
    save_vision(tmp_path, family)
    found = named_levels(make("image", str(tmp_path), "all", size=32))
    by_level: dict[int, set[str]] = {}
    for name, level in found.items():
        by_level.setdefault(level, set()).add(name)
    assert set(by_level) == set(range(depth + 1))
    assert all(f"{layer}.0." in name for name in by_level[depth - 1])
    assert all("embeddings" in name for name in by_level[depth])
    assert any("layernorm" in name for name in by_level[0])


def test_of_a_single_layer() -> None:
    """What stands above it is part of it, and embeddings lie below."""
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    check(of_texts(transformers.BertModel(config, add_pooling_layer=False)), 0, 1)


@pytest.mark.parametrize("kind", ["image", "text", "image_text"])
def test_of_whole_items(kind: str) -> None:
    """Three passes through one network: a parameter that a pass does not read is none of its own."""
    encoder = whole_items("all")[kind]
    found = named_levels(encoder)
    own = {name.removeprefix("net."): level for name, level in found.items()}
    reads = {"image": ("patches", "image_cls"), "text": ("words",), "image_text": ("patches", "words")}[kind]
    for name, level in own.items():
        if (match := LAYER.search(name)) is not None:
            assert level == 2 - int(match[1])
        elif name.startswith("norm."):
            assert level == 0
        elif name.startswith(reads):
            assert level == 3


def test_shared_tables_lie_below_all(tmp_path: Path) -> None:
    """DeBERTa's distances are read by every layer."""
    config = transformers.DebertaV2Config(
        vocab_size=64, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        relative_attention=True, pos_att_type=["p2c", "c2p"], max_position_embeddings=32,
    )  # fmt: skip
    found = named_levels(of_texts(transformers.DebertaV2Model(config)))
    assert {level for name, level in found.items() if "rel_embeddings" in name} == {3}
