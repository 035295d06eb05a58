"""Forked processes are processes as any other."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import forked

SAYS = """
import json, os, sys
print(json.dumps([sys.argv, os.getcwd(), os.environ.get("MINE"), __name__, sys.path[0], input()]))
print("and this", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def both(words: list[str], **more: Any) -> list[Any]:
    """What a forked process and a real one make of the same."""
    found = []
    for run in (forked.run, subprocess.run):
        done = run([sys.executable, *words], capture_output=True, text=True, **more)
        found.append((done.returncode, done.stdout, done.stderr))
    return found


@pytest.mark.parametrize("how", ["-c", "-m", "file"])
def test_a_fork_does_what_a_python_does(tmp_path: Path, how: str) -> None:
    (tmp_path / "says.py").write_text(SAYS)
    (tmp_path / "in").write_text("given\n")
    words = {"-c": ["-c", SAYS], "-m": ["-m", "says"], "file": [str(tmp_path / "says.py")]}[how]
    with (tmp_path / "in").open() as one, (tmp_path / "in").open() as other:
        made = [
            run([sys.executable, *words, "3", "x"], capture_output=True, text=True, cwd=tmp_path, stdin=stdin, env=env)
            for run, stdin, env in ((forked.run, one, {"MINE": "a"}), (subprocess.run, other, {"MINE": "a"}))
        ]
    ours, real = ((done.returncode, done.stdout, done.stderr) for done in made)
    assert ours == real == (3, real[1], "and this\n") and "given" in real[1]


@pytest.mark.parametrize(
    "code", ["raise ValueError('no')", "import sys; sys.exit('no')", "import os; os._exit(7)", "1"]
)
def test_it_ends_as_a_python_does(code: str) -> None:
    ours, real = both(["-c", code])
    assert ours[:2] == real[:2] and ours[2].splitlines()[-1:] == real[2].splitlines()[-1:]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(number: int) -> None:
    code = "import time; print('ready', flush=True); time.sleep(60)"
    process = forked.Process([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    os.kill(process.pid, number)
    assert process.wait(30) == -number == process.poll()
    process.kill()  # nothing to be done
    process.stdout.close()


def test_libraries_that_others_need_work_in_it() -> None:
    """Those with threads of their own, and gradients."""
    code = """
import lance, polars, pyarrow, torch
frame = polars.DataFrame({"a": range(100_000)}).group_by(polars.col("a") % 7).agg(b=polars.col("a").sum()).sort("a")
weight = torch.ones(300, 300, requires_grad=True)
(weight @ weight).sum().backward()
torch.optim.Adam([weight]).step()
print(len(frame), len(pyarrow.array(range(9)).unique()), bool(weight.grad.sum() > 0))
"""
    done = forked.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7 9 True\n", "")


def test_nothing_of_the_package_is_loaded_before() -> None:
    code = "import sys; print([name for name in sys.modules if name.startswith(('rawrec', 'polars', 'lance'))])"
    assert forked.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
