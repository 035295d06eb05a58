"""Further columns keep their values: a text becomes a number only where that loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.sources.append import append
from rawrec.sources.table import import_table
from rawrec.sources.tables import lines


def imported(folder: Path, values: list[str]) -> Dataset:
    path = folder / "x.csv"
    path.write_text("u,i,v\n" + "".join(f"u{at % 3},i{at},{v}\n" for at, v in enumerate(values)), encoding="utf-8")
    return import_table(path, "u", "i", extra=["v"], out=folder / "out", overwrite=True, progress=False)


def notes(data: Dataset) -> list[str]:
    return [note for note in ImportReport.load(data.path / "import.json").notes if "kept as text" in note]


@pytest.mark.parametrize(
    "values",
    [
        ["7", "07", "007"],
        ["12345678901234567890", "12345678901234567891"],
        ["1.1", "1.10"],
        ["1e5", "100000"],
        ["+7", "7"],
        ["5", "5.0"],
        ["-0", "0"],
        [" 7", "7"],
        ["9007199254740993", "0.5"],
        ["1", "2", "x"],
        ["1_000", "1000"],
    ],
)
def test_identifiers_stay_texts(values: list[str], tmp_path: Path) -> None:
    data = imported(tmp_path, values)
    assert data.column("v").tolist() == values
    assert len(notes(data)) == (values[-1] != "x")


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["7", "", "-12", "0"], [7, None, -12, 0]),
        (["0.5", "5.0", "1e-07", ""], [0.5, 5.0, 1e-7, None]),
        (["0.5", "5", "-3"], [0.5, 5, -3]),
        (["9223372036854775807"], [2**63 - 1]),
    ],
)
def test_numbers_are_numbers(values: list[str], numbers: list[Any], tmp_path: Path) -> None:
    data = imported(tmp_path, values)
    found = [None if value is None or value != value else value for value in data.column("v").tolist()]
    assert found == numbers and notes(data) == []


def test_the_whole_column_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first rows hold does not decide what the last ones may be."""
    monkeypatch.setattr(lines, "BLOCK", 64)
    for last in ("x", "007"):
        values = [*map(str, range(60)), last]
        data = imported(tmp_path, values)
        assert data.column("v").tolist() == values
    assert imported(tmp_path, [*map(str, range(60)), "0.25"]).column("v")[-1] == 0.25
    assert imported(tmp_path, [*map(str, range(60)), "1.0"]).column("v")[-1] == "1.0"


def test_tables_with_types_keep_them(tmp_path: Path) -> None:
    table = {"u": ["a", "b"], "i": [1, 2], "text": ["1", "2"], "small": pa.array([1, 2], pa.int8())}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    data = import_table(tmp_path / "x.parquet", "u", "i", extra=["text", "small"], out=tmp_path / "out", progress=False)
    assert data.column("text").tolist() == ["1", "2"] and data.column("small").tolist() == [1, 2]


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"u": f"u{i}", "i": i, "id": f"{i:03}", "n": i, "x": i / 7, "large": 10**25 + i} for i in range(20)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = import_table(
        tmp_path / "x.jsonl", "u", "i", extra=["id", "n", "x", "large"], out=tmp_path / "out", progress=False
    )
    for name in ("id", "n", "x"):
        assert data.column(name).tolist() == [row[name] for row in rows]
    assert data.column("large").tolist() == [str(row["large"]) for row in rows]


def test_what_is_appended_to_whole_numbers(tmp_path: Path) -> None:
    data = imported(tmp_path, ["7", "8"])
    (tmp_path / "more.csv").write_text("u,i,v\nu1,i1,9\nu1,i2,007\nu1,i3,1.5\n")
    data = append(data.path, tmp_path / "more.csv", "u", "i", progress=False)
    assert data.column("v").tolist()[:3] == [7, 8, 9] and ImportReport.load(data.path / "import-2.json").skipped[
        "value of column 'v' is no whole number (row kept, the value left empty)"
    ].examples == ["more.csv:3 '007'", "more.csv:4 '1.5'"]
