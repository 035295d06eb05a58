"""`import recbole`: typed headers, items of every type, files that are a split already, and what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.recbole import import_recbole

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ROWS = "u1\ta\t5\t100\nu1\tb\t3.5\t200\nu2\ta\t4\t8.813e8\nu2\tc\t1\t300\n"


def report(folder: Path) -> ImportReport:
    return ImportReport.load(folder / "import.json")


def reasons(folder: Path) -> dict[str, list[str]]:
    return {reason: entry.examples for reason, entry in report(folder).skipped.items()}


def folder(path: Path, **files: str) -> Path:
    """A folder `path/x` with `x.<suffix>` files; `_` in a suffix is a dot."""
    (path / "x").mkdir()
    for suffix, text in files.items():
        (path / "x" / f"x.{suffix.replace('_', '.')}").write_text(text)
    return path / "x"


def test_ratings_with_and_without_a_threshold(tmp_path: Path) -> None:
    source = folder(tmp_path, inter=INTER + ROWS, user="user_id:token\n", kg="head\n")
    data = import_recbole(source, out=tmp_path / "all", progress=False)
    assert data.positive_only
    assert data.timestamps is not None
    assert data.timestamps.tolist() == [100, 200, 881_300_000, 300]
    assert data.column("rating").tolist() == [5, 3.5, 4, 1]
    assert data.meta.splits["default"]["kind"] == "time_user"
    assert report(data.path).notes[0] == "not read: x.kg"
    data = import_recbole(source, out=tmp_path / "four", positive=4, progress=False)
    assert data.label().tolist() == [1, 0, 1, 0]
    assert data.meta.label_rule == "rating >= 4"
    data = import_recbole(source, out=tmp_path / "six", positive=6, progress=False)
    assert "no positive label: no rating is at least 6" in report(data.path).notes


def test_items_of_every_type(tmp_path: Path) -> None:
    item = (
        "item_id:token\ttitle:token_seq\tgenre:token_seq\tyear:token\tprice:float\tvector:float_seq\tlaunched:token\n"
    )
    item += 'a\t"Toy" Story \tFun  Kids\t1995\t1.5\t1 2.5 -3e-2\tyes\n'
    item += "b\t\t\t\t\t\t\n"
    item += "c\tA  B\tFun\t1999\tcheap\t1 2\tno\n"
    item += "d\tD\tKids\t1999\t2\t1 nan 2\tno\n"
    source = folder(tmp_path, inter=INTER + ROWS, item=item)
    data = import_recbole(source, out=tmp_path / "out", text=["title"], progress=False)
    assert data.item_ids.tolist() == ["a", "b", "c", "d"]
    assert data.texts("title", [0, 1, 2]) == [['"Toy" Story'], [], ["A  B"]]
    ptr, codes, words = data.categorical("genre")
    assert [[words[c] for c in codes[ptr[i] : ptr[i + 1]]] for i in range(4)] == [
        ["Fun", "Kids"],
        [],
        ["Fun"],
        ["Kids"],
    ]
    assert data.categorical("year")[2] == ["1995", "1999"]
    assert data.categorical("source_launched")[2] == ["no", "yes"]
    np.testing.assert_array_equal(data.numeric("price"), [1.5, np.nan, np.nan, 2])
    values, valid = data.feature("vector")
    assert valid.tolist() == [True, False, False, False]
    np.testing.assert_array_equal(values[0], np.array([1, 2.5, -3e-2], np.float32))
    assert reasons(data.path) == {
        "items: price is no number (kept, empty)": ["x.item:4 'cheap'"],
        "items: vector is no row of 3 numbers (kept, empty)": ["x.item:4 '1 2'", "x.item:5 '1 nan 2'"],
    }
    assert any("genre: stored as categories" in note for note in report(data.path).notes)


def test_split_files_become_the_split(tmp_path: Path) -> None:
    head = "user_id:token\titem_id:token\tlabel:float\tpart:token\n"
    source = folder(
        tmp_path,
        inter=head + "u9\tz\t1\tx\n",
        test_inter=head + "u1\tc\t0\tx\n",
        train_inter=head + "u1\ta\t1\tx\nu2\tb\t0\ty\n",
        valid_inter=head,
    )
    data = import_recbole(source, out=tmp_path / "out", progress=False)
    assert data.users.tolist() == [0, 1, 0]
    assert data.split().tolist() == [0, 0, 2]
    assert data.label().tolist() == [1, 0, 0]
    assert data.column("source_part").tolist() == ["x", "y", "x"]
    assert report(data.path).notes[0] == "not read: x.inter"
    (source / "x.train.inter").unlink()
    with pytest.raises(UserError, match="no file of training interactions"):
        import_recbole(source, out=tmp_path / "none")


def test_other_names_separators_and_further_columns(tmp_path: Path) -> None:
    inter = "uid:token;song:token;when:float;click:float;buy:float;session:token;mood;user_id:float\n"
    inter += "u1;a;10;1;0;007;sad;3\nu1;b;20;0;0;8;;x\n"
    source = folder(tmp_path, inter=inter, item="song:token\ttags:token_seq\na\trock|1990 s\nc\tjazz\n")
    data = import_recbole(
        source, out=tmp_path / "out", user="uid", item="song", time="when", labels=["click", "buy"], seq_separator="|",
        progress=False,
    )  # fmt: skip
    assert data.meta.labels == ["click", "buy"]
    assert data.label("click").tolist() == [1, 0]
    assert data.column("session").tolist() == ["007", "8"]
    assert data.column("mood").tolist() == ["sad", ""]
    assert data.column("source_user_id")[0] == 3
    assert data.categorical("tags")[2] == ["1990 s", "jazz", "rock"]
    assert data.item_ids.tolist() == ["a", "c", "b"]
    assert any("'mood' has none of the types" in note for note in report(data.path).notes)


def test_bad_rows_are_counted_and_the_good_ones_are_in(tmp_path: Path) -> None:
    rows = 'u1\ta\t5\t100\n\ta\t5\t1\nu1\t \t5\t1\nu1\tb\t5\tsoon\nu1\tb\tx\t5\nu1\tb\nu2\t"b\t4\t-7\nu2\tc\t4\t7\n'
    source = folder(tmp_path, inter=INTER + rows, item="item_id:token\ttitle:token\na\tx\n\ty\na\tz\n")
    (source / "x.inter").write_bytes((source / "x.inter").read_bytes() + b"u3\tcaf\xe9\t4\t9\n")
    data = import_recbole(source, out=tmp_path / "out", positive=4, encoding="utf8", progress=False)
    assert data.user_ids.tolist() == ["u1", "u2"]
    assert data.item_ids.tolist() == ["a", "c"]
    assert set(reasons(data.path)) == {
        "row has not the 4 columns of the header",
        "empty user id",
        "empty item id",
        "no usable time in column 'timestamp'",
        "no usable label in column 'rating': give numbers, or yes and no",
        "bytes that are not utf-8 (kept, such a byte as \\xe9; a row whose id holds one is left out)",
        "item id with bytes that are not of the file's encoding (see --encoding)",
        "items: empty item id",
        "duplicate item id (the first row is kept)",
    }


def test_mistakes_are_named(tmp_path: Path) -> None:
    def fails(words: str, **options: object) -> None:
        with pytest.raises(UserError, match=words):
            import_recbole(source, out=tmp_path / "out", **options)  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()

    source = tmp_path / "absent"
    fails("does not exist")
    source = folder(tmp_path)
    fails("one dataset of .inter files; found: nothing")
    (source / "x.inter").write_text("user:token\titem_id:token\nu\ta\n")
    fails("'user_id'; did you mean 'user'")
    fails("'rating'", user="user", positive=3)
    fails("'timestamp'", user="user", time="timestamp")
    fails("no file", user="user", text=["title"])
    (source / "x.item").write_text("item_id:token\tprice:float\na\t3\n")
    fails("'title'", user="user", text=["title"])
    fails("holds numbers", user="user", text=["price"])
    fails("seq_separator is empty", user="user", seq_separator="")
    (source / "x.inter").write_text("user_id:token\titem_id:token\tlabel:float\n")
    fails("has labels already", positive=3)
    fails("no interaction was read")
    (source / "y.inter").write_text("user_id:token\titem_id:token\n")
    fails(r"found: x\.inter, y\.inter")
