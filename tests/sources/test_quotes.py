"""Quotation marks that nothing closes: proper CSV passes as it is, anything else keeps its rows apart."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawrec.data.import_report import ImportReport
from rawrec.sources.tables import open_source, quotes
from rawrec.sources.tables.quotes import closed, unescaped

CELL = st.text('ab",\n\r', max_size=6)


def pass_through(blocks: Sequence[bytes], separator: str = ",") -> tuple[bytes, list[bytes]]:
    found: list[bytes] = []
    parts = list(closed(iter(blocks), separator, found.append))
    assert all(parts), "an empty part would pass for the end"
    return b"".join(parts), found


@given(rows=st.lists(st.lists(CELL, min_size=2, max_size=3), min_size=1, max_size=4), every=st.booleans())
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_what_a_csv_writer_wrote_passes_however_it_is_cut(rows: list[list[str]], every: bool) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL).writerows(rows)
    data = text.getvalue().encode()
    assert pass_through([data]) == (data, [])
    assert pass_through([line + b"\n" for line in data.split(b"\n")[:-1]]) == (data, [])


@pytest.mark.parametrize(
    ("data", "mended", "found"),
    [
        (b'a,"b\nc,d\n', b'a,"""b"\nc,d\n', [b'"b']),
        (b'"a\n', b'"""a"\n', [b'"a']),
        (b'a,"b\n"c,d\ne,f\n', b'a,"""b"\n"""c",d\ne,f\n', [b'"b', b'"c']),
        (b'a,"b\n"x,d\n"y\nz",d\n', b'a,"""b"\n"""x",d\n"y\nz",d\n', [b'"b', b'"x']),
        (b'a,"b""\n', b'a,"""b"""""\n', [b'"b""']),
        (b'a,"b" ,"c"d\n', b'a,"b" ,"c"d\n', []),
        (b'5" x,a"b,"c\nd"\n', b'5" x,a"b,"c\nd"\n', []),
    ],
)
def test_marks_that_nothing_closes_stand_for_themselves(data: bytes, mended: bytes, found: list[bytes]) -> None:
    lines = [line + b"\n" for line in data.split(b"\n")[:-1]]
    assert pass_through([data]) == pass_through(lines) == (mended, found)
    other = [part.replace(b",", b"\t") for part in (data, mended)]
    assert pass_through([other[0]], "\t")[0] == other[1]


def test_a_value_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotes, "MAX_VALUE", 100)
    parts = list(closed(iter([b'a,"b\n', *[b"xxxx,yyyy\n"] * 50]), ",", lambda _: None))
    assert b"".join(parts) == b'a,"""b"\n' + b"xxxx,yyyy\n" * 50
    assert min(map(len, parts)) > 0 and max(map(len, parts)) < 200


def escape(value: str) -> str:
    """A value in marks, as it is written with backslashes, which are doubled before a mark."""
    return '"' + re.sub(r'(\\*)("|\Z)', lambda m: m[1] * 2 + (r"\"" if m[2] else ""), value) + '"'


VALUE = st.text('ab",\n\\;', max_size=8)


@given(rows=st.lists(st.lists(VALUE, min_size=2, max_size=2), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_marks_behind_backslashes_come_back_however_they_are_cut(rows: list[list[str]]) -> None:
    text = "".join(",".join(escape(value) for value in row) + "\n" for row in rows)
    data = text.encode()
    for blocks in ([data], [line + b"\n" for line in data.split(b"\n")[:-1]]):
        mended = b"".join(unescaped(iter(blocks), ",")).decode()
        assert list(csv.reader(io.StringIO(mended))) == rows


def test_a_value_with_an_escaped_mark_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotes, "MAX_VALUE", 100)
    parts = list(unescaped(iter([b'a,"b\n', *[b"xxxx,yyyy\n"] * 50]), ","))
    assert b"".join(parts) == b'a,"b\n' + b"xxxx,yyyy\n" * 50 and max(map(len, parts)) < 200


TITLES = [
    'Peterman Rides Again: "The Catalog King"',
    '";"',
    "C:\\dir\\",
    'the "\\" sign',
    "plain",
    '"Quoted"; and more',
]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt"])
def test_titles_as_mysql_and_spark_write_them(suffix: str, tmp_path: Path) -> None:
    separator = ";" if suffix == "csv" else "\t"
    path, report = tmp_path / f"x.{suffix}", ImportReport()
    rows = [f"{escape(title)}{separator}{i}\n" for i, title in enumerate(TITLES)]
    path.write_text(f"title{separator}n\n" + "".join(rows), encoding="utf-8")
    found = [v for batch in open_source(path, report).batches(["title"]) for v in batch.columns["title"].to_pylist()]
    assert found == TITLES and report.skipped == {}
    assert report.notes[-1] == f"x.{suffix}: quotation marks within values stand behind a backslash"


def test_proper_csv_with_backslashes_is_not_taken_for_it(tmp_path: Path) -> None:
    path, report = tmp_path / "x.csv", ImportReport()
    values = ["C:\\", 'a\\"b', 'say ""hi""'.replace('""', '"'), "x\\", 'he said: \\"no']
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *([value, "1"] for value in values)])
    found = [v for batch in open_source(path, report).batches(["a"]) for v in batch.columns["a"].to_pylist()]
    assert found == values and report.notes == [] and report.skipped == {}


def test_an_escaped_mark_that_comes_late_is_kept_and_counted(tmp_path: Path) -> None:
    path, report = tmp_path / "x.csv", ImportReport()
    path.write_text("a,b\n" + "plain,1\n" * 200_000 + '"say \\"hi\\"",2\n', encoding="utf-8")
    found = [v for batch in open_source(path, report).batches(["a"]) for v in batch.columns["a"].to_pylist()]
    assert found[-1] == '"say \\"hi\\""' and [entry.count for entry in report.skipped.values()] == [1]
