"""Presets, files and overrides."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from settled import KINDS, records, settled

from rawrec.config import FieldConfig, parse_overrides, presets, resolve, validate
from rawrec.errors import UserError


@pytest.mark.parametrize("name", presets())
def test_presets_resolve_and_come_back_from_yaml(name: str) -> None:
    cfg = resolve(name)
    assert cfg.label == name
    text = yaml.safe_dump(cfg.dump(), sort_keys=False)
    assert validate(yaml.safe_load(text)) == cfg


def test_overrides_reach_their_settings() -> None:
    words = ["train.epochs=5", "train.lr=1e-2", "content.image.train=lora", "model.columns=[genres]", "data.split=0"]
    cfg = settled("em3", *words, "content.fields.title.max_length=32", "bank.live_budget=null")
    assert (cfg.train.epochs, cfg.train.lr, cfg.model.columns, cfg.data.split) == (5, 0.01, ["genres"], "0")
    assert cfg.content.fields["image"].train == "lora"
    assert cfg.content.fields["image"].encoder == "efficientnet_lite0"  # from the preset
    assert cfg.content.fields["title"].max_length == 32


def test_nested_overrides_are_as_dotted_ones() -> None:
    nested = resolve("em3", {"content": {"image": {"train": "all", "size": 64}}, "train.epochs": 2})
    assert nested == resolve("em3", {"content.image.train": "all", "content.image.size": 64, "train.epochs": 2})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.lr=1", "train.lr=2"], "train.lr is given twice: 1 and 2; give it once"),
        (["train.lr=1", "seed=3", "train.lr=1"], "train.lr is given twice: 1 and 1"),
        (["content={dim: 8, image: {size: 64}}", "content.dim=3"], "content.dim is given twice: 8 and 3"),
        (["content.image.size=32", "content={image: {size: 64}}"], "content.image.size is given twice: 32 and 64"),
        (["content.image.size=32", "content.fields.image.size=64"], "content.image.size is given twice: 32 and 64"),
        (["content={fields: {image: {size: 1}}, image: {size: 2}}"], "content.image.size is given twice: 1 and 2"),
        (["data.split=a", "data=null"], "data.split=a and data=None both say what data.split is; give one of them"),
        (["content.fusion={}", "content.fusion.kind=sum"], "both say what content.fusion.kind is"),
        (["content={dim: 8, dim: 16}"], "override 'content={dim: 8, dim: 16}': dim is given twice: 8 and 16"),
    ],
)
def test_a_setting_given_twice_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as mistake:
        parse_overrides(words)
    assert said in str(mistake.value)


def test_a_setting_given_twice_is_refused_in_python_too() -> None:
    with pytest.raises(UserError, match=r"content\.dim is given twice: 8 and 16"):
        resolve("em3", {"content": {"dim": 8}, "content.dim": 16})
    with pytest.raises(UserError, match=r"both say what train\.lr is"):
        resolve("em3", {"train": None, "train.lr": 0.1})


def test_parts_of_one_record_may_stand_apart() -> None:
    words = ["content={dim: 8, image: {size: 64}}", "content.image.train=all", "content.fusion.heads=2"]
    given = parse_overrides(words)
    assert given == {
        "content.dim": 8, "content.image.size": 64, "content.image.train": "all", "content.fusion.heads": 2,
    }  # fmt: skip
    cfg = resolve("em3", given)
    assert (cfg.content.dim, cfg.content.fields["image"].size, cfg.content.fusion.heads) == (8, 64, 2)


def test_a_field_of_unknown_kind_is_not_judged_by_its_kind() -> None:
    words = {"content.image.train": "lora", "content.poster.lora_rank": 2}
    assert resolve("em3", words).content.fields["poster"].lora_rank == 2
    with pytest.raises(UserError, match="has no LoRA"):
        resolve("em3", {"content.text.train": "lora", "content.poster.lora_rank": 2}, KINDS)


def test_a_preset_given_as_mapping_is_not_changed() -> None:
    tree = {"model": {"name": "em3"}, "content": {"image": {"train": "top:1"}}}
    resolve(tree, {"content.image.train": "all", "model.dim": 8})
    assert tree == {"model": {"name": "em3"}, "content": {"image": {"train": "top:1"}}}


def test_override_of_a_kind_wins_over_a_complete_config() -> None:
    """`config.yaml` of a run names every field; an override for all images must not drown in it."""
    complete = resolve("em3")
    complete.content.fields = {"poster": FieldConfig(train="top:1"), "title": FieldConfig(train="top:1")}
    cfg = resolve(complete.dump(), {"content.image.train": "all"}, KINDS)
    assert "train" not in cfg.content.fields["poster"].model_fields_set
    assert cfg.content.fields["image"].train == "all"
    assert cfg.content.fields["title"].train == "top:1"


TWICE = (b"train: {lr: 1}\nseed: 1\ntrain: {lr: 2}\n", r"not valid YAML: train is given twice: .*1.* and .*2.*line 3")


def test_config_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {name: id}\ntrain: {epochs: 2}\n")
    assert resolve(path, {"train.lr": 0.1}).train.epochs == 2
    for content, said in [(b"- 1\n", "key: value"), (b"{", "not valid YAML"), (b"\xff\xfe\xff", "UTF-8"), TWICE]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=said):
            resolve(path)


def test_mistakes_of_a_file_stand_under_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: {name: id, dimm: 3}\n")
    with pytest.raises(UserError, match=f"^{re.escape(str(file))}: model.dimm: 'dimm' is unknown"):
        resolve(file, {"train.lr": "x"})
    file.write_text("model: {name: id}\n")
    with pytest.raises(UserError, match=r"^train.lr=x"):
        resolve(file, {"train.lr": "x"})


def test_nothing_in_a_config_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("model: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(UserError, match="not valid YAML"):
        resolve(path)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["", "model.", "data.", "train.", "bank.", "eval.", "content.fusion.", "content.image."]),
    st.text(min_size=1, max_size=12).filter(lambda t: t.strip()),
    st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.none(), st.lists(st.integers(), max_size=2)),
)
def test_unknown_keys_are_always_refused(prefix: str, key: str, value: object) -> None:
    known = {name for record in [*records(), FieldConfig] for name in record.model_fields}
    if key.split(".")[0] in known:
        return
    with pytest.raises(UserError):
        resolve("em3", {prefix + key: value})


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=30))
def test_any_word_is_an_override_or_a_mistake(word: str) -> None:
    with contextlib.suppress(UserError):
        resolve("em3", parse_overrides([word]))
