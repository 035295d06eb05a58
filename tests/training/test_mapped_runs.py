"""Runs on memory-mapped interactions are those in memory, to the bit; stopped in the middle of an epoch, too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rawrec.config import resolve
from rawrec.data import flat, mapped
from rawrec.data.dataset import Dataset
from rawrec.data.mapped_samples import MappedSamples
from rawrec.errors import UserError
from rawrec.training.evaluate import evaluate_topk, lists_of_part
from rawrec.training.job import load_task, resume, train
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask
from systems import Stop, digest, small_dataset, stopping_after

TREE = {
    "data.shuffle_window": 130,
    "data.history": 5,
    "model.dim": 8,
    "model.hidden": [16],
    "eval.topk": [5],
    "eval.impressions": 90,
    "eval.topk_users": 12,
    "train.batch_size": 32,
    "train.epochs": 2,
    "train.checkpoint_every": 3,
    "train.checkpoint_share": 1,
    "train.threads": 1,
    "train.device": "cpu",
}


@pytest.fixture(autouse=True, scope="module")
def tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat, "ROWS", 137)
        patch.setattr(mapped, "BUCKET", 150)
        yield


@pytest.fixture(scope="module", params=[True, False], ids=["labelled", "positive"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    draw = zip(rng.integers(0, 40, 1500), rng.integers(0, 60, 1500), rng.integers(0, 999, 1500), strict=True)
    rows = [(int(user), int(item), int(when), float((user + item) % 3 == 0)) for user, item, when in draw]
    return small_dataset(tmp_path_factory.mktemp("data") / "d", rows, 60, labelled=request.param).path


def run(data: Path, out: Path, observer: Any = None, **changed: Any) -> Path:
    return train("id", data, out, overrides=TREE | changed, observer=observer).path


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return digest(run(data, tmp_path_factory.mktemp("whole") / "run", **{"data.interactions": "memory"}))


def test_a_mapped_run_is_that_in_memory(data: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    made = run(data, tmp_path / "run", **{"data.interactions": "mapped"})
    assert digest(made) == whole
    assert isinstance(load_task(RunFolder.open(made)).samples, MappedSamples)


def test_stopped_in_the_middle_of_a_window(data: Path, tmp_path: Path, whole: dict[str, str]) -> None:
    with pytest.raises(Stop):
        run(data, tmp_path / "run", stopping_after(14), **{"data.interactions": "mapped"})
    assert digest(resume(tmp_path / "run").path) == whole


@pytest.mark.parametrize("most", [None, 7], ids=["all", "drawn"])
@pytest.mark.parametrize("seen", ["positives", "interactions"])
def test_lists_are_of_the_same_users(data: Path, tmp_path: Path, most: int | None, seen: str) -> None:
    tasks = []
    for kind in ("memory", "mapped"):
        given = TREE | {"data.interactions": kind, "eval.topk_users": most, "eval.exclude_seen": seen}
        tasks.append(ImpressionTask(resolve("id", given), Dataset.open(data), tmp_path / "cache"))
    one, other = (lists_of_part(task, 2) for task in tasks)
    assert (one.repeated, one.of, len(one.users)) == (other.repeated, other.of, len(other.users))
    assert len(one.users) and (most is None or len(one.users) == most)
    for mine, theirs in zip(one[:5], other[:5], strict=True):
        assert np.array_equal(mine, theirs)
    found, again = (evaluate_topk(task, 2, [5], task=lists) for task, lists in zip(tasks, (one, other), strict=True))
    assert found.metrics == again.metrics and found.metrics["coverage@5"]


def test_many_interactions_are_mapped_unless_it_is_said_otherwise() -> None:
    cfg = resolve("id")
    assert not cfg.data.maps(49_999_999) and cfg.data.maps(50_000_000)
    assert not resolve("id", {"data.interactions": "memory"}).data.maps(10**9)
    with pytest.raises(UserError, match="would do nothing: it is a setting of ranking models"):
        resolve("bpr", {"data.interactions": "mapped"})
