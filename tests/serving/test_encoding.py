"""`rawrec encode`: features of a dataset by a frozen encoder, in the cache of runs and in files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import rawrec
from rawrec.cli import app
from rawrec.config import FieldConfig
from rawrec.content.encoders import make_encoder
from rawrec.content.item_model import ItemModel
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.serving.encoding import encode


@pytest.fixture
def data(shop: Path, tmp_path: Path) -> Dataset:
    shutil.copytree(shop, tmp_path / "shop", ignore=shutil.ignore_patterns("cache"))
    return Dataset.open(tmp_path / "shop")


def test_a_field_is_encoded_into_a_file(data: Dataset, tmp_path: Path) -> None:
    short = {"content.title.max_length": 12}
    done = encode(data, "random:bert", field="title", out=tmp_path / "title.npy", overrides=short)
    vectors = np.load(tmp_path / "title.npy")
    encoder = make_encoder("text", FieldConfig(encoder="random:bert", max_length=12), 0)
    titles = data.texts("title", range(data.n_items))
    np.testing.assert_allclose(vectors, encoder.encode(titles).numpy(), rtol=2e-2, atol=2e-2)
    assert done.features == {"title": (32, sum(map(bool, titles)))} and done.file == tmp_path / "title.npy"


def test_runs_find_what_was_encoded(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode(data, "random:vlmo")
    assert list(whole.features) == ["image", "text", "image_text"]
    asked: list[str] = []
    prepare = ItemModel.prepare
    monkeypatch.setattr(ItemModel, "prepare", lambda self, name, raw: (asked.append(name), prepare(self, name, raw))[1])
    settings = {"paradigm": "frozen", "content.item.encoder": "random:vlmo", "train.epochs": 1}
    rawrec.train("em3", data, tmp_path / "run", settings)
    assert not asked
    assert encode(data, "random:vlmo", feature="image_text").features.keys() == {"image_text"} and not asked


def test_an_encoder_of_one_kind_takes_the_fields_of_that_kind(data: Dataset) -> None:
    assert encode(data, "random:bert").features.keys() == {"title", "description"}
    assert encode(data, "random:conv", overrides={"content.image.size": 32}).features.keys() == {"image"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"field": "tilte"}, "--field 'tilte': the dataset has no such image or text field. Known: image, title"),
        ({"encoder": "random:bert", "out": "x.npy"}, "takes one feature, and 2 are made: title, description"),
        ({"encoder": "random:bert", "out": "x.csv"}, "ends with .parquet, .npy"),
        ({"encoder": "random:brt"}, "random:brt"),
        ({"encoder": "random:conv", "field": "title"}, "does not read fields of kind text"),
        ({"encoder": "random:vlmo", "feature": "both"}, "no encoder makes 'both'"),
    ],
)
def test_mistakes_are_named(data: Dataset, tmp_path: Path, given: dict, message: str) -> None:
    if "out" in given:
        given = {**given, "out": tmp_path / given["out"]}
    with pytest.raises(UserError, match=message):
        encode(data, **given)


def test_the_command(data: Dataset, tmp_path: Path) -> None:
    words = ["encode", str(data.path), "--encoder", "random:bert", "--field", "title", "content.title.max_length=12"]
    said = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "t.parquet")])
    assert said.exit_code == 0 and "title: 32 wide" in said.output and (tmp_path / "t.parquet").is_file()
    said = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(said.stdout)["features"]["title"]["width"] == 32
