"""Results as data: pages are what the files of results make of them, and a measurement replaces an older one."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import keep  # noqa: E402
import pages  # noqa: E402

FILES = sorted(pages.RESULTS.glob("*.json"))


@pytest.mark.parametrize("page", pages.PAGES)
def test_pages_are_up_to_date(page: str) -> None:
    text = (ROOT / page).read_text()
    assert pages.written(text) == text, "python benchmarks/pages.py writes the pages"


def test_every_table_is_on_a_page_and_every_row_in_a_table() -> None:
    marks = [found["name"] for page in pages.PAGES for found in pages.MARKED.finditer((ROOT / page).read_text())]
    assert sorted(marks) == sorted(pages.TABLES)
    for file in FILES:
        found = json.loads(file.read_text())
        assert found["benchmark"] == file.stem and (ROOT / "benchmarks" / f"{file.stem}.py").is_file()
        for name in found["tables"].keys() & pages.TABLES.keys():
            assert file.stem in pages.TABLES[name].benchmarks


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_rows_say_where_they_come_from(file: Path) -> None:
    for rows in json.loads(file.read_text())["tables"].values():
        for row in rows:
            assert {"commit", "date", "machine", "versions", "command"} <= row["made"].keys(), row


def test_numbers_in_words() -> None:
    assert [pages.dot(value) for value in (0.7935, -0.0002, 1.25)] == [".7935", "-.0002", "1.2500"]
    assert [pages.signed(value) for value in (0.0106, -0.0024, 0.0)] == ["+.0106", "-.0024", "+.0000"]
    assert [pages.short(value) for value in (1e-4, 3e-3, 1, 10)] == ["1e-4", "3e-3", "1", "10"]
    assert [pages.time_of(value) for value in (0.15, 9.994, 13.42)] == ["0.15", "9.99", "13.4"]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a benchmark, `few.py`, which prints what it is given, and a table of it."""
    table = pages.Table(["few"], ["model"], {"model": pages.told("label"), "ms": pages.text("ms")}, needs="ms")
    monkeypatch.setattr(pages, "TABLES", {"few": table})
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(keep, "HERE", tmp_path)
    (tmp_path / "few.py").write_text("import sys\nprint(sys.argv[1])\nprint('done')\nsys.exit(int(sys.argv[2]))\n")
    return tmp_path / "results" / "few.json"


def measured(monkeypatch: pytest.MonkeyPatch, line: dict[str, Any], code: int = 0, benchmark: str = "few.py") -> int:
    monkeypatch.setattr(sys, "argv", ["keep.py", "few", benchmark, json.dumps(line), str(code), "--seeds", "3", "4"])
    return keep.main()


def test_a_measurement_replaces_the_older_one(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"label": "A model"}
    pages.write("few", {"benchmark": "few", "tables": {"few": [{"model": "a", "told": told, "ms": 5, "made": {}}]}})
    assert measured(monkeypatch, {"model": "b", "ms": 7}) == 0
    assert measured(monkeypatch, {"model": "a", "ms": 4}) == 0
    first, second = json.loads(results.read_text())["tables"]["few"]
    assert (first["ms"], first["told"], second["ms"]) == (4, told, 7)
    assert first["made"]["seeds"] == [3, 4] and first["made"]["machine"]["cores"] > 0
    assert first["made"]["versions"]["torch"] and first["made"]["command"].startswith("python benchmarks/few.py ")
    assert pages.written("<!-- table few -->\nold\n<!-- end -->") == (
        "<!-- table few -->\n\n| model | ms |\n|---|---|\n| A model | 4 |\n| | 7 |\n\n<!-- end -->"
    )


@pytest.mark.parametrize(
    ("line", "code", "benchmark", "status"),
    [
        ({"model": "a"}, 0, "few.py", 0),
        ({"ms": 4}, 0, "few.py", 0),
        ({"model": "a", "ms": 4}, 3, "few.py", 3),
        ({"model": "a", "ms": 4}, 0, "none.py", 2),
    ],
    ids=["no figure", "no name", "it failed", "no such benchmark"],
)
def test_what_is_no_measurement_is_not_kept(
    results: Path, monkeypatch: pytest.MonkeyPatch, line: dict[str, Any], code: int, benchmark: str, status: int
) -> None:
    assert measured(monkeypatch, line, code, benchmark) == status
    assert not results.is_file() or json.loads(results.read_text())["tables"] == {"few": []}
