"""Appending to a dataset: what stays, what comes, what happens when it is cut off."""

from __future__ import annotations

import errno
import http.server
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import forked
from rawrec import cli
from rawrec.data import appender as appender_module
from rawrec.data.appender import Appender
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.validate import validate
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.download.urls import UrlPictures


def picture(number: int) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (6, 6), (number % 256, 40 * number % 256, 9)).save(target, "PNG")
    return target.getvalue()


def made(out: Path, items: int = 8, rows: int = 40) -> Dataset:
    """Users u0.., items i0.. with everything a dataset can have; each user's times ascend."""
    fields = Fields(image=["photo"], text=["title"], categorical=["genre"], numeric=["year"], feature={"clip": 2})
    extra: dict[str, pa.DataType] = {"rating": pa.float32(), "place": pa.string(), "day": pa.date32()}
    with DatasetWriter(
        out, fields=fields, source="made", labels=["label"], has_time=True, extra=extra, label_rule="rating >= 4"
    ) as writer:
        writer.MEDIA_BUFFER = 300  # several fragments
        for start in range(0, items, 2):
            numbers = range(start, min(start + 2, items))
            writer.add_items(
                {
                    "item_id": [f"i{i}" for i in numbers],
                    "photo": [[picture(i)] if i % 3 else [] for i in numbers],
                    "title": [[f"title {i}"] for i in numbers],
                    "genre": [["a", f"b{i}"] for i in numbers],
                    "year": [2000.0 + i for i in numbers],
                    "clip": [[i, i + 0.5] for i in numbers],
                }
            )
        at = np.arange(rows)
        writer.add_interactions(
            {
                "user_id": [f"u{u}" for u in at % 4],
                "item_id": [f"i{i}" for i in (at * 7 // 4) % items],
                "timestamp": 1000 + at,
                "label": (at % 3 > 0).astype(float),
                "rating": 2.0 + at % 3,
                "place": ["web"] * rows,
                "day": pa.array(at, pa.int32()).cast(pa.date32()),
            }
        )
        return writer.finish(SplitSpec(), ImportReport())


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return made(tmp_path / "data")


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """One new user, one new item with a catalogue row, one without, rows to skip."""
    file = tmp_path / "day.csv"
    file.write_text(
        "who,what,when,liked,stars\n"
        "u1,n1,2000,1,5\nnew,i2,2001,0,1\nu1,bare,2002,1,4\n,i2,2003,1,4\nu1,i2,never,1,4\nu1,i2,2004,perhaps,4\n"
    )
    return file


CATALOGUE = "what,title,genre,year\nn1,New one,a|z,2020\ni2,Other title,,1990\n,no id,,\nn1,again,,\n"
LOG: dict[str, Any] = {"user": "who", "item": "what", "time": "when", "labels": ["liked=label"], "progress": False}


def day(data: Dataset, logs: Path, **settings: Any) -> Dataset:
    items = logs.with_name("items.csv")
    items.write_text(CATALOGUE)
    return append(data.path, logs, **{**LOG, "extra": ["stars=rating"], "items": items, **settings})


def content(data: Dataset) -> dict[str, Any]:
    """Everything that a dataset holds."""
    columns = ["user", "item", "user_id", "item_id", "timestamp", "label", "rating", "place", "day", "split"]
    rows = {name: data.column(name).tolist() for name in columns}
    return {"items": data.item_table(0, data.n_items).to_pylist(), "rows": rows, "users": data.user_ids.tolist()}


# ----------------------------------------------------------------------------------------------------- what is appended
def test_what_was_there_stays_and_what_is_new_comes_after(data: Dataset, logs: Path) -> None:
    before, fingerprint = content(data), data.fingerprint()
    new = day(data, logs)
    assert new.version == 2 and (new.n_users, new.n_items, new.n_interactions) == (5, 10, 43)
    assert new.user_ids.tolist() == [*data.user_ids, "new"]
    assert new.item_ids.tolist() == [*data.item_ids, "n1", "bare"]
    now = content(new)
    assert now["items"][: data.n_items] == before["items"]
    assert {name: values[:40] for name, values in now["rows"].items()} == before["rows"]
    assert new.users[40:].tolist() == [1, 4, 1] and new.items[40:].tolist() == [8, 2, 9]
    assert new.label()[40:].tolist() == [1, 0, 1] and new.column("rating")[40:].tolist() == [5, 1, 4]
    assert new.column("place")[40:].tolist() == [None] * 3 and new.column("timestamp")[40:].tolist() == [
        2000,
        2001,
        2002,
    ]
    assert new.texts("title", [8, 9, 2]) == [["New one"], [], ["title 2"]]
    assert new.numeric("year")[8] == 2020 and not new.present("clip")[8:].any()
    assert new.fingerprint() != fingerprint and Dataset.open(data.path, version=1).fingerprint() == fingerprint
    assert content(Dataset.open(data.path, version=1)) == before
    assert lance.dataset(str(data.path / "items.lance")).has_stable_row_ids
    assert validate(data.path, progress=False).problems == []


def test_the_report_says_what_came_and_what_was_skipped(data: Dataset, logs: Path) -> None:
    first = (data.path / "import.json").read_bytes()
    day(data, logs)
    report = ImportReport.load(data.path / "import-2.json")
    assert report.kept == {"items": 2, "interactions": 3, "users": 1, "items without a catalogue row": 1}
    assert report.read == {"items": 4, "interactions": 6} and report.coverage["title"] == {"items": 1, "share": 0.5}
    skipped = {reason.split(" (")[0]: (entry.count, entry.examples) for reason, entry in report.skipped.items()}
    assert skipped == {
        "item is in the dataset already": (1, ["items.csv:3 'i2'"]),
        "items: empty item id": (1, ["items.csv:4 ''"]),
        "duplicate item id": (1, ["n1"]),
        "empty user id": (1, ["day.csv:5 ''"]),
        "no usable time in column 'timestamp'": (1, ["day.csv:6 'never'"]),
        "no usable label in column 'label': give numbers, yes and no, or name its positives": (
            1,
            ["day.csv:7 'perhaps'"],
        ),
    }
    assert any("no column 'place'" in note for note in report.notes)
    assert any("goes by time, and the rows appended are in train" in note for note in report.notes)
    day(data, logs, part="test")
    assert "goes by time" not in (data.path / "import-3.json").read_text()
    assert (data.path / "import.json").read_bytes() == first


def test_readers_of_the_old_version_go_on(data: Dataset, logs: Path) -> None:
    day(data, logs, update=True)
    assert data.n_items == 8 and data.texts("title", [2]) == [["title 2"]]  # opened before, read after
    assert len(data.split()) == 40 and data.user_ids.tolist() == ["u0", "u1", "u2", "u3"]
    assert data.version == 1 and data.images("photo", [4]) == [[picture(4)]]


def test_many_appends_are_one_dataset(data: Dataset, tmp_path: Path) -> None:
    for number in range(3):
        log = {"user_id": [f"v{number}", "u0"], "item_id": [f"n{number}", "n0"], "timestamp": [5000 + number, 1]}
        log |= {"label": [1.0, 0.0], "rating": [4, 4], "place": ["app", None]}
        pq.write_table(pa.table(log), tmp_path / "log.parquet")
        append(data.path, tmp_path / "log.parquet", progress=False)
    now = Dataset.open(data.path)
    assert now.version == 4 and now.n_interactions == 46 and now.item_ids[8:].tolist() == ["n0", "n1", "n2"]
    assert sum(len(batch) for batch in now.interaction_batches(["split", "user"])) == 46
    assert now.column("rating")[40:].tolist() == [4] * 6 and now.column("rating").dtype == np.float32
    for version, rows in ((1, 40), (2, 42), (3, 44)):
        old = Dataset.open(data.path, version=version)
        assert old.n_interactions == rows and old.items.tolist() == now.items[:rows].tolist()
    with pytest.raises(UserError, match="no version 5: there are versions 1 to 4"):
        Dataset.open(data.path, version=5)
    assert validate(data.path, progress=False).problems == []


def test_items_alone(data: Dataset, logs: Path) -> None:
    items = logs.with_name("items.csv")
    items.write_text(CATALOGUE)
    new = append(data.path, items=items, item="what", progress=False)
    assert new.version == 2 and new.n_items == 9 and new.n_interactions == 40
    assert new.split().tolist() == data.split().tolist() and new.meta.splits == data.meta.splits
    with pytest.raises(UserError, match=r"nothing to append.*1 skipped because: items: empty item id"):
        append(data.path, items=items, item="what", progress=False)
    assert Dataset.open(data.path).version == 2
    with pytest.raises(UserError, match="goes with new interactions"):
        append(data.path, items=items, item="what", update=True, moved={"test": "train"}, progress=False)


def test_a_dataset_of_ids_and_positives_only(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data", fields=Fields(), source="", labels=[], has_time=False) as writer:
        writer.add_interactions({"user_id": ["u", "v"], "item_id": ["a", "b"]})
        writer.finish(SplitSpec(kind="random_user"), ImportReport())
    (tmp_path / "log.tsv").write_text("user_id\titem_id\nu\tc\nw\ta\n")
    new = append(tmp_path / "data", tmp_path / "log.tsv", progress=False)
    assert new.positive_only and new.item_ids.tolist() == ["a", "b", "c"] and new.users.tolist() == [0, 1, 0, 2]
    for settings, message in (({"time": "user_id"}, "without times"), ({"positive": 4}, "has no labels")):
        with pytest.raises(UserError, match=message):
            append(tmp_path / "data", tmp_path / "log.tsv", progress=False, **settings)


def test_a_dataset_of_an_older_schema(data: Dataset, logs: Path) -> None:
    file = data.path / "dataset.yaml"
    meta = yaml.safe_load(file.read_text())
    del meta["version"], meta["versions"]
    file.write_text(yaml.safe_dump({**meta, "schema_version": 1}))
    assert day(data, logs).version == 2
    found = validate(data.path, progress=False)
    assert found.sound and any("version 1 is not compared" in note for note in found.notes)
    assert Dataset.open(data.path, version=1).fingerprint() == data.fingerprint()


# ------------------------------------------------------------------------------------------------------------- updating
def test_update_replaces_what_the_new_row_has(data: Dataset, logs: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for item, number in (("i2", 77), ("i5", 78), ("n1", 79)):
        (tmp_path / "pictures" / f"{item}.png").write_bytes(picture(number))
    items = tmp_path / "items.csv"
    items.write_text("what,title,genre\ni5,,x\nn1,New one,a\ni2,Other title,\ni5,twice,\n")
    settings = {"item": "what", "image_dir": tmp_path / "pictures", "image_name": "{item}.png", "progress": False}
    new = append(data.path, items=items, update=True, **settings)
    assert new.item_ids.tolist() == [*data.item_ids, "n1"]  # every item is where it was
    assert new.texts("title", range(9)) == [
        *([f"title {i}"] for i in (0, 1)), ["Other title"], *([f"title {i}"] for i in (3, 4, 5, 6, 7)), ["New one"],
    ]  # fmt: skip
    expected = [[picture(i)] if i % 3 else [] for i in range(8)] + [[picture(79)]]
    expected[2], expected[5] = [picture(77)], [picture(78)]
    assert new.images("photo", range(9)) == expected
    assert new.counts("photo").tolist() == [len(found) for found in expected]
    assert new.image_bytes("photo").tolist() == [sum(map(len, found)) for found in expected]
    ptr, codes, words = new.categorical("genre")
    assert [words[c] for c in codes[ptr[5] : ptr[6]]] == ["x"] and [words[c] for c in codes[ptr[2] : ptr[3]]] == [
        "a",
        "b2",
    ]
    assert new.numeric("year")[:8].tolist() == data.numeric("year").tolist()
    assert new.feature("clip")[0][:8].tolist() == data.feature("clip")[0].tolist()
    report = ImportReport.load(new.path / "import-2.json")
    assert report.kept["items replaced"] == 2 and report.kept["items"] == 1
    assert report.skipped["duplicate item id (the first row is kept)"].examples == ["i5"]
    assert validate(new.path, progress=False).sound
    items.write_text("what,title\ni2,Third title\n")
    third = append(data.path, items=items, item="what", update=True, progress=False)
    assert third.texts("title", [2, 5]) == [["Third title"], ["title 5"]] and third.images("photo", [2]) == [
        [picture(77)]
    ]
    assert new.texts("title", [2]) == [["Other title"]]
    assert len({third.fingerprint(), new.fingerprint(), data.fingerprint()}) == 3


def test_pictures_of_new_items_that_interactions_name(data: Dataset, logs: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for item in ("n1", "i2"):
        (tmp_path / "pictures" / f"{item}.jpg").write_bytes(picture(50))
    new = append(data.path, logs, **LOG, image_dir=tmp_path / "pictures")
    assert new.item_ids[8:].tolist() == ["n1", "bare"]
    assert new.images("photo", [2, 8, 9]) == [[picture(2)], [picture(50)], []]


def test_pictures_by_address(data: Dataset, tmp_path: Path) -> None:
    class Shop(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = picture(60)
            self.send_response(200 if self.path == "/n1.png" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...  # pyright: ignore[reportIncompatibleMethodOverride]

    items = tmp_path / "items.csv"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}"
        items.write_text(f"item_id,cover\nn1,{at}/n1.png\nn2,{at}/none.png\n")
        pictures = UrlPictures(allow_private=True)
        new = append(data.path, items=items, image_url=["cover"], pictures=pictures, progress=False)
        server.shutdown()
    assert new.images("photo", [8, 9]) == [[picture(60)], []] and validate(data.path, progress=False).sound
    with pytest.raises(UserError, match="image field of the addresses 'cover' does not exist"):
        append(data.path, items=items, image_url=["cover"], pictures=UrlPictures(field="cover"), progress=False)
    with pytest.raises(UserError, match="from a folder and from addresses"):
        append(data.path, items=items, image_url=["cover"], image_dir=tmp_path, progress=False)


# --------------------------------------------------------------------------------------------------------------- splits
def test_parts_of_new_and_earlier_interactions(data: Dataset, logs: Path) -> None:
    data.add_split("loo", SplitSpec(kind="leave_one_out"))
    before = data.split()
    second = day(data, logs, part="test", moved={"test": "valid", "valid": "train"})
    expected = np.where(before == 2, 1, 0)
    assert second.split().tolist() == [*expected, 2, 2, 2]
    assert np.concatenate([b["split"].to_numpy() for b in second.interaction_batches(["split"])]).tolist() == [
        *expected, 2, 2, 2,
    ]  # fmt: skip
    assert second.split("loo").tolist() == [*data.split("loo"), -1, -1, -1]
    entry = second.meta.splits["default"]
    counts = {name: int((second.split() == i).sum()) for i, name in enumerate(("train", "valid", "test"))}
    assert entry["counts"] == counts and "3 to test, earlier test became valid" in entry["statement"]
    assert "they are in no part" in second.meta.splits["loo"]["statement"]
    third = append(data.path, logs, **LOG, part="test", moved={"test": "train"})
    assert third.split().tolist() == [*expected, 0, 0, 0, 2, 2, 2]
    assert "6 rows were appended (version 2 to 3), the last 3 to test" in third.meta.splits["default"]["statement"]
    third.add_split("all", SplitSpec(kind="random_user"))
    assert (Dataset.open(data.path).split("all") >= 0).all() and Dataset.open(
        data.path
    ).fingerprint() == third.fingerprint()
    assert validate(data.path, progress=False).problems == []
    with pytest.raises(UserError, match="has changed since it was opened"):
        second.add_split("late", SplitSpec(kind="random_user"))


@pytest.mark.parametrize("settings", [{"part": "tset"}, {"moved": {"test": "rest"}}, {"moved": {"all": "train"}}])
def test_unknown_parts(data: Dataset, logs: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="use train, valid or test"):
        append(data.path, logs, **LOG, **settings)


# -------------------------------------------------------------------------------------------------------------- columns
def test_columns_by_name_and_labels_from_ratings(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp,rating,place\nu0,i0,5000,5,app\nu0,i1,5001,3,x\n")
    new = append(data.path, tmp_path / "log.csv", labels=["rating=label"], positive=4, progress=False)
    assert new.label()[40:].tolist() == [1, 0] and new.column("rating")[40:].tolist() == [5, 3]
    assert new.column("place")[40:].tolist() == ["app", "x"]


def test_columns_that_cannot_be(data: Dataset, logs: Path, tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text(CATALOGUE)
    for change, message in (
        ({"user": "whom"}, "user: .*no column 'whom'.*did you mean 'who'"),
        ({"time": None}, "has times: name the column"),
        ({"labels": []}, r"has the label 'label' \(rating >= 4\): name the column"),
        ({"labels": ["liked"]}, "field 'liked' does not exist.*liked=FIELD"),
        ({"labels": ["liked=label", "stars=label"]}, "both to be the field 'label'"),
        ({"items": items, "text": ["titel"]}, "did you mean 'title'"),
        ({"items": items, "text": ["year=name"]}, "field 'name' does not exist. There are: title"),
        ({"items": items, "item_id": "id"}, "item_id: .*no column 'id'"),
        ({"text": ["title"]}, "describes items: name the table"),
        ({"image_dir": tmp_path, "image_field": "poster"}, "image field 'poster' does not exist"),
        ({"image_field": "photo"}, "give image_dir, too"),
    ):
        with pytest.raises(UserError, match=message):
            append(data.path, logs, **{**LOG, **change})
    with pytest.raises(UserError, match="interactions, items, users or vectors"):
        append(data.path)
    with pytest.raises(UserError, match="does not exist: make one"):
        append(tmp_path / "none", logs)
    dates = pa.table({"user_id": ["u0"], "item_id": ["i0"], "timestamp": [1], "label": [1.0], "day": ["soon"]})
    pq.write_table(dates, tmp_path / "log.parquet")
    with pytest.raises(UserError, match=r"log\.parquet: day holds string, the dataset date32.*not all fits"):
        append(data.path, tmp_path / "log.parquet", progress=False)
    assert Dataset.open(data.path).version == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "day.csv", "items.csv", "log.parquet"]


# --------------------------------------------------------------------------------------------------- one at a time, cut
def test_parts_on_another_file_system(
    data: Dataset, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the dataset is a mount point: nothing moves into it, and all comes to be the same."""
    twin = tmp_path / "twin" / data.path.name
    shutil.copytree(data.path, twin)
    expected = content(day(Dataset.open(twin), logs, update=True))
    inside, refused = Path.replace, []

    def within(self: Path, target: Any) -> Path:
        if data.path in Path(target).parents and data.path not in self.parents:
            refused.append(Path(target).name)
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return inside(self, target)

    monkeypatch.setattr(Path, "replace", within)
    monkeypatch.setattr(Path, "rename", within)
    assert content(day(data, logs, update=True)) == expected
    assert {"interactions-2.parquet", "import-2.json"} < set(refused) and len(refused) > 2
    assert validate(data.path, progress=False).sound and not list(data.path.rglob("*.partial"))


def test_one_append_at_a_time(data: Dataset, logs: Path) -> None:
    with Appender(data.path):
        with pytest.raises(UserError, match="another import or append is writing"):
            day(data, logs)
        with pytest.raises(UserError, match="another import or append"):
            data.add_split("more", SplitSpec())
        with pytest.raises(UserError, match="another import or append"):
            DatasetWriter(data.path, fields=Fields(), source="", labels=[], has_time=False, overwrite=True)
    assert day(data, logs).version == 2


def test_appends_at_the_same_time_lose_nothing(data: Dataset, logs: Path) -> None:
    done: list[int] = []

    def work() -> None:
        while True:
            try:
                done.append(append(data.path, logs, **LOG).version)
                return
            except UserError as error:
                assert "another import or append" in str(error)
                time.sleep(0.01)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Dataset.open(data.path).version == 4 and Dataset.open(data.path).n_interactions == 49
    assert validate(data.path, progress=False).sound


class Cut(Exception):
    pass


@pytest.mark.parametrize("step", range(10))
def test_an_error_at_any_step_leaves_the_old_version(
    data: Dataset, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before each of: the commits of items, the files taking their places, the descriptions."""
    before, calls = content(data), 0

    def cutting(work: Any) -> Any:
        def run(*given: Any, **settings: Any) -> Any:
            nonlocal calls
            result = work(*given, **settings) if calls != step else None
            calls += 1
            if calls == step + 1:
                raise Cut
            return result

        return run

    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceDataset, "commit", cutting(lance.LanceDataset.commit))
        patch.setattr(Path, "replace", cutting(Path.replace))
        patch.setattr(Path, "rename", cutting(Path.rename))
        patch.setattr(appender_module, "write_meta", cutting(appender_module.write_meta))
        with pytest.raises(Cut):
            day(data, logs, update=True)
    assert calls == step + 1
    assert content(Dataset.open(data.path)) == before and validate(data.path, progress=False).sound
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "day.csv", "items.csv"]
    new = day(data, logs, update=True)
    assert new.version == 2 and new.item_ids.tolist() == [*data.item_ids, "n1", "bare"]
    assert new.texts("title", [2, 8]) == [["Other title"], ["New one"]] and validate(data.path, progress=False).sound


LOOP = """
import sys
from pathlib import Path
from rawrec.sources.append import append
print("ready", flush=True)
number = 0
while True:
    number += 1
    folder = Path(sys.argv[1])
    (folder / "loop.csv").write_text("user_id,item_id,timestamp,label\\n" + f"u1,n{number}-{sys.argv[2]},5000,1\\n" * 3)
    (folder / "loop-items.csv").write_text(f"item_id,title\\nn{number}-{sys.argv[2]},x\\ni3,now {number}\\n")
    append(folder / "data", folder / "loop.csv", items=folder / "loop-items.csv", update=True, progress=False)
    print("appended", flush=True)
"""


def test_killed_at_any_moment(data: Dataset, tmp_path: Path) -> None:
    rng, before = random.Random(0), content(data)
    for number in range(3):
        command = [sys.executable, "-c", LOOP, str(tmp_path), str(number)]
        with forked.Process(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            assert all(process.stdout.readline() == b"appended\n" for _ in range(number))
            time.sleep(rng.uniform(0.05, 0.4))
            process.send_signal(signal.SIGKILL)
        now = Dataset.open(data.path)
        assert now.n_interactions == 40 + 3 * (now.version - 1) and now.n_items == 8 + now.version - 1
        assert validate(data.path, progress=False).problems == []
        assert content(Dataset.open(data.path, version=1)) == before
    assert Dataset.open(data.path).version > 1
    (tmp_path / "last.csv").write_text("user_id,item_id,timestamp,label\nu1,i1,5000,1\n")
    append(data.path, tmp_path / "last.csv", progress=False)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


# ------------------------------------------------------------------------------------------------------------------ use
def test_the_command(
    data: Dataset, logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rawrec", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    log = ["--interactions", logs, "--user", "who", "--item", "what", "--time", "when", "--label", "liked=label"]
    code, out, err = run("append", data.path, *log, "--part", "test", "--move", "test:train", "--json")
    told = json.loads(out)
    assert (code, err) == (0, "") and told["version"] == 2 and told["kept"]["interactions"] == 3
    assert Dataset.open(data.path).split()[40:].tolist() == [2, 2, 2]
    code, out, err = run("append", data.path, *log)
    assert code == 0 and "version 3" in out and "no usable time" in out
    code, out, err = run("append", data.path, *log, "--move", "test")
    assert (code, out) == (2, "") and "--move 'test': give FROM:TO" in err
    code, out, err = run("inspect", data.path)
    assert code == 0 and "version 3: made" in out
