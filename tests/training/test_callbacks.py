"""Callbacks: what they hear of a run, TensorBoard's curves, and runs told to W&B and MLflow (stood in for by fakes)."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rawrec
from rawrec.errors import RunStopped, UserError
from rawrec.training.job import finish, resume, train
from rawrec.training.trackers import MLflow, WandB, tracker
from systems import digest, settings

ID = settings(model__name="id", train__batch_size=128, train__epochs=2, train__warmup_steps=4, train__id_lr=0.01)


class Recorder(rawrec.Callback):
    """Keeps what it hears; raises at one of the records."""

    def __init__(self, at: tuple[str, int] | None = None, error: BaseException | None = None) -> None:
        self.heard: list[Any] = []
        self.at, self.error = at, error

    def _take(self, record: Any) -> None:
        self.heard.append(record)
        name = type(record).__name__
        if self.error is not None and self.at == (name, len(self.of(name))):
            raise self.error

    on_start = on_step = on_epoch = on_end = _take

    def of(self, name: str) -> list[Any]:
        return [record for record in self.heard if type(record).__name__ == name]


def test_what_a_callback_hears(shop: Path, tmp_path: Path) -> None:
    hears = Recorder()
    run = train(ID, shop, tmp_path / "run", callbacks=[hears])
    assert [type(one).__name__ for one in (hears.heard[0], hears.heard[-1])] == ["RunStart", "RunEnd"]
    start, end, steps, epochs = (hears.of(name) for name in ("RunStart", "RunEnd", "StepRecord", "EpochRecord"))
    assert len(start) == len(end) == 1 and len(steps) == 26 and len(epochs) == 2
    assert (start[0].path, start[0].model, start[0].data, start[0].step) == (run.path, "id", shop, 0)
    assert start[0].settings["train.epochs"] == 2 and start[0].settings["model.name"] == "dot_mlp"
    assert [step.step for step in steps] == list(range(1, 27)) and [step.epoch for step in steps[12:14]] == [1, 2]
    assert sum(step.samples for step in steps) == 3200 and all(step.gradient_norm > 0 for step in steps)
    assert steps[0].rates == pytest.approx({"id": 0.01 / 4, "rest": 3e-3 / 4, "plain": 3e-3 / 4})
    assert steps[4].rates == pytest.approx({"id": 0.01, "rest": 3e-3, "plain": 3e-3})
    lines = run.metrics_lines()
    for epoch, line in zip(epochs, lines, strict=True):
        own = [step.losses["loss"] for step in steps if step.epoch == epoch.epoch]
        assert sum(own) / len(own) == pytest.approx(line["loss"]) and epoch.metrics == line
        assert epoch.step == line["step"] and epoch.epochs == 2
    assert end[0].state == "finished" and end[0].metrics["test"]["auc"] > 0 and end[0].step == 26
    assert end[0].best_epoch == run.info()["best_epoch"]


def test_they_change_nothing(shop: Path, tmp_path: Path) -> None:
    with_them = train(ID, shop, tmp_path / "a", callbacks=[Recorder(), rawrec.TensorBoard(every=1)])
    assert digest(with_them.path) == digest(train(ID, shop, tmp_path / "b").path)


def test_an_interrupted_run_tells_and_goes_on(shop: Path, tmp_path: Path) -> None:
    hears, again, ends = Recorder(("StepRecord", 20), KeyboardInterrupt()), Recorder(), Recorder()
    with pytest.raises(rawrec.RunInterrupted):
        train(ID, shop, tmp_path / "run", callbacks=[hears])
    end = hears.of("RunEnd")[0]
    assert (end.state, end.step, end.epochs) == ("stopped", 20, 1) and end.reason.startswith("interrupted in epoch 2")
    finish(tmp_path / "run", callbacks=[ends])
    assert [type(record).__name__ for record in ends.heard] == ["RunStart", "RunEnd"]
    assert ends.heard[1].state == "finished"
    resume(tmp_path / "run", callbacks=[again])
    assert again.of("RunStart")[0].step == 13 and again.of("StepRecord")[0].step == 14
    assert again.of("RunEnd")[0].state == "finished"


def test_an_error_of_a_callback_ends_the_run(shop: Path, tmp_path: Path) -> None:
    """Before the first step nothing is left; later the run can be resumed. All callbacks hear of it."""
    other = Recorder()
    with pytest.raises(ZeroDivisionError):
        train(ID, shop, tmp_path / "run", callbacks=[other, Recorder(("RunStart", 1), ZeroDivisionError("mine"))])
    assert not (tmp_path / "run").exists() and other.of("RunEnd")[0].state == "failed"
    with pytest.raises(ZeroDivisionError) as raised:
        broken = [Recorder(("EpochRecord", 1), ZeroDivisionError("mine")), Recorder(("RunEnd", 1), ValueError("too"))]
        train(ID, shop, tmp_path / "run", callbacks=broken)
    assert broken[0].of("RunEnd")[0].reason == "mine" and "ValueError" in raised.value.__notes__[0]
    assert resume(tmp_path / "run").info()["finished"]
    with pytest.raises(UserError, match=r"callbacks=.*: give a list, each entry a Callback"):
        train(ID, shop, tmp_path / "third", callbacks=[print])  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "third").exists()


def test_a_run_that_diverges_tells_why(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hears = Recorder(("StepRecord", 3), RunStopped("the loss is nan"))
    with pytest.raises(RunStopped):
        train(ID, shop, tmp_path / "run", callbacks=[hears])
    assert hears.of("RunEnd")[0].state == "failed" and hears.of("RunEnd")[0].reason == "the loss is nan"


def board(path: Path) -> EventAccumulator:
    found = EventAccumulator(str(path / "tensorboard"))
    found.Reload()
    return found


def test_the_curves_of_tensorboard(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rawrec.TensorBoard, "SECONDS", 0.0)
    with pytest.raises(rawrec.RunInterrupted):
        train(ID, shop, tmp_path / "run", callbacks=[Recorder(("StepRecord", 20), KeyboardInterrupt())])
    run = resume(tmp_path / "run")
    found = board(run.path)
    names = set(found.Tags()["scalars"])
    assert {"step/loss", "step/lr/id", "step/lr/rest", "step/gradient_norm", "loss", "valid/auc", "test/auc"} <= names
    assert [event.step for event in found.Scalars("step/loss")] == list(range(1, 27))  # none is there twice
    assert [event.step for event in found.Scalars("valid/auc")] == [13, 26]
    assert found.summary_metadata["_hparams_/experiment"].plugin_data.plugin_name == "hparams"
    assert not any(name in names for name in ("epoch", "step"))


def test_a_run_goes_on_without_curves(shop: Path, tmp_path: Path) -> None:
    """The disk is full for the curves alone: one warning, a line of the log, and what is trained is what it was."""
    curves = rawrec.TensorBoard(every=1)

    class Full(rawrec.Callback):
        def on_step(self, record: rawrec.StepRecord) -> None:
            if record.step == 3 and (file := curves._file) is not None:
                handle = os.open("/dev/full", os.O_WRONLY)
                os.dup2(handle, file._file.fileno())
                os.close(handle)

    before = {thread.name for thread in threading.enumerate()}
    with pytest.warns(UserWarning, match="TensorBoard failed, and the run goes on without it: No space left") as told:
        run = train(ID, shop, tmp_path / "run", callbacks=[Full(), curves])
    assert len([one for one in told if "TensorBoard" in str(one.message)]) == 1
    assert (run.path / "log.txt").read_text().count("TensorBoard failed") == 1 and run.info()["finished"]
    assert digest(run.path) == digest(train(ID, shop, tmp_path / "other").path)
    assert {thread.name for thread in threading.enumerate()} == before  # nothing writes in a thread


# ------------------------------------------------------------------------------------------------------------- trackers
class FakeWandB(SimpleNamespace):
    def __init__(self) -> None:
        super().__init__(inits=[], logs=[], summary={}, ended=[])

    def init(self, **given: Any) -> Any:
        self.inits.append(given)
        return SimpleNamespace(
            log=lambda values, step: self.logs.append((step, values)),
            summary=SimpleNamespace(update=self.summary.update),
            finish=lambda exit_code: self.ended.append(exit_code),
        )


def test_weights_and_biases(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    broken = Recorder(("StepRecord", 20), KeyboardInterrupt())
    with pytest.raises(rawrec.RunInterrupted):
        train(ID, shop, tmp_path / "run", callbacks=[WandB("shop", every=10, tags=["x"]), broken])
    resume(tmp_path / "run", callbacks=[WandB("shop", every=10, tags=["x"])])
    first, second = fake.inits
    assert first["id"] == second["id"] and first["project"] == "shop" and first["tags"] == ["x"]
    assert first["config"]["train.batch_size"] == 128 and first["name"] == "run" and first["resume"] == "allow"
    assert fake.ended == [1, 0]
    assert [step for step, values in fake.logs if "step/loss" in values] == [10, 20, 20]  # done again
    assert [step for step, values in fake.logs if "valid/auc" in values] == [13, 26]
    assert fake.summary["state"] == "finished" and 0 < fake.summary["final/test/auc"] < 1


def test_a_tracker_that_fails(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start it is a message, and nothing is left; later the run goes on without it."""
    fake = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(fake, "init", lambda **given: 1 // 0)
    with pytest.raises(UserError, match="WandB cannot begin: ZeroDivisionError"):
        train(ID, shop, tmp_path / "run", callbacks=[WandB("shop")])
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(fake, "init", lambda **given: SimpleNamespace())
    with pytest.warns(
        UserWarning, match="WandB failed, and the run goes on without it: AttributeError: .*'log'"
    ) as told:
        run = train(ID, shop, tmp_path / "run", callbacks=[WandB("shop", every=1)])
    assert len([one for one in told if "WandB" in str(one.message)]) == 1 and run.info()["finished"]


class FakeMLflow(SimpleNamespace):
    def __init__(self) -> None:
        super().__init__(calls=[])

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


def test_mlflow(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    train(ID, shop, tmp_path / "run", callbacks=[MLflow("shop", every=10, uri="file:x")])
    calls = [(name, args) for name, args, _ in fake.calls]
    assert calls[:2] == [("set_tracking_uri", ("file:x",)), ("set_experiment", ("shop",))]
    params = next(args[0] for name, args in calls if name == "log_params")
    assert params["train.batch_size"] == "128"
    logged = [(args[0], kwargs["step"]) for name, args, kwargs in fake.calls if name == "log_metrics"]
    assert [step for values, step in logged if "step/loss" in values] == [10, 20]
    assert all("@" not in key for values, _ in logged for key in values)
    assert any("final/test/recall_at_5" in values for values, _ in logged)
    assert calls[-1] == ("end_run", ("FINISHED",))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"{name}, which is not installed: pip install 'rawrec\[{name}\]'"):
        tracker(name)


def test_words_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", FakeWandB())
    monkeypatch.setitem(sys.modules, "mlflow", FakeMLflow())
    made, other = tracker("wandb:mine"), tracker("mlflow")
    assert isinstance(made, WandB) and made.project == "mine"
    assert isinstance(other, MLflow) and other.experiment == "rawrec"
    with pytest.raises(UserError, match="--log neptune: use wandb or mlflow"):
        tracker("neptune")
