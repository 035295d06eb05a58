"""Times as they were read -> seconds since 1970: numbers of any unit, dates of any usual form, or a mere order."""

from __future__ import annotations

import time as clock
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.tables.convert import as_text, numbers
from rawrec.sources.tables.dates import Dates, Floats, by_format, check_format, days_since_1970, read_dates
from rawrec.sources.tables.source import Look

SINCE = 631_152_000
"""1990-01-01. An epoch is a number that is a time from here to a year from now, in one of the units."""
YEAR = 366 * 86400
UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
SHORT = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
DAY, SECOND = "YYYYMMDD", "YYYYMMDDHHMMSS"
FIRST = {DAY: 19_900_101, SECOND: 19_900_101_000_000}
ORDER = "order"
MAX_SECONDS = 1e15
MAX_ORDER = 1e11
"""A mere order goes no further; larger numbers without an epoch among them are of a finer unit than seconds."""
Bools = NDArray[np.bool_]


@dataclass
class Moments:
    """Of rows: seconds since 1970 (or places in an order) int64 `[n]`, and where there is one `[n]`. odd: where there
    is none, and why, in words; of the others it could not be read. thousandths: of the second, int16 `[n]`."""

    seconds: NDArray[np.int64]
    good: Bools
    odd: dict[str, Bools] = field(default_factory=dict)
    thousandths: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))


class Times:
    """Reads a column of times in batches. Every value is judged by itself: a number is a time in the unit that puts it
    between 1990 and a year from now, YYYYMMDD or YYYYMMDDHHMMSS; a text is a date in one of the forms of `dates`.
    Numbers that no unit explains are no times, and 0 is unknown. Where no value of the column is a time, it is an
    order, 1, 2, 3 ..., and stays as it is. Fractions of a second are told apart, to the thousandth.

    form: says what the column holds, and nothing is judged: `s`, `ms`, `us`, `ns`, `order`, or a form of `strptime`.
    look: gives the whole column, for what a batch alone does not tell: whether there is a time anywhere, whether day or
    month is first. Without it the batches so far have to do. known: it is no order.
    """

    def __init__(
        self, report: ImportReport, column: str, form: str | None = None, look: Look | None = None, known: bool = False
    ) -> None:
        self.report, self.column, self.look = report, column, look
        self.form = form if form is None or form == ORDER or form in SHORT else check_format(form)
        self.is_order: bool | None = False if known else None
        self.day_first: bool | None = None
        self.undecided = False
        self.divisor, self.until = 1, clock.time() + YEAR
        self.units: Counter[str] = Counter()
        self.zoned = self.naive = 0

    def __call__(self, column: pa.Array, where: str) -> Moments:
        """The times of some rows, in the column's order."""
        if pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("s"))
        if pa.types.is_timestamp(column.type):
            if self.form is not None:
                raise UserError(f"time_format: {where} holds times already ({column.type}): leave it out")
            per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
            valid = column.is_valid().to_numpy(zero_copy_only=False)
            seconds, rest = np.divmod(pc.fill_null(column.cast(pa.int64()), 0).to_numpy(), per_second)
            thousandths = (rest * 1000 // per_second).astype(np.int16)
            return Moments(seconds, valid & (seconds >= 0), thousandths=thousandths)
        if self.form is not None:
            return self._formed(column, where, self.form)
        values = numbers(column, where)
        if self.is_order is None and np.isfinite(values).any():
            self._decide(column, values, where)
        if self.is_order:
            seconds, odd = values / self.divisor, {}
            if self.look is None:
                times = [found for unit, found in self._units(values) if unit != DAY]
                odd[f"a time in column {self.column!r}, whose first rows hold an order"] = np.logical_or.reduce(times)
                seconds[np.logical_or.reduce(times)] = np.nan
        else:
            seconds, odd = self._judged(values)
        if pa.types.is_string(column.type) and np.isnan(values).any():
            dates = self._dates(read_dates(pl.Series(column)), odd)
            seconds = np.where(np.isnan(values), dates, seconds)
        return _moments(seconds, odd)

    def finish(self) -> None:
        """Tell in which units and forms the times were."""
        named = {unit: count for unit, count in self.units.items() if count}
        if self.is_order and self.divisor > 1:
            unit = next(name for name, divisor in UNITS.items() if divisor == self.divisor)
            self.report.note(f"times are in {unit}; divided by {self.divisor:,}")
        elif len(named) > 1:
            several = ", ".join(f"{count:,} {unit}" for unit, count in named.items())
            self.report.note(f"times of column {self.column!r} are in several units, each read in its own: {several}")
        else:
            for unit in named:
                if unit not in UNITS:
                    self.report.note(f"times are written {unit}")
                elif unit != "seconds":
                    self.report.note(f"times are in {unit}; divided by {UNITS[unit]:,}")
        if self.day_first is not None:
            first = "day, month, year" if self.day_first else "month, day, year"
            self.report.note(f"dates of column {self.column!r} are read as {first}, as its values say")
        if self.zoned and self.naive:
            some = f"{self.zoned:,} say their zone, {self.naive:,} do not and are read as UTC"
            self.report.note(f"times of column {self.column!r}: {some}")

    # -------------------------------------------------------------------------------------------------------- numbers
    def _decide(self, column: pa.Array, values: Floats, where: str) -> None:
        """Whether the column is an order: no value is a time, here or anywhere."""
        seen, days, typical = 0, 0, 0.0
        for part in self._all(column):
            values = numbers(part, where)
            finite = values[np.isfinite(values) & (values != 0)]
            timely = any(found.any() for unit, found in self._units(finite) if unit != DAY)
            seen, days = seen + len(finite), days + int((~np.isnan(_day(finite))).sum())
            if timely or self._holds_dates(part, values) or (seen and days * 2 >= seen):
                self.is_order = False
                return
            typical = max(typical, float(np.median(finite)) if len(finite) else 0.0)
        self.is_order = True
        self.divisor = next(d for d in UNITS.values() if typical / d <= MAX_ORDER or d == 10**9)

    def _all(self, column: pa.Array) -> Iterator[pa.Array]:
        """The whole column, if it can be looked at, this batch of it first."""
        yield column
        if self.look is not None:
            yield from self.look()

    def _holds_dates(self, column: pa.Array, values: Floats) -> bool:
        if not pa.types.is_string(column.type) or not np.isnan(values).any():
            return False
        dates = read_dates(pl.Series(column))
        return bool((~np.isnan(dates.seconds) | dates.either).any())

    def _units(self, values: Floats) -> Iterator[tuple[str, Bools]]:
        """Each unit, and which numbers are times in it `[n]`; of no two units the same."""
        for unit, divisor in UNITS.items():
            yield unit, (values >= SINCE * divisor) & (values < self.until * divisor)
        for unit, read in ((SECOND, _second), (DAY, _day)):
            found = np.zeros(len(values), bool)
            near = (values >= FIRST[unit]) & (values < 10.0 ** len(unit))
            found[near] = read(values[near]) < self.until  # nan is not
            yield unit, found

    def _judged(self, values: Floats) -> tuple[Floats, dict[str, Bools]]:
        """Seconds of numbers that are times, nan of others, and why some are none."""
        seconds = np.full(len(values), np.nan)
        for unit, found in self._units(values):
            if found.any():
                self.units[unit] += int(found.sum())
                read = {DAY: _day, SECOND: _second}.get(unit)
                seconds[found] = read(values[found]) if read else values[found] / UNITS[unit]
        zero = values == 0
        strange = np.isfinite(values) & np.isnan(seconds) & (values > 0)
        odd = {
            f"time in column {self.column!r} is 0, which is unknown": zero,
            f"no unit makes the number in column {self.column!r} a time from 1990 to a year from now "
            "(if it is an order, or in one unit all the same: --time-format)": strange,
        }
        return seconds, odd

    # ---------------------------------------------------------------------------------------------------------- texts
    def _dates(self, dates: Dates, odd: dict[str, Bools]) -> Floats:
        """Seconds of written dates, nan where there is none."""
        seconds = dates.seconds
        if dates.either.any():
            if self.day_first is None and not self.undecided:
                self._decide_order_of_days(dates)
            if self.day_first is not None:
                seconds = dates.resolved(self.day_first)
            else:
                reason = f"day or month first? column {self.column!r} does not say: use --time-format, as '%d/%m/%Y'"
                odd[reason] = dates.either
        good = ~np.isnan(seconds)
        self.zoned += int((dates.zoned & good).sum())
        self.naive += int((~dates.zoned & good).sum())
        return seconds

    def _decide_order_of_days(self, dates: Dates) -> None:
        """Whether the day is first in dates as 09/13/2020: as the values of the whole column say with one voice."""
        day, month = dates.day_first, dates.month_first
        for part in self.look() if self.look is not None else ():
            if day and month:
                break
            found = read_dates(pl.Series(as_text(part)))
            if found.either.any():
                day, month = day or found.day_first, month or found.month_first
        self.day_first, self.undecided = (day, False) if day != month else (None, True)

    def _formed(self, column: pa.Array, where: str, form: str) -> Moments:
        """Times of a form that was named."""
        if form == ORDER or form in SHORT:
            values = numbers(column, where)
            return _moments(values / UNITS[SHORT.get(form, "seconds")], {})
        return _moments(by_format(pl.Series(as_text(column, where)), form), {})


def _moments(seconds: Floats, odd: dict[str, Bools]) -> Moments:
    good = (seconds >= 0) & (seconds < MAX_SECONDS)
    whole = np.where(good, np.floor(seconds), 0).astype(np.int64)
    rest = np.where(good, seconds - whole, 0)
    thousandths = np.minimum(np.floor(1000 * rest + 0.01), 999).astype(np.int16)  # .123 is a little less as a float
    odd = {reason: rows & ~good for reason, rows in odd.items() if (rows & ~good).any()}
    return Moments(whole, good, odd, thousandths)


def _day(values: Floats) -> Floats:
    """Seconds of YYYYMMDD from 1990 on; nan where a number is no such date."""
    fits = np.isfinite(values) & (values >= FIRST[DAY]) & (values < 1e8)
    whole = np.where(fits & (values == np.floor(values)), values, 0)
    return days_since_1970(whole // 10_000, whole // 100 % 100, whole % 100) * 86400


def _second(values: Floats) -> Floats:
    """Seconds of YYYYMMDDHHMMSS from 1990 on; nan where a number is no such time."""
    fits = np.isfinite(values) & (values >= FIRST[SECOND]) & (values < 1e14)
    whole = np.where(fits, values, 0)
    clock_part = whole % 1_000_000
    hour, minute, second = clock_part // 10_000, clock_part // 100 % 100, np.floor(clock_part % 100)
    good = (hour < 24) & (minute < 60) & (second <= 60)
    return np.where(good, _day(np.floor(whole / 1_000_000)) + hour * 3600 + minute * 60 + second, np.nan)
