"""A table on disk and its rows in batches: what every format gives."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.arguments import shown
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.shown import LONGEST_NAME, listed
from rawrec.sources.tables.marks import MARKS, written

Look = Callable[[], Iterator[pa.Array]]
"""Gives a whole column, in batches."""


@dataclass
class Batch:
    """Some rows of a table: their numbers in the file `[n]` and the columns that were asked for, each `[n]`.

    unreadable: of columns of text that had bytes that are none of the file's encoding, where these were `[n]`; there
    stands `\\xe9` for such a byte. As an id such a value is of no use: see `read_ids`.
    composite: of tables whose values may be lists and objects, where those of a column are `[n]`; they are no ids.
    """

    file: str
    rows: np.ndarray
    columns: dict[str, pa.Array]
    unreadable: dict[str, np.ndarray] = field(default_factory=dict)
    composite: Callable[[str], np.ndarray] | None = None

    def examples(self, bad: np.ndarray, column: str | None = None, limit: int = 20) -> list[str]:
        """`file:row value` of the first rows where `bad` `[n]` holds."""
        at = np.flatnonzero(bad)[:limit]
        values = ["" if column is None else f" {self.columns[column][i].as_py()!r}" for i in at.tolist()]
        return [f"{self.file}:{row}{value}" for row, value in zip(self.rows[at].tolist(), values, strict=True)]

    @property
    def places(self) -> np.ndarray:
        """`file:row` of each row `[n]`."""
        return np.char.add(f"{self.file}:", self.rows.astype(str))

    def keep(self, good: np.ndarray) -> Batch:
        """The rows where `good` `[n]` holds."""
        if good.all():
            return self
        mask = pa.array(good)
        columns = {name: col.filter(mask) for name, col in self.columns.items()}
        bad = {name: bad[good] for name, bad in self.unreadable.items()}
        composite = self.composite
        found = None if composite is None else lambda name: composite(name)[good]
        return Batch(self.file, self.rows[good], columns, bad, found)

    def readable(self, column: str) -> np.ndarray:
        """Where the values of a column have no byte that cannot be read `[n]`."""
        bad = self.unreadable.get(column)
        return np.ones(len(self.rows), bool) if bad is None else ~bad

    def single(self, column: str) -> np.ndarray:
        """Where the values of a column are no list and no object `[n]`."""
        return np.ones(len(self.rows), bool) if self.composite is None else ~self.composite(column)

    def without_marks(self, write: Callable[[str], str] = written) -> Batch:
        """The batch with what its texts' marks stand for."""
        pattern = MARKS.pattern
        for name, column in self.columns.items():
            if not pa.types.is_string(column.type):
                continue
            text = pl.Series(column)
            bad = text.str.contains(pattern).fill_null(False)
            if bad.any():
                mended = [write(value) for value in text.filter(bad)]
                self.columns[name] = text.scatter(bad.arg_true(), mended).to_arrow().cast(pa.string())
                self.unreadable[name] = bad.to_numpy()
        return self


class Source:
    """One table on disk. `columns`: the names found; `fraction`: how much of it has been read, 0 to 1; `holds_bytes`:
    whether its values can be bytes, as of pictures; `rereadable`: whether it can be read again without being held."""

    format: str
    columns: list[str]
    holds_bytes = False
    rereadable = True

    def __init__(self, path: Path, report: ImportReport) -> None:
        self.path = path
        self.name = path.name
        self.report = report
        self.fraction = 0.0

    @property
    def lies_in(self) -> Path | None:
        """Where the table lies; None of one that does not lie on disk."""
        return self.path.parent

    def again(self) -> Source:
        """The same table for one more reading, whose findings are not counted a second time."""
        other = copy.copy(self)
        other.report = ImportReport()
        return other

    def seek(self, names: Sequence[str | None]) -> None:
        """Look for columns that are not among those found, where there can be more: they are added."""

    def require(self, setting: str, names: Sequence[str | None]) -> None:
        """UserError if a column that `setting` names does not exist, or exists several times."""
        self.seek(names)
        for name in names:
            if name is not None and name not in self.columns:
                hint = self._meant(setting, name)
                raise UserError(
                    f"{setting}: {self.path} has no column {shown(name)}{hint} Columns found: "
                    f"{listed(self.columns, name)}"
                )
        self.single([name for name in names if name is not None], setting)

    def _meant(self, setting: str, name: str) -> str:
        parts = [part.strip() for part in name.split(",")]
        if 1 < len(parts) <= 9 and set(parts) & set(self.columns):
            option = f"--{setting.replace('_', '-')}"
            return f"; one option names one column: {' '.join(f'{option} {part}' for part in parts)}."
        near = difflib.get_close_matches(name[:LONGEST_NAME], self.columns, n=1, cutoff=0.5)
        return f"; did you mean {shown(near[0])}?" if near else "."

    def single(self, names: Sequence[str], setting: str = "") -> None:
        """UserError if several columns have one of these names."""
        for name in names:
            if (count := self.columns.count(name)) > 1:
                before = f"{setting}: " if setting else ""
                raise UserError(f"{before}{self.path} has {count} columns {name!r}: rename all but the one that counts")

    def name_in_file(self, column: str) -> str:
        """What the table itself calls a column, for messages."""
        return column

    def column_and_field(self, setting: str, word: str, stored: Callable[[str], str]) -> tuple[str, str]:
        """What "COLUMN" or "COLUMN=FIELD" names; `stored`: a column's field where none is given.

        UserError if the column does not exist.
        """
        column, field = word, stored(word)
        if word not in self.columns and "=" in word:
            column, _, field = word.rpartition("=")
        self.require(setting, [column])
        return column, field

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """All rows in the file's order, with these columns. UserError where a name is that of several columns."""
        raise NotImplementedError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what the readers below raise into a UserError that names the file."""
    try:
        yield
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, pa.ArrowInvalid) and ("straddling" in reason or "out of sync" in reason):
            reason = "a quoted value does not end, or a row is longer than 8 MiB; look for an unpaired quotation mark"
        raise UserError(f"{path} cannot be read: {reason}") from None


def look_at(sources: Sequence[Source], column: str) -> Look | None:
    """What reads a column of these tables once more; None where one of them can be read only once."""

    def look() -> Iterator[pa.Array]:
        for source in sources:
            for batch in source.again().batches([column]):
                yield batch.columns[column]

    return look if sources and all(source.rereadable for source in sources) else None
