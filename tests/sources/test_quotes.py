"""Quotation marks that nothing closes: proper CSV passes as it is, anything else keeps its rows apart."""

import csv
import io
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawrec.sources.tables import quotes
from rawrec.sources.tables.quotes import closed

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
