"""Dates as people and programs write them -> seconds since 1970, all rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rawrec.errors import UserError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
CLOCK = (
    r"(?:(?:[T ]+|, ?)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?)?(?: ?(?P<zone>[Zz]|UTC|UT|GMT|[+-]\d{2}(?::?\d{2})?))?$"
)
YEAR_FIRST = r"^(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})" + CLOCK
"""`2020-09-13 12:26:40 UTC`, `2020-09-13T12:26:40,5+02:00`, `2020/09/13`: ISO and its like."""
NAMED = r"^(?:[A-Za-z]{3,9}, ?)?(?P<day>\d{1,2})[ -](?P<word>[A-Za-z]{3})[A-Za-z]*\.?[ -](?P<year>\d{4})" + CLOCK
"""`Sun, 13 Sep 2020 12:26:40 +0000`: RFC 822 and its like."""
EITHER = r"^(?P<one>\d{1,2})(?P<sign>[-/.])(?P<two>\d{1,2})[-/.](?P<year>\d{4})" + CLOCK
"""`09/13/2020`, `13.09.2020 12:26`: of day and month either may come first."""
NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
CLOCK_PARTS = ("hour", "minute", "second", "fraction", "half", "zone")


@dataclass
class Dates:
    """Dates of a column: seconds since 1970 `[n]`, nan where there is none; without a zone they are UTC. either: where
    day and month are numbers of which either may come first, so that the seconds wait for `resolved`."""

    seconds: Floats
    zoned: Bools
    either: Bools
    _parts: pl.DataFrame

    @cached_property
    def _pair(self) -> tuple[Floats, Floats]:
        return _numbers(self._parts, "one"), _numbers(self._parts, "two")

    @property
    def day_first(self) -> bool:
        """Whether a value says that the day is first, as 13/09/2020."""
        return bool((self._pair[0][self.either] > 12).any())

    @property
    def month_first(self) -> bool:
        """Whether a value says that the month is first, as 09/13/2020."""
        return bool((self._pair[1][self.either] > 12).any())

    def resolved(self, day_first: bool) -> Floats:
        """The seconds, with day or month first where either may be."""
        one, two = self._pair
        day, month = (one, two) if day_first else (two, one)
        return np.where(self.either, _seconds(self._parts, _numbers(self._parts, "year"), month, day), self.seconds)


def read_dates(text: pl.Series) -> Dates:
    """What the texts say, see `Dates`."""
    text = text.str.strip_chars()
    parts = _groups(text, YEAR_FIRST, "year", "month", "day")
    seconds = _seconds(parts, *(_numbers(parts, name) for name in ("year", "month", "day")))
    zoned = parts["zone"].is_not_null().to_numpy() & ~np.isnan(seconds)
    either, empty = np.zeros(len(text), bool), parts
    if np.isnan(seconds).any():
        parts = _groups(text, NAMED, "day", "word", "year")
        word = parts["word"].str.to_lowercase().replace_strict(NAMES, range(1, 13), default=None)
        month = word.cast(pl.Float64).fill_null(np.nan).to_numpy()
        named = _seconds(parts, _numbers(parts, "year"), month, _numbers(parts, "day"))
        zoned |= parts["zone"].is_not_null().to_numpy() & ~np.isnan(named)
        seconds = np.where(np.isnan(seconds), named, seconds)
        empty = _groups(text, EITHER, "one", "sign", "two", "year")
        one, two = _numbers(empty, "one"), _numbers(empty, "two")
        either = (np.minimum(one, two) <= 12) & (np.maximum(one, two) <= 31)  # nan is neither
        zoned |= empty["zone"].is_not_null().to_numpy() & either
    return Dates(seconds, zoned, either, empty)


def _groups(text: pl.Series, pattern: str, *names: str) -> pl.DataFrame:
    found = text.str.extract_groups(pattern).struct.unnest()
    return found.select(*names, *CLOCK_PARTS)


def _numbers(parts: pl.DataFrame, name: str) -> Floats:
    return parts[name].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()


def _seconds(parts: pl.DataFrame, year: Floats, month: Floats, day: Floats) -> Floats:
    """Seconds since 1970; nan where there is no such day or time."""
    hour, minute, second = (np.nan_to_num(_numbers(parts, name)) for name in ("hour", "minute", "second"))
    digits = parts["fraction"].fill_null("")
    fraction = ("0." + digits + "0").cast(pl.Float64).to_numpy()
    half = parts["half"].str.to_lowercase().fill_null("").to_numpy()
    fits = (half == "") | ((hour >= 1) & (hour <= 12))
    hour = np.where(half == "", hour, hour % 12 + 12 * (half == "p"))
    return np.where(
        fits & (hour < 24) & (minute < 60) & (second <= 60),
        days_since_1970(year, month, day) * 86400 + hour * 3600 + minute * 60 + second + fraction - _offset(parts),
        np.nan,
    )


def days_since_1970(year: Floats, month: Floats, day: Floats) -> Floats:
    """Days since 1970-01-01; nan where there is no such day."""
    good = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (year >= 1) & (year <= 9999)
    months = np.where(good, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + np.where(good, day - 1, 0).astype(np.int64)
    good &= days.astype("datetime64[M]") == months
    return np.where(good, days.astype(np.float64), np.nan)


def _offset(parts: pl.DataFrame) -> Floats:
    """Seconds that a zone is ahead of UTC; 0 of UTC and without one."""
    zone = parts["zone"].fill_null("").str.replace(":", "", literal=True)
    signed = zone.str.starts_with("+") | zone.str.starts_with("-")
    number = zone.str.slice(1).str.pad_end(4, "0").cast(pl.Float64, strict=False).fill_null(0).to_numpy()
    seconds = (number // 100) * 3600 + (number % 100) * 60
    return np.where(signed.to_numpy(), np.where(zone.str.starts_with("-").to_numpy(), -seconds, seconds), 0.0)


def by_format(text: pl.Series, form: str) -> Floats:
    """Seconds since 1970 of texts of one form, as `datetime.strptime` reads it; nan where a text is of another."""
    distinct = text.drop_nulls().unique()
    found: dict[str, float] = {}
    for value in distinct.to_list():
        if (seconds := parsed(value.strip(), form)) is not None:
            found[value] = seconds
    if not found:
        return np.full(len(text), np.nan)
    seconds = text.replace_strict(list(found), list(found.values()), default=None, return_dtype=pl.Float64)
    return seconds.fill_null(np.nan).to_numpy()


def parsed(value: str, form: str) -> float | None:
    """Seconds since 1970; without a zone UTC."""
    try:
        found: Any = datetime.strptime(value, form)
    except ValueError:
        return None
    found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return (found - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def check_format(form: str) -> str:
    """A form of `datetime.strptime`; UserError for what is none, or says no day."""
    made = datetime(2001, 2, 3, 16, 5, 6, tzinfo=UTC).strftime(form)
    try:
        if "%" not in form or datetime.strptime(made, form).year == 1900:
            raise ValueError
    except ValueError:
        raise UserError(
            f"time_format {form!r}: give a form of Python's strptime that has the year, for example '%d/%m/%Y %H:%M'"
        ) from None
    return form
