import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

import forked
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from systems import small_dataset, unsealed

FIELDS = Fields(image=["photo"], text=["title"], categorical=["genre"], numeric=["year"], feature={"clip": 2})
ROWS = {
    "user_id": ["b", "a", "b"],
    "item_id": ["2", "1", "9"],
    "timestamp": [30, 10, 20],
    "label": [1, 0, 1],
    "rating": [5, 2, 4],
}
ITEMS = {
    "item_id": ["1", " 2 ", "3"],
    "photo": [[b"one", b"", b"uno"], None, [b"three"]],
    "title": [["Alien"], ["", "Brazil", None], []],
    "genre": [["sf", "horror"], None, ["sf"]],
    "year": [1979.0, None, float("nan")],
    "clip": np.array([[1, 2], [np.nan, 0], [3, 4]]),
}


def writer(out, **settings):
    values = {
        "fields": FIELDS,
        "source": "a test",
        "labels": ["label"],
        "has_time": True,
        "extra": {"rating": pa.float32()},
    }
    return DatasetWriter(out, **{**values, **settings})


def small(out, split=None, **settings) -> Dataset:
    """The small dataset above; interactions come before items, as an importer may have it."""
    with writer(out, **settings) as target:
        target.add_interactions(ROWS)
        target.add_items(ITEMS)
        return target.finish(split or SplitSpec(), ImportReport())


def plain(out, users=("u",), items=("i",), **settings) -> Dataset:
    """Ids only."""
    with writer(out, fields=Fields(), labels=[], has_time=False, extra={}, **settings) as target:
        target.add_interactions({"user_id": list(users), "item_id": list(items)})
        return target.finish(SplitSpec(kind="random_user"), ImportReport())


@pytest.fixture
def data(tmp_path):
    return small(tmp_path / "data")


def test_round_trip(data):
    assert (data.n_users, data.n_items, data.n_interactions) == (2, 4, 3)
    assert data.item_ids.tolist() == ["1", "2", "3", "9"]  # 9 has no catalogue row
    assert data.user_ids.tolist() == ["b", "a"]  # by first appearance
    assert data.users.tolist() == [0, 1, 0] and data.users.dtype == np.int32
    assert data.items.tolist() == [1, 0, 3] and data.items.dtype == np.int32
    assert data.timestamps.tolist() == [30, 10, 20]
    assert data.label().tolist() == [1, 0, 1] and not data.positive_only
    assert data.column("rating").tolist() == [5, 2, 4]
    assert data.column("user_id").tolist() == ["b", "a", "b"]
    assert data.split().tolist() == [2, 0, 0] and data.split().dtype == np.int8
    assert data.item_rows(["9", "1"]).tolist() == [3, 0] and data.user_rows(["a"]).tolist() == [1]
    assert data.launched is None


def test_media_are_read_at_random(data):
    assert data.images("photo", [2, 0, 0, 1, 3]) == [[b"three"], [b"one", b"uno"], [b"one", b"uno"], [], []]
    assert data.texts("title", np.array([1, 0])) == [["Brazil"], ["Alien"]]
    assert data.texts("title", []) == []
    assert data.counts("photo").tolist() == [2, 0, 1, 0]
    assert data.image_bytes("photo").tolist() == [6, 0, 5, 0]
    for wrong in ([["x"]], "p1", [1.5], None, object()):
        with pytest.raises(UserError, match="give a list of whole numbers"):
            data.images("photo", wrong)  # type: ignore[arg-type]
    for name in (None, 1, ["image"]):
        with pytest.raises(UserError, match="give its name, a string"):
            data.images(name, [0])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="item rows must be in"):
        data.images("photo", [4])


def test_columns_of_items(data):
    ptr, codes, words = data.categorical("genre")
    assert ptr.tolist() == [0, 2, 2, 3, 3] and words == ["horror", "sf"] and codes.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(data.numeric("year"), [1979, np.nan, np.nan, np.nan])
    values, valid = data.feature("clip")
    assert values.tolist() == [[1, 2], [0, 0], [3, 4], [0, 0]] and valid.tolist() == [True, False, True, False]
    for field, present in {
        "photo": [1, 0, 1, 0],
        "title": [1, 1, 0, 0],
        "genre": [1, 0, 1, 0],
        "year": [1, 0, 0, 0],
    }.items():
        assert data.present(field).tolist() == [bool(p) for p in present], field
    assert data.present("clip").tolist() == valid.tolist()


def test_readable_with_pyarrow_alone_and_complete(data):
    table = pq.read_table(data.path / "interactions.parquet")
    assert table.column_names == ["user", "item", "user_id", "item_id", "timestamp", "label", "rating", "split"]
    assert sorted(p.name for p in data.path.iterdir()) == [
        "dataset.yaml",
        "import.json",
        "interactions.parquet",
        "items.lance",
    ]
    assert [p.name for p in data.path.parent.iterdir()] == ["data"]
    meta = yaml.safe_load((data.path / "dataset.yaml").read_text())
    assert meta["schema_version"] == 3 and meta["version"] == 1
    assert meta["counts"] == {"users": 2, "items": 4, "interactions": 3}
    assert meta["splits"]["default"]["kind"] == "time_user" and "By time" in meta["splits"]["default"]["statement"]
    assert lance.dataset(str(data.path / "items.lance")).has_stable_row_ids


def test_report(tmp_path):
    report = ImportReport(source="a test")
    report.add_read("interactions", 4)
    report.skip("empty user id", [f"clicks.tsv:{i} ''" for i in range(30)])
    report.skip("empty user id", "clicks.tsv:99 '[bold]\x1b[31m'")
    with writer(tmp_path / "data") as target:
        target.add_items(ITEMS)
        target.add_items({"item_id": ["1", "4", "4"]})
        target.add_interactions(ROWS)
        data = target.finish(SplitSpec(), report)
    assert data.texts("title", [0]) == [["Alien"]]
    stored = json.loads((data.path / "import.json").read_text())
    assert stored["kept"] == {"items": 5, "interactions": 3, "users": 2, "items without a catalogue row": 1}
    assert stored["skipped"]["duplicate item id (the first row is kept)"] == {"count": 2, "examples": ["1", "4"]}
    assert (
        stored["skipped"]["empty user id"]["count"] == 31 and len(stored["skipped"]["empty user id"]["examples"]) == 20
    )
    assert stored["coverage"]["photo"] == {"items": 2, "share": 0.4}
    assert ImportReport.load(data.path / "import.json").as_dict() == stored
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    report.print_table(console)
    console.file.close()
    assert "empty user id" in (text := console.export_text()) and "40.0%" in text


def test_positive_only_without_times(tmp_path):
    data = plain(tmp_path / "data", ["u", "u", "v"], ["i", "j", "i"])
    assert data.positive_only and data.label("anything").tolist() == [1, 1, 1]
    assert data.timestamps is None and data.n_items == 2
    with pytest.raises(UserError, match="needs timestamps"):
        data.add_split("later", SplitSpec(kind="time_user"))


def test_launched_and_split_column(tmp_path):
    fields = Fields(text=["title"])
    settings = {"fields": fields, "labels": [], "extra": {"part": pa.string()}, "has_launched": True, "has_time": False}
    with writer(tmp_path / "data", **settings) as target:
        target.add_items({"item_id": ["a", "b"], "launched": [5, 6]})
        target.add_interactions({"user_id": ["u", "u"], "item_id": ["b", "a"], "part": ["test", None]})
        data = target.finish(SplitSpec(kind="column", column="part"), ImportReport())
    assert data.launched is not None and data.launched.tolist() == [5, 6]
    assert data.split().tolist() == [2, -1]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_buffers_do_not_matter(tmp_path, monkeypatch, size):
    monkeypatch.setattr(DatasetWriter, "ROW_BUFFER", size)
    monkeypatch.setattr(DatasetWriter, "MEDIA_BUFFER", size)
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 30, 200).astype(str), rng.integers(0, 50, 200).astype(str)
    with writer(tmp_path / "data", fields=Fields(text=["title"]), labels=[], has_time=False, extra={}) as target:
        for start in range(0, 200, 20):
            part = slice(start, start + 20)
            target.add_interactions({"user_id": users[part], "item_id": pl.Series(items[part]).to_arrow()})
            names = [str(i % 40) for i in range(start, start + 20)]
            target.add_items({"item_id": names, "title": [[f"title {n}"] for n in names]})
        data = target.finish(SplitSpec(kind="leave_one_out"), report := ImportReport())
    assert data.user_ids[data.users].tolist() == users.tolist()
    assert data.item_ids[data.items].tolist() == items.tolist()
    assert data.user_ids.tolist() == list(dict.fromkeys(users.tolist()))
    assert data.item_ids[:40].tolist() == [str(i) for i in range(40)]
    assert data.texts("title", range(40)) == [[f"title {i}"] for i in range(40)]
    assert report.skipped["duplicate item id (the first row is kept)"].count == 160


def test_fingerprint_follows_the_data(tmp_path):
    one, same = plain(tmp_path / "a"), plain(tmp_path / "b")
    assert one.fingerprint() == same.fingerprint() == Dataset.open(tmp_path / "a").fingerprint()
    assert plain(tmp_path / "c", items=("j",)).fingerprint() != one.fingerprint()
    first = small(tmp_path / "d").fingerprint()
    lance.dataset(str(tmp_path / "d" / "items.lance")).delete("item_id = '3'")  # a version that dataset.yaml lacks
    assert Dataset.open(tmp_path / "d").n_items == 4 and Dataset.open(tmp_path / "d").fingerprint() == first
    assert small(tmp_path / "d", overwrite=True).fingerprint() == first


def test_further_splits(data):
    before = data.fingerprint()
    data.add_split("new-1", SplitSpec(kind="leave_one_out"))
    again = Dataset.open(data.path)
    assert again.split("new-1").tolist() == [0, 0, 0] and again.fingerprint() == before
    with pytest.raises(UserError, match="already has a split"):
        data.add_split("new-1", SplitSpec())
    with pytest.raises(UserError, match="split name"):
        data.add_split("../x", SplitSpec())
    with pytest.raises(UserError, match="did you mean 'new-1'"):
        data.split("new1")


def test_unknown_names(data):
    with pytest.raises(UserError, match=r"item '11' is not in .*close to it: 1"):
        data.item_rows(["1", "11"])
    for call in (
        lambda: data.label("lable"),
        lambda: data.column("ratings"),
        lambda: data.images("photos", [0]),
        lambda: data.texts("photo", [0]),
        lambda: data.categorical("genres"),
        lambda: data.numeric("yeer"),
        lambda: data.feature("clib"),
        lambda: data.present("nothing"),
        lambda: data.user_rows(["zz"]),
    ):
        with pytest.raises(UserError):
            call()


# ---------------------------------------------------------------------------------------------------------- bad values
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": ["b", " ", "b"]}, "user_id of row 1"),
        ({"item_id": ["b", None, "b"]}, "item_id of row 1"),
        ({"label": [1, float("nan"), 0]}, "label has empty values"),
        ({"timestamp": [1, None, 2]}, "timestamp has empty values"),
        ({"label": ["yes", "no", "no"]}, "not of type float"),
        ({"rating": [1]}, "differ in length"),
        ({"lable": [1, 0, 1]}, "did you mean 'label'"),
    ],
)
def test_unacceptable_interactions(tmp_path, change, message):
    with pytest.raises(UserError, match=message), writer(tmp_path / "data") as target:
        target.add_interactions({**ROWS, **change})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_id": ["1", "", "3"]}, "item_id of row 1"),
        ({"title": [["a"]]}, "1 values for 3 items"),
        ({"photo": [["text"], [3], None]}, "photo: values"),
        ({"clip": np.zeros((3, 5))}, "width 2"),
        ({"titel": [["a"]] * 3}, "did you mean 'title'"),
    ],
)
def test_unacceptable_items(tmp_path, change, message):
    with pytest.raises(UserError, match=message), writer(tmp_path / "data") as target:
        target.add_items({**ITEMS, **change})


def test_unacceptable_names(tmp_path):
    for settings in (
        {"fields": Fields(text=["item_id"])},
        {"fields": Fields(text=["a"], numeric=["a"])},
        {"fields": Fields(text=["a/b"])},
        {"labels": ["split"]},
        {"labels": ["rating"]},
    ):
        with pytest.raises(UserError):
            writer(tmp_path / "data", **settings)


def test_nothing_to_import(tmp_path):
    report = ImportReport()
    report.skip("empty user id", "x.tsv:1")
    with pytest.raises(UserError, match="1 skipped because: empty user id"), writer(tmp_path / "data") as target:
        target.add_items(ITEMS)
        target.finish(SplitSpec(), report)
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------------------- the place
def test_existing_place(tmp_path):
    out = tmp_path / "data"
    plain(out)
    with pytest.raises(UserError, match="--overwrite"):
        plain(out)
    assert plain(out, items=("j",), overwrite=True).item_ids.tolist() == ["j"]
    other = tmp_path / "other"
    other.mkdir()
    plain(other)  # an empty folder is free
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    file = tmp_path / "file"
    file.write_text("precious")
    for path in (foreign, file):
        with pytest.raises(UserError, match="not a rawrec dataset"):
            plain(path, overwrite=True)
    with pytest.raises(UserError, match="a part of the path is a file"):
        plain(file / "data")
    assert (foreign / "thesis.txt").read_text() == file.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "file", "foreign", "other"]


def test_overwriting_through_a_link_keeps_the_link(tmp_path):
    plain(tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    plain(tmp_path / "link", items=("j",), overwrite=True)
    assert (tmp_path / "link").is_symlink() and Dataset.open(tmp_path / "data").item_ids.tolist() == ["j"]


def test_an_exception_leaves_the_old_dataset(tmp_path):
    plain(tmp_path / "data")
    with pytest.raises(ZeroDivisionError), writer(tmp_path / "data", overwrite=True) as target:
        target.add_interactions(ROWS)
        _ = 1 / 0
    assert Dataset.open(tmp_path / "data").item_ids.tolist() == ["i"]
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_a_place_with_an_odd_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a b#c%20d?é=[x]*", "s3:", "-", "x.lance"):
        out = f"new folder/{name}"
        assert small(out).images("photo", [0]) == [[b"one", b"uno"]], name
        assert Dataset.open(out).n_items == 4 and small(out, overwrite=True).texts("title", [1]) == [["Brazil"]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new folder"]


def test_a_mount_point_is_no_place(tmp_path, monkeypatch):
    """Said before anything is read."""
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    with pytest.raises(UserError, match=r"mount point.* name one within it"):
        plain(tmp_path / "disk")
    assert plain(tmp_path / "disk" / "data").n_items and [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_one_writer_at_a_time(tmp_path):
    with writer(tmp_path / "data"), pytest.raises(UserError, match="another import"):
        plain(tmp_path / "data")
    plain(tmp_path / "data")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permitted"),
        (errno.EXDEV, "on another disk"),
    ],
)
@pytest.mark.parametrize("where", ["mkdir", "fragments", "rows", "rename"])
def test_full_or_read_only_place(tmp_path, monkeypatch, where, code, words):
    def refuse(*_, **__):
        if where == "fragments":  # raised without a number there
            raise OSError(f"LanceError(IO): {os.strerror(code)} (os error {code}), object_store.rs:1")
        raise OSError(code, os.strerror(code))

    target = {
        "mkdir": "pathlib.Path.mkdir",
        "fragments": "rawrec.data.parts.write_fragments",
        "rows": "pyarrow.parquet.ParquetWriter",
        "rename": "pathlib.Path.rename",
    }[where]
    monkeypatch.setattr(target, refuse)
    with pytest.raises(UserError, match=words):
        small(tmp_path / "data")
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_really_full(tmp_path, monkeypatch):
    monkeypatch.setattr(DatasetWriter, "ROW_BUFFER", 1)
    with pytest.raises(UserError, match="disk is full"), writer(tmp_path / "data") as target:
        (target._folder / "rows.half").symlink_to("/dev/full")
        target.add_interactions(ROWS)
        target.add_items(ITEMS)
        target.finish(SplitSpec(), ImportReport())
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------- opening
def test_a_dataset_of_schema_version_1_opens(data):
    """As an import wrote it before there were versions."""
    file, before = data.path / "dataset.yaml", data.fingerprint()
    meta = yaml.safe_load(file.read_text())
    del meta["version"], meta["versions"]
    file.write_text(yaml.safe_dump({**meta, "schema_version": 1}))
    old = Dataset.open(data.path)
    assert old.version == 1 and old.split().tolist() == [2, 0, 0] and old.fingerprint() == before
    assert Dataset.open(data.path, version=1).n_items == 4
    with pytest.raises(UserError, match="no version 2"):
        Dataset.open(data.path, version=2)


def test_not_a_dataset(tmp_path, data):
    for path, message in ((tmp_path / "none", "does not exist"), (tmp_path, "not a rawrec dataset")):
        with pytest.raises(UserError, match=message):
            Dataset.open(path)
    file = data.path / "dataset.yaml"
    whole = unsealed(file)
    for text, message in (
        (whole.replace("schema_version: 3", "schema_version: 6"), "newer"),
        (whole.replace("\nversion: 1", "\nversion: 2"), "damaged"),
        (whole.replace("file: interactions.parquet", "file: ../interactions.parquet"), "damaged"),
        (whole.replace("  items: 4", "  items: 5", 1), "damaged"),
        (whole.replace("counts:", "count:"), "damaged"),
        ("just words", "no schema_version"),
        ("a: [", "cannot be read"),
        ("!!python/object/apply:os.system [ls]", "cannot be read"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            Dataset.open(data.path)
    file.write_text(whole)
    (data.path / "interactions.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="damaged"):
        Dataset.open(data.path)


# -------------------------------------------------------------------------------------------------------------- killed
SLOW = """
import sys, rawrec.data.writer as d
d.DatasetWriter.ROW_BUFFER, d.DatasetWriter.MEDIA_BUFFER = 500, 1000
print("ready", flush=True)
while True:
    fields = d.Fields(image=["photo"])
    with d.DatasetWriter(sys.argv[1], fields=fields, source="", labels=[], has_time=False, overwrite=True) as w:
        for k in range(5):
            ids = [f"{k}-{i}" for i in range(100)]
            w.add_items({"item_id": ids, "photo": [[b"x" * 50]] * 100})
            w.add_interactions({"user_id": ids, "item_id": ids})
        w.finish(d.SplitSpec(kind="random_user"), d.ImportReport())
"""


def test_killed_at_any_moment(tmp_path):
    """After kill -9 there is nothing or a whole dataset, and the next import into the place works and tidies up."""
    out, rng = tmp_path / "data", random.Random(0)
    for _ in range(4):
        with forked.Process([sys.executable, "-c", SLOW, str(out)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
        if out.exists():
            data = Dataset.open(out)
            assert data.n_items == 500 and data.images("photo", [499]) == [[b"x" * 50]]
            assert len(data.split()) == 500
    plain(out, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_killed_while_replacing_gives_the_old_one_back(tmp_path):
    plain(tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / ".data.old")  # as it stands between the two renames
    (tmp_path / ".data.new").mkdir()
    with pytest.raises(UserError, match="--overwrite"):
        plain(tmp_path / "data")
    assert Dataset.open(tmp_path / "data").n_items == 1
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("kind", ["labels", "context"])
def test_a_column_that_only_the_description_has_is_named(tmp_path: Path, kind: str) -> None:
    path = small_dataset(tmp_path / "data", [(0, 0, 1, 1.0), (0, 1, 2, 0.0)], 2).path
    description = yaml.safe_load((path / "dataset.yaml").read_text())
    description |= (
        {"labels": ["gone"]}
        if kind == "labels"
        else {"extra": ["gone"], "context": {"categorical": ["gone"], "numeric": []}}
    )
    (path / "dataset.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(UserError, match=r"is damaged.*interactions.parquet has no column 'gone'"):
        Dataset.open(path)
