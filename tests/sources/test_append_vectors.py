"""Features of items that are appended: columns of vectors, and files of vectors with ids."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vector_samples import FORMS, written

from rawrec import cli
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.validate import validate
from rawrec.data.vectors import Vectors, write_vectors
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.sources.append import append

NAN = float("nan")


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Items i0..i5 with the features clip (2 wide, missing for i3) and sound (3 wide, of i0 only)."""
    fields = Fields(text=["title"], feature={"clip": 2, "sound": 3})
    with DatasetWriter(tmp_path / "data", fields=fields, source="made", labels=[], has_time=False) as writer:
        for at in range(0, 6, 2):
            clip = [[i, 0.5] if i != 3 else None for i in (at, at + 1)]
            sound = [[1.0, 2.0, 3.0] if i == 0 else None for i in (at, at + 1)]
            batch = {"item_id": [f"i{i}" for i in (at, at + 1)], "title": [["old"]] * 2, "clip": clip, "sound": sound}
            writer.add_items(batch)
            writer._flush_items()  # a fragment of its own
        writer.add_interactions({"user_id": [f"u{i % 2}" for i in range(6)], "item_id": [f"i{i}" for i in range(6)]})
        return writer.finish(SplitSpec(kind="random_user"), ImportReport())


def vectors(data: Dataset, name: str = "clip") -> dict[str, list[float]]:
    """The vectors of all items that have one."""
    values, valid = data.feature(name)
    return {item: values[i].tolist() for i, item in enumerate(data.item_ids.tolist()) if valid[i]}


def skipped(data: Dataset) -> dict[str, tuple[int, list[str]]]:
    report = ImportReport.load(data.path / f"import-{data.version}.json")
    return {reason: (entry.count, entry.examples) for reason, entry in report.skipped.items()}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file(data: Dataset, tmp_path: Path, form: str) -> None:
    ids = ["n2", "i3", " n1 ", "i1", "n2", "far", "lost"]
    file = written(tmp_path, form, ids, [[2, 2.5], [3, 3.5], [1, 1.5], [9, 9], [7, 7], [8, 8], [NAN, 1]])
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\nn1,One\nn2,Two\nbare,Three\nlost,Four\ni1,ignored\n")
    new = append(data.path, items=items, vectors={"clip": file}, progress=False)
    assert new.item_ids[6:].tolist() == ["n1", "n2", "bare", "lost"]
    assert vectors(new) == {**vectors(data), "n1": [1, 1.5], "n2": [2, 2.5]}
    assert vectors(new, "sound") == vectors(data, "sound")
    report = ImportReport.load(new.path / "import-2.json")
    assert (report.read["vectors"], report.kept["vectors"]) == (7, 2)
    assert report.coverage["clip"] == {"items": 2, "share": 0.5}
    assert skipped(new) == {
        "item is in the dataset already (kept as it is; --update replaces its content)": (1, ["items.csv:6 'i1'"]),
        "feature clip: an item has several vectors (the first counts)": (1, ["n2"]),
        "feature clip: a value is not finite (missing)": (1, ["lost"]),
        "feature clip: the item is in the dataset already (kept as it is; see --update)": (2, ["i1", "i3"]),
        "feature clip: the item is neither in the dataset nor appended": (1, ["far"]),
    }
    assert validate(new.path, progress=False).problems == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_update_gives_and_replaces_vectors(data: Dataset, tmp_path: Path) -> None:
    clip = written(tmp_path, "npz", ["i3", "i5", "new", "i0"], [[3, 3], [5, 5], [6, 6], [NAN, 0]])
    sound = tmp_path / "sound.parquet"
    pq.write_table(pa.table({"item_id": ["i3", "i4"], "vector": [[1.0, 1, 1], [4.0, 4, 4]]}), sound)
    new = append(data.path, vectors={"clip": clip, "sound": sound}, update=True, progress=False)
    assert new.item_ids.tolist() == [*data.item_ids, "new"] and new.n_interactions == data.n_interactions
    assert vectors(new) == {**vectors(data), "i3": [3, 3], "i5": [5, 5], "new": [6, 6]}
    assert vectors(new, "sound") == {"i0": [1, 2, 3], "i3": [1, 1, 1], "i4": [4, 4, 4]}
    assert new.texts("title", range(7)) == [["old"]] * 6 + [[]]
    assert vectors(Dataset.open(data.path, version=1)) == vectors(data)
    report = ImportReport.load(new.path / "import-2.json")
    assert (report.kept["items replaced"], report.kept["items"], report.kept["vectors"]) == (3, 1, 5)
    assert "vectors given.npz, vectors sound.parquet" in report.source
    assert validate(new.path, progress=False).sound


def test_without_update_only_new_items_get_vectors(data: Dataset, tmp_path: Path) -> None:
    clip = written(tmp_path, "npz", ["i3", "new", "lost"], [[3, 3], [6, 6], [NAN, 0]])
    new = append(data.path, vectors={"clip": clip}, progress=False)
    assert new.item_ids[6:].tolist() == ["new"] and vectors(new) == {**vectors(data), "new": [6, 6]}
    with pytest.raises(UserError, match=r"nothing to append.*2 skipped because: feature clip: the item is in the data"):
        append(data.path, vectors={"clip": clip}, progress=False)


@pytest.mark.parametrize("update", [False, True])
def test_items_of_the_interactions(data: Dataset, tmp_path: Path, update: bool) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id\nu0,n1\nu9,bare\nu1,i3\n")
    clip = written(tmp_path, "npz", ["n1", "i3", "i1"], [[1, 1], [3, 3], [2, 2]])
    new = append(data.path, log, vectors={"clip": clip}, update=update, progress=False)
    assert new.item_ids[6:].tolist() == ["n1", "bare"]
    assert vectors(new) == {**vectors(data), "n1": [1, 1], **({"i3": [3, 3]} if update else {})}
    reason = "feature clip: the item is in the dataset already (kept as it is; see --update)"
    assert skipped(new)[reason] == ((1, ["i1"]) if update else (2, ["i1", "i3"]))


def test_items_beside_the_catalogue_have_their_vectors(data: Dataset, tmp_path: Path) -> None:
    log, items = tmp_path / "log.csv", tmp_path / "items.csv"
    log.write_text("user_id,item_id\nu0,n1\nu9,bare\n")
    items.write_text("item_id,title\nn1,One\n")
    clip = written(tmp_path, "npz", ["n1", "bare"], [[1, 1], [3, 3]])
    new = append(data.path, log, items=items, vectors={"clip": clip}, progress=False)
    assert vectors(new) == {**vectors(data), "n1": [1, 1], "bare": [3, 3]}
    assert any(
        "without content, but for vectors" in note for note in ImportReport.load(new.path / "import-2.json").notes
    )


def test_columns_of_the_table_of_items(data: Dataset, tmp_path: Path) -> None:
    items = tmp_path / "items.parquet"
    table = {
        "sku": ["n1", "n2", None, "i1", "n1"],
        "title": ["One", "Two", "x", "y", "again"],
        "clip": [[1.0, 1.5], [2.0, None], [7.0, 7.0], [8.0, 8.0], [9.0, 9.0]],
        "audio": pa.array([[1, 2, 3], [4], [], None, [1, 2, 3]], pa.list_(pa.int16())),
    }
    pq.write_table(pa.table(table), items)
    settings: dict[str, Any] = {"items": items, "item_id": "sku", "feature": ["audio=sound"], "progress": False}
    new = append(data.path, **settings)
    assert new.item_ids[6:].tolist() == ["n1", "n2"] and new.texts("title", [6, 7]) == [["One"], ["Two"]]
    assert vectors(new) == {**vectors(data), "n1": [1, 1.5]}
    assert vectors(new, "sound") == {"i0": [1, 2, 3], "n1": [1, 2, 3]}
    assert skipped(new)["feature sound: not 3 numbers (missing)"] == (1, ["items.parquet:2"])
    assert skipped(new)["feature clip: a value is not finite (missing)"] == (1, ["items.parquet:2"])
    third = append(
        data.path, **{**settings, "vectors": {"clip": written(tmp_path, "npz", ["i1"], [[5, 5]])}}, update=True
    )
    assert vectors(third) == {**vectors(new), "i1": [5, 5]}  # the file, not the column of the same name
    assert validate(new.path, progress=False).sound


def test_what_an_export_writes_is_read(data: Dataset, tmp_path: Path) -> None:
    """Items whose row is not valid have no vector, although the file holds numbers for them."""
    values, valid = np.array([[1, 1], [0, 0], [3, 3]], np.float32), np.array([True, False, True])
    for version, name in ((2, "out.parquet"), (3, "out.npy")):
        ids = [f"{name}-{i}" for i in range(3)]
        write_vectors(Vectors(ids, 2, [(values[:2], valid[:2]), (values[2:], valid[2:])]), tmp_path / name)
        new = append(data.path, vectors={"clip": tmp_path / name}, progress=False)
        assert new.version == version and new.item_ids[-2:].tolist() == [ids[0], ids[2]]
        assert vectors(new)[ids[2]] == [3, 3]


def test_vectors_are_read_and_merged_in_parts(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawrec.data.given.AT_ONCE", 3 * 2 * 4)  # three vectors
    monkeypatch.setattr("rawrec.sources.append.ITEMS_AT_ONCE", 7)
    numbers = np.random.default_rng(0).normal(size=(600, 2)).astype(np.float32)
    clip = written(tmp_path, "fixed.parquet", [f"n{i}" for i in range(600)], numbers)
    new = append(data.path, vectors={"clip": clip}, progress=False)
    found = vectors(new)
    assert new.n_items == 606 and np.array_equal([found[f"n{i}"] for i in range(600)], numbers)


# ------------------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize("form", FORMS)
def test_another_width(data: Dataset, tmp_path: Path, form: str) -> None:
    file = written(tmp_path, form, ["n1"], [[1, 2, 3]])
    with pytest.raises(UserError, match=r"vectors are 3 wide, but the feature 'clip' of the dataset is 2 wide"):
        append(data.path, vectors={"clip": file}, progress=False)
    assert Dataset.open(data.path).version == 1 and not (tmp_path / ".data.new").exists()


def test_columns_and_files_that_cannot_be(data: Dataset, tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,title,emb,name\nn1,One,1 2,clip.npy\n")
    text = {"items": items, "feature": ["name=clip"]}
    tables = {
        "nested": {"item_id": ["a"], "vector": [[["x"]]]},
        "words": {"item_id": ["a"], "vector": [["x", "y"]]},
        "many": {"item_id": ["a"], "one": [[1.0]], "two": [[1.0]]},
        "no_ids": {"sku": ["a"], "vector": [[1.0, 2.0]]},
    }
    for name, table in tables.items():
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    np.save(tmp_path / "alone.npy", np.zeros((2, 2)))
    np.save(tmp_path / "short.npy", np.zeros((2, 2)))
    (tmp_path / "short.ids.jsonl").write_text('{"item_id": "a"}\n')
    np.savez(tmp_path / "longer.npz", item_id=["a"], vector=np.zeros((2, 2)))
    np.savez(tmp_path / "words.npz", item_id=["a"], vector=np.array([["x", "y"]]))
    np.savez(tmp_path / "flat.npz", item_id=["a"], vector=np.zeros(2))
    np.savez(tmp_path / "objects.npz", item_id=np.array(["a", 1], object), vector=np.zeros((2, 2)))
    (tmp_path / "torn.npz").write_bytes((tmp_path / "longer.npz").read_bytes()[:-40])
    (tmp_path / "text.npz").write_text("hello")
    for change, message in (
        ({"vectors": {"clap": items}}, "vectors: .*feature 'clap' does not exist; did you mean 'clip'"),
        ({"items": items, "feature": ["emb=clap"]}, "feature 'emb=clap': .*'clap' does not exist; did you mean 'clip'"),
        ({"items": items, "feature": ["embed=clip"]}, "feature: .*no column 'embed'; did you mean 'emb'"),
        ({"vectors": {"clip": items}, "image_dir": tmp_path}, "not of vectors alone: name a table of items"),
        ({"vectors": {"clip": items}, "feature": ["emb"]}, "'emb' describes items: name the table"),
        (text, "has 1 values in column 'name' of row 2, .*is 2 wide: .*, or rename the column"),
        ({"items": items, **vector(tmp_path, "none.npy")}, "none.npy does not exist"),
        ({"items": items, **vector(tmp_path, "none.parquet")}, "none.parquet does not exist"),
        (vector(tmp_path, "nested.parquet"), r"vector holds list<.*list<.*: a vector is a list of numbers"),
        (vector(tmp_path, "words.parquet"), "a vector is a list of numbers"),
        (vector(tmp_path, "many.parquet"), "none of item_id, one, two holds the vectors: name it clip or vector"),
        (vector(tmp_path, "no_ids.parquet"), "none of sku, vector holds the item ids: name it item_id"),
        (vector(tmp_path, "alone.npy"), "whose vectors are these.*alone.ids.jsonl"),
        (vector(tmp_path, "short.npy"), "has 2 vectors and 1 ids"),
        (vector(tmp_path, "longer.npz"), "has 2 vectors and 1 ids"),
        (vector(tmp_path, "words.npz"), "holds <U1 of shape.*: vectors are numbers"),
        (vector(tmp_path, "flat.npz"), r"holds float64 of shape \(2,\): vectors are numbers \[items, width\]"),
        (vector(tmp_path, "objects.npz"), "pickled objects never are"),
        (vector(tmp_path, "torn.npz"), "torn.npz cannot be read"),
        (vector(tmp_path, "text.npz"), "text.npz cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            append(data.path, **{"progress": False, **change})
    assert Dataset.open(data.path).version == 1 and not (tmp_path / ".data.new").exists()


def vector(folder: Path, name: str) -> dict[str, Any]:
    return {"vectors": {"clip": folder / name}}


def test_an_archive_that_unpacks_to_more_than_it_says(data: Dataset, tmp_path: Path) -> None:
    head = io.BytesIO()
    np.save(head, np.zeros((1, 2)))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        names = io.BytesIO()
        np.save(names, np.array(["a"]))
        packed.writestr("item_id.npy", names.getvalue())
        packed.writestr("clip.npy", head.getvalue() + bytes(1 << 24))
    with pytest.raises(UserError, match="clip is not as long as its head says"):
        append(data.path, **vector(tmp_path, "bomb.npz"), progress=False)


def test_rows_that_cannot_be_used(data: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "given.csv"
    file.write_text('item_id;clip\na;"[1, 2]"\nb;1,5 2\n;1 2\nc;1 x\nd;\ne;1e99|2\nf;(3;4\n', encoding="utf-8")
    new = append(data.path, vectors={"clip": file}, progress=False)
    assert vectors(new) == {**vectors(data), "a": [1, 2]} and new.n_items == 7
    found = skipped(new)
    assert found["vector without an item id"] == (1, ["given.csv:4 ''"])
    assert found["feature clip: not 2 numbers (missing)"] == (1, ["given.csv:3"])
    assert found["feature clip: a value is not finite (missing)"] == (2, ["c", "e"])


def test_ids_beside_an_array_stay_with_their_rows(data: Dataset, tmp_path: Path) -> None:
    """A line that is none, and an empty id, do not move what comes after."""
    np.save(tmp_path / "given.npy", np.array([[1, 1], [2, 2], [3, 3], [4, 4]], np.int32))
    lines = '{"item_id": "a"}\nnonsense\n{"item_id": " "}\n{"item_id": 7}\n'
    (tmp_path / "given.ids.jsonl").write_text(lines)
    new = append(data.path, vectors={"clip": tmp_path / "given.npy"}, progress=False)
    assert vectors(new) == {**vectors(data), "a": [1, 1], "7": [4, 4]}


def test_the_command(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rawrec", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    clip = written(tmp_path, "npz", ["n1", "i3"], [[1, 1], [3, 3]])
    code, out, err = run("append", data.path, "--vectors", f"clip={clip}", "--update", "--json")
    assert (code, err) == (0, "") and json.loads(out)["kept"]["vectors"] == 2
    assert vectors(Dataset.open(data.path))["i3"] == [3, 3]
    code, out, err = run("append", data.path, "--vectors", clip)
    assert (code, out) == (2, "") and "give FIELD=FILE" in err
