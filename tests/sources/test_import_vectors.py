"""Ready-made features beside tables: columns of the catalogue, and files of vectors with ids."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vector_samples import FORMS, written

from rawrec import cli
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.validate import validate
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.huggingface import import_huggingface
from rawrec.sources.impressions import import_impressions
from rawrec.sources.table import import_table
from rawrec.sources.webdataset import import_webdataset

NAN = float("nan")
Import = Callable[..., Dataset]


@pytest.fixture
def run(tmp_path: Path) -> Import:
    """`import_table` of clicks on the items a, b and c, with a catalogue of a and b where `items` is wanted."""
    clicks, items = tmp_path / "clicks.csv", tmp_path / "items.parquet"
    clicks.write_text("user,item\n" + "".join(f"u{i % 4},{'abc'[i % 3]}\n" for i in range(12)))
    columns = {
        "item": ["a", "b", None, "b"],
        "emb": [None, [1, 2, 3], [4, 5, 6], [7, 8, 9]],
        "text": ["[0.5; 1]", "nan 1", "1", "2 2"],
        "title": ["The first", "Second", "", "again"],
    }
    pq.write_table(pa.table(columns), items)

    def go(**options: Any) -> Dataset:
        settings = {"out": tmp_path / "data", "progress": False, "overwrite": True, **options}
        return import_table(clicks, "user", "item", **settings)

    return go


def vectors(data: Dataset, name: str) -> dict[str, list[float]]:
    """The vectors of all items that have one."""
    values, valid = data.feature(name)
    return {item: values[i].tolist() for i, item in enumerate(data.item_ids.tolist()) if valid[i]}


def skipped(data: Dataset) -> dict[str, tuple[int, list[str]]]:
    report = ImportReport.load(data.path / "import.json")
    return {reason: (entry.count, entry.examples) for reason, entry in report.skipped.items()}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file(run: Import, tmp_path: Path, form: str) -> None:
    file = written(tmp_path, form, ["c", " a", "b", "a", "far"], [[3, 3.5], [1, 1.5], [NAN, 2], [9, 9], [8, 8]])
    data = run(items=tmp_path / "items.parquet", text=["title"], vectors={"clip": file})
    assert data.fields.feature == {"clip": 2} and data.item_ids.tolist() == ["a", "b", "c"]
    assert vectors(data, "clip") == {"a": [1, 1.5], "c": [3, 3.5]}
    report = ImportReport.load(data.path / "import.json")
    assert (report.read["vectors"], report.kept["vectors"]) == (5, 2)
    assert report.coverage["clip"] == {"items": 2, "share": 2 / 3}
    found = skipped(data)
    assert found["feature clip: the item is not in the dataset"] == (1, ["far"])
    assert found["feature clip: a value is not finite (missing)"] == (1, ["b"])
    assert found["feature clip: an item has several vectors (the first counts)"] == (1, ["a"])
    assert any("without content, but for vectors" in note for note in report.notes)
    assert validate(data.path, progress=False).problems == []
    assert not (data.path / "vectors").exists()


def test_columns_of_the_catalogue(run: Import, tmp_path: Path) -> None:
    items = tmp_path / "items.parquet"
    data = run(items=items, feature=["emb", "text=words"], text=["title"])
    assert data.fields.feature == {"emb": 3, "words": 2}
    assert vectors(data, "emb") == {"b": [1, 2, 3]} and vectors(data, "words") == {"a": [0.5, 1]}
    assert skipped(data)["feature words: a value is not finite (missing)"] == (1, ["items.parquet:2"])
    more = tmp_path / "more.csv"
    more.write_text("item,emb\nd,1|2|3\n")
    grown = append(data.path, items=more, item_id="item", progress=False)
    assert vectors(grown, "emb") == {"b": [1, 2, 3], "d": [1, 2, 3]}


def test_a_width_is_that_of_the_first_vector_of_numbers(run: Import, tmp_path: Path) -> None:
    file = tmp_path / "given.csv"
    file.write_text("item,vector\na,\nb,x y z\nc,1 2\na,3 4 5\na,5 6\n")
    data = run(vectors={"clip": file})
    assert vectors(data, "clip") == {"c": [1, 2], "a": [5, 6]}
    assert skipped(data)["feature clip: not 2 numbers (missing)"] == (2, ["given.csv:3", "given.csv:5"])


def test_many_items_are_joined_in_parts(run: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawrec.data.given.AT_ONCE", 3 * 2 * 4)  # three vectors
    ids, items = [f"n{i}" for i in range(500)], tmp_path / "many.csv"
    items.write_text("item,title\n" + "".join(f"{name},t\n" for name in ids))
    numbers = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    order = np.random.default_rng(1).permutation(500)
    file = written(tmp_path, "npz", [ids[i] for i in order], numbers[order])
    found = vectors(run(items=items, text=["title"], vectors={"clip": file}), "clip")
    assert np.array_equal([found[name] for name in ids], numbers)


# ------------------------------------------------------------------------------------------------------ other importers
def test_shown_lists(tmp_path: Path) -> None:
    shown, items = tmp_path / "shown.jsonl", tmp_path / "items.jsonl"
    shown.write_text("".join(json.dumps({"u": f"u{i}", "shown": ["a", "b"], "clicks": ["a"]}) + "\n" for i in range(9)))
    items.write_text('{"item_id": "a", "emb": [1, 2]}\n{"item_id": "b", "emb": [3, 4]}\n')
    clip = written(tmp_path, "npz", ["b"], [[5, 6]])
    data = import_impressions(
        shown, "u", "shown", "clicks", items=items, feature=["emb"], vectors={"clip": clip}, out=tmp_path / "data",
        progress=False,
    )  # fmt: skip
    assert vectors(data, "emb") == {"a": [1, 2], "b": [3, 4]} and vectors(data, "clip") == {"b": [5, 6]}


def test_samples_of_shards(run: Import, tmp_path: Path) -> None:
    run()  # writes the clicks
    with tarfile.open(tmp_path / "s.tar", "w") as file:
        for key, value in (("a", [1, 2]), ("b", None), ("c", [3, "x"])):
            text = json.dumps({"emb": value, "more": 1}).encode()
            member = tarfile.TarInfo(f"{key}.json")
            member.size = len(text)
            file.addfile(member, io.BytesIO(text))
    clip = written(tmp_path, "tsv", ["b"], [[5, 6, 7]])
    data = import_webdataset(
        str(tmp_path / "s.tar"), tmp_path / "clicks.csv", "user", "item", feature=["emb=own"], vectors={"clip": clip},
        out=tmp_path / "shards", progress=False,
    )  # fmt: skip
    assert vectors(data, "own") == {"a": [1, 2]} and vectors(data, "clip") == {"b": [5, 6, 7]}
    assert "keys of the JSON that were not asked for: more" in ImportReport.load(data.path / "import.json").notes


def test_columns_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    table = {"user": ["u", "v", "w"] * 3, "item": ["a", "b", "c"] * 3, "emb": [[1.0, 2.0], None, [3.0, 4.0]] * 3}
    pq.write_table(pa.table(table), tmp_path / "log" / "train.parquet")
    settings: dict[str, Any] = {"feature": ["emb"], "out": tmp_path / "data", "progress": False}
    data = import_huggingface(str(tmp_path / "log"), "user", "item", **settings)
    assert vectors(data, "emb") == {"a": [1, 2], "c": [3, 4]}


# ------------------------------------------------------------------------------------------------------------ bad input
def test_mistakes_are_named(run: Import, tmp_path: Path) -> None:
    items = tmp_path / "items.parquet"
    np.savez(tmp_path / "pair.npz", item=["a"], vector=np.zeros((1, 2)))
    np.savez(tmp_path / "flat.npz", item=["a"], clip=np.zeros(3))
    np.savez(tmp_path / "thin.npz", item=["a"], clip=np.zeros((1, 0)))
    np.save(tmp_path / "alone.npy", np.zeros((2, 2)))
    (tmp_path / "broken.npz").write_text("hello")
    (tmp_path / "empty.csv").write_text("item,clip\na,\nb,nan nan\n")
    good = written(tmp_path, "npz", ["a"], [[1, 2]])
    for options, message in (
        ({"feature": ["emb"]}, "'emb' describes items: name the table"),
        ({"items": items, "feature": ["enb"]}, "feature: .*no column 'enb'; did you mean 'emb'"),
        ({"items": items, "feature": ["title"]}, "no row of column 'title' is a list of numbers"),
        ({"items": items, "feature": ["emb", "text=emb"]}, "the columns 'emb' and 'text' would both be called 'emb'"),
        (
            {"items": items, "feature": ["emb=clip"], "vectors": {"clip": good}},
            "'clip' comes from the file .*given.npz",
        ),
        ({"items": items, "feature": ["emb=title"], "text": ["title"]}, "the columns 'title' and 'emb' would both be"),
        ({"vectors": {"item_id": tmp_path / "pair.npz"}}, "item field 'item_id' is reserved"),
        ({"vectors": {"../clip": tmp_path / "pair.npz"}}, "item field '../clip': use letters"),
        ({"vectors": {"clip": tmp_path / "none.npz"}}, "none.npz does not exist"),
        ({"vectors": {"clip": tmp_path / "none.csv"}}, "none.csv does not exist"),
        ({"vectors": {"clip": tmp_path / "flat.npz"}}, r"holds float64 of shape \(3,\): vectors are numbers"),
        ({"vectors": {"clip": tmp_path / "thin.npz"}}, "feature 'clip' has width 0"),
        ({"vectors": {"clip": tmp_path / "alone.npy"}}, "whose vectors are these"),
        ({"vectors": {"clip": tmp_path / "broken.npz"}}, "broken.npz cannot be read"),
        ({"vectors": {"clip": tmp_path / "empty.csv"}}, "no row of column 'clip' is a list of numbers"),
        ({"vectors": {"clip": items}}, "none of item, emb, text, title holds the vectors: name it clip or vector"),
    ):
        with pytest.raises(UserError, match=message):
            run(**options)
    assert not (tmp_path / "data").exists() and not list(tmp_path.glob(".data*"))


def test_a_further_feature_needs_a_new_import(run: Import, tmp_path: Path) -> None:
    data, more = run(), tmp_path / "more.csv"
    more.write_text("item,emb\nd,1 2\n")
    for options in ({"vectors": {"clip": more}}, {"items": more, "item_id": "item", "feature": ["emb"]}):
        with pytest.raises(UserError, match=r"There are: none.* import the dataset anew, with --vectors FIELD=FILE or"):
            append(data.path, **options, progress=False)


# ---------------------------------------------------------------------------------------------------------- the command
def test_from_the_import_to_a_model(
    run: Import, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rawrec", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    run()  # writes the files
    clip = written(tmp_path, "npz", ["a", "c"], [[1, 2], [3, 4]])
    source = ["import", "table", "--interactions", tmp_path / "clicks.csv", "--user", "user", "--item", "item"]
    source += ["--items", tmp_path / "items.parquet", "--feature", "emb=words", "--out", tmp_path / "shop"]
    code, _, err = command(*source, "--vectors", f"clip={clip}")
    assert (code, err) == (0, "")
    code, out, _ = command("inspect", tmp_path / "shop", "--json")
    assert code == 0
    assert {name: (field["kind"], field["items"]) for name, field in json.loads(out)["fields"].items()} == {
        "words": ("feature", 1),
        "clip": ("feature", 2),
    }
    settings = ["train.epochs=1", "train.threads=1", "model.knn_k=2"]
    code, _, err = command("train", "freedom", "--data", tmp_path / "shop", "--out", tmp_path / "run", *settings)
    assert code == 0, err
    assert "recall@20" in json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    for words, message in ((["clip"], "give FIELD=FILE"), ([f"clip={clip}", "clip=b.npz"], "both to be the feature")):
        code, out, err = command(*source, *(part for word in words for part in ("--vectors", word)))
        assert (code, out) == (2, "") and message in err
