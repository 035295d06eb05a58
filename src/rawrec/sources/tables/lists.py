"""Columns whose values are lists: Arrow's own, JSON, or strings with something between the values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from rawrec.data.import_report import ImportReport
from rawrec.sources.tables import Batch
from rawrec.sources.tables.convert import as_text

SEPARATORS = {"|": "bars", ",": "commas", ";": "semicolons"}
ROWS_AT_ONCE = 1 << 18


@dataclass
class Lists:
    """Lists of strings: the values of all of them one after another, "" where one is missing, and the length of each
    `[n]`."""

    values: pa.Array
    lengths: np.ndarray

    @property
    def owners(self) -> np.ndarray:
        """The list that each value is of, int64 `[values]`."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def positions(self) -> np.ndarray:
        """The place of each value in its list, from 0, int64 `[values]`."""
        return np.arange(len(self.values)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)

    def keep(self, good: np.ndarray) -> Lists:
        """The lists where `good` `[n]` holds."""
        if good.all():
            return self
        return Lists(self.values.filter(pa.array(np.repeat(good, self.lengths))), self.lengths[good])

    def part(self, lists: slice) -> Lists:
        """Consecutive lists."""
        edges = np.concatenate([[0], np.cumsum(self.lengths)])
        start, end = int(edges[lists.start]), int(edges[lists.stop])
        return Lists(self.values.slice(start, end - start), self.lengths[lists])

    def examples(self, bad: np.ndarray, where: np.ndarray, limit: int = 20) -> list[str]:
        """`where value` of the first values where `bad` `[values]` holds; where: the place of each list `[n]`."""
        at = np.flatnonzero(bad)[:limit]
        places, values = where[self.owners[at]].tolist(), self.values.take(pa.array(at)).to_pylist()
        return [f"{place} {value!r}" for place, value in zip(places, values, strict=True)]

    def spans(self, most: int = ROWS_AT_ONCE) -> Iterator[slice]:
        """Consecutive parts of no more than `most` values; a longer list is one part."""
        ends = np.cumsum(self.lengths)
        start = 0
        while start < len(ends):
            before = int(ends[start] - self.lengths[start])
            stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
            yield slice(start, stop)
            start = stop


def words(column: pa.Array) -> Lists:
    """The words of strings, white space being between them."""
    return _lists(pl.Series(column).fill_null("").str.extract_all(r"\S+"))


class ListReader:
    """Reads columns of lists. A list is one of Arrow, a string that is a JSON list, or a string of values with a
    separator between them: the one that is given, else the first of | , ; that the first such strings hold, else white
    space. What was found is noted."""

    def __init__(self, report: ImportReport, separator: str | None = None) -> None:
        self.report, self.separator = report, separator

    def __call__(self, batch: Batch, name: str) -> tuple[Lists, np.ndarray]:
        """The lists of a column, values without surrounding white space, and where they can be read `[n]`.

        UserError for a column of values that are neither lists nor plain."""
        column, where = batch.columns[name], f"{batch.file}: {name}"
        kind = column.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            lengths = pl.Series(column).list.len().fill_null(0).to_numpy().astype(np.int64)
            return Lists(_stripped(as_text(column.flatten(), where)), lengths), np.ones(len(column), dtype=bool)
        text = pl.Series(as_text(column, where)).str.strip_chars().fill_null("")
        is_json = text.str.starts_with("[")
        plain = text.set(is_json, "")
        self._find_separator(plain, where)
        decoded = _decoded(text.set(~is_json, None))
        found = pl.select(pl.when(is_json).then(decoded).otherwise(self._split(plain))).to_series()
        return _lists(found), found.is_not_null().to_numpy()

    def _find_separator(self, plain: pl.Series, where: str) -> None:
        if self.separator is None and (plain != "").any():
            held = [s for s in SEPARATORS if plain.str.contains(s, literal=True).any()]
            self.separator = held[0] if held else " "
            self.report.note(f"{where}: {SEPARATORS.get(self.separator, 'white space')} taken to be between the values")

    def _split(self, plain: pl.Series) -> pl.Series:
        if self.separator is None or not self.separator.strip():
            return plain.str.extract_all(r"\S+")
        return plain.str.split(self.separator).list.eval(pl.element().filter(pl.element().str.strip_chars() != ""))


def _lists(found: pl.Series) -> Lists:
    values = found.to_arrow().flatten().cast(pa.string())
    return Lists(_stripped(values), found.list.len().fill_null(0).to_numpy().astype(np.int64))


def _stripped(values: pa.Array) -> pa.Array:
    """Without surrounding white space; "" for null."""
    return pc.fill_null(pc.call_function("utf8_trim_whitespace", [values]), "")


def _decoded(text: pl.Series) -> pl.Series:
    """JSON lists of plain values as lists of strings; null for anything else."""
    kind = pl.List(pl.String)
    try:
        return text.str.json_decode(kind)
    except pl.exceptions.PolarsError:  # one bad value spoils all: each by itself
        return pl.Series([None if value is None else _list(value) for value in text], dtype=kind)


def _list(text: str) -> list[str] | None:
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, list) or any(isinstance(value, (list, dict)) for value in values):
        return None
    return ["" if v is None else v if isinstance(v, str) else json.dumps(v) for v in values]
