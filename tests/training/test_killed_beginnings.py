"""A command that is killed at its first operations goes on when it is typed again, and loses nothing."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest

from kill_points import killed_everywhere
from rawrec import folders
from rawrec.config import Config
from rawrec.data.dataset import Dataset
from rawrec.data.meta import read_meta
from rawrec.data.writer import _Place
from rawrec.errors import UserError
from rawrec.training.configuring import configure
from rawrec.training.runs import RunFolder, running
from rawrec.training.sweeps.search import SweepConfig
from rawrec.training.sweeps.sweep import _folder
from systems import unsealed

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lance, which wants no forks


@pytest.fixture(params=["exchange", "rename"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With a system that exchanges folders, and with one that does not."""
    if request.param == "rename":
        monkeypatch.setattr(folders, "_exchanger", lambda: None)
    return request.param


@cache
def settings(data: Dataset, seed: int) -> Config:
    return configure("id", data, {"seed": seed})


@pytest.fixture(scope="module")
def data(shop: Path) -> Dataset:
    return Dataset.open(shop)


def begin(out: Path, data: Dataset, seed: int, overwrite: bool = False, settled: bool = False) -> RunFolder:
    """What `train` does before its first step; settled: and then."""
    with running(out):
        run = RunFolder.create(out, settings(data, seed), data, overwrite)
        run.prepare()
        if settled:
            run.settle()
    return run


def seed_of(out: Path) -> int:
    return RunFolder.open(out).config().seed


def finish(run: RunFolder) -> None:
    run.append_metrics({"epoch": 1, "step": 1})
    run.write_info(finished=True)


@pytest.mark.parametrize("there", ["nothing", "folder"])
def test_train(data: Dataset, tmp_path: Path, there: str) -> None:
    out = tmp_path / "place" / "run"
    for _ in killed_everywhere(lambda: begin(out, data, 1)):
        if (out / "config.yaml").is_file():  # it is there whole, and resumed
            with running(out):
                RunFolder.open(out).prepare()
        else:
            begin(out, data, 2)
        assert seed_of(out) in (1, 2) and [path.name for path in out.parent.iterdir()] == ["run"]
        assert {path.name for path in out.iterdir()} == {"config.yaml", "run.json", "environment.json"}
        shutil.rmtree(out.parent)
        if there == "folder":
            out.mkdir(parents=True)


def test_train_over_a_run(data: Dataset, tmp_path: Path, way: str) -> None:
    """Until the new run has made a step the old one is not lost; the same command goes on."""
    settled = way == "exchange"
    out = tmp_path / "place" / "run"
    finish(begin(out, data, 1))
    seen = set()
    for _ in killed_everywhere(lambda: begin(out, data, 2, overwrite=True, settled=settled)):
        before = seed_of(out)
        seen.add(before)
        old = out.with_name(".run.replaced")
        assert before == 1 or settled or seed_of(old) == 1
        again = begin(out, data, 3, overwrite=True)
        assert seed_of(out) == 3
        again.withdraw()
        assert seed_of(out) == 1 or (settled and before == 2)
        assert [path.name for path in out.parent.iterdir()] == ["run"]
        shutil.rmtree(out)
        finish(begin(out, data, 1))
    assert seen == {1, 2}


def test_a_run_that_was_being_replaced_is_found(shop: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", Dataset.open(shop), 1)
    run.path.rename(tmp_path / ".run.replaced")
    assert seed_of(run.path) == 1 and [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_is_no_beginning_is_left_alone(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine: 1")
    with pytest.raises(UserError, match="is no run folder"):
        begin(tmp_path, Dataset.open(shop), 1)
    assert (tmp_path / "config.yaml").read_text() == "mine: 1"


def sweep_of(data: Path, out: Path, seed: int) -> SweepConfig:
    return SweepConfig.model_validate(
        {"model": "id", "data": data, "out": out, "seeds": [seed], "search": {"train.lr": [0.1, 0.2]}}
    )


def test_sweep(shop: Path, tmp_path: Path) -> None:
    out, cfg = tmp_path / "sweep", sweep_of(shop, tmp_path / "sweep", 1)

    def work() -> None:
        with _folder(cfg, overwrite=False):
            pass

    for _ in killed_everywhere(work):
        work()
        assert sorted(path.name for path in out.iterdir()) == [".lock", "sweep.yaml"]
        shutil.rmtree(out)


def test_sweep_over_a_sweep(shop: Path, tmp_path: Path) -> None:
    """The old sweep or the new one is there, whole, and the same command goes on with both."""
    out = tmp_path / "sweep"

    def work(seed: int, overwrite: bool = False) -> None:
        with _folder(sweep_of(shop, out, seed), overwrite):
            pass

    def old() -> None:
        shutil.rmtree(out, ignore_errors=True)
        work(1)
        (out / "trials.jsonl").write_text("")
        (out / "runs" / "x").mkdir(parents=True)

    old()
    for _ in killed_everywhere(lambda: work(2, True)):
        try:
            work(1)  # the old one stands
            assert (out / "runs" / "x").is_dir() and (out / "trials.jsonl").is_file()
        except UserError as error:
            assert "holds another sweep" in str(error)
            work(2)
            assert not (out / "runs").exists()
        work(2, True)
        assert sorted(path.name for path in out.iterdir()) == [".lock", "sweep.yaml"]
        old()


def test_import_over_a_dataset(shop: Path, tmp_path: Path, way: str) -> None:
    """At every moment the old dataset or the new one is what `Dataset.open` and all others find."""
    out, text = tmp_path / "place" / "data", unsealed(shop / "dataset.yaml")

    def put(source: str) -> None:
        """The end of an import, which puts a dataset in its place."""
        place = _Place(out, True)
        (place.folder / "dataset.yaml").write_text(text.replace("source: ", f"source: {source}"))
        (place.folder / "items.lance").mkdir()
        place.take()

    put("old")
    seen = set()
    for _ in killed_everywhere(lambda: put("new")):
        seen.add(read_meta(out).source[:3])
        put("old")
        assert [path.name for path in out.parent.iterdir()] == ["data"]
    assert seen == {"old", "new"}
