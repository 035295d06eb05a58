"""A command that is interrupted or ended by a signal: one message, an exit code, nothing half written."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import forked
from rawrec.training.runs import RunFolder
from systems import settings

BEGIN = """
import sys
from rawrec import cli
prepare = cli.prepare_streams
def prepare_streams():
    print("here", flush=True)
    prepare()
cli.prepare_streams = prepare_streams
sys.argv = ["rawrec", *sys.argv[1:]]
cli.main()
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
    """A command whose process is inside `main`, where an interruption is caught."""
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


def test_a_run_is_stopped_resumed_stopped_and_finished(shop: Path, tmp_path: Path) -> None:
    """By Ctrl-C and by SIGTERM; what it says are commands that work."""
    tree = settings(model__name="id", train__batch_size=16, train__epochs=500, train__patience=500)
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(tree))
    run = tmp_path / "run"
    commands = [["train", str(tmp_path / "settings.yaml"), "--data", str(shop), "--out", str(run)]]
    commands += [["resume", str(run)]]
    for words, number, code in zip(commands, (signal.SIGINT, signal.SIGTERM), (130, 143), strict=True):
        lines = len(RunFolder(run).metrics_lines())
        command = [sys.executable, "-m", "rawrec.cli", *words]
        process = forked.Process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while len(RunFolder(run).metrics_lines()) <= lines and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code and "Traceback" not in err, err
        said = err[err.index("rawrec: ") :].splitlines()
        assert "of 500 " in said[0] and said[0].endswith("; the checkpoint is written")
        assert said[1].split() == ["rawrec", "resume", str(run), "goes", "on,", "exactly"]
        assert said[3].split()[:3] == ["rawrec", "finish", str(run)]
    assert not RunFolder.open(run).info()["finished"]
    done = forked.run([sys.executable, "-m", "rawrec.cli", *said[3].split()[1:3]], capture_output=True, text=True)
    assert done.returncode == 0 and "cut short after" in done.stdout, done.stderr
    assert RunFolder.open(run).info()["finished"]


def test_interrupted_while_an_error_is_told(tmp_path: Path) -> None:
    code = """
from rawrec import cli
fail = cli._fail
def interrupted(message, code):
    cli._fail = fail
    raise KeyboardInterrupt
cli._fail = interrupted
"""
    process = started("train", "id", "--data", tmp_path / "none", "--out", tmp_path / "run", code=code + BEGIN)
    _, err = process.communicate(timeout=60)
    assert (
        process.returncode == 130
        and err.splitlines()[-1].startswith("rawrec: interrupted; ")
        and "Traceback" not in err
    )
