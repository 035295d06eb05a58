"""Encoders of timm and open_clip, tuned on pairs: what is written is an encoder by its folder's name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_open_clip import CAUSAL, FILLED

import rawrec
import source_samples
from rawrec.config import FieldConfig
from rawrec.content.encoders import make_encoder
from rawrec.sources.openclipart import import_openclipart

SETTINGS = {"epochs": 1, "batch_size": 2, "held_out": 0.5, "threads": 1, "train": "top:1", "lr": 1e-3}


@pytest.fixture
def data(tmp_path: Path) -> Any:
    source_samples.openclipart(tmp_path)
    return import_openclipart(tmp_path / "clipart", out=tmp_path / "d", keywords=0, progress=False)


def make(folder: Path, kind: Any) -> Any:
    return make_encoder(kind, FieldConfig(encoder=str(folder)), 0, torch.float32)


def features(data: Any, encoder: Any) -> torch.Tensor:
    rows = range(data.n_items)
    return encoder.encode(data.images("image", rows) if encoder.kinds == ("image",) else data.texts("title", rows))


def test_a_pair_with_a_network_of_timm(data: Any, tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed, or torchvision, which it needs", exc_type=ImportError)
    name = "pair:timm:mobilenetv3_small_050@random+random:bert"
    rawrec.finetune(data, name, tmp_path / "one", SETTINGS | {"dim": 8, "size": 32})
    assert json.loads((tmp_path / "one" / "config.json").read_text())["image"]["encoder"] == "./image"
    rawrec.finetune(data, tmp_path / "one", tmp_path / "two", SETTINGS)
    for folder in (tmp_path / "one", tmp_path / "two"):
        image, text = make(folder, "image"), make(folder, "text")
        assert (image.width, text.width, image.size) == (8, 8, 32)
        assert features(data, image).any() and features(data, text).any()
    moved = (tmp_path / "one").rename(tmp_path / "moved")
    assert features(data, make(moved, "image")).any()


@pytest.mark.parametrize("config", [CAUSAL, FILLED], ids=["causal", "filled"])
def test_a_model_of_open_clip(data: Any, tmp_path: Path, config: Any) -> None:
    library = pytest.importorskip(
        "open_clip", reason="open_clip is not installed, or torchvision, which it needs", exc_type=ImportError
    )
    (tmp_path / "archs").mkdir()
    (tmp_path / "archs" / "tiny-tuned.json").write_text(json.dumps(config))
    library.add_model_config(tmp_path / "archs")
    rawrec.finetune(data, "open_clip:tiny-tuned@random", tmp_path / "one", SETTINGS)
    again = rawrec.finetune(data, tmp_path / "one", tmp_path / "two", SETTINGS | {"train": "lora"})
    for folder in (tmp_path / "one", again.path):
        assert make(folder, "image").width == make(folder, "text").width == 24
        assert features(data, make(folder, "image")).any()
    theirs = library.create_model(f"local-dir:{tmp_path / 'one'}").eval()
    words = library.get_tokenizer(f"local-dir:{tmp_path / 'one'}")
    with torch.no_grad():
        expected = theirs.encode_text(words([t[0] for t in data.texts("title", range(data.n_items))]))
    assert torch.allclose(features(data, make(tmp_path / "one", "text")), expected, atol=1e-5)
    rawrec.finetune(
        data, f"pair:open_clip:tiny-tuned@random+{tmp_path / 'one'}", tmp_path / "pair", SETTINGS | {"dim": 6}
    )
    assert make(tmp_path / "pair", "image").width == make(tmp_path / "pair", "text").width == 6
