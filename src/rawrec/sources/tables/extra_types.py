"""Which types further columns of the interactions get. A text is a number only if it is what that number prints as."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.errors import UserError
from rawrec.sources.tables.source import Source

TYPED = ("parquet", "arrow")
"""Formats whose columns have types."""
EXACT = 1 << 53
"""Whole numbers below are floats, too."""


def _as_python(values: pl.Series) -> pl.Series:
    return pl.Series([None if value is None else repr(value) for value in values.to_list()], dtype=pl.String)


def _without_decimals(values: pl.Series) -> pl.Series:
    return _as_python(values).str.strip_suffix(".0")


def _as_json(values: pl.Series) -> pl.Series:
    return values.cast(pl.String)


FORMS: tuple[Callable[[pl.Series], pl.Series], ...] = (_as_python, _without_decimals, _as_json)
"""How floats may be printed: as Python does, without the decimals of whole ones, as JSON is read here."""


def extra_types(source: Source, names: Sequence[str]) -> dict[str, pa.DataType]:
    """The types of further columns: their own, where the table has types. Of a text that of all values: int64 or
    float64 where each is exactly what its number prints as, all of them in one form, else string; so identifiers stay
    what they are (`007`, `1.10`, `1e5`, twenty digits). What was near to a number is noted.

    UserError for lists and other nested types. Reads the whole table, up to the last column that can be a number.
    """
    open_, result = {name: _Texts() for name in names}, {}
    for batch in source.again().batches(list(open_)) if names else ():
        for name in list(open_):
            column = batch.columns[name]
            if pa.types.is_nested(column.type):
                raise UserError(
                    f"{source.name}: {name} holds values of type {column.type}; an extra column holds single values"
                )
            if source.format in TYPED or not pa.types.is_string(column.type):
                result[name] = column.type
            elif (value := open_[name].add(column)) is not None:
                result[name] = pa.string()
                if _number(value) is not None:
                    source.report.note(
                        f"column {name!r} is kept as text, for {value!r} is not what a number prints as (as a number "
                        "for a model: context_numeric)"
                    )
            if name in result:
                del open_[name]
        if not open_:
            break
    return {name: result[name] if name in result else open_[name].kind for name in names}


class _Texts:
    """What the texts of a column can be, all of them. largest: the absolute value of the largest whole number."""

    def __init__(self) -> None:
        self.whole, self.some, self.largest = True, False, 0.0
        self.forms = list(FORMS)

    @property
    def kind(self) -> pa.DataType:
        return pa.string() if not self.some else pa.int64() if self.whole else pa.float64()

    def add(self, column: pa.Array) -> str | None:
        """Look at more of them; a value for which they cannot be numbers, if there is one."""
        text = pl.Series(column).drop_nulls()
        text = text.filter(text.str.strip_chars() != "").unique(maintain_order=True)
        if not len(text):
            return None
        if self.whole:
            numbers = text.cast(pl.Int64, strict=False)
            bad = ~numbers.cast(pl.String).eq_missing(text)
            if not bad.any():
                self.some, self.largest = (
                    True,
                    max(self.largest, float(np.abs(numbers.cast(pl.Float64).to_numpy()).max())),
                )
                return None
            self.whole = False
            if self.some:  # what is whole so far has no decimals
                self.forms = [_without_decimals]
                if self.largest >= EXACT:
                    return text[bad.arg_max() or 0]
        self.some = True
        values = text.cast(pl.Float64, strict=False)
        minus = (values == 0) & text.str.starts_with("-")  # -0 equals 0
        wrong = {form: ~form(values).eq_missing(text) | minus.fill_null(False) for form in self.forms}
        self.forms = [form for form, bad in wrong.items() if not bad.any()]
        return None if self.forms else text[max(bad.arg_max() or 0 for bad in wrong.values())]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
