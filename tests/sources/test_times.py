"""Times of tables: units judged value by value, orders, written dates, forms that are named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.table import import_table
from rawrec.sources.tables import lines
from rawrec.sources.tables.times import Times

NOON = 1_600_000_800  # 2020-09-13 12:40:00 UTC
UNKNOWN = "time in column 't' is 0, which is unknown"
STRANGE = "no unit makes the number in column 't' a time from 1990 to a year from now"
WHICH = "day or month first? column 't' does not say: use --time-format, as '%d/%m/%Y'"
ORDERED = "a time in column 't', whose first rows hold an order"


def read(
    *parts: Sequence[Any], form: str | None = None, look: bool = True
) -> tuple[list[Any], list[str], ImportReport]:
    """The times of batches (None where there is none), why some are none, and the report."""
    report, arrays = ImportReport(), [pa.array(part) for part in parts]

    def again() -> Iterator[pa.Array]:
        yield from arrays

    times = Times(report, "t", form, again if look else None)
    found, reasons = [], []
    for array in arrays:
        moments = times(array, "x: t")
        found += [int(s) if good else None for s, good in zip(moments.seconds, moments.good, strict=True)]
        reasons += [reason.split(" (if")[0] for reason, rows in moments.odd.items() if rows.any()]
        assert not any((rows & moments.good).any() for rows in moments.odd.values())
    times.finish()
    return found, reasons, report


def test_each_value_is_read_in_its_own_unit() -> None:
    values = [NOON, NOON * 1000 + 999, NOON * 10**6, NOON * 10**9, 20200913124000, 20200913]
    seconds = [NOON] * 5 + [NOON // 86400 * 86400]
    for given in (values, [str(v) for v in values], [float(v) for v in values]):
        found, reasons, report = read(given)
        assert found == seconds and not reasons
        assert report.notes == [
            "times of column 't' are in several units, each read in its own: 1 seconds, 1 milliseconds, "
            "1 microseconds, 1 nanoseconds, 1 YYYYMMDDHHMMSS, 1 YYYYMMDD"
        ]


def test_numbers_that_are_no_time_among_times_are_none() -> None:
    """Row numbers where the times were lost, 0 for unknown; wherever in the column they stand."""
    found, reasons, _ = read([1, 2, 3], [NOON, 0, 631_151_999, -5], [NOON * 3, 20_201_399])
    assert found == [None] * 3 + [NOON] + [None] * 5
    assert reasons == [STRANGE, UNKNOWN, STRANGE, STRANGE]


@pytest.mark.parametrize(
    ("values", "expected", "notes"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], []),
        ([4000, 1000.9], [4000, 1000], []),
        (["3", "x", "1"], [3, None, 1], []),
        ([19_900_101, 5, 7, 12], [19_900_101, 5, 7, 12], []),
        ([4_102_444_800], [4_102_444_800], []),
        ([4_102_444_800_000], [4_102_444_800], ["times are in milliseconds; divided by 1,000"]),
        ([20200913, 20200914], [NOON // 86400 * 86400, NOON // 86400 * 86400 + 86400], ["times are written YYYYMMDD"]),
        ([NOON * 1000], [NOON], ["times are in milliseconds; divided by 1,000"]),
        ([NOON], [NOON], []),
    ],
)
def test_a_column_without_a_time_is_an_order(values: list[Any], expected: list[Any], notes: list[str]) -> None:
    found, reasons, report = read(values)
    assert found == expected and not reasons and report.notes == notes


def test_a_table_that_is_read_once_is_judged_by_its_first_rows() -> None:
    assert read([1, 2], [3, NOON], look=False)[:2] == ([1, 2, 3, None], [ORDERED])
    assert read([NOON], [3], look=False)[:2] == ([NOON, None], [STRANGE])


@pytest.mark.parametrize(
    "text",
    [
        "2020-09-13 12:40:00 UTC", "2020-09-13 12:40:00+00", "2020-09-13T12:40Z", "2020-09-13T12:40:00.25Z",
        "2020-09-13T14:40:00,999+0200", "2020/09/13 12:40", "2020-9-13 12:40:00 GMT", "2020-09-13T07:10:00-05:30",
        "Sun, 13 Sep 2020 12:40:00 +0000", "13 Sep 2020 12:40:00 GMT", "13-Sep-2020 12:40", "13 September 2020, 12:40",
        "2020-09-13 12:40 PM", " 2020-09-13T12:40:00Z ", "13/09/2020 12:40", "13.09.2020 12:40:00",
        "09/13/2020 12:40 pm",
    ],
)  # fmt: skip
def test_the_usual_forms(text: str) -> None:
    assert read([text])[:2] == ([NOON], [])


@pytest.mark.parametrize(
    "text", ["2020-02-30", "2020-13-01", "2020-09-13 25:00", "13/13/2020", "noon", "2020-09-13 13:00 PM"]
)
def test_what_is_no_date(text: str) -> None:
    found, reasons, _ = read([text, "2020-01-01"])
    assert found[0] is None and found[1] == 1577836800 and not reasons


def test_midnight_in_halves_of_a_day_and_leap_days() -> None:
    assert read(["2020-02-29 12:00 AM", "2020-02-29 11:59 PM"])[0] == [1582934400, 1582934400 + 86340]


def test_day_or_month_first_as_the_whole_column_says() -> None:
    day, month = 1_583_280_000, 1_585_872_000  # 2020-03-04, 2020-04-03
    note = "dates of column 't' are read as {}, as its values say"
    found, reasons, report = read(["03/04/2020"], ["09/13/2020"])
    assert found[0] == day and not reasons and report.notes == [note.format("month, day, year")]
    found, reasons, report = read(["03/04/2020"], ["13/09/2020"])
    assert found[0] == month and not reasons and report.notes == [note.format("day, month, year")]
    for parts in ([["03/04/2020", "2020-09-13"]], [["03/04/2020", "13/09/2020"], ["09/13/2020", "2020-09-13"]]):
        found, reasons, report = read(*parts)
        assert [f for f in found if f] == [1_599_955_200] and set(reasons) == {WHICH} and not report.notes
    assert read(["03/04/2020"], form="%d/%m/%Y")[0] == [month] and read(["03/04/2020"], form="%m/%d/%Y")[0] == [day]


def test_zones_that_are_told_and_not() -> None:
    found, _, report = read(["2020-09-13T14:40:00+02:00", "2020-09-13 12:40"], ["13 Sep 2020 12:40"])
    assert found == [NOON] * 3
    assert report.notes == ["times of column 't': 1 say their zone, 2 do not and are read as UTC"]
    assert not read(["2020-09-13 12:40"])[2].notes


@pytest.mark.parametrize(
    ("form", "values", "expected"),
    [
        ("s", [5, 0, NOON, NOON * 1000], [5, 0, NOON, NOON * 1000]),
        ("ms", [5000, 86_400_000], [5, 86_400]),
        ("order", [5, NOON * 1000], [5, NOON * 1000]),
        ("%y%m%d%H", [20091312, 99], [NOON - 2400, None]),
        ("%d.%m.%Y %H:%M", ["13.09.2020 12:40", "2020-09-13"], [NOON, None]),
        ("%Y-%m-%dT%H:%M:%S.%f%z", ["2020-09-13T14:40:00.5+0200", None], [NOON, None]),
    ],
)
def test_a_form_that_is_named_is_taken(form: str, values: list[Any], expected: list[Any]) -> None:
    assert read(values, form=form)[0] == expected


@pytest.mark.parametrize("form", ["seconds", "%H:%M", "%Q", ""])
def test_what_is_no_form(form: str) -> None:
    with pytest.raises(UserError, match="time_format"):
        read([1], form=form)


# ------------------------------------------------------------------------------------------------------------- commands
def table(folder: Path, times: Sequence[Any], **options: Any) -> Dataset:
    rows = [f"u{i % 3},i{i % 4},{t}" for i, t in enumerate(times)]
    (folder / "log.csv").write_text("\n".join(["user,item,t", *rows]) + "\n")
    out = folder / "data"
    return import_table(
        folder / "log.csv", "user", "item", out=out, time="t", overwrite=True, progress=False, **options
    )


def test_the_log_whose_first_part_lost_its_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK", 100)  # many batches: the first ones hold row numbers alone
    data = table(tmp_path, [*range(1, 41), *(NOON + 60 * i for i in range(40))])
    assert data.timestamps is not None and data.timestamps.tolist() == [NOON + 60 * i for i in range(40)]
    report = ImportReport.load(data.path / "import.json")
    (entry,) = report.skipped.values()
    assert entry.count == 40 and entry.examples[0] == "log.csv:2 '1'" and report.read["interactions"] == 80


def test_mixed_units_keep_their_true_order(tmp_path: Path) -> None:
    data = table(tmp_path, [(NOON + i) * (1000 if i % 3 else 1) for i in range(60)])
    assert data.timestamps is not None and data.timestamps.tolist() == [NOON + i for i in range(60)]
    for user in range(3):
        own = data.users == user
        assert data.timestamps[own & (data.split() == 0)].max() < data.timestamps[own & (data.split() == 2)].min()


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no usable time in column 't' of any row .*day or month first\?"):
        table(tmp_path, ["01/02/2020", "03/04/2020"])
    with pytest.raises(UserError, match="time_format 'ms': name the column"):
        import_table(tmp_path / "log.csv", "user", "item", out=tmp_path / "none", time_format="ms")
    assert table(tmp_path, ["01/02/2020", "03/04/2020"] * 3, time_format="%d/%m/%Y").timestamps is not None


def test_an_append_to_times_takes_no_order(tmp_path: Path) -> None:
    data = table(tmp_path, [NOON + i for i in range(12)])
    (tmp_path / "more.csv").write_text(f"user,item,t\nu0,i0,17\nu0,i1,{NOON + 99}000\n")
    more = append(data.path, tmp_path / "more.csv", "user", "item", time="t", progress=False)
    assert more.timestamps is not None and more.timestamps[12:].tolist() == [NOON + 99]
    (tmp_path / "more.csv").write_text("user,item,t\nu0,i0,17\n")
    with pytest.raises(UserError, match="no usable time"):
        append(data.path, tmp_path / "more.csv", "user", "item", time="t", progress=False)
    again = append(data.path, tmp_path / "more.csv", "user", "item", time="t", time_format="order", progress=False)
    assert again.timestamps is not None and again.timestamps[-1] == 17 and np.all(again.timestamps[:-1] >= NOON)
