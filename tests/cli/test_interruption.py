"""A command that is interrupted or ended by a signal: one message, an exit code, nothing half written."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BEGIN = """
import signal, sys
from rawrec.cli import main
sys.argv = ["rawrec", *sys.argv[1:]]
print("here", flush=True)
main()
"""


SLOW = """
import time
from rawrec.data.writer import DatasetWriter
def add_interactions(self, batch):
    print("writing", flush=True)
    time.sleep(30)
DatasetWriter.add_interactions = add_interactions
"""


def started(*words: object, code: str = BEGIN) -> subprocess.Popen[str]:
    """A command whose process has come to `main`."""
    command = [sys.executable, "-c", code, *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    return process


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5])
def test_interrupted_while_libraries_are_loaded(tmp_path: Path, after: float) -> None:
    process = started("train", "id", "--data", tmp_path / "none", "--out", tmp_path / "run")
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if process.returncode != 2:  # it was through, and had found that there is no dataset
        assert process.returncode == 130
        assert [line for line in err.splitlines() if line.startswith("rawrec: interrupted; ")] == [err.splitlines()[-1]]
    assert "Traceback" not in err and "Error" not in err, err


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by a signal"), (signal.SIGHUP, 129, "ended by")],
)
def test_an_import_that_is_ended_leaves_nothing(tmp_path: Path, number: int, code: int, said: str) -> None:
    """SIGTERM comes twice, as `timeout` sends it: to the process and to its group."""
    table, out = tmp_path / "log.csv", tmp_path / "out"
    table.write_text("u,i\n" + "1,2\n" * 10)
    words = ["import", "table", "--interactions", table, "--user", "u", "--item", "i", "--out", out / "data"]
    process = started(*words, code=SLOW + BEGIN)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    assert (out / ".data.new").is_dir()
    process.send_signal(number)
    if number != signal.SIGINT:
        time.sleep(0.02)
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in err, err
    assert err.splitlines()[-1].startswith(f"rawrec: {said}")
    assert not list(out.iterdir())
