"""`import table`: formats, columns, times, labels, pictures by name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.errors import UserError
from rawrec.sources.table import import_table
from rawrec.sources.tables import ArrowTable, lines

ROWS = [("u1", "a", 10, 1), ("u1", "b", 20, 0), ("u2", "a", 5, 1), ("u2", "é", 30, 1), ("u3", "b", 1, 0)]
NAMES = ["user_id", "movie_id", "order", "clicked"]
Import = Callable[..., Dataset]


@pytest.fixture
def run(tmp_path: Path) -> Import:
    """`import_table` into a new folder, on users, movies and clicks."""

    def go(interactions: Path, **options: Any) -> Dataset:
        out = tmp_path / "out" / str(len(list(tmp_path.rglob("import.json"))))
        settings = {"out": out, "time": "order", "labels": ["clicked"], "progress": False, **options}
        return import_table(interactions, "user_id", "movie_id", **settings)

    return go


def report(data: Dataset) -> ImportReport:
    return ImportReport.load(data.path / "import.json")


def counts(data: Dataset) -> dict[str, int]:
    return {reason: entry.count for reason, entry in report(data).skipped.items()}


def picture(colour: str = "red", kind: str = "JPEG") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, rows: list[tuple[Any, ...]] = ROWS, names: list[str] = NAMES) -> Path:
    """Writes the table in the format that its suffix names."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.table({n: [r[i] for r in rows] for i, n in enumerate(names)}), path)
        return path
    if kind == "jsonl":
        text = "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)
    else:
        between = {"csv": ",", "tsv": "\t"}[kind]
        text = "\n".join(between.join(map(str, row)) for row in [names, *rows]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "csv.gz", "tsv.gz", "jsonl.gz"])
def test_every_format_gives_the_same(kind: str, tmp_path: Path, run: Import) -> None:
    data = run(write(tmp_path / f"clicks.{kind}"))
    assert data.user_ids[data.users].tolist() == [r[0] for r in ROWS]
    assert data.item_ids[data.items].tolist() == [r[1] for r in ROWS]
    assert data.timestamps is not None
    assert data.timestamps.tolist() == [r[2] for r in ROWS]
    assert data.label("clicked").tolist() == [r[3] for r in ROWS]
    assert counts(data) == {}


def test_items_table_with_many_columns_of_a_kind(tmp_path: Path, run: Import) -> None:
    items = tmp_path / "items.tsv"
    items.write_text(
        'movie_id\ttitle\tplot\tgenres\ttags\tyear\na\t"A", he said\t 😀 \tx|y\t\t1999\nb\t\tlong\t|\tt\tnone\n'
        "é\tAccent\t\t z \t\t\n"
    )
    data = run(
        write(tmp_path / "clicks.tsv"),
        items=items,
        text=["title", "plot"],
        category=["genres", "tags"],
        numeric=["year"],
    )
    rows = data.item_rows(["a", "b", "é"])
    assert data.texts("title", rows) == [['"A", he said'], [], ["Accent"]]
    assert data.texts("plot", rows) == [["😀"], ["long"], []]
    ends, codes, words = data.categorical("genres")
    assert [sorted(words[c] for c in codes[ends[i] : ends[i + 1]]) for i in rows] == [["x", "y"], [], ["z"]]
    np.testing.assert_array_equal(data.numeric("year")[rows], [1999, np.nan, np.nan])
    assert counts(data) == {"items: year is no number (kept, empty)": 1}
    assert report(data).skipped["items: year is no number (kept, empty)"].examples == ["items.tsv:3 'none'"]


def test_lists_of_json_and_parquet(tmp_path: Path, run: Import) -> None:
    clicks = write(tmp_path / "clicks.csv")
    rows = [("a", ["one", "", "two"], ["x", "y"]), ("b", "[Live]", []), ("é", None, None)]
    for items in (
        write(tmp_path / "items.jsonl", rows, ["movie_id", "title", "genres"]),
        write(tmp_path / "items.parquet", [(i, t if isinstance(t, list) else [t], g) for i, t, g in rows], NAMES[1:]),
    ):
        title, genres = ("title", "genres") if items.suffix == ".jsonl" else ("order", "clicked")
        data = run(clicks, items=items, text=[title], category=[genres])
        assert data.texts(title, data.item_rows(["a", "b", "é"])) == [["one", "two"], ["[Live]"], []]
        assert sorted(data.categorical(genres)[2]) == ["x", "y"]


def test_pictures_of_a_folder_without_an_items_table(tmp_path: Path, run: Import) -> None:
    folder = tmp_path / "posters"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "é.jpg", "other.jpg", "sub/b.jpg"):
        (folder / name).write_bytes(picture())
    data = run(write(tmp_path / "clicks.csv"), image_dir=folder, image_field="poster")
    assert data.item_ids.tolist() == ["a", "b", "é"]
    assert data.images("poster", [2, 0, 1]) == [[picture()], [picture()], []]
    unused = report(data).skipped["file of the image folder that no item names"]
    assert (unused.count, unused.examples) == (2, ["other.jpg", "sub/b.jpg"])
    assert report(data).coverage["poster"]["items"] == 2


def test_pictures_of_a_column(tmp_path: Path, run: Import) -> None:
    items = tmp_path / "items.parquet"
    good = picture("blue", "PNG")
    table = pa.table({
        "movie_id": ["a", "b", "é"],
        "front": [good, b"no picture", None],
        "more": [[good, good], [], [b""]],
        "boxed": [{"bytes": good, "path": "x"}, None, {"bytes": None, "path": "y"}],
    })  # fmt: skip
    pq.write_table(table, items)
    data = run(write(tmp_path / "clicks.csv"), items=items, image_column=["front", "more", "boxed"])
    assert data.images("front", [0, 1, 2]) == [[good], [], []]
    assert data.images("more", [0, 1, 2]) == [[good, good], [], []]
    assert data.images("boxed", [0, 1, 2]) == [[good], [], []]
    reason = "image: the column holds its path, not the picture (use image_path)"
    assert counts(data) == {"image: not a picture of a known format": 1, "image: empty file": 1, reason: 1}
    assert report(data).skipped[reason].examples == ["items.parquet:3"]
    assert report(data).read["images"] == report(data).kept["images"] + 3


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        ([1000, 2000, 3000, 4000, 5000], [1000, 2000, 3000, 4000, 5000], ""),
        ([1577959200123] * 5, [1577959200] * 5, "milliseconds"),
        ([1577959200.9] * 5, [1577959200] * 5, ""),
        (["2020-01-02T10:00:00Z"] * 5, [1577959200] * 5, ""),
        (["2020-01-02 10:00", "2020-01-02T12:00:00.5+02:00", "2020-01-02 10:00:00", "1577959200", "2020-01-02"],
         [1577959200] * 4 + [1577923200], "1 say their zone, 3 do not and are read as UTC"),
    ],
)  # fmt: skip
def test_times(values: list[Any], expected: list[int], note: str, tmp_path: Path, run: Import) -> None:
    data = run(write(tmp_path / "clicks.csv", [(*r[:2], t, r[3]) for r, t in zip(ROWS, values, strict=True)]))
    assert data.timestamps is not None
    assert data.timestamps.tolist() == expected
    assert any(note in text for text in report(data).notes) if note else not report(data).notes


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "date"])
def test_arrow_times(unit: str, tmp_path: Path, run: Import) -> None:
    kind = pa.date32() if unit == "date" else pa.timestamp(unit)
    days = pa.array(np.array(["2020-01-02"] * 4 + ["NaT"], "datetime64[s]")).cast(kind)
    table = pa.table(
        {"user_id": [1, 1, 2, 2, 3], "movie_id": [1.0, 2.0, 1.0, 2.0, 3.0], "order": days, "clicked": [True] * 5}
    )
    pq.write_table(table, tmp_path / "clicks.parquet")
    data = run(tmp_path / "clicks.parquet")
    assert data.timestamps is not None
    assert data.timestamps.tolist() == [1577923200] * 4
    assert data.user_ids.tolist() == ["1", "2"]
    assert data.item_ids.tolist() == ["1", "2"]
    assert counts(data) == {"no usable time in column 'order'": 1}


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_every_kind_of_arrow_string(kind: pa.DataType, tmp_path: Path, run: Import) -> None:
    columns = [pa.array([str(row[i]) for row in ROWS]).cast(kind) for i in range(4)]
    columns[2] = pa.array(["2020-01-02"] * 5).cast(kind)
    pq.write_table(pa.table(columns, names=NAMES), tmp_path / "clicks.parquet")
    data = run(tmp_path / "clicks.parquet")
    assert data.item_ids[data.items].tolist() == [r[1] for r in ROWS]
    assert data.label("clicked").tolist() == [r[3] for r in ROWS]
    assert set(data.timestamps.tolist() if data.timestamps is not None else []) == {1577923200}


def test_nested_columns_are_no_ids_and_no_extras(tmp_path: Path, run: Import) -> None:
    table = pa.table({"user_id": [1.0, float("nan")], "movie_id": ["a", "b"], "order": [1, 2], "clicked": [1, 0]})
    pq.write_table(table.append_column("more", pa.array([[1], [2]])), tmp_path / "clicks.parquet")
    data = run(tmp_path / "clicks.parquet")
    assert data.user_ids.tolist() == ["1"]
    assert counts(data) == {"empty user id": 1}
    with pytest.raises(UserError, match=r"clicks\.parquet: more holds values of type list"):
        run(tmp_path / "clicks.parquet", extra=["more"])
    with pytest.raises(UserError, match=r"clicks\.parquet: more holds values of type list"):
        import_table(tmp_path / "clicks.parquet", "more", "movie_id", out=tmp_path / "3", progress=False)


def test_labels_extras_and_columns_with_odd_names(tmp_path: Path, run: Import) -> None:
    names = ["user_id", "movie_id", "order", "is clicked", "rating", "query", "session"]
    rows = [
        ("u1", "a", 1, "True", 4.5, "red shoe", 1),
        ("u1", "b", 2, "false", "", "", 2),
        ("u2", "a", 3, "0.5", "?", "x", ""),
    ]
    data = run(write(tmp_path / "clicks.tsv", rows, names), labels=["is clicked"], extra=["query", "session", "rating"])
    assert data.label("is_clicked").tolist() == [1, 0, 0.5]
    assert data.column("query").tolist()[0] == "red shoe"
    assert data.column("rating").tolist()[0] in (4.5, "4.5")


def test_a_number_of_the_context_that_does_not_fit_is_counted(
    tmp_path: Path, run: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "BLOCK", 1 << 12)
    rows = [(f"u{i % 50}", f"i{i % 20}", i, i % 2, i) for i in range(1000)] + [("u1", "i1", 1, 1, "many")]
    data = run(write(tmp_path / "clicks.csv", rows, [*NAMES, "n"]), context_numeric=["n"])
    assert data.n_interactions == 1001
    assert np.nansum(data.column("n")[:1000]) == 999 * 500
    assert counts(data) == {"interactions: n is no number (kept, empty)": 1}


def test_without_labels_and_times(tmp_path: Path, run: Import) -> None:
    data = run(write(tmp_path / "clicks.csv"), time=None, labels=[])
    assert data.positive_only
    assert data.timestamps is None
    assert data.label().tolist() == [1.0] * 5
    assert data.meta.splits["default"]["kind"] == "random_user"


def test_split_by_a_column(tmp_path: Path, run: Import) -> None:
    rows = [(*row, part) for row, part in zip(ROWS, ["train", "train", "test", "train", "valid"], strict=True)]
    clicks = write(tmp_path / "clicks.csv", rows, [*NAMES, "split"])
    data = run(clicks, split=SplitSpec.model_validate({"kind": "column", "column": "split"}))
    assert data.split().tolist() == [0, 0, 2, 0, 1]


def test_tables_without_a_header(tmp_path: Path, run: Import) -> None:
    """Of any suffix, separated as they are; and what cannot be is said."""
    names = ["user_id", "movie_id", "order", "clicked"]
    for name, between in (("u.data", "\t"), ("u.csv", ","), ("u.tsv", ";"), ("u.dat", "|")):
        (tmp_path / name).write_text("".join(between.join(map(str, row)) + "\n" for row in ROWS))
        (tmp_path / "u.item").write_text("a|A|1\nb|B|2\n")
        items = {"items": tmp_path / "u.item", "item_columns": ["movie_id", "title", "x"], "text": ["title"]}
        data = run(tmp_path / name, columns=names, **items)
        assert data.timestamps is not None and data.timestamps.tolist() == [row[2] for row in ROWS]
        assert data.user_ids.tolist() == ["u1", "u2", "u3"] and data.texts("title", [0, 1]) == [["A"], ["B"]]
        assert data.label("clicked").tolist() == [row[3] for row in ROWS]
    for path, columns, message in (
        (tmp_path / "u.data", names[:3], r"the first row of .*u\.data has 4 values, and 3 columns are named"),
        (tmp_path / "u.data", [], r"\.data is no known format.*\(columns\)"),
        (write(tmp_path / "c.jsonl"), names, "names its columns itself"),
        (write(tmp_path / "c.parquet"), names, "names its columns itself"),
    ):
        with pytest.raises(UserError, match=message):
            run(path, columns=columns)


def test_wrong_separator_is_found_and_said(tmp_path: Path, run: Import) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text(write(tmp_path / "c.csv").read_text().replace(",", ";"))
    data = run(path)
    assert data.n_interactions == 5
    assert any("semicolon" in note for note in report(data).notes)


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_quoted_values_and_line_ends(kind: str, tmp_path: Path, run: Import) -> None:
    between = "," if kind == "csv" else "\t"
    rows = [NAMES, ["u1", '"a,\t\n""b"""', "1", "1"], ['"u1"', "b", "2", "0"]]
    path = tmp_path / f"clicks.{kind}"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(between.join(row) for row in rows).encode())
    data = run(path)
    assert data.item_ids.tolist() == ['a,\t\n"b"', "b"]
    assert data.user_ids.tolist() == ["u1"]


def test_many_small_blocks_give_the_same(tmp_path: Path, run: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[Any, ...]] = [(f"u{i % 97}", f"é{i % 31}", i, i % 2) for i in range(3000)]
    texts = {kind: write(tmp_path / f"clicks.{kind}", rows) for kind in ("csv", "jsonl")}
    monkeypatch.setattr(lines, "BLOCK", 1 << 12)
    for path in texts.values():
        data = run(path)
        assert data.user_ids[data.users].tolist() == [r[0] for r in rows]
        assert data.item_ids[data.items].tolist() == [r[1] for r in rows]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time": "ordr"}, ["time", "'ordr'", "did you mean 'order'", "user_id, movie_id"]),
        ({"labels": ["like"]}, ["label", "'like'", "clicked"]),
        ({"items": "clicks.csv", "text": ["title"]}, ["text", "'title'"]),
        ({"text": ["title"]}, ["'title'", "table of the items"]),
        ({"items": "absent.csv"}, ["absent.csv", "does not exist"]),
        ({"image_dir": "absent"}, ["absent", "does not exist"]),
        ({"image_dir": ".", "image_name": "x.jpg"}, ["x.jpg", "{item}"]),
        ({"items": "clicks.csv", "image_column": ["order"]}, ["Parquet"]),
        ({"extra": ["clicked"]}, ["'clicked'", "once"]),
        ({"split": {"kind": "column", "column": "fold"}}, ["split column", "'fold'"]),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], words: list[str], tmp_path: Path, run: Import) -> None:
    clicks = write(tmp_path / "clicks.csv")
    options = {k: tmp_path / v if k in ("items", "image_dir") else v for k, v in options.items()}
    if "split" in options:
        options["split"] = SplitSpec.model_validate(options["split"])
    with pytest.raises(UserError) as error:
        run(clicks, **options)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert not (tmp_path / "out" / "0").exists()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv"])
def test_a_column_that_is_there_twice_is_refused_where_it_is_asked_for(
    tmp_path: Path, run: Import, suffix: str
) -> None:
    def table(name: str, names: list[str], rows: list[tuple[Any, ...]]) -> Path:
        path = tmp_path / f"{name}.{suffix}"
        if suffix in ("csv", "tsv"):
            between = "," if suffix == "csv" else "\t"
            path.write_text("".join(between.join(map(str, row)) + "\n" for row in [names, *rows]), encoding="utf-8")
            return path
        whole = pa.Table.from_arrays([pa.array(list(column)) for column in zip(*rows, strict=True)], names)
        pq.write_table(whole, path)
        return path

    twice = [(*row, row[2] + 1) for row in ROWS]
    with pytest.raises(UserError, match=r"clicks\.\w+ has 2 columns 'order': rename all but the one that counts"):
        run(table("clicks", [*NAMES, "order"], twice))
    items = table("items", ["movie_id", "title", "title"], [("a", "x", "y"), ("b", "z", "z")])
    with pytest.raises(UserError, match=r"text: .*items\.\w+ has 2 columns 'title'"):
        run(write(tmp_path / "whole.csv"), items=items, text=["title"])
    unused = run(table("clicks", [*NAMES, "other", "other"], [(*row, 1, 2) for row in ROWS]))
    assert unused.n_interactions == len(ROWS) and not report(unused).skipped


def test_a_column_that_is_twice_in_an_arrow_file(tmp_path: Path) -> None:
    whole = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], ["a", "b", "b"])
    with pa.ipc.new_file(tmp_path / "x.arrow", whole.schema) as file:
        file.write_table(whole)
    source = ArrowTable(tmp_path / "x.arrow", ImportReport())
    assert next(source.batches(["a"])).columns["a"].to_pylist() == [1]
    with pytest.raises(UserError, match="has 2 columns 'b'"):
        next(source.batches(["b"]))
