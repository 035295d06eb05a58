"""A run that was stopped, however it was, ends byte for byte as one that was not."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import forked
from rawrec.training import state as checkpoint
from rawrec.training.job import load_task, resume, train
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from systems import Stop, digest, settings, stopping_after

TREE = settings(
    train__checkpoint_every=3,
    content__description__use=False,
    content__fusion__dropout=0.2,
    bank__live_budget=20,
    bank__micro_batch=12,
)


@pytest.fixture(scope="module")
def whole(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return digest(train(TREE, shop, tmp_path_factory.mktemp("whole") / "run").path)


def test_one_seed_one_result(shop: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    assert digest(train(TREE, shop, tmp_path / "again").path) == whole
    other = digest(train({**TREE, "seed": 1}, shop, tmp_path / "other").path)
    assert all(other[name] != whole[name] for name in ("model.safetensors", "metrics.jsonl", "scores.parquet"))


@pytest.mark.parametrize("paradigm", ["end_to_end", "frozen", "hybrid"])
def test_stopped_between_any_two_events(shop: Path, tmp_path: Path, whole: dict[str, str], paradigm: str) -> None:
    """After a random number of steps, three times over; the last time in the evaluation."""
    tree = {**TREE, "paradigm": paradigm}
    expected = whole if paradigm == "end_to_end" else digest(train(tree, shop, tmp_path / "whole").path)
    draw = random.Random(paradigm)
    with pytest.raises(Stop):
        train(tree, shop, tmp_path / "run", observer=stopping_after(draw.randint(5, 8)))
    for _ in range(2):
        with pytest.raises(Stop):
            resume(tmp_path / "run", stopping_after(draw.randint(3, 6)))
    last: list[str] = []

    def at_the_end(event: str, **values: Any) -> None:
        last.append(event)
        if event == "evaluating":
            raise Stop

    with pytest.raises(Stop):
        resume(tmp_path / "run", at_the_end)
    assert last[-1] == "evaluating" and not (tmp_path / "run" / "model.safetensors").exists()
    assert digest(resume(tmp_path / "run").path) == expected


def test_the_average_goes_on_where_it_was(
    shop: Path, tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Averaged weights are part of the checkpoint; a resumed run that began them anew would end differently."""
    observer = stopping_after(7)
    with pytest.raises(Stop):
        train(TREE, shop, tmp_path / "run", observer=observer)
    tensors, state = checkpoint.load(tmp_path / "run" / "checkpoint" / "last.safetensors")
    averages = checkpoint.without_prefix("average.", tensors)
    assert state["progress"]["step"] > 0 and len(averages) > 20
    own = checkpoint.without_prefix("model.", tensors)
    assert not torch.equal(averages["ranker.inputs.ids.user.weight"], own["ranker.inputs.ids.user.weight"])
    shutil.copytree(tmp_path / "run", tmp_path / "anew")
    assert digest(resume(tmp_path / "run").path) == whole

    restore = Loop.restore

    def forgetful(self: Loop) -> None:
        restore(self)
        own = {name: p.detach() for name, p in zip(self.optimiser.names, self.optimiser.parameters, strict=True)}
        for name, average in self.optimiser._averages().items():
            average.copy_(own[name])

    monkeypatch.setattr(Loop, "restore", forgetful)
    assert digest(resume(tmp_path / "anew").path)["model.safetensors"] != whole["model.safetensors"]


@pytest.mark.parametrize("after", ["validation", "metrics"])
def test_stopped_in_the_middle_of_writing_an_epoch(
    shop: Path, tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """The epoch was validated, or its line of metrics is on disk; the checkpoint that knows of it is not."""
    owner, name = (RunFolder, "append_metrics") if after == "validation" else (Loop, "save")
    original = getattr(owner, name)

    def broken(self: Any, *args: Any) -> None:
        if owner is RunFolder or (self.progress.position == 0 and self.progress.epoch == 2):
            raise Stop
        original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        with pytest.raises(Stop):
            train(TREE, shop, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == (0 if after == "validation" else 2)
    assert digest(resume(tmp_path / "run").path) == whole


def test_stopped_before_the_first_checkpoint(shop: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    with pytest.raises(Stop):
        train(TREE, shop, tmp_path / "run", observer=stopping_after(4))
    assert not (tmp_path / "run" / "checkpoint" / "last.safetensors").exists()
    assert digest(resume(tmp_path / "run").path) == whole


def test_fields_left_out_stay_out(shop: Path, tmp_path: Path) -> None:
    tree = settings(train__batch_size=256, train__checkpoint_every=2, content__text__use=False)
    with pytest.raises(Stop):
        train(tree, shop, tmp_path / "run", observer=stopping_after(6))
    assert digest(resume(tmp_path / "run").path) == digest(train(tree, shop, tmp_path / "whole").path)
    system = load_task(RunFolder.open(tmp_path / "run"))
    assert [name for name, _ in system.raw_encoders()] == ["image"]


def test_a_finished_run_is_left_alone(shop: Path, tmp_path: Path) -> None:
    tree = settings(train__epochs=1, model__name="id")
    run = train(tree, shop, tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*")}
    resume(run.path)
    assert {p: p.stat().st_mtime_ns for p in run.path.rglob("*")} == before


def test_killed_at_a_random_moment(shop: Path, tmp_path: Path) -> None:
    """SIGKILL to `rawrec train`, whatever it is at, then `rawrec resume` to the end; benchmarks/kills.py has many."""
    tree = settings(
        train__batch_size=16,
        train__checkpoint_every=4,
        train__epochs=1,
        content__fusion__dropout=0.2,
        content__text__use=False,
    )
    expected = digest(train(tree, shop, tmp_path / "whole").path)
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(tree))
    run = tmp_path / "run"
    command = ["train", str(tmp_path / "settings.yaml"), "--data", str(shop), "--out", str(run)]
    process = start(command)
    wait_for_progress(run, process)
    time.sleep(random.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not RunFolder.open(run).info()["finished"]
    process = start(["resume", str(run)])
    assert process.wait(60) == 0
    assert digest(run) == expected


def start(command: list[str]) -> forked.Process:
    words = [sys.executable, "-m", "rawrec.cli", *command]
    return forked.Process(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_progress(run: Path, process: forked.Process) -> None:
    deadline = time.monotonic() + 60
    while not (run / "checkpoint" / "last.safetensors").is_file():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
