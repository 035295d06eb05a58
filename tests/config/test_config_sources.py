"""Sources by name: whose they are, and the options that one of your own may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, create_model, field_validator, model_validator

import rawrec
from rawrec.cli import commands  # noqa: F401  which registers them
from rawrec.cli.sources import importing
from rawrec.config.sources import SOURCES, options_of, source_entry, source_names
from rawrec.errors import UserError
from registries import registries  # noqa: F401

pytestmark = pytest.mark.usefixtures("registries")


class Options(rawrec.SourceOptions):
    """A log of this test."""

    log_file: Path = Field(description="the log")
    kind: Literal["plain", "short"] = "plain"
    least: float = Field(default=1, ge=0)
    days: list[int] = Field(default=[])

    @field_validator("log_file")
    @classmethod
    def _named(cls, value: Path) -> Path:
        return {"x": value}["x" if value.name else "y"]

    @model_validator(mode="after")
    def _fits(self) -> Options:
        if self.kind == "short" and self.days:
            raise ValueError("--kind short has no --days")
        return self


def test_our_names_are_taken() -> None:
    ours = [info.name for info in importing.registered_commands]
    assert set(ours) == {name for name, entry in SOURCES.items() if entry.ours} and len(ours) == len(set(ours))
    for name in ours:
        entry = source_entry(str(name))
        assert entry is not None and entry.record is None and callable(entry.load())
        with pytest.raises(UserError, match=f"source '{name}'.*taken by rawrec itself"):
            rawrec.register_source(str(name), Options, "somewhere:f")


def test_a_source_is_registered_as_other_things_are() -> None:
    @rawrec.register_source("mine", Options)
    def mine(options: Any, report: Any) -> None: ...

    assert "mine" in source_names() and SOURCES["mine"].load() is mine and SOURCES["mine"].record is Options
    rawrec.register_source("mine", Options, mine)
    with pytest.raises(UserError, match="the name is taken by the module"):
        rawrec.register_source("mine", Options, "somewhere:f")
    with pytest.raises(UserError, match="a name has letters"):
        rawrec.register_source("my log", Options, "somewhere:f")
    assert source_entry("nobody's") is None


@pytest.mark.parametrize(
    "kind", [dict[str, int], Options, tuple[str, str], set[str], list[Options], Literal[1, 2], Any, list]
)
def test_options_that_cannot_be_words_are_refused(kind: Any) -> None:
    record = create_model("Of", __base__=rawrec.SourceOptions, what=(kind, ...))
    with pytest.raises(UserError, match=r"Of\.what cannot be an option: use text, a number"):
        rawrec.register_source("mine", record, "somewhere:f")


def test_records_that_do_not_work() -> None:
    for key in ("out", "split_seed", "overwrite", "image_url_table"):
        record = create_model("Of", __base__=rawrec.SourceOptions, **{key: (str, "")})  # pyright: ignore
        with pytest.raises(UserError, match=f"every import has an option --{key.replace('_', '-')}: call Of.{key}"):
            rawrec.register_source("mine", record, "somewhere:f")
    with pytest.raises(UserError, match="must be a SourceOptions of its own"):
        rawrec.register_source("mine", dict, "somewhere:f")  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_options_from_words() -> None:
    found = options_of("mine", Options, {"log_file": "a.log", "least": "1e-1", "days": ["1", "2"]})
    assert found.model_dump() == {"log_file": Path("a.log"), "kind": "plain", "least": 0.1, "days": [1, 2]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "source 'mine' needs --log-file: the log"),
        ({"log_file": "a", "least": "-1"}, "--least -1: input should be greater than or equal to 0"),
        ({"log_file": "a", "least": "few", "days": ["x"]}, "--least few: .*number.*\n--days x: .*integer"),
        ({"log_file": "a", "kind": "long"}, "--kind long: .*'plain' or 'short'"),
        ({"log_file": "a", "leest": 1}, "source 'mine': 'leest' is unknown; did you mean least"),
        ({"log_file": "a", "kind": "short", "days": [1]}, "source 'mine': --kind short has no --days"),
        ({"log_file": "."}, "source 'mine' failed: KeyError: 'y'"),
    ],
)
def test_mistakes_in_options(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        options_of("mine", Options, given)
