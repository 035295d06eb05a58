"""A run with LoRA goes on in the phase that its weights are of (EM3, eq. 9)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.stream.trainer import Trainer
from rawrec.training.runs import RunFolder
from streams import SETTINGS, check_same, events_of, go_on, write
from systems import FAST

pytestmark = pytest.mark.filterwarnings("ignore")
PHASES: dict[str, Any] = {
    "paradigm": "hybrid",
    "content.lora.handover": "epoch:1",
    "content.lora.rank": 2,
    "content.lora.history": 9,
}


@pytest.fixture
def data(shop: Path) -> Dataset:
    return Dataset.open(shop)


def run_of(data: Dataset, out: Path, **more: Any) -> Path:
    given = {name: value for name, value in FAST.items() if name.split(".")[-1] not in ("train", "precision")}
    given.pop("model.name", None)
    return rawrec.train("em3", data, out, given | PHASES | {"train.epochs": 2, "train.patience": 9} | more).path


def trainer_of(run: Path, told: list[str]) -> Trainer:
    (run / "online").mkdir(exist_ok=True)
    observe = lambda event, **values: told.append(values["text"]) if event == "note" else None  # noqa: E731
    return Trainer(RunFolder.open(run), run / "online", SETTINGS, observe=observe)


def test_each_phase_goes_on_as_itself(data: Dataset, tmp_path: Path) -> None:
    """In the second one matrices are still, LoRA learns and histories are long."""
    url, run = f"sqlite:{tmp_path / 'events.db'}", run_of(data, tmp_path / "run")
    assert RunFolder.open(run).info()["best_epoch"] == 2
    other = Path(shutil.copytree(run, tmp_path / "other"))
    made = trainer_of(run, [])
    assert made.past.length == made.task.samples.history == 9
    before = {name: value.clone() for name, value in made.task.state().items()}
    write(url, events_of(data, 60))
    go_on(run, url, 40)
    go_on(run, url)
    go_on(other, url)
    check_same(run, other)
    after = trainer_of(run, []).task.state()
    moved = {
        name for name, value in before.items() if value.shape == after[name].shape and (value != after[name]).any()
    }
    matrices = {f"{name.removesuffix('lora_a')}weight" for name in before if name.endswith("lora_a")}
    assert matrices and not matrices & moved
    assert {name for name in before if name.endswith(("lora_a", "lora_b"))} <= moved


def test_weights_of_the_first_phase_do_not_take_the_optimiser_of_the_second(data: Dataset, tmp_path: Path) -> None:
    run = run_of(data, tmp_path / "first", **{"train.epochs": 1, "content.lora.handover": "settled"})
    second = run_of(data, tmp_path / "second")
    shutil.copy(second / "checkpoint" / "last.safetensors", run / "checkpoint" / "last.safetensors")
    told = list[str]()
    made = trainer_of(run, told)
    assert "the optimiser begins anew" in told[0] and made.past.length == 5
    write(f"sqlite:{tmp_path / 'events.db'}", events_of(data, 20))
    assert go_on(run, f"sqlite:{tmp_path / 'events.db'}")["counts"]["trained"] > 0
