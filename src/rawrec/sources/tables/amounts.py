"""Numbers as people write them, "90,50 EUR" and "$1,299.00": read where a whole column agrees on one way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.data.import_report import ImportReport
from rawrec.sources.tables.convert import as_text, missing, numbers
from rawrec.sources.tables.source import Batch, Look

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
CODES = (
    "EUR|USD|GBP|JPY|CNY|RMB|CHF|SEK|NOK|DKK|ISK|PLN|CZK|HUF|RON|BGN|TRY|TL|RUB|UAH|ILS|AED|SAR|INR|KRW|TWD|HKD|SGD|THB|"
    "IDR|MYR|PHP|VND|BRL|MXN|ARS|CLP|COP|CAD|AUD|NZD|ZAR|EGP|NGN|KES|US\\$|C\\$|A\\$|R\\$|Rs\\.?|kr\\.?|zł|Kč|Ft|lei"
)
SIGN = rf"(?:(?i:{CODES})|\p{{Sc}})"
WRITTEN = (
    rf"^(?P<minus>[-+−]?)\s*(?P<before>{SIGN}?)\s*(?P<inner>[-+−]?)"
    rf"(?P<digits>[0-9][0-9.,'’\s]*|[.,][0-9]+)\s*(?P<after>{SIGN}?)$"
)
SPACED = r"^[0-9]{1,3}(?:[\s'’][0-9]{3})+(?P<rest>$|[.,])"
READINGS = {
    "point": r"^(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)?(?:\.[0-9]*)?$",
    "comma": r"^(?:[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+)?(?:,[0-9]*)?$",
}
"""What stands before the decimals -> the digits of a number, whose thousands the other sign may divide."""


@dataclass
class Written:
    """Numbers of some rows under either reading `[n]`, nan where one is none of its kind; their currency `[n]`."""

    point: Floats
    comma: Floats
    plain: Floats
    currency: pl.Series

    @classmethod
    def of(cls, text: pl.Series) -> Written:
        text = text.str.strip_chars()
        parts = text.str.extract_groups(WRITTEN).struct.unnest()
        digits = parts["digits"].str.strip_chars().fill_null("x")
        spaced = digits.str.replace_all(r"[\s'’]", "")
        digits = pl.select(pl.when(digits.str.contains(SPACED)).then(spaced).otherwise(digits)).to_series()
        minus = (parts["minus"] + parts["inner"]).str.contains("[-−]").fill_null(False).to_numpy()
        found = {}
        for name, form in READINGS.items():
            clean = digits.str.replace_all("," if name == "point" else ".", "", literal=True)
            clean = clean.str.replace(",", ".", literal=True)
            values = clean.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
            values = np.where(digits.str.contains(form).to_numpy(), values, np.nan)
            found[name] = np.where(minus, -values, values)
        currency = (parts["before"] + parts["after"]).str.to_uppercase().fill_null("")
        plain = text.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        return cls(found["point"], found["comma"], plain, currency)


@dataclass
class Way:
    """How a column writes its numbers, as far as it was seen."""

    point: bool = False
    comma: bool = False
    currencies: dict[str, None] = field(default_factory=dict)

    def add(self, found: Written) -> None:
        readable = ~np.isnan(found.point) | ~np.isnan(found.comma)
        self.point |= bool((~np.isnan(found.point) & np.isnan(found.comma)).any())
        self.comma |= bool((np.isnan(found.point) & ~np.isnan(found.comma)).any())
        named = found.currency.filter(pl.Series(readable) & (found.currency != ""))
        self.currencies |= dict.fromkeys(named.unique(maintain_order=True).to_list())

    @property
    def reading(self) -> str | None:
        """`point`, `comma`, `either` where no value tells, None where values contradict one another."""
        if len(self.currencies) > 1 or (self.point and self.comma):
            return None
        return "point" if self.point else "comma" if self.comma else "either"


class Numbers:
    """Reads a column of numbers of `what` (items, users) in batches. Where all are plain numbers they are these; else
    the whole column, which `look` gives, has to agree on a decimal sign and on one currency."""

    def __init__(self, report: ImportReport, what: str, column: str, look: Look | None = None) -> None:
        self.report, self.what, self.column, self.look = report, what, column, look
        self.way: Way | None = None
        self.read, self.rows, self.some = 0, 0, False
        self.pointed = False  # numbers with a point were read before anything said that it is none

    def __call__(self, batch: Batch, among: Bools | None = None) -> Floats:
        """float64 `[n]`, nan where there is no number; texts of which nothing is read are counted, those `among` the
        rows that are kept."""
        column = batch.columns[self.column]
        where = f"{batch.file}: {self.column}"
        values, empty = numbers(column, where), missing(column)
        lost = np.isnan(values) & ~empty
        if pa.types.is_string(column.type):
            text = pl.Series(column)
            if lost.any() or self.way is not None:
                values = self._written(text, values)
            else:
                self.pointed |= bool(text.str.contains(".", literal=True).any())
            lost = np.isnan(values) & ~empty & (True if among is None else among)
            for why, bad in self._reasons(text, lost):
                if bad.any():
                    examples = batch.examples(bad, self.column)
                    self.report.skip(f"{self.what}: {self.column} {why}", examples, int(bad.sum()))
        self.rows, self.some = self.rows + int((~empty).sum()), self.some or bool((~np.isnan(values)).any())
        return values

    def plain(self, batch: Batch) -> pa.Array:
        """The column, in which numbers as people write them are plain ones, "4,5" is "4.5"; all else is as it was, and
        nothing is counted as lost."""
        column = batch.columns[self.column]
        if not pa.types.is_string(column.type):
            return column
        text, values = pl.Series(column), numbers(column, f"{batch.file}: {self.column}")
        like = np.isnan(values) & text.str.contains("[0-9]").fill_null(False).to_numpy()
        if not like.any() and self.way is None:
            self.pointed |= bool(text.str.contains(".", literal=True).any())
            return column
        found = self._written(text, values)
        changed = pl.Series(~np.isnan(found) & (np.isnan(values) | (found != values)))
        written = pl.Series(found).cast(pl.String)
        return pl.select(pl.when(changed).then(written).otherwise(text)).to_series().to_arrow().cast(column.type)

    def finish(self) -> None:
        """Tell how the numbers were read, and of a column that held none."""
        if self.read and self.way is not None:
            sign = {"comma": "with a decimal comma", "point": "with a decimal point"}.get(self.way.reading or "", "")
            without = f"without {next(iter(self.way.currencies))}" if self.way.currencies else ""
            how = ", ".join(filter(None, [sign, without])) or "with blanks between thousands"
            self.report.note(f"{self.what}: numbers of {self.column} read {how}: {self.read:,}")
        if self.rows and not self.some:
            none = f"not one of {self.rows:,} values of {self.column} is a number, the field is empty"
            self.report.note(f"{self.what}: {none}")

    def _written(self, text: pl.Series, plain: Floats) -> Floats:
        found = Written.of(text)
        if self.way is None:
            self.way = self._decide(found)
        reading = self.way.reading
        if reading is None:
            return plain
        values = found.comma if reading == "comma" else found.point
        if reading == "either":  # of a value that the readings differ in, only what is a plain number is one
            values = np.where(found.point == found.comma, values, plain)
        elif reading == "point":
            values = np.where(np.isnan(plain), values, plain)
        self.read += int((~np.isnan(values) & (np.isnan(plain) | (values != plain))).sum())
        return values

    def _decide(self, found: Written) -> Way:
        way = Way(point=self.pointed)
        way.add(found)
        for part in self._all():
            if way.reading is None:
                break
            if pa.types.is_string(part.type):
                way.add(Written.of(pl.Series(as_text(part))))
        return way

    def _all(self) -> Iterator[pa.Array]:
        if self.look is not None:
            yield from self.look()

    def _reasons(self, text: pl.Series, lost: Bools) -> Iterator[tuple[str, Bools]]:
        """Why nothing was read, and where that was so `[n]`."""
        reading = self.way.reading if self.way is not None else "point"
        if self.way is None or not lost.any() or reading in ("point", "comma"):
            yield "is no number (kept, empty)", lost
            return
        found = Written.of(text)
        like = lost & ~(np.isnan(found.point) & np.isnan(found.comma))
        yield "is no number (kept, empty)", lost & ~like
        if reading == "either":
            yield "may be two numbers, as 1,299 where no value says what its comma is (kept, empty)", like
        elif len(self.way.currencies) > 1:
            yield f"is in several currencies: {', '.join(self.way.currencies)} (kept, empty)", like
        else:
            yield "has decimal commas and decimal points (kept, empty)", like
