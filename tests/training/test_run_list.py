"""`rawrec runs` and `rawrec train --dry-run`: what there is, and what would be."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rawrec
import systems
from rawrec import cli
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.training.dry_run import plan
from rawrec.training.job import finish, load_task, resume, train
from rawrec.training.run_list import is_running, list_runs
from rawrec.training.runs import RunFolder, running
from systems import Stop, settings, stopping_after

ID = settings(model__name="id", train__batch_size=128, train__epochs=2)


@pytest.fixture(scope="module")
def folder(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each state but running."""
    place = tmp_path_factory.mktemp("many")
    run = train(ID, shop, place / "b" / "done")
    for name in ("b/broken", "no_weights", "half"):
        shutil.copytree(run.path, place / name)
    (place / "b" / "broken" / "run.json").write_text("{")
    (place / "no_weights" / "model.safetensors").unlink()
    (place / "half" / "checkpoint" / "last.safetensors").write_bytes(b"x" * 100)
    for name in ("stopped", "cut"):
        with pytest.raises(Stop):
            train(ID, shop, place / name, {"seed": 1}, observer=stopping_after(18))
    finish(place / "cut")
    return place


def test_states_and_values(folder: Path) -> None:
    lines = {str(line.path.relative_to(folder)): line for line in list_runs(folder)}
    states = {name: line.state for name, line in lines.items()}
    assert states == {
        "b/done": "finished", "b/broken": "damaged", "no_weights": "damaged", "half": "damaged", "stopped": "stopped",
        "cut": "cut short",
    }  # fmt: skip
    done, stopped = lines["b/done"], lines["stopped"]
    metrics = json.loads((done.path / "metrics.json").read_text())
    assert (done.metric, done.valid, done.test) == ("auc", metrics["valid"]["auc"], metrics["test"]["auc"])
    assert (done.model, done.data, done.seed, done.epochs, done.of) == ("id", "shop", 0, 2, 2) and done.seconds > 0
    assert (stopped.epochs, stopped.of, stopped.test) == (1, 2, None)
    assert stopped.valid == RunFolder(stopped.path).metrics_lines()[0]["valid/auc"]
    assert "run.json is damaged" in lines["b/broken"].reason
    assert lines["no_weights"].reason == "model.safetensors is missing"
    assert lines["half"].reason.startswith("last.safetensors: ")
    values = ", ".join(f"{part} auc {metrics[part]['auc']:.4f}" for part in ("valid", "test"))
    assert repr(RunFolder(done.path)) == f"RunFolder({str(done.path)!r}: id, finished, {values})"
    assert repr(RunFolder(stopped.path)).endswith(": id, not finished)")
    assert "id, ended after 1 of 2 epochs, valid auc" in repr(RunFolder(lines["cut"].path))
    broken = lines["b/broken"].path
    assert repr(RunFolder(broken)) == f"RunFolder({str(broken)!r})"


def test_order_and_metric(folder: Path) -> None:
    def names(*args: Any, **more: Any) -> list[str]:
        return [line.path.name for line in list_runs(folder, *args, **more) if line.state not in ("damaged",)]

    best = [line.valid for line in list_runs(folder) if line.valid is not None]
    assert best == sorted(best, reverse=True)
    low = [line.valid for line in list_runs(folder, "logloss") if line.valid is not None]
    assert low == sorted(low) and min(low) > 0
    assert names(by="name") == ["done", "cut", "stopped"]
    assert set(names("nonsense")) == set(names()) and all(line.valid is None for line in list_runs(folder, "nonsense"))
    with pytest.raises(UserError, match="use valid, name or started"):
        list_runs(folder, by="size")
    with pytest.raises(UserError, match="is no folder"):
        list_runs(folder / "nothing")


def test_a_metric_that_no_run_has_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for metric, told in (("recal@20", True), ("logloss", False)):
        monkeypatch.setattr(sys, "argv", ["rawrec", "runs", str(folder), "--metric", metric])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        said = capsys.readouterr()
        assert ("none of these runs has a metric" in said.out + said.err) == told


def test_a_run_whose_lock_is_held_is_running(folder: Path) -> None:
    path = folder / "stopped"
    assert not is_running(path)
    with running(path):
        assert is_running(path)
        assert {line.path.name: line.state for line in list_runs(folder)}["stopped"] == "running"
    assert not is_running(path)
    left = path.with_name(".stopped.lock")
    left.touch()  # of a process that was killed
    assert not is_running(path)
    left.unlink()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `rawrec WORDS` prints."""

    def go(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["rawrec", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert not stop.value.code, err
        return out

    return go


def test_the_command(folder: Path, run: Callable[..., str]) -> None:
    rows = {words[0]: words for line in run("runs", folder).splitlines()[1:] if (words := line.split())}
    assert rows["b/done"][1:9] == ["finished", "id", "shop", "0", "2", "of", "2", rows["b/done"][8]]
    assert " ".join(rows["no_weights"][1:]) == "damaged model.safetensors is missing"
    found = json.loads(run("runs", folder, "--json", "--by", "name"))
    assert [Path(line["path"]).name for line in found] == ["broken", "done", "cut", "half", "no_weights", "stopped"]
    assert run("runs", folder / "b" / "done").splitlines()[1].startswith("done ")


def listing(path: Path) -> set[tuple[Path, int]]:
    return {(file, file.stat().st_mtime_ns) for file in path.rglob("*")}


@pytest.mark.parametrize("model", ["id", "em3", "lightgcn"])
def test_a_dry_run_knows_the_steps_and_writes_nothing(shop: Path, tmp_path: Path, model: str) -> None:
    before = listing(shop)
    given = {"train.epochs": 1, "train.device": "cpu", "train.batch_size": 100, "train.accumulate": 2}
    if model == "em3":
        given |= {"content.image.encoder": "random:conv", "content.text.encoder": "random:bert"}
    found = plan(model, shop, given)
    assert listing(shop) == before
    assert found.changed["train.epochs"][1] == 1 and found.changed["train.accumulate"] == [1, 2]
    assert found.data["train"] + found.data["valid"] + found.data["test"] == found.data["interactions"] == 2000
    assert ("image" in found.encoders) == (model == "em3")
    steps: list[str] = []
    train(model, shop, tmp_path / "run", given, observer=lambda name, **values: steps.append(name))
    assert found.steps_per_epoch == found.steps == steps.count("step")
    told = {"id": {"ids", "optimiser", "best", "averages"}, "lightgcn": set()}
    assert {*found.memory_mb} == told.get(model, {*told["id"], "bank", "ages"})


def test_dry_run_of_the_command(shop: Path, tmp_path: Path, run: Callable[..., str]) -> None:
    words = ["train", "id", "--data", shop, "--out", tmp_path / "run", "train.batch_size=100", "--dry-run"]
    said = run(*words)
    assert "train.batch_size" in said and "1,600 samples an epoch, 16 steps" in said and "is not empty" not in said
    found = json.loads(run(*words, "--json"))
    assert found["steps_per_epoch"] == 16 and not found["out_is_taken"] and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"train\.lr=-1"):
        rawrec.plan("id", Dataset.open(shop), {"train.lr": -1})


def test_a_finished_run_without_its_weights(shop: Path, tmp_path: Path) -> None:
    """Its last state makes them again; without that there is no way back, and it is not trained anew in silence."""
    made = train(ID, shop, tmp_path / "run")
    before = systems.digest(made.path)
    (made.path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"missing, though the run is finished: `rawrec resume .*` makes it again"):
        load_task(made)
    for way in (resume, finish):
        (made.path / "model.safetensors").unlink(missing_ok=True)
        (made.path / "metrics.json").unlink()
        assert way(made.path).info()["cut_short"] is None and systems.digest(made.path) == before
    (made.path / "model.safetensors").unlink()
    (made.path / "checkpoint" / "last.safetensors").unlink()
    for wrong in (resume, finish, load_task):
        with pytest.raises(UserError, match=r"bring it back, or train again; its last state \(checkpoint/\) is gone"):
            wrong(made if wrong is load_task else made.path)
    assert len(made.metrics_lines()) == 2


def test_a_device_that_is_not_there_leaves_nothing(shop: Path, tmp_path: Path) -> None:
    for device in ("mps", "cuda:77"):
        with pytest.raises(UserError, match="device"):
            train(ID, shop, tmp_path / "run", {"train.device": device})
        assert not (tmp_path / "run").exists()
