"""`rawrec import NAME` for sources of other packages, and `rawrec sources`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from pydantic import Field

import rawrec
from rawrec import cli
from rawrec.cli.pictures import _pictures, parameters
from rawrec.cli.sources import _shared, importing
from rawrec.config.sources import SHARED
from registries import registries  # noqa: F401

pytestmark = pytest.mark.usefixtures("registries")
Run = Callable[..., str]


class Options(rawrec.SourceOptions):
    """Import a log of this test."""

    log_file: Path = Field(description="the log")
    preset: str = Field(default="a: b", description="some text")
    vectors: int | None = Field(default=None, ge=1, description="some number")
    kind: Literal["plain", "short"] = Field(default="plain", description="how it is written")
    days: list[int] = Field(default=[], description="only these")
    strict: bool = Field(default=True, description="all or nothing")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """What `rawrec WORDS` prints; with `code=2` what it says of a mistake."""

    def go(*words: object, code: int = 0) -> str:
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "argv", ["rawrec", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert (stop.value.code or 0) == code and "Traceback" not in err, err
        return err if code else out

    return go


@pytest.fixture
def seen() -> list[Options]:
    """The options that the source `logs` was called with, which is registered here."""
    found = []

    @rawrec.register_source("logs", Options)
    def logs(options: Options, report: Any) -> rawrec.SourceTables:
        found.append(options)
        users, items = zip(*[(f"u{u}", f"i{i}") for u in range(5) for i in range(5)], strict=True)
        return rawrec.SourceTables(interactions=[{"user_id": users, "item_id": items}])

    return found


def test_options_every_import_has_are_reserved() -> None:
    group: Any = typer.main.get_command(importing)
    shared = {*parameters(_shared), *parameters(_pictures)[1:]}
    params = [p for p in group.commands["mind"].params if p.name in {one.name for one in shared}]
    assert len(params) == len(shared)
    assert {flag.removeprefix("--") for p in params for flag in (*p.opts, *p.secondary_opts)} | {"help"} == SHARED


def test_values_arrive_in_their_types(run: Run, seen: list[Options], tmp_path: Path) -> None:
    words = ["--log-file", "x.log", "--vectors", 3, "--days", 1, "--days", 2, "--no-strict", "--kind", "short"]
    made = json.loads(run("import", "logs", *words, "--out", tmp_path / "a", "--split", "random_user", "--json"))
    assert made["kept"]["interactions"] == 25 and made["source"].startswith("logs log_file=x.log vectors=3 kind=short")
    run("import", "logs", "--log-file", "y.log", "--preset", "lmm", "--out", tmp_path / "b")
    assert [one.model_dump() for one in seen] == [
        {"log_file": Path("x.log"), "preset": "a: b", "vectors": 3, "kind": "short", "days": [1, 2], "strict": False},
        {"log_file": Path("y.log"), "preset": "lmm", "vectors": None, "kind": "plain", "days": [], "strict": True},
    ]
    assert "--overwrite" in run("import", "logs", "--log-file", "y.log", "--out", tmp_path / "b", code=2)
    run("import", "logs", "--log-file", "y.log", "--out", tmp_path / "b", "--overwrite")


def test_its_help(run: Run, seen: list[Options]) -> None:
    page = " ".join(run("import", "logs", "--help").split())
    assert "Import a log of this test." in page and "Example: rawrec import logs --log-file LOG_FILE --out" in page
    assert "--log-file VALUE the log (path)" in page and "--days VALUE only these (list of integers)" in page
    assert "some number (integer or null, >= 1)" in page and "how it is written (plain | short; default: plain)" in page
    assert "--strict / --no-strict all or nothing (default: true)" in page
    assert "some text (text; default: 'a: b')" in page and "--image-url-table" in page and "--split " in page
    assert not seen


def test_mistakes(run: Run, seen: list[Options], tmp_path: Path) -> None:
    words = ["import", "logs", "--out", tmp_path / "x"]
    assert "Missing option '--log-file'" in run(*words, code=2)
    assert "--log-fil" in run(*words, "--log-fil", "x", code=2)
    assert "--kind long: input should be 'plain' or 'short'" in run(*words, "--log-file", "x", "--kind", "long", code=2)
    assert "--vectors 0" in run(*words, "--log-file", "x", "--vectors", 0, code=2)
    assert "--log-file is given twice" in run(*words, "--log-file", "x", "--log-file", "y", code=2)
    assert "did you mean logs" in run("import", "lgs", code=2)
    assert not seen and not (tmp_path / "x").exists()


def test_sources_are_listed(run: Run, seen: list[Options]) -> None:
    found = {line["name"]: line for line in json.loads(run("sources", "--json"))}
    assert list(found) == [*(info.name for info in importing.registered_commands), "logs"]
    assert found["logs"] == {"name": "logs", "what": "Import a log of this test.", "package": __name__}
    assert found["mind"]["package"] == "rawrec" and found["mind"]["what"].startswith("Import MIND")
    assert "Import a log of this test." in run("sources")


BROKEN = """
import sys
from importlib import metadata
from rawrec import cli, plugins
brought = metadata.EntryPoint("broken", "nowhere_to_be_found:f", "rawrec.sources")
clash = metadata.EntryPoint("table", "nowhere_to_be_found:f", "rawrec.sources")
plugins.installed()["sources"] |= {"broken": [brought], "table": [clash]}
sys.argv = ["rawrec", *sys.argv[1:]]
try: cli.main()
finally: print(sorted({"torch", "lance", "polars", "pyarrow", "numpy"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["import", "--help"], 0, "broken        Of the module nowhere_to_be_found."),
        (["import", "mind", "--help"], 0, "Import MIND"),
        (["sources"], 0, "cannot be loaded: ModuleNotFoundError"),
        (
            ["import", "broken", "--out", "x"],
            2,
            "source 'broken' of the module nowhere_to_be_found (nowhere_to_be_fo",
        ),
        (["import", "table", "--help"], 2, "source 'table' is brought by rawrec itself and by the module nowhere"),
    ],
)
def test_a_broken_package_disturbs_only_who_asks_for_it(words: list[str], code: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", BROKEN, *words], capture_output=True, text=True)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert " ".join(said.split()) in " ".join((done.stdout + done.stderr).split())
    if words[-1] == "--help" and not code:
        assert done.stdout.splitlines()[-1] == "[]"
