"""`import huggingface`: folders of every layout, class labels, pictures and splits."""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rawrec import cli
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.errors import UserError
from rawrec.sources.huggingface import import_huggingface
from rawrec.sources.tables import columnar

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()

CLICKS = {"user": [1, 1, 2, 2, 3], "item": ["a", "b", "a", "c", "b"], "t": [1, 2, 3, 4, 5], "clicked": [0, 1, 1, 0, 1]}
Import = Callable[..., Dataset]


def picture(colour: str = "red", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, kind)
    return buffer.getvalue()


def table(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    """`import_huggingface` into a new folder, of a folder `clicks` of Parquet; names are relative to `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "clicks" / "train.parquet", CLICKS)

    def go(interactions: str = "clicks", **options: Any) -> Dataset:
        settings = {"out": tmp_path / "out", "progress": False, "overwrite": True, **options}
        return import_huggingface(interactions, "user", "item", **settings)

    return go


@pytest.fixture
def books(tmp_path: Path) -> Any:
    """Items a, b and c with class labels and pictures, as the library holds them."""
    kinds = datasets.ClassLabel(names=["novel", "poems"])
    features = datasets.Features(
        {
            "item": datasets.Value("string"),
            "title": datasets.Value("string"),
            "kind": kinds,
            "tags": datasets.List(kinds),
            "cover": datasets.Image(),
            "more": datasets.List(datasets.Image()),
        }
    )
    red, blue = ({"bytes": picture(colour), "path": f"{colour}.png"} for colour in ("red", "blue"))
    columns = {
        "item": ["a", "b", "c"],
        "title": ["One", None, "Three"],
        "kind": [1, None, 0],
        "tags": [[0, 1], [], None],
        "cover": [red, None, {"bytes": b"no picture", "path": None}],
        "more": [[red, blue], [], None],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def report(data: Dataset) -> ImportReport:
    return ImportReport.load(data.path / "import.json")


def counts(data: Dataset) -> dict[str, int]:
    return {reason: entry.count for reason, entry in report(data).skipped.items()}


def categories(data: Dataset, field: str) -> list[list[str]]:
    ends, codes, words = data.categorical(field)
    return [sorted(words[c] for c in codes[ends[i] : ends[i + 1]]) for i in range(data.n_items)]


# -------------------------------------------------------------------------------------------------------------- layouts
def save(dataset: Any, folder: Path, layout: str) -> str:
    """Writes a dataset in a layout; the name by which it is imported."""
    folder.mkdir()
    if layout == "saved":
        dataset.save_to_disk(folder / "x", num_shards=2)
    elif layout == "saved splits":
        datasets.DatasetDict({"train": dataset.select([0, 1]), "test": dataset.select([2])}).save_to_disk(folder / "x")
    elif layout == "parquet":
        dataset.to_parquet(folder / "x" / "data" / "train-00000-of-00001.parquet")
    elif layout == "arrow file":
        (folder / "x").mkdir()
        whole = dataset.data.table
        with pa.ipc.new_file(folder / "x" / "train.arrow", whole.schema) as file:
            file.write_table(whole, max_chunksize=2)
    return f"{folder.name}/x"


@pytest.mark.parametrize("layout", ["saved", "saved splits", "parquet", "arrow file"])
def test_items_of_every_layout(layout: str, books: Any, tmp_path: Path, run: Import, monkeypatch: Any) -> None:
    monkeypatch.setattr(columnar, "LARGE_ROWS", 2)
    name = save(books, tmp_path / "books", layout)
    data = run(items=name, text=["title"], category=["kind", "tags"], image=["cover", "more"])
    assert data.item_ids.tolist() == ["a", "b", "c"]
    assert data.texts("title", [0, 1, 2]) == [["One"], [], ["Three"]]
    assert categories(data, "kind") == [["poems"], [], ["novel"]]
    assert categories(data, "tags") == [["novel", "poems"], [], []]
    assert data.images("cover", [0, 1, 2]) == [[picture()], [], []]
    assert data.images("more", [0, 1, 2]) == [[picture(), picture("blue")], [], []]
    assert counts(data) == {"image: not a picture of a known format": 1}
    assert data.user_ids.tolist() == ["1", "2", "3"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "jsonl.gz"])
def test_text_formats_keep_ids_as_they_are(kind: str, tmp_path: Path, run: Import) -> None:
    ids = ["007", "1e3", "0x1F"]
    if kind in ("csv", "tsv"):
        between = "," if kind == "csv" else "\t"
        text = "".join(between.join(row) + "\n" for row in [["item", "title"], *([i, f"T{i}"] for i in ids)])
    else:
        text = "".join(json.dumps({"item": i, "title": f"T{i}"}) + "\n" for i in ids)
    path = tmp_path / "items" / f"train.{kind}"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    data = run(items="items", text=["title"])
    assert data.item_ids.tolist() == [*ids, "a", "b", "c"]
    assert data.texts("title", [0, 1, 2]) == [[f"T{i}"] for i in ids]


def test_configs_of_a_folder(tmp_path: Path, run: Import) -> None:
    for name, users in (("small", [1, 2]), ("large", [1, 2, 3])):
        table(tmp_path / "logs" / name / "part.parquet", {"user": users, "item": users})
    card = "---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/*.parquet\n"
        for name in ("small", "large")
    )
    (tmp_path / "logs" / "README.md").write_text(card + "---\n# Logs\n")
    assert run("logs:small").n_users == 2
    assert run("logs:large@train").n_users == 3
    with pytest.raises(UserError, match=r"logs has several configs: name one, as in logs:small\. It has: small, large"):
        run("logs")
    with pytest.raises(UserError, match=r"logs has no config 'medium'\. It has: small, large"):
        run("logs:medium")


def test_class_labels_of_the_card_and_of_numbers_that_have_none(tmp_path: Path, run: Import) -> None:
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "train.csv").write_text("item,kind\na,1\nb,7\nc,novel\nd,\ne,-1\nf,1.5\n")
    (tmp_path / "items" / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: item\n    dtype: string\n  - name: kind\n    dtype:\n"
        "      class_label:\n        names:\n          '0': novel\n          '1': poems\n---\n"
    )
    data = run(items="items", category=["kind"])
    assert categories(data, "kind") == [["poems"], [], ["novel"], [], [], []]
    found = report(data).skipped["value of column 'kind' is none of its 2 classes (left out)"]
    assert (found.count, found.examples) == (2, ["train.csv:3 '7'", "train.csv:7 '1.5'"])


def test_class_labels_as_labels_stay_numbers(tmp_path: Path, run: Import) -> None:
    features = datasets.Features(
        {name: datasets.Value("int64") for name in ("user", "item")}
        | {"clicked": datasets.ClassLabel(names=["no", "yes"]), "device": datasets.ClassLabel(names=["phone", "desk"])}
    )
    rows = {"user": [1, 2, 3], "item": [1, 2, 1], "clicked": [1, 0, 1], "device": [0, 1, 1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "log")
    data = run("log", labels=["clicked"], extra=["device"])
    assert data.label("clicked").tolist() == [1, 0, 1]
    assert data.column("device").tolist() == ["phone", "desk", "desk"]


# --------------------------------------------------------------------------------------------------- splits, first rows
def test_splits_become_the_split(tmp_path: Path, run: Import) -> None:
    for number, part in enumerate(("train", "validation", "test")):
        table(tmp_path / "log" / f"{part}-0.parquet", {"user": [1, 2], "item": [number, 3]})
    data = run("log")
    assert data.split().tolist() == [0, 0, 1, 1, 2, 2]
    assert data.column("part").tolist() == ["train", "train", "valid", "valid", "test", "test"]
    assert run("log@test").n_interactions == 2
    other = run("log", split=SplitSpec.model_validate({"kind": "random_user"}))
    assert (other.n_interactions, other.meta.splits["default"]["kind"]) == (6, "random_user")
    with pytest.raises(UserError, match=r"log has no split 'dev'\. It has: train, validation, test"):
        run("log@dev")


def test_splits_and_a_column_of_that_name(tmp_path: Path, run: Import) -> None:
    for part in ("train", "test"):
        table(tmp_path / "log" / f"{part}.parquet", {"user": [1], "item": [1], "part": ["x"]})
    with pytest.raises(UserError, match=r"column 'part': name one split, as in log@train"):
        run("log")
    assert run("log@train", extra=["part"]).column("part").tolist() == ["x"]


def test_one_table_of_both(tmp_path: Path, run: Import) -> None:
    """The first row of an item describes it, over batches and files; what it loses is counted once."""
    rows = {"user": ["u1", "u1", "u2", "u3"], "title": ["A", "B", "other", "C"], "price": ["1", "?", "3", "4"]}
    for i in range(2):
        items = ["a", "b", "a", None] if i == 0 else ["b", "c", "c", "d"]
        covers = [{"bytes": picture(), "path": None}] + [{"bytes": None, "path": "absent.png"}] * 3
        table(tmp_path / "log" / f"train-{i}.parquet", {**rows, "item": items, "cover": covers})
    data = run("log", text=["title"], numeric=["price"], image=["cover"])
    assert data.item_ids.tolist() == ["a", "b", "c", "d"]
    assert data.texts("title", [0, 1, 2, 3]) == [["A"], ["B"], ["B"], ["C"]]
    assert data.images("cover", [0, 1, 2, 3]) == [[picture()], [], [], []]
    assert data.n_interactions == 7
    assert report(data).read["items"] == 4
    assert counts(data) == {
        "items: price is no number (kept, empty)": 2,
        "image: no file at the path that the dataset holds": 6,
        "empty item id": 1,
    }


# ------------------------------------------------------------------------------------------------------------- pictures
def test_paths_of_pictures_stay_in_the_folder(tmp_path: Path, run: Import) -> None:
    folder = tmp_path / "items"
    for place in ("data/near.png", "top.png", "../out.png", "data/broken.png"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(b"broken" if "broken" in place else picture())
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    paths = ["near.png", "top.png", f"{folder}/top.png", "../../out.png", "/etc/passwd", "link.png", "broken.png"]
    paths += ["http://127.0.0.1:9/x.png", "", "x\0y.png", "absent.png"]
    table(folder / "data" / "train.parquet", {"item": [f"i{i}" for i in range(len(paths))], "cover": paths})
    data = run(items="items", image=["cover"])
    assert [len(found) for found in data.images("cover", range(len(paths)))] == [1, 1, 1, *[0] * 8]
    assert counts(data) == {
        "image: unsafe name (leads out of the image folder)": 4,
        "image: not a picture of a known format": 1,
        "image: no file at the path that the dataset holds": 2,
    }
    found = report(data).skipped["image: unsafe name (leads out of the image folder)"].examples
    assert found[0] == "train.parquet:4 '../../out.png'"


@pytest.mark.parametrize("odd", [{"bytes": "text", "path": None}, {"bytes": None, "path": 7}, {"size": 1}, 1.5, [[1]]])
def test_columns_that_are_no_pictures(odd: Any, tmp_path: Path, run: Import) -> None:
    table(tmp_path / "items" / "train.parquet", {"item": ["a"], "cover": [odd]})
    try:
        assert run(items="items", image=["cover"], allow_empty=True).images("cover", [0]) == [[]]
    except UserError as error:
        assert "train.parquet: cover holds values of type" in str(error)


# ------------------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    "card",
    [
        "configs:\n- config_name: x\n  data_files: ../secret/*.parquet",
        "configs:\n- config_name: x\n  data_files: /etc/*.csv",
        "configs:\n- config_name: x\n  data_files: http://127.0.0.1:9/x.csv",
        "configs:\n- config_name: x\n  data_files:\n  - split: train\n    path: zip://x.csv::y.zip",
        "configs:\n- config_name: x\n  data_dir: ../secret",
    ],
)
def test_a_card_cannot_lead_out_of_its_folder(card: str, tmp_path: Path, run: Import) -> None:
    table(tmp_path / "secret" / "train.parquet", CLICKS)
    table(tmp_path / "log" / "train.parquet", CLICKS)
    (tmp_path / "log" / "README.md").write_text(f"---\n{card}\n---\n")
    with pytest.raises(UserError, match=r"README\.md names data outside of its folder"):
        run("log")


def test_links_out_of_the_folder(tmp_path: Path, run: Import) -> None:
    table(tmp_path / "secret.parquet", CLICKS)
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "train.parquet").symlink_to(tmp_path / "secret.parquet")
    with pytest.raises(UserError, match=r"train\.parquet leads out of the folder log by a link"):
        run("log")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ('{"_data_files": [{"filename": "../secret.arrow"}]}', "'../secret.arrow', which is not in the folder"),
        ('{"_data_files": [{"filename": "/etc/passwd"}]}', "'/etc/passwd', which is not in the folder"),
        ('{"_data_files": [7]}', "None, which is not in the folder"),
        ('{"_data_files": []}', "holds no data files"),
        ('{"_data_files": [{"filename": "absent.arrow"}]}', "absent.arrow"),
        ('{"_indices_data_files": [1]}', "old version of datasets"),
        ("[]", "no JSON object"),
        ("{", "cannot be read"),
    ],
)
def test_damaged_states(state: str, words: str, tmp_path: Path, run: Import) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text(state)
    with pytest.raises(UserError) as error:
        run("saved")
    assert words in str(error.value)


@pytest.mark.parametrize("splits", ['{"splits": ["../x"]}', '{"splits": []}', '{"splits": "train"}', "{}"])
def test_damaged_lists_of_splits(splits: str, tmp_path: Path, run: Import) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text(splits)
    with pytest.raises(UserError, match=r"dataset_dict\.json names no splits"):
        run("saved")


def test_damaged_arrow(books: Any, tmp_path: Path, run: Import) -> None:
    """Lengths and offsets that lie end the import: they are checked before anything follows them."""
    books.remove_columns(["cover", "more"]).save_to_disk(tmp_path / "saved")
    path = next((tmp_path / "saved").glob("*.arrow"))
    data = path.read_bytes()
    at = data.index(b"OneThree")
    worse = [data[: at - 60], data[:at] + b"\xff" * 8 + data[at + 8 :], data[:8] + b"\xff" * 8 + data[16:], b"words"]
    offsets = data.rindex((3).to_bytes(4, "little") + (3).to_bytes(4, "little"), 0, at)
    worse.append(data[:offsets] + (1 << 30).to_bytes(4, "little") + data[offsets + 4 :])
    for damaged in worse:
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"\.arrow cannot be read"):
            run(items="saved", text=["title"])


@pytest.mark.parametrize("layout", ["saved", "arrow file"])
def test_damage_anywhere_is_no_traceback(layout: str, books: Any, tmp_path: Path, run: Import) -> None:
    chance = random.Random(0)
    name = save(books, tmp_path / "books", layout)
    path = next((tmp_path / "books").rglob("*.arrow"))
    data = path.read_bytes()
    for _ in range(25):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 5, 20])):
            damaged[chance.randrange(len(data))] = chance.choice([0, 255, chance.randrange(256)])
        path.write_bytes(damaged)
        try:
            assert run(items=name, text=["title"], category=["kind", "tags"], image=["cover", "more"]).n_items >= 3
        except UserError as error:
            assert name in str(error)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: None, "doesn't contain any data files"),
        (lambda f: (f / "x.tar").write_bytes(b"x"), "rawrec import webdataset"),
        (lambda f: (f / "x.png").write_bytes(picture()), "holds files such as x.png"),
        (lambda f: (f / "log.py").write_text("raise SystemExit"), "not executed"),
        (lambda f: (f / "README.md").write_text("---\nconfigs: [\n---\n"), "README.md cannot be read"),
        (lambda f: (f / "README.md").write_text("---\nconfigs: 7\n---\n"), "log cannot be opened"),
    ],
)
def test_folders_that_hold_no_tables(make: Any, words: str, tmp_path: Path, run: Import) -> None:
    (tmp_path / "log").mkdir()
    make(tmp_path / "log")
    with pytest.raises(UserError) as error:
        run("log")
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interactions": "./absent"}, ["folder ./absent does not exist"]),
        ({"interactions": "clicks/train.parquet"}, ["is a file", "rawrec import table"]),
        ({"labels": ["like"]}, ["label", "'like'", "clicked"]),
        ({"items": "clicks", "text": ["title"]}, ["text", "'title'"]),
        ({"text": ["title"]}, ["text", "'title'", "clicks"]),
        ({"image": ["t"]}, ["t holds values of type int64", "picture"]),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], words: list[str], tmp_path: Path, run: Import) -> None:
    with pytest.raises(UserError) as error:
        run(**options)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert not (tmp_path / "out").exists()


def test_files_that_differ_in_columns(tmp_path: Path, run: Import) -> None:
    table(tmp_path / "log" / "train-0.parquet", CLICKS)
    table(tmp_path / "log" / "train-1.parquet", {"user": [1], "thing": ["a"]})
    with pytest.raises(UserError, match=r"train-1\.parquet has no column 'item'"):
        run("log")


def test_library_that_is_absent_or_old(run: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'rawrec\[huggingface\]'"):
        run()
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(__version__="3.6.0"))
    with pytest.raises(UserError, match=r"datasets 3\.6\.0 is too old, old versions execute scripts"):
        run()


def test_command(books: Any, tmp_path: Path, run: Import, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    books.save_to_disk(tmp_path / "books")
    words = ["--interactions", "clicks", "--user", "user", "--item", "item", "--time", "t", "--label", "clicked"]
    words += ["--items", "books", "--category", "kind", "--image", "cover", "--out", "new", "--json"]
    monkeypatch.setattr("sys.argv", ["rawrec", "import", "huggingface", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    made = json.loads(capsys.readouterr().out)
    assert made["kept"] == {"images": 1, "items": 3, "interactions": 5, "users": 3}
    data = Dataset.open(tmp_path / made["dataset"])
    assert categories(data, "kind") == [["poems"], [], ["novel"]]
    assert data.label("clicked").tolist() == CLICKS["clicked"]


def test_the_library_is_imported_only_where_it_is_needed() -> None:
    code = "import sys, rawrec.sources.huggingface as h; print('datasets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
