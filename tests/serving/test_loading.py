"""A run that is loaded serves known items without its encoders, which are made when a new item comes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from test_recommender import TINY, picture

import rawrec
from rawrec import Recommender, UserError
from rawrec.content import building
from weight_samples import words_of_clip

NEW: dict[str, Any] = {"image": picture(), "title": "a red lamp", "description": "it is red"}
ALONE = """
import sys
import rawrec
rec = rawrec.Recommender.load(sys.argv[1], device="cpu")
rec.recommend(user="u1", k=3, explain=True), rec.recommend(history=["p0001"], k=3, max_per={"category": 1})
slow = ("transformers", "polars", "scipy", "rich", "peft")
print([name for name in slow if name in sys.modules])
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small encoder of texts."""
    import transformers

    folder = tmp_path_factory.mktemp("encoders") / "bert"
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=60, max_position_embeddings=16, num_hidden_layers=2, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    words_of_clip(folder)
    return folder


@pytest.fixture(scope="module")
def run(shop: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = TINY | {
        "content.text.encoder": str(encoder),
        "content.text.train": "top:1",
        "content.image.train": "none",
    }
    return rawrec.train("em3", shop, tmp_path_factory.mktemp("runs") / "run", settings).path


def waits(rec: Recommender) -> bool:
    """Whether no encoder was made yet."""
    model = rec.system.item_model
    assert model is not None
    return not len(model.encoders)


def found(rec: Recommender) -> list[Any]:
    """Lists and scores of known items and of a new one."""
    return [
        rec.recommend(user="u1", k=5),
        rec.recommend(history=["p0001", NEW], k=5),
        rec.score(user="u2", items=["p0003", NEW]),
        rec.similar(NEW, k=5),
        rec.similar("p0002", k=5, by="text"),
        rec.embed(["p0001", NEW]).tolist(),
    ]


def test_nothing_heavy_is_imported_before_a_new_item_comes(run: Path) -> None:
    words = [sys.executable, "-c", ALONE, str(run)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == ["[]"]


def test_what_is_served_is_the_same_to_the_bit_with_encoders_made_at_once(run: Path, tmp_path: Path) -> None:
    later, old = Recommender.load(run), tmp_path / "run"
    assert waits(later)
    first = later.recommend(user="u1", k=5), later.score(user="u2", items=["p0003"]), later.similar("p0002", k=5)
    assert waits(later)
    shutil.copytree(run, old)
    info = json.loads((old / "run.json").read_text())
    info["encoders"] = {
        what: {"encoder": one["encoder"], "digest": one["digest"]} for what, one in info["encoders"].items()
    }
    del info["sum"]  # as an earlier version wrote it
    (old / "run.json").write_text(json.dumps(info))
    at_once = Recommender.load(old)
    assert not waits(at_once)
    assert (
        at_once.recommend(user="u1", k=5),
        at_once.score(user="u2", items=["p0003"]),
        at_once.similar("p0002", k=5),
    ) == first
    assert found(later) == found(at_once) and not waits(later)


def test_several_threads_make_them_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, own = list[int](), building.make_encoder
    monkeypatch.setattr(building, "make_encoder", lambda *given, **more: made.append(1) or own(*given, **more))
    rec = Recommender.load(run)
    with ThreadPoolExecutor(4) as pool:
        scores = list(pool.map(lambda _: rec.score(user="u1", items=[NEW]), range(8)))
    assert len(made) == 3 and len({tuple(score) for score in scores}) == 1


def test_make_encoders_makes_them_before_they_are_needed(run: Path) -> None:
    rec = Recommender.load(run)
    rec.make_encoders()
    assert not waits(rec)


@pytest.fixture
def own(encoder: Path, shop: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run with an encoder's folder that may be changed."""
    folder = tmp_path / "encoder"
    shutil.copytree(encoder, folder)
    texts = {key: value for key, value in TINY.items() if "image" not in key}
    settings = texts | {"content.text.encoder": str(folder), "content.text.train": "none", "content.image.use": False}
    return rawrec.train("em3", shop, tmp_path / "run", settings | {"paradigm": "hybrid"}).path, folder


def test_a_changed_encoder_is_told(own: tuple[Path, Path]) -> None:
    run, folder = own
    weights = folder / "model.safetensors"
    before, when = weights.read_bytes(), weights.stat()
    rec = Recommender.load(run)
    changed = load_file(weights)
    changed["embeddings.word_embeddings.weight"] += 1
    save_file(changed, weights, {"format": "pt"})
    assert weights.stat().st_size == len(before)
    told = rf"the weights of the encoder {folder} \(title\) have changed"
    with pytest.raises(UserError, match=told):  # of a run that serves already
        rec.score(user="u1", items=[NEW])
    with pytest.raises(UserError, match=told):
        Recommender.load(run)
    os.utime(weights, ns=(when.st_atime_ns, when.st_mtime_ns))
    quiet = Recommender.load(run)  # which no date and no size tells
    assert len(quiet.recommend(user="u1", k=3)) == 3
    with pytest.raises(UserError, match=told):
        quiet.score(user="u1", items=[NEW])
    weights.write_bytes(before)
    assert 0 < rec.score(user="u1", items=[NEW])[0] == quiet.score(user="u1", items=[NEW])[0] < 1


def test_an_encoder_that_is_gone_is_told_when_the_run_is_loaded(own: tuple[Path, Path]) -> None:
    run, folder = own
    rec = Recommender.load(run)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=str(folder)):
        rec.score(user="u1", items=[NEW])
    assert len(rec.recommend(user="u1", k=3)) == 3
    with pytest.raises(UserError, match=str(folder)):
        Recommender.load(run)
