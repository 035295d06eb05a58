"""Ctrl-C and SIGTERM: a run ends between two steps, says where it stands, goes on exactly or is finished as it is."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rawrec
from rawrec.errors import RunInterrupted, UserError
from rawrec.training import state as checkpoint
from rawrec.training.job import finish, resume, train
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask
from systems import digest, settings

TREE = settings(model__name="id", train__batch_size=128, train__epochs=3)
LATTICE = {
    "model": {"name": "lattice"},
    "content": {"image": {"encoder": "random:conv", "size": 32}, "text": {"encoder": "random:bert", "max_length": 12}},
    "train": {"epochs": 2, "batch_size": 100, "device": "cpu", "threads": 1, "checkpoint_share": 1},
    "eval": {"topk": [5, 20]},
}


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """Those of a plain Python; afterwards they are as they were, whatever a test did."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    after = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == {**before, signal.SIGINT: signal.default_int_handler}


def signalled(event: str, count: int, number: int = signal.SIGINT, times: int = 1) -> Callable[..., None]:
    """An observer that sends this process a signal at the given event."""
    seen: list[str] = []

    def observe(name: str, **values: Any) -> None:
        seen.append(name)
        if name == event and seen.count(name) == count:
            for _ in range(times):
                os.kill(os.getpid(), number)

    return observe


@pytest.fixture(scope="module")
def whole(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return digest(train(TREE, shop, tmp_path_factory.mktemp("whole") / "run").path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_step_ends_and_the_checkpoint_is_written(
    shop: Path, tmp_path: Path, whole: dict[str, str], number: int
) -> None:
    out = tmp_path / "a run"
    with pytest.raises(RunInterrupted) as stop:
        train(TREE, shop, out, observer=signalled("step", 14, number))
    first, *ways = str(stop.value).splitlines()
    assert stop.value.number == number
    said = "interrupted" if number == signal.SIGINT else "ended by a signal"
    assert first == f"{said} in epoch 2 of 3 (14 steps); the checkpoint is written"
    commands = [f"rawrec resume '{out}'", f"rawrec resume '{out}' train.epochs=N", f"rawrec finish '{out}'"]
    assert [way.strip().partition("  ")[0] for way in ways] == commands
    state = checkpoint.load_state(out / "checkpoint" / "last.safetensors")
    assert state["progress"]["step"] == 14 and state["progress"]["position"] == 128
    assert f"by {signal.Signals(number).name}" in (out / "log.txt").read_text()
    assert digest(resume(out).path) == whole


@pytest.mark.parametrize("count", [13, 39])
def test_with_the_last_step_of_an_epoch(shop: Path, tmp_path: Path, whole: dict[str, str], count: int) -> None:
    with pytest.raises(RunInterrupted, match="the checkpoint is written"):
        train(TREE, shop, tmp_path / "run", observer=signalled("step", count))
    steps: list[str] = []
    assert digest(resume(tmp_path / "run", lambda name, **values: steps.append(name)).path) == whole
    assert steps.count("step") == 39 - count


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_validation_comes_to_its_end(
    shop: Path, tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    validate = ImpressionTask.validate

    def signalled_within(self: ImpressionTask, step: int) -> Any:
        if step == 13 * epoch:
            os.kill(os.getpid(), signal.SIGINT)
        return validate(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(ImpressionTask, "validate", signalled_within)
        where = "after 1 of 3 epochs" if epoch == 1 else "after its last epoch, 3"
        with pytest.raises(RunInterrupted, match=f"{where}.*; the checkpoint is written"):
            train(TREE, shop, tmp_path / "run")
    assert len(RunFolder.open(tmp_path / "run").metrics_lines()) == epoch
    steps: list[str] = []
    assert digest(resume(tmp_path / "run", lambda name, **values: steps.append(name)).path) == whole
    assert steps.count("step") == 13 * (3 - epoch)


def test_a_signal_while_an_epoch_is_told_has_its_checkpoint(
    shop: Path, tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_may_save", lambda _: False)  # as where epochs are shorter than their checkpoints
        with pytest.raises(RunInterrupted, match=r"after 2 of 3 epochs .*; the checkpoint is written"):
            train(TREE, shop, tmp_path / "run", observer=signalled("validated", 2))
    steps: list[str] = []
    assert digest(resume(tmp_path / "run", lambda name, **values: steps.append(name)).path) == whole
    assert steps.count("step") == 13


def test_a_model_that_cannot_stop_within_an_epoch_says_what_is_done_again(shop: Path, tmp_path: Path) -> None:
    expected = digest(train(LATTICE, shop, tmp_path / "whole").path)
    with pytest.raises(RunInterrupted, match="there is no checkpoint yet"):
        train(LATTICE, shop, tmp_path / "first", observer=signalled("step", 2))
    seen: list[str] = []

    def in_the_second(name: str, **values: Any) -> None:
        seen.append(name)
        if name == "step" and "validated" in seen:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(RunInterrupted, match=r"in epoch 2 of 2 .*; the last checkpoint is of step \d+, what came"):
        train(LATTICE, shop, tmp_path / "run", observer=in_the_second)
    assert digest(resume(tmp_path / "run").path) == expected


def test_a_second_signal_ends_at_once(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawrec.interruption.TWICE", 0)
    with pytest.raises(RunInterrupted, match=r"in epoch 1 of 3 \(3 steps\); there is no checkpoint yet"):
        train(TREE, shop, tmp_path / "run", observer=signalled("step", 3, times=2))
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_the_same_signal_twice_is_one(shop: Path, tmp_path: Path) -> None:
    """As `timeout` sends it, to the process and to its group."""
    with pytest.raises(RunInterrupted, match="the checkpoint is written"):
        train(TREE, shop, tmp_path / "run", observer=signalled("step", 3, signal.SIGTERM, times=2))


def test_a_program_around_us_keeps_its_handlers(shop: Path, tmp_path: Path) -> None:
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        run = train(TREE, shop, tmp_path / "run", {"train.epochs": 1}, observer=signalled("step", 3))
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert heard == [signal.SIGINT] and run.info()["finished"] and run.info()["cut_short"] is None


def test_before_the_first_step_nothing_is_left(shop: Path, tmp_path: Path) -> None:
    """And what would have been replaced is there again."""
    out = tmp_path / "runs" / "run"

    def interrupted(name: str, **values: Any) -> None:
        if name == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted, match=r"interrupted before the first step; .*run is as it was"):
        train(TREE, shop, out, observer=interrupted)
    assert not out.parent.exists()
    train(TREE, shop, out, {"train.epochs": 1})
    before = digest(out)
    with pytest.raises(RunInterrupted, match="before the first step"):
        train(TREE, shop, out, observer=interrupted, overwrite=True)
    assert digest(out) == before and [p.name for p in out.parent.iterdir()] == ["run"]


def test_a_stopped_run_is_finished_with_its_best_epoch(shop: Path, tmp_path: Path) -> None:
    """It is what a run of so many epochs would have been, marked as cut short, and usable at once."""
    out = tmp_path / "run"
    with pytest.raises(RunInterrupted):
        train(TREE, shop, out, observer=signalled("step", 27))
    run = finish(out)
    two = train(TREE, shop, tmp_path / "two", {"train.epochs": 2})
    assert json.loads((out / "metrics.json").read_text()) == json.loads((two.path / "metrics.json").read_text())
    assert run.info()["finished"] and run.info()["cut_short"] == {"epochs": 2, "of": 3}
    assert "finished, cut short after 2 of 3 epochs" in (out / "log.txt").read_text()
    user = rawrec.Dataset.open(shop).user_ids[0]
    assert rawrec.Recommender.load(out).recommend(user=str(user), k=3)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    finish(out)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_without_an_epoch_there_is_nothing_to_finish(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(RunInterrupted) as stop:
        train(TREE, shop, tmp_path / "run", observer=signalled("step", 3))
    assert "rawrec finish" not in str(stop.value)
    with pytest.raises(UserError, match=r"no epoch was finished and kept.*rawrec resume"):
        finish(tmp_path / "run")
    assert not RunFolder.open(tmp_path / "run").info()["finished"]


def test_on_interrupt_finish(shop: Path, tmp_path: Path) -> None:
    given = {"train.on_interrupt": "finish"}
    run = train(TREE, shop, tmp_path / "run", given, observer=signalled("step", 30))
    assert run.info()["cut_short"] == {"epochs": 2, "of": 3} and (run.path / "model.safetensors").is_file()
    with pytest.raises(RunInterrupted, match="in epoch 1 of 3"):
        train(TREE, shop, tmp_path / "early", given, observer=signalled("step", 3))
