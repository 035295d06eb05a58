"""JSON lines as `json.dumps` of Python writes them, and keys that come late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.huggingface import import_huggingface
from rawrec.sources.table import import_table
from rawrec.sources.tables import WHOLE, open_objects, open_source
from rawrec.sources.tables.json_lines import HALF

NAN = float("nan")


def write(path: Path, rows: list[Any], **options: Any) -> Path:
    path.write_text("".join(json.dumps(row, **options) + "\n" for row in rows), encoding="utf-8")
    return path


def column(path: Path, name: str) -> list[str | None]:
    return [v for batch in open_source(path, ImportReport()).batches([name]) for v in batch.columns[name].to_pylist()]


def counts(data: Dataset) -> dict[str, int]:
    return {reason: e.count for reason, e in ImportReport.load(data.path / "import.json").skipped.items()}


def test_nan_and_infinity_are_missing_and_their_rows_are_kept(tmp_path: Path) -> None:
    odd = [NAN, float("inf"), -float("inf"), [1, NAN], {"a": {"b": NAN}}, 1e300]
    rows = [{"user": f"u{i}", "item": "a", "odd": value, "n": value} for i, value in enumerate(odd)]
    path = write(tmp_path / "x.jsonl", rows)
    path.write_text(path.read_text() + '{"user": "u6", "item": "a", "n": 1e999}\n{"user": "u7", "item": "b\tc"}\n')
    data = import_table(path, "user", "item", out=tmp_path / "out", progress=False)
    assert data.user_ids.tolist() == [f"u{i}" for i in range(8)] and data.item_ids.tolist() == ["a", "b\tc"]
    assert counts(data) == {}
    assert "x.jsonl: NaN and Infinity are read as missing" in ImportReport.load(data.path / "import.json").notes
    assert column(path, "n") == [None, None, None, "[1,null]", '{"a":{"b":null}}', "1e+300", None, None]


def test_python_dicts_with_nan(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("{'a': nan, 'b': -inf, 'c': [inf, -1.5, +nan], 'd': 'nan'}\n{'a': exit}\n{'a': nan.real}\n")
    report = ImportReport()
    values = [v for batch in open_objects(path, report).batches([WHOLE]) for v in batch.columns[WHOLE].to_pylist()]
    assert list(map(json.loads, values)) == [{"a": None, "b": None, "c": [None, -1.5, None], "d": "nan"}]
    assert [entry.count for entry in report.skipped.values()] == [2]


def test_halves_of_an_emoji(tmp_path: Path) -> None:
    """Texts keep what they say; ids that differ in a half alone do not become one."""
    rows = [{"user": "u", "item": f"i{i}", "q": f"cut \ud83d{i}"} for i in range(3)]
    rows += [{"user": "u", "item": f"x{half}", "q": "whole \U0001f600"} for half in ("\ud83d", "\ud83e")]
    data = import_table(
        write(tmp_path / "x.jsonl", rows), "user", "item", query="q", out=tmp_path / "out", progress=False
    )
    assert data.item_ids.tolist() == ["i0", "i1", "i2"]
    assert data.queries.take(range(3)) == [f"cut \\ud83d{i}" for i in range(3)]
    assert counts(data) == {HALF: 5, "item id with bytes that are not of the file's encoding (see --encoding)": 2}


def test_large_whole_numbers_keep_their_digits(tmp_path: Path) -> None:
    numbers = [10**30 + i for i in range(3)] + [2**64 - 1, 2**64, -(10**20), 7]
    rows = [{"user": n, "item": {"of": n}, "list": [n]} for n in numbers]
    path = write(tmp_path / "x.jsonl", rows)
    assert column(path, "user") == list(map(str, numbers))
    assert [str(json.loads(text or "")[0]) for text in column(path, "list")] == list(map(str, numbers))


def test_a_key_that_comes_late_is_there(tmp_path: Path) -> None:
    rows: list[Any] = [{"item": f"i{i}"} for i in range(1500)]
    rows += [{"item": f"late{i}", "plot": "a plot", "影片": "b", "size": i} for i in range(5)]
    items = write(tmp_path / "items.jsonl", rows)
    clicks = write(
        tmp_path / "clicks.jsonl", [{"user": "u", "item": "i1"}] * 1200 + [{"user": "u", "item": "i2", "t": 1}]
    )
    given: Any = {"items": items, "text": ["plot"], "numeric": ["size"], "progress": False}
    data = import_table(clicks, "user", "item", extra=["t"], out=tmp_path / "out", **given)
    assert int(data.present("plot").sum()) == 5 and int(data.present("size").sum()) == 5
    assert np.isfinite(np.array(data.column("t"), float)).sum() == 1
    with pytest.raises(UserError, match=r"text: .*items\.jsonl has no column 'plott'; did you mean 'plot'"):
        import_table(clicks, "user", "item", out=tmp_path / "y", **given | {"text": ["plot", "plott"]})
    more = write(tmp_path / "more.jsonl", [{"item": f"n{i}"} for i in range(1100)] + [{"item": "n", "plot": "late"}])
    data = append(data.path, items=more, item_id="item", progress=False)
    assert int(data.present("plot").sum()) == 6


def test_a_key_that_only_a_later_file_of_a_folder_has(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "log"
    folder.mkdir()
    write(folder / "a.jsonl", [{"user": f"u{i}", "item": "a"} for i in range(4)])
    write(folder / "b.jsonl", [{"user": "v", "item": "b", "title": "late", "note": "x"}])
    data = import_huggingface(
        str(folder), "user", "item", text=["title"], extra=["note"], out=tmp_path / "out", progress=False
    )
    assert data.texts("title", data.item_rows(["b"])) == [["late"]] and data.column("note").tolist()[-1] == "x"
