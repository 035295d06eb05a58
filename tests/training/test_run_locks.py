"""Run folders that another process works in: who comes second hears who that is; who only reads does not wait."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import forked
from rawrec import Recommender, UserError, evaluate, finetune, resume, train
from rawrec.training import job
from rawrec.training.runs import RunFolder

QUICK: dict[str, Any] = {"train.epochs": 1, "train.threads": 1, "eval.topk": [5], "train.device": "cpu"}
HOLD = (
    "import sys; from pathlib import Path; from rawrec.training.runs import running\n"
    "with running(sys.argv[1]): print('in', flush=True); sys.stdin.read()\n"
)


@pytest.fixture
def finished(shop: Path, tmp_path: Path) -> Path:
    return train("id", shop, tmp_path / "run", QUICK).path


@pytest.fixture
def holder(finished: Path) -> Iterator[int]:
    """The id of another process that works in the run folder."""
    command = [sys.executable, "-c", HOLD, str(finished)]
    with forked.Process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "in\n"
        yield process.pid


def test_the_second_hears_who_is_there(shop: Path, finished: Path, holder: int) -> None:
    who = rf"another run is going on in {finished} now: .* \(it is held by process {holder} on {socket.gethostname()}\)"
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    RunFolder(finished).write_info(finished=False)
    for again in (
        lambda: train("id", shop, finished, QUICK),
        lambda: train("id", shop, finished, QUICK, overwrite=True),
        lambda: resume(finished),
        lambda: finetune(shop, "pair:efficientnet_lite0+minilm", finished, overwrite=True),
    ):
        with pytest.raises(UserError, match=who):
            again()
    RunFolder(finished).write_info(finished=True)
    assert {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()} == before


def test_who_only_reads_goes_on(finished: Path, holder: int) -> None:
    recommender = Recommender.load(finished)
    assert len(recommender.recommend(user=str(recommender.data.user_ids[0]), k=3)) == 3
    assert evaluate(finished, "valid")["auc"] > 0
    assert resume(finished).info()["finished"]  # of a finished run nothing is written


def test_a_run_that_was_finished_while_one_asked(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first look at a run and the lock, another process may have finished it: nothing is done again."""
    RunFolder(finished).write_info(finished=False)
    running = job.running

    def late(path: Path) -> Any:
        RunFolder(finished).write_info(finished=True)
        return running(path)

    monkeypatch.setattr(job, "running", late)
    monkeypatch.setattr(job, "_work", None)
    assert resume(finished).info()["finished"]


def test_the_lock_of_a_killed_process_is_free(shop: Path, finished: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(finished)]
    process = forked.Process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    process.kill()
    process.communicate()
    assert train("id", shop, finished, QUICK, overwrite=True).info()["finished"]
