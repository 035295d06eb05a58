"""Taobao-MM in its two layouts: what was shown, histories of users, categories and vectors of items."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import source_samples
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.inspect import inspect
from rawrec.data.sampling import Samples
from rawrec.data.splits import SplitSpec
from rawrec.data.validate import validate
from rawrec.errors import UserError
from rawrec.sources import taobao_mm
from rawrec.sources.taobao_mm import import_taobao_mm

ITEMS = [str(-(10**16) * 7 + i) for i in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("taobao")
    source_samples.taobao_mm(root)
    return root / "Taobao-MM"


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "Taobao-MM"))


def run(folder: Path, out: Path, **settings: Any) -> Dataset:
    return import_taobao_mm(folder, out=out, progress=False, overwrite=True, **settings)


def rows_of(data: Dataset) -> pl.DataFrame:
    ids = {"user": data.user_ids[data.users].tolist(), "item": data.item_ids[data.items].tolist()}
    more = {name: data.column(name) for name in ("timestamp", "click", "given", "split")}
    return pl.DataFrame(ids | more)


def notes(data: Dataset) -> str:
    return " ".join(ImportReport.load(data.path / "import.json").notes)


def past(user: int) -> list[str]:
    """What the sample's row of a user lists, without padding."""
    if user in (0, 4):
        return [] if user else [ITEMS[3], "-2"]
    return [ITEMS[(user + i) % 18] for i in range(user + 1)]


def test_what_was_shown_and_the_histories(folder: Path, tmp_path: Path) -> None:
    data = run(folder, tmp_path / "d", history=6)
    rows = rows_of(data)
    shown, given = rows.filter(pl.col("given") == 0), rows.filter(pl.col("given") == 1)
    clicked = [(user + at) % 3 == 0 for user in [*range(25), *range(24, 30)] for at in range(8)]
    assert len(shown) == len(clicked) and shown["click"].sum() == sum(clicked)
    assert set(shown["timestamp"]) == {6, 7} and set(shown.filter(pl.col("timestamp") == 7)["split"]) == {2}
    assert (given["split"] == -1).all() and given["click"].min() == 1
    for user in range(30):
        mine = given.filter(pl.col("user") == str(100 + user)).sort("timestamp")
        whole = past(user)
        assert mine["item"].to_list() == whole[-6:]
        assert mine["timestamp"].to_list() == list(range(6))[6 - len(whole[-6:]) :]
    assert data.meta.splits["default"]["history"] == "given" and not data.has_sessions
    assert validate(data.path, progress=False).sound and inspect(data.path)["users"]["user_130_2"]["distinct"] == 3
    assert "timestamp is an order" in notes(data)


def test_a_history_is_what_the_row_says(folder: Path, tmp_path: Path) -> None:
    """Clicks of the same moment tell nothing of one another: histories of training rows are the given ones alone."""
    data = run(folder, tmp_path / "d", history=4)
    samples = Samples(data, "default", "click", 10, "rolling", 1)
    rows = samples.rows(0)
    found = samples.histories(samples.impressions(rows, 0, np.random.default_rng(0)), 0)
    for row, history in zip(rows.tolist(), found, strict=True):
        user = int(data.user_ids[data.users[row]]) - 100
        whole = past(user)
        assert data.item_ids[history[history >= 0]].tolist() == whole[-4:]


def test_both_layouts_say_the_same(folder: Path, tmp_path: Path) -> None:
    raw = run(folder, tmp_path / "raw")
    alone = tmp_path / "shards"
    for name in ("train", "test", "feature_map"):
        shutil.copytree(folder / name, alone / name)
    bare = tmp_path / "bare"  # what raw holds, in the folder itself, as the authors' sample has it
    shutil.copytree(folder / "raw", bare)
    for other in (run(alone, tmp_path / "a"), run(bare, tmp_path / "b")):
        names = ["user", "item", "timestamp", "given"]
        assert rows_of(other).sort(names).equals(rows_of(raw).sort(names))
        shown = set(rows_of(other).filter(pl.col("given") == 0)["item"])
        for mine, item in enumerate(raw.item_ids):
            theirs = other.item_rows([item])[0]
            for name in ("category", "item_213", "item_214"):
                said = category(other, name, theirs)  # shards know less of what was not shown
                assert said == category(raw, name, mine) or (not said and name != "category" and item not in shown)
            np.testing.assert_array_equal(other.feature("scl")[0][theirs], raw.feature("scl")[0][mine])
        assert other.user_table().sort_by("user_id").equals(raw.user_table().sort_by("user_id"))


def category(data: Dataset, name: str, item: int) -> list[str]:
    ptr, codes, words = data.categorical(name)
    return [words[code] for code in codes[ptr[item] : ptr[item + 1]]]


def test_categories_and_vectors(folder: Path, tmp_path: Path) -> None:
    data = run(folder, tmp_path / "d")
    values = np.load(folder / "feature_map" / "scl_emb_int8_p90_values.npy").astype(np.float32) / 127
    found, valid = data.feature("scl")
    never = data.item_rows(["-2"])[0]
    assert valid.sum() == data.n_items - 1 and not valid[never] and category(data, "category", never) == ["8"]
    for i, item in enumerate(ITEMS):
        if item in data.item_ids:
            row = data.item_rows([item])[0]
            np.testing.assert_allclose(found[row], values[i])
            assert category(data, "category", row) == [str(5 + i % 3)]
            assert category(data, "item_213", row) == (["9"] if i % 4 == 0 else [])


def test_parts(folder: Path, tmp_path: Path) -> None:
    rows = rows_of(run(folder, tmp_path / "d", history=0))
    assert "history" not in Dataset.open(tmp_path / "d").meta.splits["default"]
    assert rows.filter(pl.col("timestamp") == 0).group_by("user").agg(pl.col("split").n_unique())["split"].max() == 1
    assert set(rows["split"]) == {0, 1, 2}
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("train_samples", "train_user_features", "item_features"):
        shutil.copy(folder / "raw" / f"{name}.parquet", alone)
    data = run(alone, tmp_path / "e")
    assert set(data.split()) == {-1, 0, 1, 2} and "no test part" in notes(data) and "no vectors" in notes(data)
    assert data.fields.feature == {}
    split = SplitSpec(kind="random_user", seed=1)
    assert run(folder, tmp_path / "f", split=split).meta.splits["default"]["kind"] == "random_user"
    numbers = np.arange(-50_000, 50_000)
    assert np.bincount(taobao_mm._part_of(numbers, "train", True), minlength=3)[1] == pytest.approx(10_000, rel=0.05)


@pytest.mark.parametrize("joined", [False, True])
def test_so_many_rows_and_the_users_of_them(folder: Path, tmp_path: Path, joined: bool) -> None:
    if joined:
        for name in ("train", "test"):
            shutil.copytree(folder / name, tmp_path / "s" / name)
        folder = tmp_path / "s"
    data = run(folder, tmp_path / "d", rows=20)
    rows = rows_of(data)
    assert rows.filter(pl.col("given") == 0)["timestamp"].value_counts()["count"].to_list() == [20, 20]
    assert set(rows["user"]) == {"100", "101", "102", "124", "125", "126"}


def test_small_batches_change_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(folder, tmp_path / "a")
    monkeypatch.setattr("rawrec.sources.taobao_mm.ROWS", 7)
    monkeypatch.setattr("rawrec.sources.taobao_mm.ITEMS_AT_ONCE", 3)
    monkeypatch.setattr("rawrec.sources._taobao_items.Items.MOST", 5)
    monkeypatch.setattr("rawrec.sources._taobao_vectors.ROWS", 3)
    for part in (run(folder, tmp_path / "b"), run(folder / "raw", tmp_path / "c")):
        assert rows_of(part).sort(pl.all()).equals(rows_of(whole).sort(pl.all()))
        mine = whole.item_rows(part.item_ids.tolist())
        np.testing.assert_array_equal(part.feature("scl")[0], whole.feature("scl")[0][mine])


def change(path: Path, column: str, row: int, value: Any) -> None:
    frame = pl.read_parquet(path)
    values = frame[column].to_list()
    values[row] = value
    frame.with_columns(pl.Series(column, values, dtype=frame[column].dtype)).write_parquet(path)


def test_rows_that_cannot_be_used_are_counted(copied: Path, tmp_path: Path) -> None:
    raw = copied / "raw"
    for row, (column, value) in enumerate([("129_1", 0), ("205", None), ("label_0", []), ("label_0", None)]):
        change(raw / "train_samples.parquet", column, row, value)
    change(raw / "train_user_features.parquet", "151_2_180", 3, [1])
    data = run(copied, tmp_path / "d")
    found = {reason: e.count for reason, e in ImportReport.load(data.path / "import.json").skipped.items()}
    assert found.pop("not as many categories (151_2_180) as items (150_2_180) in a history (categories left out)") == 1
    assert list(found.values()) == [1, 1, 2] and all("row left out" in reason for reason in found)
    assert (
        data.n_interactions == run(copied, tmp_path / "e", history=0).n_interactions + (data.column("given") > 0).sum()
    )
    frame = pl.read_parquet(raw / "scl_embedding_int8_p90.parquet")
    odd = [[1, 2] if i == 4 else row for i, row in enumerate(frame["205_c"].to_list())]
    shutil.rmtree(copied / "feature_map")
    frame.with_columns(pl.Series("205_c", odd, dtype=pl.List(pl.Float32))).write_parquet(raw / "scl_embedding.parquet")
    (raw / "scl_embedding_int8_p90.parquet").unlink()
    data = run(copied, tmp_path / "f")
    assert data.feature("scl")[1].sum() == data.n_items - 2
    values = data.feature("scl")[0][data.item_rows([ITEMS[0]])[0]]
    np.testing.assert_array_equal(values, frame["205_c"][0].to_numpy())  # floats stay as they are


def test_mistakes_are_named(copied: Path, tmp_path: Path) -> None:
    def refused(folder: Path, words: str, **settings: Any) -> None:
        with pytest.raises(UserError, match=words):
            run(folder, tmp_path / "x", **settings)
        assert not (tmp_path / "x").exists()

    refused(tmp_path / "none", "does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"neither train_samples.parquet.*found: nothing")
    refused(copied, "at least 1 row", rows=0)
    refused(copied, "history of at least 0", history=-1)
    values = copied / "feature_map" / "scl_emb_int8_p90_values.npy"
    kept = values.read_bytes()
    np.save(values, np.zeros((3, 8), np.int8))
    refused(copied, r"shapes \[20\] and \[3, 8\]")
    values.write_bytes(kept[:50])
    refused(copied, "cannot be read")
    np.save(values, np.array([["a"]] * 20))
    refused(copied, "numbers are needed")
    values.write_bytes(kept)
    samples = copied / "raw" / "train_samples.parquet"
    frame = pl.read_parquet(samples)
    frame.rename({"205": "206"}).write_parquet(samples)
    refused(copied, "samples: .*no column '205'")
    frame.with_columns(pl.col("205").cast(pl.String) + "x").write_parquet(samples)
    refused(copied, "column 205 holds no whole numbers")
    samples.write_bytes(b"no parquet")
    refused(copied, "cannot be read")
    frame.write_parquet(samples)
    features = copied / "raw" / "test_user_features.parquet"
    users = pl.read_parquet(features)
    users.with_columns(pl.lit(1).alias("150_2_180")).write_parquet(features)
    refused(copied, "column 150_2_180 holds no lists of whole numbers")
    features.unlink()
    refused(copied, "test_user_features.parquet cannot be read")
