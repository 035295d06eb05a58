"""Columns that are labels: what they are called in the dataset, and which of their values are positives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.arguments import shown
from rawrec.data.meta import Rated
from rawrec.errors import UserError
from rawrec.shown import listed
from rawrec.sources.tables.convert import as_text, labels, missing, row_name
from rawrec.sources.tables.source import Source

HOW = "a number (a label from there on is positive), COLUMN>=NUMBER, or COLUMN=VALUE (that value is)"
LABEL = "label"
"""What the only label is called, if a rule makes it of a column."""
SEEN_VALUES = 8
Positive = float | str | Sequence[str | float]
"""As users give it: a number, or words of the form `COLUMN>=NUMBER` and `COLUMN=VALUE`."""


class Rule(NamedTuple):
    """What is positive in a column: from `least` on, or one of the `values`."""

    least: float | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelColumn:
    """A column of a table, and the label `name` that it becomes: of numbers and words as they are; with `least` 1 from
    there on, else 0; with `values` 1 where it is one of them, else 0."""

    column: str
    name: str
    least: float | None = None
    values: tuple[str, ...] = ()

    @property
    def ruled(self) -> bool:
        """Whether the label is made of the column by a rule."""
        return self.least is not None or bool(self.values)

    @property
    def rule(self) -> str:
        """`rating >= 4`, `event is purchase or gift`, `column clicked`."""
        if self.values:
            return f"{self.column} is {' or '.join(self.values)}"
        return f"column {self.column}" if self.least is None else f"{self.column} >= {self.least:g}"

    @property
    def kept_as(self) -> pa.DataType | None:
        """The type of the column where it is kept beside the label, as it was; None: it is the label."""
        if not self.ruled or self.name == row_name(self.column):
            return None
        return pa.string() if self.values else pa.float32()

    def never(self, found: Iterable[str] = ()) -> str:
        """That no label is positive, in words. found: values of the column, which help where one was mistyped."""
        if self.values:
            there = listed(map(repr, found))
            what = f"column {self.column!r} is never {' or '.join(map(repr, self.values))}"
            return f"no positive label: {what}" + (f"; it holds {there}" if there else "")
        if self.least is not None:
            return f"no positive label: no {self.column} is at least {self.least:g}"
        return f"no positive label: column {self.column!r} is never above 0"

    def unusable(self) -> str:
        """Why a row is left out whose label cannot be read."""
        if self.values:
            return f"no usable label in column {self.column!r}: it is empty"
        hint = "or yes and no" if self.ruled else "yes and no, or name its positives (--positive)"
        return f"no usable label in column {self.column!r}: give numbers, {hint}"

    def read(self, column: pa.Array, where: str) -> tuple[np.ndarray, np.ndarray]:
        """The label float32 `[n]`, nan where there is none, and where there is one `[n]`."""
        if self.values:
            text, there = as_text(column, where), ~missing(column)
            is_one = pl.Series(text).str.strip_chars().is_in(list(self.values)).fill_null(False).to_numpy()
            return np.where(there, is_one, np.nan).astype(np.float32), there
        values, fits = labels(column, where)
        if self.least is not None:
            values = np.where(fits, values >= np.float32(self.least), np.nan).astype(np.float32)
        return values, fits

    def some_values(self, column: pa.Array, where: str) -> list[str]:
        """A few of the values of a column of which some are positives by name, for messages."""
        if not self.values:
            return []
        text = pl.Series(as_text(column, where)).str.strip_chars().drop_nulls()
        return text.filter(text != "").unique(maintain_order=True).head(SEEN_VALUES).to_list()


def label_columns(source: Source, words: Sequence[str], positive: Positive | None) -> list[LabelColumn]:
    """The labels of an import: words "COLUMN" or "COLUMN=NAME", and what is positive in them, see `HOW`.

    A label is called as its column, unless a rule makes it of the column: then `label`, if there is no other, and the
    column itself is kept beside it. A column whose values are named is a label without being named as one.

    Raises UserError for absent columns, for rules that cannot be read or that no label follows, and for labels that a
    rule makes where there are several and they have no name.
    """
    given = [(word, *source.column_and_field("label", word, row_name)) for word in dict.fromkeys(words)]
    named = {column for word, column, _ in given if word != column}
    least, rules = parse_positive(source, positive)
    given += [(column, column, row_name(column)) for column in rules if column not in [c for _, c, _ in given]]
    if least is not None and not given:
        raise UserError(
            f"positive {least:g}: of which column? Name it by label (--label COLUMN), or say COLUMN>={least:g}"
        )
    found = [LabelColumn(column, name, *rules.get(column, Rule(least))) for _, column, name in given]
    if len(found) == 1 and found[0].ruled and found[0].column not in named:
        found = [replace(found[0], name=LABEL)]
    for label in found:
        if label.ruled and len(found) > 1 and label.column not in named:
            raise UserError(
                f"positive: there are several labels; say what the one made of column {label.column!r} is called: "
                f"label {label.column}=NAME"
            )
        if alike := [other.column for other in found if other.name == label.name and other != label]:
            raise UserError(
                f"two labels would be called {label.name!r}, the columns {label.column!r} and {alike[0]!r}: name one "
                "of them COLUMN=NAME"
            )
    return found


def parse_positive(source: Source, positive: Positive | None) -> tuple[float | None, dict[str, Rule]]:
    """What `positive` says: a threshold for every label, and rules for columns of `source` of their own. Raises
    UserError for what it cannot say, and for absent columns."""
    least: float | None = None
    rules: dict[str, Rule] = {}
    for word in _words(positive):
        if (number := _number(word)) is not None:
            if least is not None:
                raise UserError(f"positive {word}: it is {least:g} already; for one of several labels: COLUMN>=NUMBER")
            least = number
            continue
        column, sign, value = _parts(source, str(word))
        before, number = rules.get(column, Rule()), _number(value) if sign == ">=" else None
        if sign == ">=" and number is None:
            raise UserError(f"positive {word!r}: {value!r} is no number")
        if before.least is not None or (before.values and sign == ">="):
            raise UserError(f"positive {word!r}: column {column!r} has a rule already")
        rules[column] = Rule(number, () if sign == ">=" else tuple(dict.fromkeys([*before.values, value])))
    return least, rules


def _parts(source: Source, word: str) -> tuple[str, str, str]:
    """Column, sign and value of `COLUMN>=NUMBER` or `COLUMN=VALUE`; a column's name may hold such signs itself."""
    found = [(word[: m.start()], m[0], word[m.end() :].strip()) for m in re.finditer(r">=|==|=", word)]
    if not found or not all((found[0][0].strip(), found[0][2])):
        raise UserError(f"positive {word!r}: give {HOW}")
    known = [(column, sign, value) for column, sign, value in found if column in source.columns]
    column, sign, value = (known or found)[0]
    source.require("positive", [column])
    return column, sign, value


def _number(word: float | str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def kept(columns: Iterable[LabelColumn]) -> dict[str, pa.DataType]:
    """The columns that are kept beside the labels that are made of them -> their types."""
    return {label.column: kind for label in columns if (kind := label.kept_as) is not None}


def rated_as(rated: str | None, labels: Iterable[LabelColumn]) -> Rated:
    """What the dataset says of items that a user rated: as given, else `seen` where a label is made of ratings by a
    threshold. Raises UserError for another word."""
    if rated is None:
        return "seen" if any(label.least is not None for label in labels) else "unseen"
    for known in get_args(Rated):
        if rated == known:
            return known
    raise UserError(f"rated={shown(rated)}: use seen (a rating says that the user knows the item) or unseen")


def numeric_labels(words: Sequence[str], positive: Positive | None) -> set[str]:
    """The columns that `words` may name as labels, but for those of which `positive` names values: what a table that
    has numbers and names for the same values is to give as numbers."""
    columns = {*words, *(word.rpartition("=")[0] for word in words)}
    rules = tuple(f"{column}=" for column in columns)
    named = {word.partition("=")[0] for word in _words(positive) if isinstance(word, str) and word.startswith(rules)}
    return columns - named - {""}


def _words(positive: Positive | None) -> Sequence[str | float]:
    return [] if positive is None else [positive] if isinstance(positive, str | float | int) else positive
