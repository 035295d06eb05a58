"""Recommended lists in every form: what is read back, by readers of the standard library too, is what was written."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from rawrec.data.lists import LIST_FORMS, LISTS, write_lists

ROWS = [
    ("plain", ["b", "a"], [0.5, 0.25]),
    ("co,mma", ['quo"te', '"', "l1\nl2", "cr\rcr", "crlf\r\n"], [1e-20, -3.5, 0.0, 12345.678, 1.0]),
    ("😀", ["用户", "null", "", " blank "], [0.1, 0.2, 0.3, 0.4]),
    ("nobody", [], []),
    ("007", ["001"], [2.0]),
]


def tables() -> Iterator[pa.Table]:
    for rows in (ROWS[:2], ROWS[2:3], ROWS[3:]):
        yield pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(zip(*rows, strict=True), LISTS, strict=True)],
                                   schema=LISTS)  # fmt: skip


def read(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def test_parquet(tmp_path: Path) -> None:
    write_lists(tables(), tmp_path / "l.parquet")
    table = pl.read_parquet(tmp_path / "l.parquet")
    assert table.columns == ["user_id", "items", "scores"]
    for (user, items, scores), (_, expected, values) in zip(table.iter_rows(), ROWS, strict=True):
        assert items == expected and scores == pytest.approx(values), user
    assert table["user_id"].to_list() == [row[0] for row in ROWS]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv_has_a_row_per_item(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"my.jsonl.lists{suffix}"
    write_lists(tables(), path)
    head, *rows = csv.reader(io.StringIO(read(path), newline=""))
    assert head == ["user_id", "rank", "item_id", "score"]
    expected = [(user, str(rank), item) for user, items, _ in ROWS for rank, item in enumerate(items, 1)]
    assert [(row[0], row[1], row[2]) for row in rows] == expected
    assert [float(row[3]) for row in rows] == pytest.approx([s for _, _, scores in ROWS for s in scores], rel=1e-6)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_json_lines_have_an_object_per_user(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"lists{suffix}"
    write_lists(tables(), path)
    found = [json.loads(line) for line in read(path).split("\n") if line]
    assert [(row["user_id"], row["items"]) for row in found] == [row[:2] for row in ROWS]
    for row, (_, _, scores) in zip(found, ROWS, strict=True):
        assert row["scores"] == pytest.approx(scores, rel=1e-6)


@pytest.mark.parametrize("suffix", LIST_FORMS)
def test_equal_lists_make_equal_files_and_failures_leave_none(suffix: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_lists(tables(), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()

    def failing() -> Iterator[pa.Table]:
        yield next(tables())
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        write_lists(failing(), tmp_path / f"a{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
