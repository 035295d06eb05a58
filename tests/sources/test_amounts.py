"""Numbers as people write them: decimal commas, thousands, currencies, where a whole column agrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rawrec.data.import_report import ImportReport
from rawrec.sources.append import append
from rawrec.sources.table import import_table
from rawrec.sources.tables.amounts import Numbers
from rawrec.sources.tables.source import Batch

NAN = float("nan")
COMMA, POINT = (f"items: numbers of p read with a decimal {sign}{{}}: {{}}" for sign in ("comma", "point"))
BOTH = "items: p has decimal commas and decimal points (kept, empty)"
MAYBE = "items: p may be two numbers, as 1,299 where no value says what its comma is (kept, empty)"
MONEY = "items: p is in several currencies: $, EUR (kept, empty)"
PLAIN = "items: p is no number (kept, empty)"


def read(*parts: Sequence[Any], look: bool = True) -> tuple[list[float], list[str], dict[str, int]]:
    """The numbers of batches, the notes, and what was not read."""
    arrays, report = [pa.array(part) for part in parts], ImportReport()

    def again() -> Iterator[pa.Array]:
        yield from arrays

    numbers = Numbers(report, "items", "p", again if look else None)
    found = [numbers(Batch("x", np.arange(len(a)), {"p": a})) for a in arrays]
    numbers.finish()
    return np.concatenate(found).tolist(), report.notes, {why: entry.count for why, entry in report.skipped.items()}


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        (
            ["90,50 EUR", "7 EUR", "1.299,00 EUR", "1.299 EUR", ""],
            [90.5, 7, 1299, 1299, NAN],
            COMMA.format(", without EUR", 4),
        ),
        (["$1,299.00", "$5", "-$2.5", "$1,299", None], [1299, 5, -2.5, 1299, NAN], POINT.format(", without $", 4)),
        (["90,50", "12", "1.299", "-1,5"], [90.5, 12, 1299, -1.5], COMMA.format("", 3)),
        (["1,299,000", "12.25", "1e3", "7"], [1299000, 12.25, 1000, 7], POINT.format("", 1)),
        (["1 299,50 €", "12 €", "1\u00a0000\u202f000,5 €"], [1299.5, 12, 1000000.5], COMMA.format(", without €", 3)),
        (["CHF 1'299.00", "CHF 3.5"], [1299, 3.5], POINT.format(", without CHF", 2)),
        (["12 kr", "3 kr"], [12, 3], "items: numbers of p read without KR: 2"),
        (["1 299", "7"], [1299, 7], "items: numbers of p read with blanks between thousands: 1"),
        (["1.299", "2.5", "7"], [1.299, 2.5, 7], ""),
    ],
)
def test_a_column_that_agrees(values: list[Any], expected: list[float], note: str) -> None:
    found, notes, lost = read(values)
    np.testing.assert_array_equal(found, expected)
    assert notes == ([note] if note else []) and not lost


@pytest.mark.parametrize(
    ("values", "expected", "lost"),
    [
        (["90,50", "12.5", "3"], [NAN, 12.5, 3], {BOTH: 1}),
        (["1,299", "2,500", "12"], [NAN, NAN, 12], {MAYBE: 2}),
        (
            ["$5", "5 EUR", "3"],
            [NAN, NAN, 3],
            {MONEY: 2},
        ),
        (["12,34,56", "5 kg", "dear", "1.299.00", "7"], [NAN, NAN, NAN, NAN, 7], {PLAIN: 4}),
        (["none", "7,5"], [NAN, 7.5], {PLAIN: 1}),
    ],
)
def test_a_column_that_does_not(values: list[Any], expected: list[float], lost: dict[str, int]) -> None:
    found, notes, counted = read(values)
    np.testing.assert_array_equal(found, expected)
    assert counted == lost and (not notes or "7,5" in values)


def test_what_comes_later_counts() -> None:
    assert read(["1,299"], ["2,50"])[0] == [1.299, 2.5]
    assert read(["1,299"], ["2.50"])[0] == [1299, 2.5]
    np.testing.assert_array_equal(read(["1.299"], ["2,50"])[0], [1.299, NAN])  # the point was read as one already
    np.testing.assert_array_equal(read(["1,299"], ["2,50"], look=False)[0], [NAN, NAN])


def test_nothing_read_is_told() -> None:
    assert read(["cheap", "dear"])[1] == ["items: not one of 2 values of p is a number, the field is empty"]
    assert read([1.5, None])[1:] == ([], {})


def test_numbers_of_items_and_users(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text('user,item,paid\nu1,a,"1,5"\nu2,b,2\n')
    (tmp_path / "items.csv").write_text('item,price\na,"90,50 EUR"\nb,"1.299,00 EUR"\n')
    (tmp_path / "users.csv").write_text('user,spent\nu1,"$1,299.00"\nu2,$3.00\n')
    data = import_table(
        tmp_path / "log.csv", "user", "item", items=tmp_path / "items.csv", numeric=["price"],
        users=tmp_path / "users.csv", user_numeric=["spent"],
        context_numeric=["paid"], out=tmp_path / "data", progress=False,
    )  # fmt: skip
    assert data.numeric("price").tolist() == [90.5, 1299] and data.user_numeric("spent").tolist() == [1299, 3]
    (tmp_path / "more.csv").write_text('user,item,paid\nu1,b,"2,5"\n,b,dear\nu2,a,dear\n')
    assert data.column("paid").tolist() == [1.5, 2]
    more = append(data.path, tmp_path / "more.csv", "user", "item", progress=False)
    np.testing.assert_array_equal(more.column("paid"), [1.5, 2, 2.5, NAN])
    skipped = ImportReport.load(data.path / "import-2.json").skipped
    assert skipped["interactions: paid is no number (kept, empty)"].count == 1
    notes = ImportReport.load(data.path / "import.json").notes
    assert "users: numbers of spent read with a decimal point, without $: 2" in notes
    assert "items: numbers of price read with a decimal comma, without EUR: 2" in notes
