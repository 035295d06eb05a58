"""Datasets back out as MMRec and RecBole folders, and in again: the same rows, parts, features and ids."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from rawrec.data.dataset import Dataset, Fields
from rawrec.data.exporters import export_mmrec, export_recbole
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.sources.mmrec import import_mmrec
from rawrec.sources.recbole import import_recbole

VECTORS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
VECTORS[1] = np.nan


def dataset(folder: Path, *, items: tuple[str, ...] = ("a 1", "b", "007", "dé", "never"), **changes: Any) -> Dataset:
    """Five items of every kind, the last one without interactions; 24 rows, one in no part."""
    settings: dict[str, Any] = {"labels": ["label"], "has_time": True} | changes
    fields = Fields(text=["title"], categorical=["kind", "tags"], numeric=["price"], feature={"image": 3, "audio": 1})
    extra = {"rating": pa.float32(), "session": pa.int64(), "note": pa.string(), "where": pa.int64()}
    with DatasetWriter(folder / "data", fields=fields, source="test", extra=extra, **settings) as writer:
        writer.add_items(
            {
                "item_id": list(items),
                "title": [['"Quoted" title'], ["two\tparts\n", "of it"], [], ["plain"], ["unseen"]],
                "kind": [["one thing"], [], ["x"], ["x"], ["x"]],
                "tags": [["long tag", "b"], ["b"], [], ["c"], ["c"]],
                "price": [1.5, None, 3.25, 4.0, 5.0],
                "image": VECTORS,
                "audio": np.arange(5, dtype=np.float32)[:, None],
            }
        )
        n = 24
        rows: dict[str, Any] = {
            "user_id": [f"user {i % 6}" for i in range(n)],
            "item_id": [items[i % 7 % 4] for i in range(n)],
            "rating": np.linspace(0.1, 5, n, dtype=np.float32),
            "session": [i // 3 for i in range(n)],
            "note": ["", "a\tb", *["x"] * (n - 2)],
            "where": [-1 if i == 23 else i % 8 % 3 for i in range(n)],
        }
        if settings["has_time"]:
            rows["timestamp"] = [1_400_000_000 + i for i in range(n)]
        rows |= {name: [(i + at) % 3 > 0 for i in range(n)] for at, name in enumerate(settings["labels"])}
        writer.add_interactions(rows)
        return writer.finish(SplitSpec(kind="column", column="where"), ImportReport())


def rows_of(data: Dataset, *columns: str, keep: Any = slice(None)) -> Counter[tuple[Any, ...]]:
    """The interactions by original ids, with their part and further columns."""
    found = [data.user_ids[data.users], data.item_ids[data.items], data.split(), *map(data.column, columns)]
    found = [v.astype(np.float32) if v.dtype.kind == "f" else v for v in found]
    return Counter(zip(*(values[keep].tolist() for values in found), strict=True))


def test_mmrec_there_and_back(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    done = export_mmrec(data, tmp_path / "baby")
    positive = data.label() > 0
    assert sum(done.interactions.values()) == (data.split()[positive] >= 0).sum()
    head, *lines = (tmp_path / "baby" / "baby.inter").read_text().splitlines()
    assert head.split("\t") == ["userID", "itemID", "rating", "timestamp", "x_label"]
    assert len(lines) == positive.sum()
    assert max(int(line.split("\t")[1]) for line in lines) == data.n_items - 1
    assert (
        (tmp_path / "baby" / "i_id_mapping.csv")
        .read_text()
        .startswith("asin\titemID\na 1\t0\nb\t1\n007\t2\nnever\t3\n")
    )
    assert np.load(tmp_path / "baby" / "image_feat.npy").shape == (5, 3)
    back = import_mmrec(tmp_path / "baby", out=tmp_path / "back", progress=False)
    assert rows_of(back, "timestamp", "rating") == rows_of(data, "timestamp", "rating", keep=positive)
    for name in data.fields.feature:
        values, valid = data.feature(name)
        found, _ = back.feature(name)
        rows = back.item_rows(data.item_ids.tolist())
        np.testing.assert_array_equal(found[rows][valid], values[valid])
        np.testing.assert_allclose(
            found[rows][~valid], values[valid].mean(0)[None].repeat((~valid).sum(), 0), rtol=1e-6
        )
    assert list(back.fields.feature) == ["image", "audio"]
    assert any("8 interactions that are not positive" in note for note in done.notes)
    assert any("1 items have no feature image" in note for note in done.notes)


def test_mmrec_of_mmrec_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "x.inter").write_text("userID\titemID\tx_label\n1\t0\t0\n1\t3\t1\n0\t1\t0\n0\t3\t2\n")
    np.save(tmp_path / "x" / "text_feat.npy", VECTORS[[0, 2, 3, 4]])
    data = import_mmrec(tmp_path / "x", out=tmp_path / "one", progress=False)
    export_mmrec(data, tmp_path / "y")
    again = import_mmrec(tmp_path / "y", out=tmp_path / "two", progress=False)
    assert again.item_ids.tolist() == data.item_ids.tolist() == ["0", "1", "2", "3"]
    assert rows_of(again) == rows_of(data)
    np.testing.assert_array_equal(again.feature("text")[0], data.feature("text")[0])


def test_a_mapping_that_is_wrong_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text("userID\titemID\n0\t0\n1\t2\n")
    for text in (
        "asin\titemID\na\t0\na\t1\n",
        "asin\titemID\na\t0\nb\t5\n",
        "a\tb\n",
        "",
        "itemID\n",
    ):
        (tmp_path / "i_id_mapping.csv").write_text(text)
        data = import_mmrec(tmp_path, out=tmp_path / "out", overwrite=True, progress=False)
        assert data.item_ids.tolist() == ["0", "1", "2"], text
    (tmp_path / "i_id_mapping.csv").write_text('asin\titemID\nb"\t1\n"a\t0\n')
    assert import_mmrec(tmp_path, out=tmp_path / "2", progress=False).item_ids.tolist() == ['"a']


def test_recbole_there_and_back(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    done = export_recbole(data, tmp_path / "ml")
    settings = yaml.safe_load((tmp_path / "ml" / "ml.yaml").read_text())
    assert settings["benchmark_filename"] == ["train", "valid", "test"]
    assert settings["load_col"]["inter"] == ["user_id", "item_id", "timestamp", "label", "rating", "session", "note"]
    item = (tmp_path / "ml" / "ml.item").read_text().splitlines()
    assert item[0] == "item_id:token\ttitle:token_seq\tkind:token\ttags:token_seq\tprice:float\t" + (
        "image:float_seq\taudio:float_seq"
    )
    assert item[1].startswith("a 1\t'Quoted' title\tone thing\tlong_tag b\t1.5\t")
    assert item[2].split("\t")[1:6] == ["two parts  of it", "", "b", "", ""]
    back = import_recbole(tmp_path / "ml", out=tmp_path / "back", text=["title"], progress=False)
    there = data.split() >= 0
    assert rows_of(back, "timestamp", "label", "rating") == rows_of(data, "timestamp", "label", "rating", keep=there)
    assert back.column("note").tolist().count("a b") == 1
    assert back.item_ids.tolist() == data.item_ids.tolist()
    assert back.categorical("kind")[2] == data.categorical("kind")[2]
    np.testing.assert_array_equal(back.numeric("price"), data.numeric("price"))
    for name in data.fields.feature:
        for found, wanted in zip(back.feature(name), data.feature(name), strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert done.notes == ["1 interactions that are in no part of the split were left out"]
    assert sum(done.interactions.values()) == data.n_interactions - 1


def test_data_without_times_and_labels_and_another_split(tmp_path: Path) -> None:
    data = dataset(tmp_path, labels=[], has_time=False)
    data.add_split("other", SplitSpec(kind="random_user"))
    export_mmrec(data, tmp_path / "m", split="other")
    export_recbole(data, tmp_path / "r", split="other")
    wanted = Counter(
        zip(data.user_ids[data.users], data.item_ids[data.items], data.split("other").tolist(), strict=True)
    )
    back = import_mmrec(tmp_path / "m", out=tmp_path / "bm", progress=False)
    assert rows_of(back) == wanted
    assert not back.meta.has_time
    assert rows_of(import_recbole(tmp_path / "r", out=tmp_path / "br", text=["title"], progress=False)) == wanted


def test_pictures_are_named_as_left_out(shop: Path, tmp_path: Path) -> None:
    data = Dataset.open(shop)
    assert "pictures have no place" in export_recbole(data, tmp_path / "r").notes[0]
    assert "no ready-made features" in export_mmrec(data, tmp_path / "m").notes[-1]


def test_mistakes_are_named(tmp_path: Path) -> None:
    data = dataset(tmp_path, labels=["click", "buy"])
    with pytest.raises(UserError, match="name one of click, buy"):
        export_mmrec(data, tmp_path / "out")
    with pytest.raises(UserError, match="did you mean 'click'"):
        export_mmrec(data, tmp_path / "out", label="clic")
    with pytest.raises(UserError, match="'nope'"):
        export_recbole(data, tmp_path / "out", split="nope")
    with pytest.raises(UserError, match="not an empty folder"):
        export_recbole(data, tmp_path)
    (tmp_path / "out").mkdir()
    export_mmrec(data, tmp_path / "out", label="buy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]
    other = tmp_path / "other"
    other.mkdir()
    bad = dataset(other, items=("a\tb", "b", "c", "d", "e"))
    for export in (export_mmrec, export_recbole):
        with pytest.raises(UserError, match=r"item id 'a\\tb' holds a tab"):
            export(bad, other / "out")
    with pytest.raises(UserError, match="has no labels"):
        export_mmrec(dataset(tmp_path / "n", labels=[]), tmp_path / "x", label="label")
