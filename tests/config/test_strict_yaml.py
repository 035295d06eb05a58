"""YAML in which no key is given twice."""

from __future__ import annotations

import pytest
import yaml

from rawrec.config.strict_yaml import GivenTwice, load


@pytest.mark.parametrize("text", ["a: 1\nb: {c: [1, 2], d: null}\n", "", "[1, 2]", "x", "{a: 1, A: 2, 1: 3, '1': 4}"])
def test_other_texts_are_read_as_ever(text: str) -> None:
    assert load(text) == yaml.safe_load(text)


def test_merged_keys_are_not_given_twice() -> None:
    text = "base: &base {lr: 1, epochs: 2}\nmine: {<<: *base, lr: 3}\n"
    assert load(text)["mine"] == {"lr": 3, "epochs": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "a is given twice: 1 and 3 (line 3)"),
        ("x:\n  - {deep: [1], deep: {b: 2}}\n", "deep is given twice: [1] and {b: 2} (line 2)"),
        ("{1: a, 0x1: b}", "1 is given twice: a and b"),
    ],
)
def test_a_key_given_twice_is_refused(text: str, said: str) -> None:
    with pytest.raises(GivenTwice) as mistake:
        load(text)
    assert said in str(mistake.value)


def test_nothing_is_executed() -> None:
    with pytest.raises(yaml.YAMLError):
        load("!!python/object/apply:os.system ['true']")
