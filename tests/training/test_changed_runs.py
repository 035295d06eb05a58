"""`rawrec resume RUN train.epochs=N`: a run goes on beyond its end as if it had been asked for from the beginning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import systems
from rawrec.errors import UserError
from rawrec.training.job import finetune, finish, resume, train
from systems import TIMES, Stop, settings, stopping_after

ID = settings(model__name="id", train__batch_size=128, train__epochs=3, train__patience=9)
TREES: dict[str, Any] = {
    "id": ID,
    "end_to_end": settings(train__batch_size=256, train__epochs=3, bank__live_budget=20, train__lr_decay=0.5),
    "two_phases": settings(
        train__batch_size=256, train__epochs=3, train__ema=0.9, paradigm="hybrid", content__lora__handover="settled"
    ),
    "lattice": {
        "model": {"name": "lattice"},
        "content": {"image": {"encoder": "random:conv"}, "text": {"encoder": "random:bert", "max_length": 12}},
        "train": {"epochs": 3, "batch_size": 100, "device": "cpu", "threads": 1, "checkpoint_share": 1},
        "eval": {"topk": [5, 20]},
    },
}


def digest(run: Path) -> dict[str, Any]:
    """As `systems.digest`; the two phases measure time and memory, too."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = (*TIMES, "lora/memory_mb", "lora/step_seconds")
    kept = [{key: value for key, value in line.items() if key not in measured} for line in lines]
    return {**systems.digest(run), "metrics.jsonl": kept}


def shorter(name: str, epochs: int = 1) -> dict[str, Any]:
    return {**TREES[name], "train": {**TREES[name]["train"], "epochs": epochs}}


@pytest.mark.parametrize("name", TREES)
def test_a_finished_run_goes_on_exactly(shop: Path, tmp_path: Path, name: str) -> None:
    expected = digest(train(TREES[name], shop, tmp_path / "whole").path)
    out = tmp_path / "run"
    train(shorter(name), shop, out)
    assert digest(out) != expected
    run = resume(out, overrides={"train.epochs": 2})
    assert run.info()["finished"] and len(run.metrics_lines()) == 2
    with pytest.raises(Stop):
        resume(out, stopping_after(3), overrides={"train.epochs": 3})
    assert not run.info()["finished"]
    assert digest(resume(out).path) == expected
    assert yaml.safe_load((out / "config.yaml").read_text())["train"]["epochs"] == 3
    lines = run.info()["changed"]
    assert [line["settings"] for line in lines] == [{"train.epochs": [1, 2]}, {"train.epochs": [2, 3]}]
    assert [line["epoch"] for line in lines] == [1, 2] and "train.epochs=3 (was 2)" in (out / "log.txt").read_text()


def test_a_stopped_run_goes_on_to_another_number_of_epochs(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(ID, shop, tmp_path / "run", observer=stopping_after(20))
    run = resume(tmp_path / "run", overrides={"train.epochs": 2, "train.threads": 2})
    assert digest(run.path) == digest(train({**ID, **shorter("id", 2)}, shop, tmp_path / "two").path)
    assert run.info()["changed"][0]["settings"] == {"train.epochs": [3, 2], "train.threads": [1, 2]}


def test_a_run_that_was_cut_short_goes_on(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(ID, shop, tmp_path / "run", observer=stopping_after(20))
    assert finish(tmp_path / "run").info()["cut_short"] == {"epochs": 1, "of": 3}
    run = resume(tmp_path / "run")
    assert run.info()["finished"] and run.info()["cut_short"] is None
    assert digest(run.path) == digest(train(ID, shop, tmp_path / "whole").path)


def test_early_stopping_wants_more_patience(shop: Path, tmp_path: Path) -> None:
    """Next to nothing is learned: after the first epoch there is nothing to gain."""
    tree = {**ID, "train": {**ID["train"], "patience": 1, "lr": 1e-12, "epochs": 6, "ema": 0.0}}
    run = train(tree, shop, tmp_path / "run")
    done = len(run.metrics_lines())
    assert done < 6
    with pytest.raises(UserError, match=r"early stopping: 1 epochs without improvement, train.patience=1; raise that"):
        resume(run.path, overrides={"train.epochs": 8})
    resume(run.path, overrides={"train.patience": 2})
    assert len(run.metrics_lines()) > done
    assert digest(run.path) == digest(train(tree, shop, tmp_path / "two", {"train.patience": 2}).path)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"train.lr": 0.1}, r"train.lr=0.1: what a run learns, .*train.epochs, train.patience.*train.init="),
    ({"model.dim": 4}, "stays as it began"),
    ({"epochs": 4}, "stays as it began"),
    ({"train.epochs": 0}, "train.epochs=0"),
    ({"train.epochs": 1}, r"train.epochs=1: .*run has 1 already; give more than these"),
    ({"train.patience": 50}, r"train.epochs=1: .*run has 1 already"),
    ({"bank.micro_batch": 4}, "would do nothing"),
]


@pytest.mark.parametrize(("overrides", "said"), REFUSED)
def test_refused(once: Callable[[], Path], overrides: dict[str, Any], said: str) -> None:
    """And the run stays as it is."""
    path = once()
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=said):
        resume(path, overrides=overrides)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


@pytest.fixture(scope="module")
def once(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A finished run of one epoch."""
    run = train(shorter("id"), shop, tmp_path_factory.mktemp("once") / "run")
    return lambda: run.path


def test_without_its_last_state_a_finished_run_cannot_go_on(shop: Path, tmp_path: Path) -> None:
    run = train(shorter("id"), shop, tmp_path / "run")
    (run.path / "checkpoint" / "last.safetensors").unlink()
    with pytest.raises(UserError, match=r"last.safetensors, with which .* is not there; begin a new .*train.init="):
        resume(run.path, overrides={"train.epochs": 2})
    assert run.info()["finished"] and json.loads((run.path / "metrics.json").read_text())


def test_a_stopped_run_is_not_shortened_below_where_it_stands(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(ID, shop, tmp_path / "run", observer=stopping_after(20))
    with pytest.raises(UserError, match=r"has 1 already; .*rawrec finish"):
        resume(tmp_path / "run", overrides={"train.epochs": 1})


def test_an_encoder_is_tuned_further(shop: Path, tmp_path: Path) -> None:
    def tuned(out: Path, epochs: int) -> Path:
        small = {"train": "none", "epochs": epochs, "dim": 8, "patience": 5, "threads": 1, "size": 32, "max_length": 12}
        return finetune(shop, "pair:random:conv+random:bert", out, small).path

    run = tuned(tmp_path / "run", 1)
    with pytest.raises(UserError, match="lr=1: what a run learns"):
        resume(run, overrides={"lr": 1})
    resume(run, overrides={"epochs": 2})
    whole = tuned(tmp_path / "whole", 2)
    assert (run / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
