"""Settings of rankers: head and content part apart, and what runs of before then called both at once."""

from __future__ import annotations

import pytest
import yaml

from rawrec.config import RANKERS, Config, DotMlpConfig, resolve, validate
from rawrec.errors import UserError

EARLIER = """
model:
  name: {name}
  dim: 8
  hidden: [16]
  dropout: 0.4
  item_id: true
  user_id: true
  id_dropout: 0.1
  id_history: 20
  columns: none
  popularity: false
  cic_weight: 0.1
  cic_temperature: 0.1
paradigm: hybrid
"""
"""`config.yaml` of a run from before heads had names, as far as it says something of the model."""


@pytest.mark.parametrize(("name", "content"), [("id", "none"), ("em3", "em3")])
def test_earlier_configs_are_read(name: str, content: str) -> None:
    cfg = validate(yaml.safe_load(EARLIER.format(name=name)))
    assert cfg.model == DotMlpConfig(dim=8, hidden=[16], content=content)
    assert cfg.label == name and cfg.reads_content == (name == "em3")
    assert validate(cfg.dump()) == cfg and cfg.dump()["model"]["name"] == "dot_mlp"


@pytest.mark.parametrize("name", ["id", "em3"])
def test_presets_are_pairs_of_head_and_content(name: str) -> None:
    cfg = resolve(name)
    assert cfg.label == name and cfg.model.name == "dot_mlp"
    assert resolve("em3", {"model.name": name}).model == cfg.model  # the short name goes on meaning both
    assert resolve("id" if name == "em3" else "em3", {"model.content": cfg.model.content}).label == name


@pytest.mark.parametrize("name", RANKERS)
def test_a_head_alone_has_what_em3_has_around_it(name: str) -> None:
    cfg, em3 = resolve(name), resolve("em3")
    assert cfg.model == RANKERS[name]() and cfg.model.content == "em3"
    assert cfg.model_copy(update={"model": em3.model}) == em3
    assert resolve(name, {"model.content": "none"}).label == ("id" if name == "dot_mlp" else name)


def test_a_pair_without_a_name_says_both() -> None:
    class Other(DotMlpConfig):
        name: str = "other"  # pyright: ignore[reportIncompatibleVariableOverride]

    assert Other().label == "other+em3" and Other(content="none").label == "other"
    assert not validate({"model": {"name": "bpr"}}).reads_content and Config().reads_content


def test_two_names_of_the_content_part_must_agree() -> None:
    assert validate({"model": {"name": "em3", "content": "em3"}}).label == "em3"
    with pytest.raises(UserError, match=r"model\.name=id means .*model\.content=em3 is given; use model\.name=dot_mlp"):
        validate({"model": {"name": "id", "content": "em3"}})


def test_names_of_heads_and_presets_are_offered() -> None:
    with pytest.raises(UserError, match=r"did you mean dot_mlp.*Known: dot_mlp, wide_deep, .*, id, em3, lemur, bpr"):
        validate({"model": {"name": "dot-mlp"}})
    assert all(record.model_fields["name"].default == name for name, record in RANKERS.items())


@pytest.mark.parametrize("key", ["model.cic_weight", "content.dim", "bank.micro_batch", "paradigm"])
def test_settings_of_content_are_idle_without_it(key: str) -> None:
    value = "hybrid" if key == "paradigm" else 1
    with pytest.raises(UserError, match=f"{key}={value} would do nothing: model id has no content"):
        resolve("em3", {"model.content": "none", key: value})


def test_id_dropout_is_idle_where_no_id_is_read() -> None:
    """The contrast reads ids, but only a content part has one."""
    nothing = {"model.item_id": False, "model.user_id": False, "model.id_dropout": 0.2}
    assert resolve("em3", nothing).model.id_dropout == 0.2
    with pytest.raises(UserError, match="reads no ids"):
        resolve("id", {**nothing, "model.columns": "all"})
