"""The commands that go on with a run by events, as a user types them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rawrec import cli
from rawrec.data.dataset import Dataset
from streams import events_of, small_run, write

Shell = Callable[..., tuple[str, str]]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """stdout and stderr of `rawrec WORDS`, run in this process, which must leave with `code`."""

    def run(*words: object, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["rawrec", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert (stop.value.code or 0) == code and "Traceback" not in out + err, out + err
        return out, err

    return run


def test_a_stream_from_the_shell(shell: Shell, shop: Path, tmp_path: Path) -> None:
    data = Dataset.open(shop)
    run, url, out = small_run(tmp_path / "run", data, "id"), f"sqlite:{tmp_path / 'events.db'}", tmp_path / "out"
    write(url, events_of(data, 12))
    quick = ["online.batch_size=16", "online.wait=50"]
    text, _ = shell("online", run, "--log", url, "--until", "10", *quick)
    assert "position 10 of" in text and "metrics.jsonl" in text
    text, _ = shell("online", run, "--log", url, "--until", "end", "--publish", out, "--json")
    assert json.loads(text)["counts"]["dead"] == 2
    text, _ = shell("versions", out)
    assert "served" in text
    _, err = shell("rollback", out, code=2)
    assert "no version before" in err
    text, _ = shell("rollback", out, "latest")
    assert f"{out} serves" in text
    assert json.loads(shell("versions", out, "--keep", "1", "--json")[0])["removed"] == []
    _, err = shell("online", run, "--log", url, "--wait", "3", code=2)
    assert "online.wait=3" in err
    _, err = shell("online", run, "--log", url, "--until", "soon", code=2)
    assert "give a position" in err
    text, _ = shell("settings", "online")
    assert "online.admit_after" in text and "rawrec online RUN --log URL" in text


@pytest.mark.parametrize("name", ["versions", "rollback"])
def test_a_folder_without_versions(name: str, shell: Shell, tmp_path: Path) -> None:
    _, err = shell(name, tmp_path, code=2)
    assert "holds no versions" in err
