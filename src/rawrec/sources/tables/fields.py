"""Which columns of a table become which fields, as words say: "COLUMN", or "COLUMN=FIELD" under another name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from rawrec.data.names import NAMES, is_name
from rawrec.errors import UserError
from rawrec.sources.tables.convert import row_name, stored_name
from rawrec.sources.tables.source import Source

LONGEST = 150
"""Bytes of the longest name of a field, which stands in names of files."""


class Named(NamedTuple):
    """A column of a table, and the field that it becomes."""

    column: str
    field: str


def fields_of(source: Source, words: Mapping[str, Sequence[str]]) -> dict[str, list[Named]]:
    """Setting -> its columns and their fields. Raises UserError for absent columns, and for two of one field."""
    found: dict[str, list[Named]] = {setting: [] for setting in words}
    taken: dict[str, str] = {}
    for setting, some in words.items():
        for word in some:
            column, field = _named(source, setting, word, stored_name)
            if taken.get(field) == column:
                raise UserError(f"{setting}: column {column!r} is named twice: name it once, or as {column}=NAME")
            check_distinct(setting, {taken.get(field, ""): field, column: field} if field in taken else {})
            taken[field] = column
            found[setting].append(Named(column, field))
    return found


def check_distinct(setting: str, names: Mapping[str, str]) -> None:
    """UserError where two columns, the keys, are called alike."""
    taken: dict[str, str] = {}
    for column, field in names.items():
        if (other := taken.setdefault(field, column)) != column:
            raise UserError(
                f"{setting}: the columns {other!r} and {column!r} would both be called {field!r}: give one of them "
                f"another name, as {column}=NAME"
            )


def columns_of(source: Source, setting: str, words: Iterable[str], names: dict[str, str]) -> list[str]:
    """The columns that words name, each once; those with a field of their own are added to `names`.

    Raises UserError for absent columns, and for a column that gets two fields.
    """
    result: dict[str, None] = {}
    for word in words:
        column, field = _named(source, setting, word, row_name)
        if column != word and names.setdefault(column, field) != field:
            raise UserError(f"{setting}: column {column!r} is to be {names[column]!r} and {field!r}: give it one name")
        result[column] = None
    return list(result)


def columns_in(words: Iterable[str]) -> set[str]:
    """The columns that words may name, before there is a table to look at."""
    words = list(words)
    return {*words, *(word.rpartition("=")[0] for word in words)} - {""}


def _named(source: Source, setting: str, word: str, stored: Callable[[str], str]) -> Named:
    column, field = source.column_and_field(setting, word, stored)
    if not is_name(field):
        raise UserError(f"{setting} {word!r}: {field!r} is no name of a field: use {NAMES}")
    if len(field.encode()) > LONGEST:
        raise UserError(f"{setting}: column {column!r} is too long for the name of a field: use COLUMN=NAME")
    return Named(column, field)
