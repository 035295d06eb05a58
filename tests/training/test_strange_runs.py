"""Run folders and datasets that somebody else has made, or damaged: each is a message that names the file, in time."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.data.validate import validate
from rawrec.errors import RunStopped, UserError
from rawrec.files import write_tensors
from rawrec.reading import json_of
from rawrec.report import build_report
from rawrec.report.popularity import health_of
from rawrec.report.run import Run
from rawrec.training import state as checkpoint
from rawrec.training.records import read_metrics
from rawrec.training.run_list import list_runs
from rawrec.training.runs import RunFolder
from rawrec.training.state import write_json, written

SEED = 7
DEEP = "[" * 50_000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture(scope="module")
def origin(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin")
    rawrec.train("id", shop, folder / "run", {"train.epochs": 1, "train.device": "cpu", "eval.full_ranking": True})
    RunFolder(folder / "run").write_info(files={})  # what is strange is found without check sums, too
    return folder


@pytest.fixture
def run(origin: Path, tmp_path: Path) -> Path:
    shutil.copytree(origin / "run", tmp_path / "other")
    return Path(shutil.copytree(origin / "run", tmp_path / "run"))


def uses(run: Path) -> list[Callable[[], Any]]:
    return [
        lambda: rawrec.Recommender.load(run).recommend(history=[], k=2),
        lambda: reported(run),
        lambda: rawrec.compare([run, run.parent / "other"]),
        lambda: rawrec.resume(run),
    ]


def reported(run: Path) -> None:
    """What a report reads; it is drawn in `test_reports` only, which takes time."""
    found = Run(run)
    _ = found.test, found.topk, found.series("loss"), health_of(found.epochs, found.info)


def refused(run: Path, name: str, wanted: bool = True) -> None:
    """Nothing but messages comes of it; wanted: and at least one names the file."""
    said = []
    for use in uses(run):
        try:
            use()
        except (UserError, RunStopped) as error:
            said.append(str(error))
            assert len(str(error)) < 2000
    assert not wanted or any(name in text for text in said), said


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "metrics.json", "metrics.jsonl"])
def test_texts(run: Path, name: str) -> None:
    path = run / name
    for text in ("", "null", "[1]", "x", "3", DEEP, '{"a":' * 50_000, BOMB, "{", "\xff\xfe", '{"seed": 1e999}', "NaN"):
        path.write_text(text, encoding="latin-1")
        refused(run, name, wanted=bool(text) or not name.endswith("l"))


def test_files_that_are_none(run: Path) -> None:
    for name in ("config.yaml", "run.json", "metrics.json", "metrics.jsonl", "model.safetensors", "scores.parquet"):
        kept = (run / name).read_bytes()
        for make in (
            os.mkfifo,
            Path.mkdir,
            lambda path: path.symlink_to("/dev/zero"),
            lambda path: path.symlink_to("x"),
        ):
            (run / name).unlink()
            make(run / name)
            refused(run, "run" if name == "run.json" else name)
            shutil.rmtree(run / name) if (run / name).is_dir() and not (run / name).is_symlink() else None
            (run / name).unlink(missing_ok=True)
            (run / name).write_bytes(kept)
    with (run / "run.json").open("ab") as file:
        file.truncate(1 << 40)
    refused(run, "is larger than")


def test_files_without_an_end(run: Path, shop: Path, tmp_path: Path) -> None:
    """A file of a terabyte, most of it a hole, is not read to its end."""
    with (run / "topk.parquet").open("wb") as file:
        file.truncate(1 << 40)  # of an earlier end: this one makes no lists
    RunFolder(run).write_info(finished=False)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("full_ranking: true", "full_ranking: false"))
    ended = rawrec.finish(run, data=shop)
    assert not (ended.path / "topk.parquet").exists() and rawrec.compare([run, run.parent / "other"])
    with (run / "model.safetensors").open("ab") as file:
        file.truncate(1 << 40)
    RunFolder(run).write_info(files={})
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        rawrec.train("id", shop, tmp_path / "new", {"train.epochs": 1, "train.init": str(run)})


VALUES = [None, True, -1, 10**30, 1.5, "x", [], {}, [[]], {"a": {}}, "\x1b[2J"]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested values."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [place for key, one in inside for place in places(one, (*at, key))]


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    for key in at[:-1]:
        value = value[key]
    if new is KeyError:
        del value[at[-1]]
    else:
        value[at[-1]] = new


def read(text: str, name: str) -> Any:
    if name == "config.yaml":
        return yaml.safe_load(text)
    return json.loads(text.splitlines()[0] if name == "metrics.jsonl" else text)


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "metrics.json", "metrics.jsonl"])
def test_values_of_other_types(run: Path, name: str) -> None:
    """A value in another's place, of 25 drawn ones: no traceback."""
    rng, path = random.Random(f"{SEED} {name}"), run / name
    text = path.read_text()
    for _ in range(25):
        value = read(text, name)
        at = rng.choice(places(value))
        put(value, at, rng.choice([*VALUES, KeyError]))
        path.write_text(yaml.safe_dump(value) if name == "config.yaml" else json.dumps(value, indent=None))
        try:
            refused(run, name, wanted=False)
        except Exception as error:
            raise AssertionError(f"{name}: {at}") from error


def test_reports(run: Path) -> None:
    """The same where a page is made of them."""
    for name in ("run.json", "metrics.json", "metrics.jsonl"):
        rng, path = random.Random(f"{SEED} {name}"), run / name
        text = path.read_text()
        for _ in range(3):
            value = read(text, name)
            put(value, rng.choice(places(value)), rng.choice([None, -1, 1.5]))
            path.write_text(json.dumps(value))
            with suppress(UserError):
                build_report(run)
        path.write_text(text)


def test_weights(run: Path) -> None:
    path = run / "model.safetensors"
    tensors, about = checkpoint.load(path)
    name = max(tensors, key=lambda name: tensors[name].numel())
    first = tensors[name]
    wrong = [
        {key: value for key, value in tensors.items() if key != name},
        tensors | {"more": torch.ones(1)},
        tensors | {name: first[:1]},
        tensors | {name: torch.tensor(1.0)},
        tensors | {name: first.long()},
        tensors | {name: first * torch.nan},
    ]
    for values in wrong:
        checkpoint.save(path, values, about)
        refused(run, "model.safetensors")
    states: list[Any] = [{}, about | {"step": -1}, about | {"step": 10**30}, about | {"model": "em3"}, [], 3, "x"]
    for state in states:
        checkpoint.save(path, tensors, state)
        refused(run, "model.safetensors")
    for text in (DEEP, "{", '{"step": NaN}'):
        write_tensors(tensors, path, {"rawrec": text})
        refused(run, "model.safetensors")
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{")
    refused(run, "its head is larger")
    checkpoint.save(path, tensors, about)
    assert load_file(path).keys() == tensors.keys()


def test_tables(run: Path) -> None:
    path = run / "scores.parquet"
    frame = pl.read_parquet(path)
    wrong: list[pl.DataFrame] = [
        frame.drop("item"),
        frame.with_columns(score=pl.lit("x")),
        frame.with_columns(user=pl.col("user").cast(pl.Float64)),
        frame.with_columns(label=pl.lit(None, pl.Float32)),
        frame.with_columns(more=pl.lit("x")),
    ]
    for table in wrong:
        table.write_parquet(path)
        refused(run, "scores.parquet")
    rng, data = np.random.default_rng(SEED), bytearray(path.read_bytes())
    for _ in range(10):
        at = int(rng.integers(len(data)))
        data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        refused(run, "", wanted=False)


def test_a_list_of_strange_runs(run: Path) -> None:
    """Each is a line that says what is wrong; nothing is waited for."""
    for name in ("config.yaml", "metrics.json", "run.json"):
        kept = (run / name).read_bytes()
        for text in ("[]", "3", "null", BOMB, DEEP, '{"finished": true, "seconds": "x"}', '{"valid": null, "test": 3}'):
            (run / name).write_text(text)
            assert [line.state for line in list_runs(run.parent)].count("finished") >= 1
        (run / name).unlink()
        os.mkfifo(run / name)
        assert len(list_runs(run.parent)) == 2 - (name == "run.json") or name == "run.json"
        (run / name).unlink()
        (run / name).write_bytes(kept)
    os.mkfifo(run.with_name(".run.lock"))
    assert [line.state for line in list_runs(run.parent)] == ["finished"] * 2


@pytest.mark.parametrize(
    ("name", "column"), [("scores.parquet", "item"), ("scores.parquet", "user"), ("topk.parquet", "user")]
)
def test_reports_of_rows_that_are_not_there(run: Path, name: str, column: str) -> None:
    frame = pl.read_parquet(run / name)
    for value in (-1, 10**6):
        frame.with_columns(pl.lit(value, frame.schema[column]).alias(column)).write_parquet(run / name)
        with pytest.raises(UserError, match=rf"{name} is damaged, or of another dataset: {column} "):
            build_report(run)


def test_names_with_signs_of_patterns(origin: Path, tmp_path: Path) -> None:
    """`r[12]` is not `r1`."""
    for name in ("r1", "r[12]", "a*", "q?"):
        shutil.copytree(origin / "run", tmp_path / name)
    path = tmp_path / "r[12]" / "topk.parquet"
    frame = pl.read_parquet(path, glob=False)
    metric = next(column for column in frame.columns if column.startswith("recall@"))
    frame.with_columns(pl.lit(0.125).alias(metric)).write_parquet(path)
    (tmp_path / "r[12]" / "config.yaml").write_text(
        (tmp_path / "r1" / "config.yaml").read_text().replace("dim: ", "dim: 1", 1)
    )
    found = rawrec.compare(groups={"a": [tmp_path / "r[12]"], "b": [tmp_path / "r1"]}, metrics=[metric])
    assert found.results[0].mean == 0.125 != found.results[1].mean


def test_datasets(shop: Path, tmp_path: Path) -> None:
    """One value in another's place, of 60: opening and validating say so, or find nothing wrong."""
    path = Path(shutil.copytree(shop, tmp_path / "data"))
    text, rng = (path / "dataset.yaml").read_text(), random.Random(SEED)
    for _ in range(60):
        value = yaml.safe_load(text)
        at = rng.choice(places(value))
        put(value, at, rng.choice([*VALUES, KeyError]))
        (path / "dataset.yaml").write_text(yaml.safe_dump(value))
        try:
            opened(path)
        except Exception as error:
            raise AssertionError(f"{at}") from error
    for text in (DEEP, BOMB, "", "[]", "schema_version: .inf"):
        (path / "dataset.yaml").write_text(text)
        with pytest.raises(UserError, match="dataset"):
            Dataset.open(path)


def opened(path: Path) -> None:
    try:
        data = Dataset.open(path)
        _ = data.users, data.items, data.timestamps, data.split(), data.item_ids, data.fingerprint()
        for name in data.meta.labels:
            data.label(name)
        for name in data.meta.splits:
            data.history_rows(name)
    except UserError:
        return
    validate(path, progress=False)


@pytest.mark.parametrize("name", ["_transactions", "_versions", "data"])
def test_pipes_within_the_items(shop: Path, tmp_path: Path, name: str) -> None:
    """Lance would wait for who writes into them."""
    path = Path(shutil.copytree(shop, tmp_path / "data"))
    file = next(one for one in sorted((path / "items.lance" / name).iterdir()) if one.suffix != ".json")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UserError, match=rf"{file.name} is no plain file|is damaged"):
        Dataset.open(path)


def test_interactions_of_nobody(shop: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(shop, tmp_path / "data"))
    frame = pl.read_parquet(path / "interactions.parquet")
    for column in ("user", "item"):
        for value in (-1, 10**6):
            changed = frame.with_columns(
                pl.when(pl.int_range(pl.len()) == 5).then(value).otherwise(column).cast(pl.Int32).alias(column)
            )
            changed.write_parquet(path / "interactions.parquet")
            with pytest.raises(UserError, match=f"an interaction has a {column} that is not there"):
                data = rawrec.Dataset.open(path, sums=False)
                rawrec.train("id", data, tmp_path / "run", {"train.epochs": 1})


def test_what_is_no_number_is_written_as_null_and_read_again(tmp_path: Path) -> None:
    """JSON knows neither nan nor infinity, and readers refuse them."""
    write_json(tmp_path / "metrics.json", {"valid": {"auc": float("nan"), "loss": 0.5}, "test": {"auc": np.inf}})
    assert read_metrics(tmp_path / "metrics.json")["valid"] == {"auc": None, "loss": 0.5}
    assert read_metrics(tmp_path / "metrics.json")["test"] == {"auc": None}
    assert json_of(written({"loss": -np.inf})) == {"loss": None}


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head of the old file with the tensors of the new one is no damage."""
    path, replaced = tmp_path / "last.safetensors", []
    checkpoint.save(path, {"w": torch.zeros(4)}, {"step": 1})
    opened = checkpoint.safe_open

    def replacing(*given: Any) -> Any:
        if not replaced:
            replaced.append(True)
            old = path.read_bytes()
            checkpoint.save(path, {"w": torch.ones(4)}, {"step": 2})
            mixed = bytearray(old)
            mixed[-16:] = path.read_bytes()[-16:]
            (tmp_path / "mixed").write_bytes(mixed)
            return opened(tmp_path / "mixed", "pt")
        return opened(*given)

    monkeypatch.setattr(checkpoint, "safe_open", replacing)
    tensors, state = checkpoint.load(path)
    assert state == {"step": 2} and tensors["w"].tolist() == [1.0] * 4
    path.write_bytes((tmp_path / "mixed").read_bytes())
    with pytest.raises(UserError, match="its check sum is not the one"):
        checkpoint.load(path)
