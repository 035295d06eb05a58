"""Encoders: cut anywhere they give the same, only what shall learn learns, and nothing else changes."""

import io
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import forked
from rawrec.config import FieldConfig
from rawrec.content.encoders import make_encoder, padding
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError

RANDOM = [("text", "random:bert"), ("image", "random:vit"), ("image", "random:conv")]
REAL = [("text", "minilm"), ("image", "efficientnet_lite0")]
ALL = RANDOM + REAL
HOW = [("top:1", {}), ("lora", {"lora_layers": 1})]


def picture(shape: str, colour: str, shift: int = 0) -> bytes:
    image = Image.new("RGB", (96, 96), "white")
    draw = getattr(ImageDraw.Draw(image), shape)
    draw((16 + shift, 16, 80 + shift, 80), fill=colour)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


PICTURES = [
    [picture("ellipse", "red")],
    [],
    [picture("rectangle", "blue"), picture("ellipse", "green")],
    [b"not a picture"],
    [picture("rectangle", "red", 5)],
]
TEXTS = [
    ["A film about a robot"],
    [],
    ["A much longer text, so that it stands in another bucket than the others do.", "And a second string of it."],
    ["  "],
    ["romance"],
]


def raw(kind: str) -> list:
    return PICTURES if kind == "image" else TEXTS


def make(kind, name, train="none", *, seed=0, dtype=torch.float32, **settings):
    cfg = FieldConfig(encoder=name, train=train, **({"size": 48} | settings))
    return make_encoder(kind, cfg, seed, dtype)


def features(encoder, items) -> torch.Tensor:
    x, _ = encoder.prepare(items)
    return encoder.upper(encoder.lower(x))


# ------------------------------------------------------------------------------------------------------------ the cut
@pytest.mark.parametrize(
    ("kind", "name", "train"),
    [
        *((*one, train) for one, train in product(RANDOM, ["top:1", "top:2", "all", "lora"])),
        *((*one, train) for one, train in product(REAL, ["top:2", "lora"])),
    ],
)
def test_cut_anywhere_the_feature_is_the_same(kind, name, train):
    whole = features(make(kind, name), raw(kind))
    encoder = make(kind, name, train)
    cut = features(encoder, raw(kind))
    assert whole.shape == (5, encoder.width)
    assert whole.dtype == cut.dtype == torch.float32
    torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-4)
    assert not whole[[1, 3]].any()  # nothing there, nothing decodable
    assert (whole[[0, 2, 4]].abs().sum(1) > 0).all()


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_half_precision_storage_is_close(kind, name):
    whole = features(make(kind, name), raw(kind))
    for train in ("none", "top:1"):
        encoder = make(kind, name, train, dtype=torch.float16)
        hidden = encoder.lower(encoder.prepare(raw(kind))[0])
        assert hidden.values.dtype == torch.float16
        error = (encoder.upper(hidden) - whole).detach().norm() / whole.norm()
        assert error < 5e-3


@pytest.mark.parametrize(("kind", "name"), RANDOM)
def test_boundaries(kind, name):
    frozen = make(kind, name)
    hidden = frozen.lower(frozen.prepare(raw(kind))[0])
    assert hidden.lengths.tolist() == [1, 0, 1, 0, 1]
    assert hidden.values.shape == (3, frozen.width)
    assert not frozen.lower_is_identity
    everything = make(kind, name, "all")
    assert everything.lower_is_identity
    x = everything.prepare(raw(kind))[0]
    assert everything.lower(x) is x


@pytest.mark.parametrize(("kind", "name"), RANDOM)
@pytest.mark.parametrize("train", ["none", "top:1", "all"])
def test_no_items_and_only_empty_items(kind, name, train):
    encoder = make(kind, name, train)
    filled = encoder.lower(encoder.prepare(raw(kind)[:1])[0])
    for items in ([], [[], []]):
        hidden = encoder.lower(encoder.prepare(items)[0])
        assert hidden.values.shape[1:] == filled.values.shape[1:]
        found = encoder.upper(hidden)
        assert found.shape == (len(items), encoder.width)
        assert not found.any()
    assert encoder.encode([]).shape == (0, encoder.width)


@pytest.mark.parametrize(("kind", "name"), RANDOM)
def test_encode_in_chunks(kind, name):
    encoder = make(kind, name, "top:1")
    torch.testing.assert_close(encoder.encode(raw(kind), at_once=2), features(encoder, raw(kind)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "name"), RANDOM)
def test_lora_in_the_top_layer_only_keeps_a_frozen_part(kind, name):
    encoder = make(kind, name, "lora", lora_layers=1)
    assert encoder.boundary == encoder.stack.depth - 1
    torch.testing.assert_close(
        features(encoder, raw(kind)), features(make(kind, name), raw(kind)), rtol=1e-4, atol=1e-4
    )


# ----------------------------------------------------------------------------------------------------------- training
@pytest.mark.parametrize(
    ("kind", "name", "train", "settings"),
    [
        *((*one, *how) for one, how in product(RANDOM, [*HOW, ("none", {}), ("all", {}), ("lora", {})])),
        *((*one, *how) for one, how in product(REAL, HOW)),
    ],
)
def test_training_changes_exactly_the_trained_parameters(kind, name, train, settings):
    encoder = make(kind, name, train, **settings)
    encoder.train(True)
    assert not any(module.training for module in encoder.modules())
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    trained = encoder.trained_parameters()
    assert len(trained) == len(encoder.trained_state())
    if train == "none":
        assert trained == []
        assert not features(encoder, raw(kind)).requires_grad
        return
    optimizer = torch.optim.SGD(trained, 0.5)
    hidden = encoder.lower(encoder.prepare(raw(kind))[0])
    target = torch.randn(5, encoder.width, generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # LoRA's first factor moves from the second step on
        optimizer.zero_grad()
        (encoder.upper(hidden) * target).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
        optimizer.step()
    changed = {key for key, value in encoder.state_dict().items() if not torch.equal(value, before[key])}
    allowed = {"stack." + key for key in encoder.trained_state()}
    assert changed <= allowed  # no frozen weight, no running statistic
    # the bias of a key shifts all scores of a query alike: its gradient is zero but for rounding
    assert {key for key in allowed - changed if "key" not in key and "k_proj" not in key} <= _word_tables(allowed)
    if train == "lora":
        assert all(".lora_" in key for key in allowed)


def _word_tables(keys: set[str]) -> set[str]:
    return {key for key in keys if "embeddings" in key}


def test_top_trains_the_layers_it_names():
    names = set(make("text", "minilm", "top:1").trained_state())
    assert names
    assert all(".encoder.layer.5." in key for key in names)
    assert any(".embeddings." in key for key in make("text", "random:bert", "all").trained_state())
    assert not any(".embeddings." in key for key in make("text", "random:bert", "top:2").trained_state())
    assert set(make("image", "efficientnet_lite0", "top:1").trained_state()) == {
        "layers.17.0.weight",
        "layers.17.1.weight",
        "layers.17.1.bias",
    }
    vit = set(make("image", "random:vit", "top:1").trained_state())
    assert any("layers.1." in key for key in vit)
    assert {"model.layernorm.weight", "model.layernorm.bias"} <= vit
    assert not any("layers.0." in key or "embeddings" in key for key in vit)


@pytest.mark.parametrize(("kind", "name"), RANDOM)
@pytest.mark.parametrize("train", ["top:1", "lora"])
def test_trained_state_round_trip(kind, name, train):
    encoder = make(kind, name, train)
    with torch.no_grad():
        for parameter in encoder.trained_parameters():
            parameter.add_(0.1)
    other = make(kind, name, train)
    other.load_trained_state(encoder.trained_state())
    assert torch.equal(features(other, raw(kind)), features(encoder, raw(kind)))
    with pytest.raises(UserError, match="do not fit"):
        make(kind, name, "none").load_trained_state(encoder.trained_state())


@pytest.mark.parametrize(("kind", "name"), [("text", "random:bert"), ("image", "random:conv")])
def test_bf16_autocast(kind, name):
    encoder = make(kind, name, "top:1", dtype=torch.float16)
    x, _ = encoder.prepare(raw(kind))
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder.upper(encoder.lower(x))
    assert found.dtype == torch.float32
    found.sum().backward()
    assert all(p.grad is not None for p in encoder.trained_parameters())
    whole = features(make(kind, name), raw(kind))
    assert (found.detach() - whole).norm() / whole.norm() < 0.05


# --------------------------------------------------------------------------------------------------- sameness and keys
@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize(("kind", "name"), RANDOM)
def test_the_same_every_time(kind, name):
    state = torch.random.get_rng_state()
    a, b, c = (make(kind, name, "lora", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert torch.equal(features(a, raw(kind)), features(b, raw(kind)))
    assert a.fingerprint == b.fingerprint != c.fingerprint


def test_fingerprint_tells_what_is_cached():
    keys = [
        make("text", "random:bert").fingerprint,
        make("text", "random:bert", max_length=32).fingerprint,
        make("text", "random:bert", "top:1").fingerprint,
        make("text", "random:bert", dtype=torch.float16).fingerprint,
        make("image", "random:conv").fingerprint,
        make("image", "random:conv", size=64).fingerprint,
        make("image", "random:conv", max_images=1).fingerprint,
    ]
    assert len(set(keys)) == len(keys)
    encoder = make("text", "random:bert", "top:1")
    with torch.no_grad():
        encoder.trained_parameters()[0].add_(1)
    assert encoder.fingerprint == keys[2]


# ------------------------------------------------------------------------------------------------------- input, ragged
def test_prepare_counts_losses():
    encoder = make("image", "random:conv", max_images=1)
    x, lost = encoder.prepare(PICTURES)
    assert x.lengths.tolist() == [1, 0, 1, 0, 1]
    assert x.values.dtype == torch.uint8
    assert {what: counts.tolist() for what, counts in lost.items()} == {
        "undecodable": [0, 0, 0, 1, 0],
        "cut_images": [0, 0, 1, 0, 0],
    }
    encoder = make("text", "random:bert", max_length=6)
    x, lost = encoder.prepare(TEXTS)
    assert x.lengths.tolist() == [6, 0, 6, 0, 3]
    assert lost["truncated"].tolist() == [1, 0, 1, 0, 0]


def test_minilm_reads_anything():
    encoder = make("text", "minilm", max_length=16)
    odd = [["\U0001f600\u200d\U0001f525"], ["\0\0"], ["word " * 20_000], ["\ud800"], ["中文"]]
    x, lost = encoder.prepare(odd)
    assert lost["truncated"].tolist() == [0, 0, 1, 0, 0]
    assert x.lengths[2] == 16
    assert x.lengths[1] == x.lengths[3] == 0
    assert encoder.encode(odd).isfinite().all()


def test_an_items_feature_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(0)
    items = [
        [" ".join(["word", "film", "robot"][int(i)] for i in rng.integers(0, 3, n))] for n in rng.integers(0, 60, 40)
    ]
    encoder = make("text", "random:bert", "top:1")
    together = encoder.encode(items)
    alone = torch.cat([encoder.encode([item]) for item in items])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_the_mean_over_pictures():
    encoder = make("image", "random:conv")
    one, two, both = encoder.encode([[PICTURES[2][0]], [PICTURES[2][1]], PICTURES[2]])
    torch.testing.assert_close(both, (one + two) / 2)


def test_buckets():
    lengths = torch.tensor([3, 0, 64, 60, 5, 0, 4, 64, 1] * 30)
    groups = list(padding.buckets(lengths))
    assert torch.equal(torch.cat(groups).sort().values, torch.nonzero(lengths).flatten())
    padded = sum(int(lengths[g].max()) * len(g) for g in groups)
    assert padded < 1.2 * int(lengths.sum())
    assert all(int(lengths[g].max()) * len(g) <= padding.TOKENS_AT_ONCE["cpu"] for g in groups)


def test_rows_and_padding():
    x = Ragged.from_lengths(torch.arange(6.0), torch.tensor([2, 0, 3, 1]))
    items = torch.tensor([3, 0, 1, 2])
    assert torch.equal(padding.rows(x.ptr, items), torch.tensor([5, 0, 1, 2, 3, 4]))
    padded, mask = padding.pad(x)
    assert padded.tolist() == [[0, 1, 0], [0, 0, 0], [2, 3, 4], [5, 0, 0]]
    assert mask.sum(1).tolist() == [2, 0, 3, 1]


# -------------------------------------------------------------------------------------------------- pretrained meaning
def test_pretrained_features_mean_something():
    a, b, c = make("image", "efficientnet_lite0", size=96).encode(
        [[picture("ellipse", "red")], [picture("ellipse", "red", 6)], [picture("rectangle", "navy")]]
    )
    assert torch.cosine_similarity(a, b, 0) > torch.cosine_similarity(a, c, 0) + 0.05
    a, b, c = make("text", "minilm").encode([["a cat sits"], ["a kitten is sitting"], ["stock market prices fell"]])
    assert torch.cosine_similarity(a, b, 0) > torch.cosine_similarity(a, c, 0) + 0.3


# ------------------------------------------------------------------------------------------------- transformers models
def save_clip(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    words = {"<bos>": 0, "<eos>": 1, "<unk>": 2, "a": 3, "film": 4, "robot": 5, "romance": 6}
    text = {**tower, "vocab_size": 7, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", model_max_length=77).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4] * 3, "image_std": [0.2] * 3}))


def save_vision(folder: Path, kind: str) -> None:
    import transformers

    if kind == "swin":
        config = transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 2], num_heads=[2, 2], window_size=4
        )
        transformers.SwinModel(config).save_pretrained(folder)
    else:
        config = transformers.ConvNextConfig(hidden_sizes=[8, 16, 32], depths=[1, 1, 1], num_stages=3)
        transformers.ConvNextModel(config).save_pretrained(folder)


def assert_cuts(kind: str, folder: Path, trains: list[str], **settings) -> None:
    whole = features(make(kind, str(folder), **settings), raw(kind))
    for train in trains:
        encoder = make(kind, str(folder), train, **settings)
        found = features(encoder, raw(kind))
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)
        (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
        assert encoder.trained_parameters()
        assert all(p.grad is not None for p in encoder.trained_parameters())


def test_clip_towers(tmp_path):
    save_clip(tmp_path)
    assert_cuts("image", tmp_path, ["top:1", "all", "lora"], size=32)
    assert_cuts("image", tmp_path, ["top:2"], size=64)  # positions are interpolated
    assert_cuts("text", tmp_path, ["top:1", "all", "lora"])
    encoder = make("image", str(tmp_path), "top:1", size=32)
    assert encoder.boundary == 2
    assert float(encoder.mean[0]) == pytest.approx(102)
    text = make("text", str(tmp_path), "top:1")
    assert (text.boundary, text.width) == (2, 16)
    with pytest.raises(UserError, match="at most 77"):
        make("text", str(tmp_path), max_length=100)


@pytest.mark.parametrize("kind", ["swin", "convnext"])
def test_models_with_stages(tmp_path, kind):
    save_vision(tmp_path, kind)
    assert_cuts("image", tmp_path, ["top:1", "all", "lora"], size=32)
    top = make("image", str(tmp_path), "top:1", size=32)
    every = make("image", str(tmp_path), "all", size=32)
    assert 0 < len(top.trained_parameters()) < len(every.trained_parameters())


# ------------------------------------------------------------------------------------------------------------ mistakes
@pytest.mark.parametrize(
    ("kind", "name", "train", "settings", "message"),
    [
        ("text", "minilmm", "none", {}, "did you mean minilm"),
        ("image", "minilm", "none", {}, "does not read fields of kind image"),
        ("text", "minilm", "top:7", {}, "train=top:7.*6 layers"),
        ("image", "random:conv", "lora", {"lora_layers": 9}, "lora_layers=9.*4 layers"),
        ("image", "random:conv", "lora", {"lora_rank": 999}, "lora_rank=999: none .*is wider than 64.*use at most 64"),
        ("text", "random:bert", "lora", {"lora_rank": 33}, "lora_rank=33: none .*is wider than 32.*use at most 32"),
        ("text", "minilm", "none", {"max_length": 600}, "at most 512"),
        ("image", "random:conv", "none", {"output": "pooled"}, "output=pooled would do nothing.*random:conv"),
        ("text", "random:bert", "none", {"output": "pooled"}, "output=pooled would do nothing.*random:bert"),
        ("image_text", "random:vlmo", "none", {"output": "pooled"}, "output=pooled would do nothing.*random:vlmo"),
    ],
)
def test_mistakes_are_explained(kind, name, train, settings, message):
    with pytest.raises(UserError, match=message):
        make(kind, name, train, **settings)


def test_bad_folders(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        make("text", str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="safetensors"):
        make("text", str(tmp_path))


def test_a_hub_name_without_network(monkeypatch):
    import huggingface_hub

    def fail(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match="local folder"):
        make("text", "owner/name")


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match="pip install"):
        make("image", "efficientnet_lite0")


def test_importing_is_light():
    code = (
        "import sys, rawrec.content.encoders as e\n"
        "print({'transformers', 'peft', 'sentence_transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_loading_is_silent():
    code = (
        "import rawrec.content.encoders as e\n"
        "from rawrec.config import FieldConfig\n"
        "e.make_encoder('text', FieldConfig(train='lora'), 0)\n"
        "e.make_encoder('image', FieldConfig(train='lora'), 0)\n"
    )
    done = forked.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
