"""A table of interactions as a stream: its rows in the order of their times, each an impression of a known label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl

from rawrec.data.queries import ASKED
from rawrec.errors import UserError
from rawrec.reading import check_plain, damaged
from rawrec.shown import listed
from rawrec.stream.log import AT_ONCE
from rawrec.sums import file_sum

NEEDED = ("user_id", "item_id", "timestamp")
Draw = Callable[[str, str, int], list[str]]
"""User, the item that was taken, number of the row -> items that were not."""


@dataclass(slots=True)
class Row:
    """A row as an impression of known labels. It has what a `Shown` of the wire has; its values are known to be right,
    so that nothing is checked once more."""

    request: str
    time: float
    items: list[str]
    user: str
    labels: list[float]
    context: dict[str, Any] = field(default_factory=dict)
    query: str | None = None
    session: str | None = None
    history: None = None
    version: None = None
    scores: None = None
    kind: Literal["shown"] = "shown"


class Happened(NamedTuple):
    """An event of a table at its position, with its id."""

    position: int
    producer: str
    sequence: int
    event: Row


class EventTable:
    """`user_id`, `item_id`, `timestamp` (seconds since 1970, or times), the label (above 0 a positive), `query` and
    `session` where it has them, and columns of the context. draw: for a table without labels, whose rows are all
    positives, what stands beside each as a negative.

    Raises UserError for a file that is no such table.
    """

    def __init__(self, path: Path, label: str, context: Mapping[str, str], draw: Draw | None) -> None:
        try:
            check_plain(path, links=True)
        except FileNotFoundError:
            raise UserError(f"--events {path}: there is no such file") from None
        with damaged(path):
            self._id = file_sum(path).replace(" ", "-")
            table = pl.read_parquet(path, glob=False) if path.suffix == ".parquet" else _csv(path)
        if missing := [name for name in NEEDED if name not in table.columns]:
            raise UserError(f"--events {path} lacks {', '.join(missing)}; it has {listed(table.columns, missing[0])}")
        self._asked = [name for name in ASKED if name in table.columns]
        names = [*NEEDED, *([label] if label in table.columns else []), *(n for n in context if n in table.columns)]
        names += self._asked
        self._label = label if label in names else None
        if self._label is None and draw is None:
            raise UserError(f"--events {path} lacks the label {label}, which the run has learned")
        table = table.select(list(dict.fromkeys(names))).with_columns(_seconds(table.schema["timestamp"], path))
        table = table.with_columns(pl.col("user_id", "item_id", *self._asked).cast(pl.String))
        bad = table.select(pl.any_horizontal(pl.col(*NEEDED).is_null()).sum()).item()
        self.skipped = int(bad)
        self._rows = table.drop_nulls(list(NEEDED)).sort("timestamp", maintain_order=True)
        self._context = {name: kind for name, kind in context.items() if name in names}
        self._draw = draw
        if self._label is not None and not self._rows.schema[self._label].is_numeric():
            raise UserError(f"--events {path}: {self._label} holds no numbers")

    @property
    def name(self) -> str:
        """By which a state knows how far it has read this table: of what it holds, not of where it lies."""
        return f"events:{self._id}"

    def end(self) -> int:
        return len(self._rows)

    def read(self, after: int, count: int = AT_ONCE) -> list[Happened]:
        """Rows behind the first `after`, at most `count`."""
        part, name = self._rows.slice(after, count), self.name
        users, items, times = (part[column].to_list() for column in NEEDED)
        if self._label is None:
            labels = [1.0] * len(part)
        else:
            given = part[self._label].cast(pl.Float64).fill_nan(None)
            labels = (given > 0).fill_null(False).cast(pl.Float64).to_list()
        found = [
            Row(f"{name}:{n}", time, [item], user, [label])
            for n, (user, item, time, label) in enumerate(zip(users, items, times, labels, strict=True), after + 1)
        ]
        if self._label is None and self._draw is not None:
            for n, row in enumerate(found, after + 1):
                row.items += self._draw(row.user, row.items[0], n)
                row.labels += [0.0] * (len(row.items) - 1)
        if self._context:
            for row, values in zip(found, part.select(list(self._context)).iter_rows(named=True), strict=True):
                row.context = self._told(values)
        for asked in self._asked:
            for row, value in zip(found, part[asked].to_list(), strict=True):
                setattr(row, asked, value)
        return [Happened(n, name, n, row) for n, row in enumerate(found, after + 1)]

    def _told(self, row: Mapping[str, object]) -> dict[str, Any]:
        """The context of a row, without what it does not say."""
        return {
            name: float(value) if kind == "numeric" and isinstance(value, int | float) else str(value)
            for name, kind in self._context.items()
            if (value := row[name]) is not None
        }


def _csv(path: Path) -> pl.DataFrame:
    ids = {"user_id": pl.String, "item_id": pl.String}
    head = pl.read_csv(path, n_rows=0, glob=False).columns
    return pl.read_csv(path, schema_overrides={k: v for k, v in ids.items() if k in head}, glob=False)


def _seconds(kind: pl.DataType, path: Path) -> pl.Expr:
    column = pl.col("timestamp")
    if kind == pl.Datetime or kind == pl.Date:
        return column.cast(pl.Datetime("us")).dt.timestamp("us").truediv(1e6)
    if kind.is_numeric():
        return column.cast(pl.Float64)
    raise UserError(f"--events {path}: timestamp holds {kind}, and seconds since 1970 are needed, or times")
