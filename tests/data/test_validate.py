"""Checking a dataset: a sound one is sound, and damage of every kind is named."""

from __future__ import annotations

import io
import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from rawrec import cli
from rawrec.data import _validate_items
from rawrec.data.appender import Appender
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.validate import Validation, print_validation, validate
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from systems import unsealed

ROWS, ITEMS, USERS = 120, 20, 6


def picture(number: int) -> bytes:
    target = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def made(out: Path, photo: Callable[[int], list[bytes]] | None = None, split: str = "time_user") -> Dataset:
    fields = Fields(image=["photo"], text=["title"], categorical=["genre"], numeric=["year"], feature={"clip": 3})
    photo = photo or (lambda i: [picture(i)] if i % 4 else [])
    at, items = np.arange(ROWS), range(ITEMS)
    with DatasetWriter(
        out, fields=fields, source="made", labels=["label"], has_time=True, extra={"rating": pa.float32()}
    ) as writer:
        writer.add_items(
            {
                "item_id": [f"i{i}" for i in items],
                "photo": [photo(i) for i in items],
                "title": [[f"title {i}"] for i in items],
                "genre": [["a", f"g{i}"][: i % 3] for i in items],
                "year": [1990.0 + i if i % 5 else None for i in items],
                "clip": np.random.default_rng(0).normal(size=(ITEMS, 3)),
            }
        )
        writer.add_interactions(
            {
                "user_id": [f"u{u}" for u in at % USERS],
                "item_id": [f"i{i}" for i in (at * 5 // 6) % ITEMS],
                "timestamp": 1000 + at,
                "label": (at % 2).astype(float),
                "rating": 1.0 + at % 5,
            }
        )
        return writer.finish(SplitSpec.model_validate({"kind": split}), ImportReport())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions and a further split; not to be changed."""
    data = made(tmp_path_factory.mktemp("sound") / "data")
    data.add_split("new", SplitSpec(kind="new_items"))
    with Appender(data.path, "test") as target:
        target.add_items({"item_id": ["n"], "title": [["New"]], "photo": [[picture(99)]]})
        rows = {"user_id": ["u1", "x"], "item_id": ["n", "i3"], "timestamp": [5000, 5001], "label": [1.0, 0.0]}
        target.add_interactions({**rows, "rating": [5.0, 4.0]})
        target.finish(ImportReport())
    return data.path


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "data"))


def check(path: Path, quick: bool = False) -> Validation:
    return validate(path, quick, progress=False)


def told(path: Path, quick: bool = False) -> dict[str, tuple[int, list[str]]]:
    """where: what -> count and examples."""
    return {f"{p.where}: {p.what}": (p.count, p.examples) for p in check(path, quick).problems}


def content(path: Path) -> dict[str, Any]:
    data = Dataset.open(path)
    columns = ["user", "item", "user_id", "item_id", "timestamp", "label", "rating", "split"]
    rows = {name: data.column(name).tolist() for name in columns}
    return {"items": data.item_table(0, data.n_items), "rows": rows, "new": data.split("new").tolist()}


def change(path: Path, file: str, column: str, rows: list[int], value: Any) -> None:
    """Write `value` into rows of a column of a Parquet file, which stays a whole one."""
    table = pq.read_table(path / file)
    values = table.column(column).to_pylist()
    for row in rows:
        values[row] = value
    at = table.schema.get_field_index(column)
    pq.write_table(
        table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type)), path / file
    )


# ---------------------------------------------------------------------------------------------------------------- sound
def test_a_sound_dataset(sound: Path) -> None:
    found = check(sound)
    assert found.sound and found.version == 2 and found.problems == [] and found.notes == []
    counts = {"accounts of imports": 2, "items": 21, "pictures": 16, "texts": 21, "splits": 2, "interactions": 122}
    assert found.checked == {**counts, "digests": 2}


def test_quick(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_validate_items, "SAMPLE", 3)
    found = check(path, quick=True)
    assert found.sound and found.checked["pictures"] == 3 and "digests" not in found.checked
    assert check(path).checked["pictures"] == 16


def test_slices_of_any_size_are_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_validate_items, "ITEMS_AT_ONCE", 3)
    monkeypatch.setattr(_validate_items, "BYTES_AT_ONCE", 400)
    monkeypatch.setattr("rawrec.data._validate_rows.ROWS_AT_ONCE", 7)
    found = check(path)
    assert found.sound and found.checked["items"] == 21 and found.checked["digests"] == 2


# --------------------------------------------------------------------------------------------------------------- damage
@pytest.mark.parametrize(
    "name", ["interactions.parquet", "interactions-2.parquet", "import.json", "items.lance", "splits/new.parquet",
             "dataset.yaml", "dataset-1.yaml"]
)  # fmt: skip
def test_flipped_bits_are_found_or_change_nothing(
    path: Path, sound: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever is flipped: no exception, and what is called sound reads as it did."""
    rng, before = random.Random(name), content(sound)
    files = [path / name] if (path / name).is_file() else [f for f in (path / name).rglob("*") if f.is_file()]
    unfound = 0
    for _ in range(25):
        file = rng.choice(files)
        whole = file.read_bytes()
        broken = bytearray(whole)
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        file.write_bytes(broken)
        try:
            found = check(path)
        except UserError:
            found = None
        if found is not None and found.sound:
            unfound += 1
            assert content(path) == before
        file.write_bytes(whole)
    assert unfound < 20 or name == "items.lance"
    assert check(path).sound


def test_missing_files(path: Path) -> None:
    for name in (
        "interactions-2.parquet",
        "interactions.parquet",
        "import-2.json",
        "dataset-1.yaml",
        "splits/new.parquet",
    ):
        kept = (path / name).read_bytes()
        (path / name).unlink()
        assert any(name in where for where in told(path)), name
        (path / name).write_bytes(kept)
    shutil.rmtree(path / "items.lance" / "data")
    assert "is damaged" in str(told(path))
    shutil.rmtree(path / "items.lance")
    assert "is damaged" in str(told(path))
    (path / "dataset.yaml").unlink()
    for place, message in ((path, "not a rawrec dataset"), (path / "none", "does not exist")):
        with pytest.raises(UserError, match=message):
            check(place)


def test_cut_files(path: Path) -> None:
    for name in ("interactions.parquet", "splits/new.parquet", "import.json", "dataset.yaml"):
        kept = (path / name).read_bytes()
        (path / name).write_bytes(kept[: len(kept) // 2])
        assert not check(path).sound, name
        (path / name).write_bytes(kept)
    table = pq.read_table(path / "interactions-2.parquet")
    pq.write_table(table[:1], path / "interactions-2.parquet")
    assert "it holds 21 items and 121 interactions, dataset.yaml says 21 and 122" in str(told(path))


def test_wrong_counts(path: Path) -> None:
    file = path / "dataset.yaml"
    text = unsealed(file)
    for old, new, message in (
        ("interactions: 122", "interactions: 123", "the interactions of the versions are not 123"),
        ("    test: 14", "    test: 15", "dataset.yaml counts"),
        ("  users: 7", "  users: 8", "the users of the versions are not 8"),
        ("digest: ", "digest: 0", "digest is not that of its versions"),
        ("kind: new_items", "kind: old_items", "old_items"),
        ("title\n", "titel\n", "its items have no"),
        ("schema_version: 3", "schema_version: 9", "newer"),
    ):
        assert old in text
        file.write_text(text.replace(old, new, 1))
        assert message in str(told(path)), message
    file.write_text(text)
    assert check(path).sound


@pytest.mark.parametrize(
    ("column", "rows", "value", "message"),
    [
        ("user", [4], 77, "interactions.parquet, user: is not in 0..5"),
        ("user", [4], 6, "interactions.parquet, user: is not in 0..5"),  # a user of version 2
        ("item", [4], -1, "interactions.parquet, item: is not in 0..20"),
        ("user", [7], 0, "interactions.parquet, user_id: is not the id of the row's user"),
        ("item", [7], 0, "interactions.parquet, item_id: is not the id of the row's item"),
        ("user_id", [7, 8], "who", "interactions.parquet, user_id: is not the id of the row's user"),
        ("item_id", [7], "what", "interactions.parquet, item_id: is not the id of the row's item"),
        ("timestamp", [3], None, "interactions.parquet, timestamp: is empty"),
        ("label", [3], float("nan"), "interactions.parquet, label: is not finite"),
        ("label", [3], float("inf"), "interactions.parquet, label: is not finite"),
        ("split", [3], 5, "interactions.parquet, split: is none of -1, 0, 1, 2"),
        ("split", [3], -1, "the default split: dataset.yaml counts"),
        ("rating", [9], 3.5, "dataset.yaml: the digest of version 1 is not that of its content"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit(path: Path, column: str, rows: list[int], value: Any, message: str) -> None:
    change(path, "interactions.parquet", column, rows, value)
    found = told(path)
    entry = next((entry for where, entry in found.items() if where.startswith(message)), None)
    assert entry is not None, found
    assert entry[0] == len(rows) and (" " not in message.split(":")[0] or "default" in message or entry[1])


def test_two_users_with_one_id_and_a_user_without_rows(path: Path) -> None:
    table = pq.read_table(path / "interactions.parquet")
    ids = table.column("user_id").to_pylist()
    change(path, "interactions.parquet", "user_id", [i for i, u in enumerate(ids) if u == "u1"], "u2")
    assert told(path)["interactions.parquet: two users have the same id"][0] == 1
    change(path, "interactions.parquet", "user", [i for i, u in enumerate(ids) if u == "u1"], 2)
    change(path, "interactions-2.parquet", "user", [0], 2)
    assert told(path)["dataset.yaml: users that it counts have no interaction"][0] == 1


def test_splits_that_do_not_fit(path: Path) -> None:
    change(path, "splits/new.parquet", "split", [0], 3)
    assert told(path)["splits/new.parquet: a part is none of -1, 0, 1, 2"][0] == 1
    pq.write_table(pa.table({"split": pa.array([0, 1], pa.int8())}), path / "splits/new.parquet")
    assert any("does not fit the interactions" in what for what in told(path))


def test_training_rows_after_the_test(path: Path) -> None:
    """Two rows of a user change places in the split: the counts stay right."""
    table = pq.read_table(path / "interactions.parquet")
    parts, mine = table.column("split").to_pylist(), np.flatnonzero(table.column("user").to_numpy() == 3).tolist()
    change(path, "interactions.parquet", "split", mine[:1], parts[mine[-1]])
    change(path, "interactions.parquet", "split", mine[-1:], parts[mine[0]])
    what = "split default: a user has training rows that are later than some of valid or test"
    assert told(path) == {what: (1, ["u3"])}
    made(path.parent / "global", split="time_global")
    change(path.parent / "global", "interactions.parquet", "split", [0], 2)
    change(path.parent / "global", "interactions.parquet", "split", [ROWS - 1], 0)
    assert "split default: training rows are later than some of valid or test" in told(path.parent / "global")


def test_held_out_items_in_train(path: Path) -> None:
    data = Dataset.open(path)
    parts, items = data.split("new")[:ROWS], data.items[:ROWS]
    rows = np.flatnonzero(items == items[parts == 2][0])
    swapped = np.flatnonzero(parts == 0)[0]
    change(path, "splits/new.parquet", "split", [int(rows[0])], 0)
    change(path, "splits/new.parquet", "split", [int(swapped)], 2)
    found = told(path)
    assert list(found) == ["split new: an item that is held out has training rows"]
    assert data.item_ids[items[rows[0]]] in found["split new: an item that is held out has training rows"][1]


def test_appended_training_rows_are_a_note(tmp_path: Path) -> None:
    data = made(tmp_path / "data")
    with Appender(data.path, "train") as target:
        rows = {"user_id": ["u1", "u1"], "item_id": ["i1", "i1"], "timestamp": [5000, 5000], "label": [1.0, 0.0]}
        target.add_interactions({**rows, "rating": [5.0, 4.0]})
        target.finish(ImportReport())
    found = check(data.path)
    assert found.sound and found.notes == [
        "split default, since rows were appended or moved: a user has training rows that are later than some of valid "
        "or test (1 times)",
        "1 interactions repeat the user, item and time of another",
    ]


# ---------------------------------------------------------------------------------------------------------------- items
def test_pictures_that_do_not_decode(tmp_path: Path) -> None:
    made(tmp_path / "data", lambda i: [picture(i)[: 60 if i in (3, 7) else None], b"no picture"][: 2 if i == 5 else 1])
    count, examples = told(tmp_path / "data")["items.lance, photo: a picture cannot be decoded"]
    assert count == 3 and [e.split(":")[0] for e in examples] == ["item 3 'i3'", "item 5 'i5'", "item 7 'i7'"]
    assert told(tmp_path / "data", quick=True)["items.lance, photo: a picture cannot be decoded"][0] == 3


def test_items_that_do_not_fit(path: Path) -> None:
    """Columns of items written past the library, into the version that dataset.yaml names."""
    uri = str(path / "items.lance")
    items = lance.dataset(uri)
    whole = items.to_table()
    change: dict[str, Any] = {
        "item_id": ["i0", "i0", " i2", *whole["item_id"].to_pylist()[3:]],
        "count/title": [3, *whole["count/title"].to_pylist()[1:]],
        "bytes/photo": [1, *whole["bytes/photo"].to_pylist()[1:]],
        "title": [["title 0"], [""], *whole["title"].to_pylist()[2:]],
        "clip": [[0.0, float("nan"), 0.0], *whole["clip"].to_pylist()[1:]],
    }
    arrays = [pa.array(change[f.name], f.type) if f.name in change else whole[f.name] for f in whole.schema]
    shutil.rmtree(path / "items.lance")
    lance.write_dataset(pa.table(arrays, schema=whole.schema), uri, enable_stable_row_ids=True)
    lance.dataset(uri).delete("false")
    text = unsealed(path / "dataset.yaml")
    (path / "dataset.yaml").write_text(text.replace("items_version: 2", "items_version: 1"))
    found = told(path)
    assert {where: count for where, (count, _) in found.items() if where.startswith("items")} == {
        "items.lance: an item id occurs more than once": 1,
        "items.lance, item_id: an id is empty, or has white space around it": 1,
        "items.lance, photo: bytes/photo is not the size of them": 1,
        "items.lance, title: count/title is not the number of them": 1,
        "items.lance, title: an empty picture or text": 1,
        "items.lance, clip: a feature is not finite": 1,
    }
    assert "dataset.yaml: the digest of version 1 is not that of its content" in found


def test_replaced_items_are_checked_but_not_by_digest(path: Path) -> None:
    with Appender(path, update=True) as target:
        target.add_items({"item_id": ["i1"], "title": [["Other"]]})
        target.finish(ImportReport())
    found = check(path)
    assert found.sound and found.checked["digests"] == 1
    assert found.notes == [f"the digest of version {v} is not compared: items were replaced since" for v in (1, 2)]


# ------------------------------------------------------------------------------------------------------------------ use
def test_the_command(
    path: Path, sound: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rawrec", "validate", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    code, out, err = run(sound)
    assert (code, err) == (0, "") and "The dataset is sound." in out
    code, out, err = run(sound, "--json", "--quick")
    assert code == 0 and json.loads(out)["sound"] is True
    change(path, "interactions.parquet", "item_id", [7], "[bold]what")
    code, out, err = run(path)
    assert code == 2 and "row 7 '[bold]what'" in out and err.strip() == f"rawrec: {path} is not sound, problems: 2"
    code, out, err = run(path, "--json")
    problem = json.loads(out)["problems"][0]
    assert code == 2 and problem["where"] == "interactions.parquet, item_id" and problem["advice"]
    code, out, err = run(path.parent)
    assert (code, out) == (2, "") and "not a rawrec dataset" in err


def test_tables_are_never_markup(sound: Path) -> None:
    found = Validation("[red]x", False)
    found.add("a [b]", "[link]c", 1, ["[/d]"])
    console = Console(width=120, record=True, file=io.StringIO())
    print_validation(found, console)
    text = console.export_text()
    assert "[link]c" in text and "[/d]" in text and "sound" not in text
