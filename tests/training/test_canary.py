"""A stranger's run folder and dataset: whatever links stand in it, nothing outside is written, cut or removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.data.splits import SplitSpec
from rawrec.errors import RunStopped, UserError
from rawrec.report import build_report
from rawrec.serving.encoding import encode
from rawrec.training.runs import RunFolder
from systems import FAST

RUN_FILES = ("config.yaml", "run.json", "environment.json", "metrics.jsonl", "metrics.json", "model.safetensors")
RUN_FILES += ("scores.parquet", "topk.parquet", "log.txt", "report.html", "vectors.parquet")
FOLDERS = [(), ("data/cache", "done/cache"), ("stopped/checkpoint", "done/tensorboard", ".new.replaced", ".data.new")]
FOLDERS += [("stopped/tensorboard", "data/splits", ".done.replaced")]
"""Places of folders; none: those where columns are made."""
PREDICTABLE = ("{}.partial", ".{}.half", ".{}.new", ".{}.tmp")


@pytest.fixture(scope="module")
def theirs(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, a finished run and one that was stopped."""
    folder = tmp_path_factory.mktemp("theirs")
    shutil.copytree(shop, folder / "data")
    shutil.rmtree(folder / "data" / "cache", ignore_errors=True)
    frozen = {**FAST, "paradigm": "hybrid", "content.image.train": "none", "content.text.train": "none"}
    rawrec.train("em3", folder / "data", folder / "done", {**frozen, "train.epochs": 1})

    class Enough(Exception):
        pass

    def stop(event: str, **_: Any) -> None:
        if event == "validated":
            raise Enough

    with pytest.raises(Enough):
        rawrec.train("em3", folder / "data", folder / "stopped", frozen, observer=stop)
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A user's folder, and files in it, which links lead to."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in (".bashrc", "lock", "0.partial", "notes.txt", "last.safetensors"):
        (folder / name).write_text(f"mine: {name}\n")
    return folder


def state(folder: Path) -> dict[str, Any]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


def link(place: Path, target: Path) -> None:
    """A link at `place`, whatever stood there."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def work(folder: Path) -> list[Callable[[], Any]]:
    """Everything that one does with what somebody else has made."""
    data, done, stopped = folder / "data", folder / "done", folder / "stopped"
    return [
        lambda: rawrec.resume(stopped, data=data),
        lambda: rawrec.Recommender.load(done, data).recommend(user=str(Dataset.open(data).user_ids[0]), k=2),
        lambda: rawrec.Recommender.load(done, data).export_vectors(done / "vectors.parquet"),
        lambda: rawrec.Recommender.load(done, data).recommend_all(done / "lists.csv", k=2),
        lambda: build_report(done, data=data),
        lambda: rawrec.evaluate(done, "valid", data=data),
        lambda: Dataset.open(data).add_split("more", SplitSpec()),
        lambda: encode(data, "random:bert", field="title"),
        lambda: rawrec.train("id", data, folder / "new", {"train.epochs": 1, "train.device": "cpu"}),
        lambda: rawrec.train("id", data, done, {"train.epochs": 1, "train.device": "cpu"}, overwrite=True),
    ]


def attack(folder: Path, outside: Path) -> dict[int, str]:
    """Do all of it; what each step said that did not come to its end."""
    before, said = state(outside), {}
    for number, one in enumerate(work(folder)):
        try:
            one()
        except (UserError, RunStopped, OSError) as error:
            said[number] = str(error)
        assert state(outside) == before, f"step {number}"
    return said


def copy(theirs: Path, tmp_path: Path) -> Path:
    shutil.copytree(theirs, tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.mark.parametrize("hard", [False, True])
def test_links_in_the_place_of_files(theirs: Path, tmp_path: Path, outside: Path, hard: bool) -> None:
    """Of what is only written, so that the work goes on, and of all names that one could foresee."""
    folder = copy(theirs, tmp_path)
    places = [
        folder / run / name for run in ("done", "stopped") for name in ("log.txt", "report.html", "vectors.parquet")
    ]
    places += [
        folder / run / form.format(name) for run in ("done", "stopped") for name in RUN_FILES for form in PREDICTABLE
    ]
    places += [folder / "stopped" / "checkpoint" / form.format("last.safetensors") for form in PREDICTABLE]
    places += [folder / "data" / form.format("dataset.yaml") for form in PREDICTABLE]
    places += [folder / f".{name}.{end}" for name in ("data", "done", "stopped", "new") for end in ("lock", "checked")]
    for place in places:
        place.unlink(missing_ok=True)
        place.hardlink_to(outside / ".bashrc") if hard else place.symlink_to(outside / ".bashrc")
    before = (outside / ".bashrc").stat().st_nlink
    said = attack(folder, outside)
    assert set(said) == (set() if hard else {0}) and all("log.txt is no plain file" in text for text in said.values())
    assert hard == ((outside / ".bashrc").stat().st_nlink > 1) and before >= 1


def test_links_in_the_place_of_files_that_are_read(theirs: Path, tmp_path: Path, outside: Path) -> None:
    folder, before = copy(theirs, tmp_path), state(outside)
    for name in RUN_FILES:
        for run in ("done", "stopped"):
            if (place := folder / run / name).is_file():  # what it holds is good
                shutil.move(place, outside / "theirs")
                place.symlink_to(outside / "theirs")
        for one in work(folder)[:3]:
            with suppress(UserError, RunStopped, OSError):
                one()
        if (outside / "theirs").is_file():
            (outside / "theirs").unlink()
        assert state(outside) == before, name
        shutil.rmtree(folder)
        copy(theirs, tmp_path)


@pytest.mark.parametrize("places", FOLDERS)
def test_links_in_the_place_of_folders(theirs: Path, tmp_path: Path, outside: Path, places: tuple[str, ...]) -> None:
    folder = copy(theirs, tmp_path)
    for place in places:
        link(folder / place, outside)
    if not places:
        (folder / "data" / "cache").mkdir(exist_ok=True)
        for column in list((folder / "data" / "cache").iterdir()):
            link(column.with_name(f".{column.name}.shards"), outside)
            column.unlink()
    said = attack(folder, outside)
    assert said and all("nothing is written through links" in text for text in said.values()), said


def test_the_dataset_of_a_run_json_is_no_place_to_write(theirs: Path, tmp_path: Path, outside: Path) -> None:
    folder = copy(theirs, tmp_path)
    for run in ("done", "stopped"):
        RunFolder(folder / run).write_info(dataset=str(outside))
    assert not attack(folder, outside)
    assert os.listdir(folder / "data" / "cache")  # noqa: PTH208
