"""`rawrec browse`: serves the page on this machine, or writes it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rawrec.cli import app
from rawrec.errors import UserError

pytest.importorskip("fastapi")
import httpx


def test_the_command_says_where_and_ends_in_order(odd: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "rawrec", "browse", str(odd["id"]), str(odd["bpr"]), "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("look at id-") and " and bpr-" in line
        address = line.split(" on ")[1].split(";")[0]
        page = httpx.get(address, timeout=20)
        about = httpx.get(f"{address}page/about", timeout=20).json()
        written = httpx.post(f"{address}hidden", json={"hide": ["i1"]}, timeout=20)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    assert page.status_code == 200 and "browse-main.js" in page.text
    assert [run["model"] for run in about["runs"]] == ["id", "bpr"] and written.status_code == 403


def test_the_command_writes_a_page(odd: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page"
    app(["browse", str(odd["id"]), "--export", str(out), "--users", "2", "--items", "5"], standalone_mode=False)
    assert f"{out}/index.html: 2 users, 5 items" in capsys.readouterr().out
    text = (out / "index.html").read_text()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert len(data["users"]) == 2 and len(data["items"]) == 5
    for words, said in ((["--port", "80"], "leave out --port"), (["--open"], "leave out --port and --open")):
        with pytest.raises(UserError, match=said):
            app(["browse", str(odd["id"]), "--export", str(out), *words], standalone_mode=False)


def test_what_is_no_run_is_told(odd: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no-such-run"):
        app(["browse", str(tmp_path / "no-such-run")], standalone_mode=False)
