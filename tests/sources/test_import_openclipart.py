"""Debian's clip art: a catalogue alone."""

from pathlib import Path

import pytest

import rawrec
import source_samples
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.openclipart import PLACE, import_openclipart


@pytest.fixture
def clipart(tmp_path: Path) -> Path:
    source_samples.openclipart(tmp_path)
    return tmp_path / "clipart"


def test_what_comes_in(clipart: Path, tmp_path: Path) -> None:
    data = import_openclipart(clipart, out=tmp_path / "d", progress=False)
    assert data.item_ids.tolist() == ["animals/birds/owl", "animals/cat", "tools/fork"]
    assert data.texts("title", range(3)) == [["Owl"], ["Cat & mouse"], ["Fork"]]
    assert data.texts("keywords", range(3)) == [["animal, bird"], ["animal, pet"], ["tool, kitchen"]]
    assert data.texts("description", range(3)) == [[], ["A cat."], []]
    assert data.present("image").tolist() == [True] * 3
    assert (data.n_users, data.n_interactions, len(data.split())) == (0, 0, 0)
    skipped = {reason: entry.count for reason, entry in ImportReport.load(data.path / "import.json").skipped.items()}
    assert skipped == {"links to other pictures": 1, "no title in the drawing": 1, "fewer than 2 keywords": 1}
    every = import_openclipart(clipart, out=tmp_path / "all", keywords=0, progress=False)
    assert every.n_items == 4


def test_no_model_learns_from_it(clipart: Path, tmp_path: Path) -> None:
    data = import_openclipart(clipart, out=tmp_path / "d", progress=False)
    with pytest.raises(UserError, match=r"a catalogue without interactions, .* rawrec finetune"):
        rawrec.train("lightgcn", data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_encoder_is_tuned_on_it(clipart: Path, tmp_path: Path) -> None:
    data = import_openclipart(clipart, out=tmp_path / "d", keywords=0, progress=False)
    settings = {"epochs": 1, "batch_size": 2, "held_out": 0.5, "threads": 1, "dim": 8, "size": 32, "max_length": 8}
    rawrec.finetune(data, "pair:random:conv+random:bert", tmp_path / "enc", settings | {"train": "top:1"})
    assert (tmp_path / "enc" / "config.json").is_file()


def test_mistakes(clipart: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="apt-get"):
        import_openclipart(tmp_path, out=tmp_path / "d")
    with pytest.raises(UserError, match="no picture is left"):
        import_openclipart(clipart, out=tmp_path / "d", keywords=9, progress=False)
    assert not (tmp_path / "d").exists()


@pytest.mark.skipif(not Path(PLACE, "svg").is_dir(), reason="openclipart-png and openclipart-svg are not installed")
def test_the_packages_themselves(tmp_path: Path) -> None:
    data = import_openclipart(out=tmp_path / "d", progress=False)
    assert 2000 < data.n_items < 2500
