"""Networks of timm as encoders, `timm:MODEL[@WEIGHTS]`. Most of it needs timm, which needs a torchvision."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from rawrec.config import FieldConfig
from rawrec.content.encoders import make_encoder
from rawrec.content.encoders.timm_pictures import prepared
from rawrec.errors import UserError

VIT, CONV = "vit_tiny_patch16_224", "mobilenetv3_small_050"


def png(width: int, height: int, seed: int) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


PICTURES = [[png(90, 60, 0)], [], [png(97, 150, 1)], [png(64, 64, 2)]]


def make(name: str, train: str = "none", size: int | None = 64, kind: Any = "image", **settings: Any) -> Any:
    return make_encoder(kind, FieldConfig(encoder=name, train=train, size=size, **settings), 0, torch.float32)


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip(
        "timm", reason="timm is not installed, or torchvision, which it needs", exc_type=ImportError
    )


# ------------------------------------------------------------------------------------------------------- without timm
def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"timm:resnet18 needs a package .*pip install 'rawrec\[timm\]'"):
        make("timm:resnet18")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {}}))
    with pytest.raises(UserError, match=r"rawrec\[timm\]"):
        make(str(tmp_path))


def test_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'timm:resnet18' reads pictures, but the field is of kind text"):
        make("timm:resnet18", kind="text", size=None)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {}}))
    with pytest.raises(UserError, match="a network of timm reads pictures"):
        make(str(tmp_path), kind="text", size=None)


def test_pictures_are_prepared_as_the_pretrained_config_says() -> None:
    said = {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
    }
    pictures = prepared(said, "x")
    assert (pictures.framing.side, pictures.framing.edge, pictures.framing.resampling) == (224, 248, "BICUBIC")
    assert pictures.mean == (127.5,) * 3
    assert pictures.std == (51.0,) * 3
    whole = prepared({**said, "crop_mode": "squash", "crop_pct": 1.0}, "x")
    assert (whole.framing.side, whole.framing.edge) == (224, None)
    for change in ({"crop_mode": "border"}, {"crop_mode": "squash"}, {"interpolation": "random"}, {"crop_pct": 1.2}):
        with pytest.raises(UserError, match="which is not known here"):
            prepared({**said, **change}, "x")
    with pytest.raises(UserError, match=r"reads input of \[1, 28, 28\]"):
        prepared({**said, "input_size": (1, 28, 28)}, "x")


# ---------------------------------------------------------------------------------------------------------- with timm
def own_feature(timm: Any, name: str, state: dict[str, torch.Tensor], size: int, **more: Any) -> torch.Tensor:
    """timm's feature of the pictures, prepared by hand."""
    model = timm.create_model(name, num_classes=0, **more).eval()
    model.load_state_dict(state, strict=False)
    about = model.pretrained_cfg
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    pixels = []
    for picture in (Image.open(io.BytesIO(p[0])) for p in PICTURES if p):
        edge = round(int(224 / about["crop_pct"]) * size / 224)
        width, height = picture.size
        short = min(width, height)
        scaled = picture.resize(
            (int(width * edge / short), int(height * edge / short)), filters[about["interpolation"]]
        )
        left, top = ((side - size) // 2 for side in scaled.size)
        values = torch.from_numpy(np.array(scaled.crop((left, top, left + size, top + size)))).permute(2, 0, 1) / 255
        pixels.append((values - torch.tensor(about["mean"]).view(3, 1, 1)) / torch.tensor(about["std"]).view(3, 1, 1))
    with torch.no_grad():
        return model(torch.stack(pixels))


@pytest.mark.parametrize(("name", "more"), [(VIT, {"img_size": 64}), (CONV, {})])
def test_features_are_timms_own_and_layers_can_be_cut(timm: Any, tmp_path: Path, name: str, more: Any) -> None:
    torch.manual_seed(3)
    whole = timm.create_model(name, **more)
    save_file(whole.state_dict(), tmp_path / "mine.safetensors")
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "mine.pth")
    called = f"timm:{name}@{tmp_path / 'mine.safetensors'}"
    encoder = make(called)
    features = encoder.encode(PICTURES)
    expected = own_feature(timm, name, whole.state_dict(), 64, **more)
    assert torch.allclose(features[[0, 2, 3]], expected, atol=1e-4)
    assert (features[1] == 0).all()
    pickled = make(f"timm:{name}@{tmp_path / 'mine.pth'}")
    assert torch.equal(pickled.encode(PICTURES), features)
    assert pickled.stack.digest == encoder.stack.digest
    for train in ("top:1", "lora", "all", "side:2"):
        trained = make(called, train, lora_layers=1 if train == "lora" else None)
        assert torch.allclose(trained.encode(PICTURES), features, atol=1e-4)
        x, _ = trained.prepare(PICTURES)
        trained.upper(trained.lower(x)).square().sum().backward()
        assert any(p.grad is not None and p.grad.any() for p in trained.trained_parameters())
        assert trained.lower_is_identity == (train == "all")
    assert make(f"timm:{name}@random").fingerprint != encoder.fingerprint


def test_a_folder_as_timm_has_it_on_the_hub(timm: Any, tmp_path: Path) -> None:
    whole = timm.create_model(CONV, num_classes=7)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    said = {**whole.pretrained_cfg, "num_classes": 7, "mean": [0.25] * 3, "input_size": [3, 32, 32]}
    about = {"architecture": CONV, "num_classes": 7, "pretrained_cfg": said}
    (tmp_path / "config.json").write_text(json.dumps(about))
    found = [make(name, size=None) for name in (str(tmp_path), f"timm:{CONV}@{tmp_path}")]
    assert [encoder.size for encoder in found] == [32, 32]
    assert found[0].mean.flatten().tolist() == [63.75] * 3
    assert torch.equal(found[0].encode(PICTURES), found[1].encode(PICTURES))
    with pytest.raises(UserError, match=f"is of {CONV}, not of resnet18"):
        make(f"timm:resnet18@{tmp_path}")
    (tmp_path / "config.json").unlink()
    assert make(f"timm:{CONV}@{tmp_path}", size=32).encode(PICTURES).any()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="of files of weights there are none in"):
        make(f"timm:{CONV}@{tmp_path}")


def test_mistakes_of_names_and_weights(timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: 1 / 0)
    save_file({"conv_stem.weight": torch.zeros(2, 3), "else": torch.zeros(1)}, tmp_path / "odd.safetensors")
    wrong = {
        "timm:resnet81": "no model 'resnet81'; did you mean timm:resnet",
        f"timm:{CONV}.nobody": "nobody",
        f"timm:{CONV}@": "nothing stands behind @",
        f"timm:{CONV}": r"the hub did not give timm/.*timm:mobilenetv3_small_050@FOLDER",
        f"timm:{CONV}@{tmp_path / 'none.pth'}": "none.pth does not exist",
        f"timm:{CONV}@{tmp_path / 'odd.safetensors'}": "do not fit the network: .*(conv_stem|bn1)",
    }
    for name, message in wrong.items():
        with pytest.raises(UserError, match=message):
            make(name)


def test_a_network_without_a_list_of_layers_learns_as_a_whole(timm: Any) -> None:
    name = "timm:inception_v3@random"
    assert make(name, "none", size=128).width == 2048
    with pytest.raises(UserError, match=r"top:1: .* no plain sequence of layers"):
        make(name, "top:1", size=128)
    assert make(name, "all", size=128).lower_is_identity
