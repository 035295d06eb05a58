"""What is said of a model before it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rawrec.config import Config, parse_overrides, presets, resolve
from rawrec.config.listing import page, settings
from rawrec.config.models import MODELS, model_names
from rawrec.errors import UserError


@pytest.mark.parametrize("name", [*presets(), "dot_mlp"])
def test_the_page_of_a_model_has_what_its_run_would_take(name: str) -> None:
    found, cfg = page(name, {}), resolve(name)
    values: dict[str, Any] = {}
    for line in found.settings:
        _, *part, key = line.setting.split(".")
        inner = values.setdefault(part[0], {}) if part else values
        inner[key] = yaml.safe_load(line.default)
    assert resolve({"model": values}).model == cfg.model
    assert [line.setting for line in found.settings] == [line.setting for line in settings(name)[1]]
    assert all(line.meaning for line in found.settings)
    again = resolve({"model": cfg.dump()["model"]}, parse_overrides([f"{k}={v}" for k, v in found.shared.items()]))
    assert again == cfg
    assert found.package == "rawrec" and not found.given and not found.others


@pytest.mark.parametrize("name", [name for name in model_names() if name in MODELS or name in ("id", "em3")])
def test_every_paper_is_named(name: str) -> None:
    assert ("20" in page(name, {}).what) == (name not in ("id", "pop", "random"))


def test_short_names_of_rankers_have_their_own_words() -> None:
    assert page("id", {}).what.startswith("The ranker on ids alone")
    assert next(line.default for line in page("id", {}).settings if line.setting == "model.content") == "none"
    assert page("dot_mlp", {"model.content": "none"}).what == page("id", {}).what


def test_what_is_given_stands_in_the_place_of_the_default() -> None:
    found = page("freedom", {"model": {"knn_k": 5}, "model.dropout": 0.5, "train.lr": 0.1, "train.epochs": 1000})
    values = {line.setting: line.default for line in found.settings}
    usual = {line.setting: line.default for line in page("freedom", {}).settings}
    assert {key: value for key, value in values.items() if usual[key] != value} == {
        "model.knn_k": "5", "model.dropout": "0.5",
    }  # fmt: skip
    assert found.given == {"model.knn_k", "model.dropout"}
    assert found.others == {"train.lr": "0.1", "train.epochs": "1000"}
    assert not found.others.keys() & found.shared.keys() and found.shared["paradigm"] == "hybrid"


def test_a_file_is_as_the_model_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {name: lightgcn, n_layers: 4}\ntrain: {epochs: 7}\n")
    found = page(str(path), {})
    assert found.what.startswith("LightGCN") and found.shared["train.epochs"] == "7"
    assert next(line.default for line in found.settings if line.setting == "model.n_layers") == "4"


def test_mistakes_are_those_of_a_run() -> None:
    for name, given, said in (
        ("freedom", {"model.knnk": 3}, "did you mean knn_k"),
        ("freedom", {"model.knn_k": "many"}, "model.knn_k=many"),
        ("lightgcn", {"content.dim": 3}, "would do nothing"),
        ("freedoms", {}, "did you mean freedom"),
    ):
        with pytest.raises(UserError, match=said):
            page(name, given)


def test_settings_of_no_part() -> None:
    assert [line.setting for line in settings("run")[1]] == ["paradigm", "seed"]
    assert settings("run")[1][0].default == Config().paradigm
