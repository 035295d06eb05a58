"""Models of open_clip as encoders, `open_clip:ARCH[@WEIGHTS]`. Most of it needs open_clip and its torchvision."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_timm import PICTURES
from torch import nn

from rawrec.config import FieldConfig
from rawrec.content import lora
from rawrec.content.encoders import make_encoder
from rawrec.errors import UserError

VISION = {"image_size": 32, "layers": 3, "width": 64, "patch_size": 8, "head_width": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
CAUSAL = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
FILLED = {
    "embed_dim": 24,
    "custom_text": True,
    "init_logit_bias": -10,
    "vision_cfg": VISION,
    "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
}
TEXTS = [["A red robot"], [], ["film " * 100], ["one", "two"]]


def make(name: str, kind: Any, train: str = "none", **settings: Any) -> Any:
    return make_encoder(kind, FieldConfig(encoder=name, train=train, **settings), 0, torch.float32)


@pytest.fixture
def library(tmp_path: Path) -> Any:
    found = pytest.importorskip(
        "open_clip", reason="open_clip is not installed, or torchvision, which it needs", exc_type=ImportError
    )
    (tmp_path / "archs").mkdir()
    for name, config in (("tiny-causal", CAUSAL), ("tiny-filled", FILLED)):
        (tmp_path / "archs" / f"{name}.json").write_text(json.dumps(config))
    found.add_model_config(tmp_path / "archs")
    return found


def test_without_open_clip_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=r"open_clip:ViT-B-32@random needs a package .*'rawrec\[open_clip\]'"):
        make("open_clip:ViT-B-32@random", "image")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CAUSAL}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"pip install 'rawrec\[open_clip\]', or .*rawrec convert"):
        make(str(tmp_path), "text")


def test_lora_leaves_out_what_attention_reads_without_calling_it() -> None:
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2), "mlp": nn.Linear(8, 8)})
    found = lora.inject(model, [model], 2, 0)
    assert len(found) == 2
    assert type(model["attn"].out_proj) is type(nn.MultiheadAttention(8, 2).out_proj)


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-filled"])
def test_features_are_open_clips_own_and_layers_can_be_cut(library: Any, tmp_path: Path, name: str) -> None:
    torch.manual_seed(2)
    model = library.create_model(name, pretrained=None).eval()
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    called = f"open_clip:{name}@{tmp_path / 'mine.safetensors'}"
    images, texts = make(called, "image"), make(called, "text")
    assert (images.width, texts.width, texts.max_length) == (24, 24, 77)
    found = texts.encode(TEXTS)
    with torch.no_grad():
        expected = model.encode_text(library.get_tokenizer(name)([("\n".join(t)).strip() for t in TEXTS if t]))
    assert torch.allclose(found[[0, 2, 3]], expected, atol=1e-5)
    assert texts.prepare(TEXTS)[1]["truncated"].tolist() == [0, 0, 1, 0]
    pixels = (images.prepare(PICTURES)[0].values.float() - images.mean) / images.std
    with torch.no_grad():
        assert torch.allclose(images.encode(PICTURES)[[0, 2, 3]], model.encode_image(pixels), atol=1e-5)
    for kind, raw in (("image", PICTURES), ("text", TEXTS)):
        for output, width in (("projected", 24), ("pooled", 64 if kind == "image" else 32)):
            features = make(called, kind, output=output).encode(raw)
            assert features.shape[1] == width
            for train in ("top:1", "lora", "all", "side:2"):
                trained = make(called, kind, train, output=output, lora_layers=1 if train == "lora" else None)
                assert torch.allclose(trained.encode(raw), features, atol=1e-5)
                assert trained.lower_is_identity == (train == "all")
                x, _ = trained.prepare(raw)
                trained.upper(trained.lower(x)).square().sum().backward()
                assert all(p.grad is not None for p in trained.trained_parameters())


def test_folders_and_lengths(library: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(library.create_model("tiny-causal", pretrained=None).state_dict(), folder / "open_clip_model.safetensors")
    about = {"model_cfg": CAUSAL, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": "squash"}}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    images = make(str(folder), "image")
    assert (images.framing.side, images.framing.edge, images.mean.flatten().tolist()) == (32, None, [127.5] * 3)
    larger = make(f"open_clip:tiny-causal@{folder}", "image", size=64)
    assert (larger.size, larger.encode(PICTURES).shape) == (64, (4, 24))
    short = make(str(folder), "text", max_length=5)
    assert short.prepare(TEXTS)[0].lengths.tolist() == [5, 0, 5, 4]
    with pytest.raises(UserError, match=r"max_length=78: .* reads at most 77 tokens"):
        make(str(folder), "text", max_length=78)
    with pytest.raises(UserError, match=r"max_length=5: .* exactly 77 tokens"):
        make("open_clip:tiny-filled@random", "text", max_length=5)


def test_mistakes_of_names_and_weights(library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: 1 / 0)
    save_file({"visual.proj": torch.zeros(2, 3), "else": torch.zeros(1)}, tmp_path / "odd.safetensors")
    (tmp_path / "code.pt").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    wrong = {
        "open_clip:ViT-B-33@random": "no architecture 'ViT-B-33'; did you mean open_clip:ViT-B-",
        "open_clip:ViT-B-32": "which weights is not said; .* one of open_clip's own: .*laion2b_s34b_b79k",
        "open_clip:ViT-B-32@": "nothing stands behind @",
        "open_clip:ViT-B-32@laion2b_s34b_b79k": r"the hub did not give laion/CLIP.*open_clip:ViT-B-32@FOLDER",
        f"open_clip:tiny-causal@{tmp_path / 'none.pth'}": "none.pth does not exist",
        f"open_clip:tiny-causal@{tmp_path / 'odd.safetensors'}": "do not fit the network: .*logit_scale",
        f"open_clip:tiny-causal@{tmp_path / 'code.pt'}": "nothing in it is executed",
    }
    for name, message in wrong.items():
        with pytest.raises(UserError, match=message):
            make(name, "image")
