"""Options of the command line: what is given twice, what a source's command hands on, summaries that are whole."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from rawrec import cli
from rawrec.cli import commands as _commands  # noqa: F401, registers them, or there are none to try
from rawrec.cli.common import app
from rawrec.cli.sources import importing
from rawrec.config.sources import SOURCES

SHARED = {"out", "split", "overwrite", "pictures", "allow_empty"}
"""What every source of interactions that are not generated is given."""


def commands(group: Any, *before: str) -> list[tuple[tuple[str, ...], Any]]:
    """Every command, with its words."""
    found = []
    for name, command in group.commands.items():
        words = (*before, name)
        found += commands(command, *words) if hasattr(command, "commands") else [(words, command)]
    return found


def message(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["rawrec", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("words", "command"), commands(typer.main.get_command(app)), ids=lambda x: str(x)[:40])
def test_every_option_of_one_value_is_given_once(
    words: tuple[str, ...], command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = 0
    for param in command.params:
        if param.param_type_name != "option" or param.multiple or param.name == "help":
            continue
        seen += 1
        given = [param.opts[0]] if param.is_flag else [param.opts[0], "1"]
        said = message([*words, *given, *given], monkeypatch, capsys)
        assert "is given twice" in said and param.opts[0] in said
    assert seen


def test_nothing_is_dropped_between_two_folders_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["import", "table", "--interactions", "x.csv", "--user", "u", "--item", "i", "--out", str(tmp_path / "x")]
    words += ["--image-dir", "photos", "--image-name", "{item}/0.jpg", "--image-dir", "photos"]
    assert message(words, monkeypatch, capsys) == "rawrec: --image-dir is given twice: give it once\n"
    assert not (tmp_path / "x").exists()


def test_yes_and_no_together_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = message(["import", "mind", "M", "--out", "x", "--history", "--no-history"], monkeypatch, capsys)
    assert "--history/--no-history is given twice" in said


def test_options_of_several_values_are_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text("u,i\n1,2\n", encoding="utf-8")
    words = ["import", "table", "--interactions", str(tmp_path / "x.csv"), "--user", "u", "--item", "i"]
    words += ["--extra", "a", "--extra", "b", "--out", str(tmp_path / "x")]
    assert "no column 'a'" in message(words, monkeypatch, capsys)


@pytest.mark.parametrize(
    "name", [info.name for info in importing.registered_commands if info.name not in ("synthetic", "openclipart")]
)
def test_a_source_gets_every_option_by_its_name_and_with_its_default(name: str) -> None:
    info = next(info for info in importing.registered_commands if info.name == name)
    assert info.callback is not None
    inner = inspect.unwrap(info.callback)
    file, _, function = SOURCES[name].place.partition(":")
    work = inspect.signature(getattr(importlib.import_module(file), function)).parameters
    own = inspect.signature(inner).parameters
    assert {*own, *SHARED, "progress"} == set(work), "what the function takes and what the command offers"
    for option in own.values():
        if option.default is not None:  # else the function's own default holds
            assert option.default == work[option.name].default


@pytest.mark.parametrize("words", [[], ["import"]])
def test_no_summary_of_a_command_is_cut(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["rawrec", *words, "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    shown = " ".join(capsys.readouterr().out.split())
    group: Any = typer.main.get_command(importing if words else app)
    for command in group.commands.values():
        assert " ".join(command.help.split()) in shown
