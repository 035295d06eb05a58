"""An encoder in a folder is one encoder, whatever way leads to it and wherever it is moved."""

from pathlib import Path
from typing import Any

import pytest
from test_two_towers import make, save

from rawrec.config import resolve
from rawrec.content.encoders.names import whole_name
from rawrec.content.units import content_units, resolved
from rawrec.data.dataset import Fields


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = save(tmp_path / "weights" / "clip", "clip")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)
    return folder.resolve()


WAYS = ("weights/clip", "weights/clip/", "./link", "~/clip", "weights/../link")


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_the_real_path(clip: Path, way: str) -> None:
    assert whole_name(way) == str(clip)
    assert whole_name(f"pair:{way}+minilm") == f"pair:{clip}+minilm"
    assert whole_name(f"timm:resnet18@{way}") == f"timm:resnet18@{clip}"
    assert make(Path(way), "text").name == str(clip)
    assert make(way, "text").fingerprint == make(clip, "text").fingerprint  # type: ignore[arg-type]
    fields = Fields(image=["poster"], text=["title"])
    for key in ("item", "title"):
        cfg = resolve("vbpr", {f"content.{key}.encoder": way})
        assert resolved(cfg, fields, content_units(cfg, fields))[key].encoder == str(clip)


def test_what_is_no_folder_stays(clip: Path) -> None:
    for name in (
        "minilm",
        "openai/clip-vit-base-patch32",
        "random:vit",
        "timm:resnet18",
        "open_clip:RN50@openai",
        "~x",
    ):
        assert whole_name(name) == name


def test_a_folder_that_is_moved_keeps_its_cache(clip: Path, tmp_path: Path) -> None:
    before: Any = make(clip, "text").fingerprint
    assert make(clip.rename(tmp_path / "moved"), "text").fingerprint == before
