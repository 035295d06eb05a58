"""Values between separators: CSV, TSV and their like."""

from __future__ import annotations

import csv
import re
import time
import weakref
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from rawrec.data.import_report import EXAMPLES, ImportReport, Skipped
from rawrec.errors import UserError
from rawrec.sources.tables import lines
from rawrec.sources.tables.lines import TextFile
from rawrec.sources.tables.marks import written
from rawrec.sources.tables.quotes import closed, escaped, unescaped
from rawrec.sources.tables.source import Batch, Source, reading

SEPARATOR_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
PATIENCE = 5.0
"""Seconds to wait for threads of Arrow that do nothing more of use."""


class Delimited(Source):
    """CSV and its like. The separator is found in the header; quotation marks bind as in CSV, in a file separated by
    tabs only where every value that begins with one also ends with one. Within values they are doubled, or stand
    behind a backslash, as most of them do in the first rows."""

    format = "text"

    def __init__(
        self,
        file: TextFile,
        report: ImportReport,
        separator: str,
        columns: list[str] | None = None,
        quotes: bool | None = None,
    ) -> None:
        path, text = file.path, file.head
        super().__init__(path, report)
        self.file = file
        stripped = text.lstrip("\r\n")
        self.header_rows = 1 if columns is None else 0
        self.skip_rows = self.header_rows + text[: len(text) - len(stripped)].count("\n")
        header = stripped.splitlines()[0]
        if separator not in header:
            found = max(SEPARATOR_NAMES, key=header.count)
            if found in header:
                report.note(f"{path.name}: columns are separated by {SEPARATOR_NAMES[found]}, not as its suffix says")
                separator = found
        self.separator = separator
        self.quotes = separator != "\t" or _quoted(text, separator) if quotes is None else quotes
        self.escaped = self.quotes and escaped(text, separator)
        if self.escaped:
            report.note(f"{path.name}: quotation marks within values stand behind a backslash")
        try:
            quoting = csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE
            first = next(csv.reader([header], delimiter=separator, quoting=quoting))
        except csv.Error as error:  # of a name that is too long
            if columns is None:
                raise UserError(f"{path}: the header, its first line, cannot be read: {error}") from None
            first = columns
        self.first_width = len(first)
        columns = first if columns is None else columns
        self.columns = [written(name.strip()) for name in columns]

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        self.single(columns)
        names = [f"c{i}" for i in range(len(self.columns))]
        wanted = {name: names[self.columns.index(name)] for name in columns}
        reason = f"row has not the {len(names)} columns of the header"
        ragged, entry = array("q"), Skipped()  # numbers of rows, for there can be millions

        def on_ragged(row: pa_csv.InvalidRow) -> str:
            ragged.append(row.number)
            if len(entry.examples) < EXAMPLES:
                entry.examples.append(f"{self.name}:{row.number} {row.actual_columns} columns")
            entry.count += 1
            return "skip"

        blocks = self.file.blocks(self)
        if self.escaped:
            blocks = unescaped(blocks, self.separator)
        if self.quotes:
            blocks = closed(blocks, self.separator, self._note_open)
        file, reader = _File(blocks), None
        try:
            with reading(self.path):
                reader = pa_csv.open_csv(
                    pa.PythonFile(file, mode="r"),
                    read_options=pa_csv.ReadOptions(
                        use_threads=False, block_size=lines.BLOCK, column_names=names, skip_rows=self.skip_rows
                    ),
                    parse_options=pa_csv.ParseOptions(
                        delimiter=self.separator,
                        quote_char='"' if self.quotes else False,
                        newlines_in_values=self.quotes,
                        invalid_row_handler=on_ragged,
                    ),
                    convert_options=pa_csv.ConvertOptions(
                        column_types=dict.fromkeys(wanted.values(), pa.string()),
                        include_columns=list(dict.fromkeys(wanted.values())),
                        strings_can_be_null=False,
                        check_utf8=False,
                    ),
                )
                number = 1 + self.header_rows
                for table in reader:
                    left_out = np.array(ragged, np.int64)  # also rows of tables to come
                    rows, number = _numbers(number, table.num_rows, left_out)
                    del ragged[: int(np.searchsorted(left_out, number))]
                    batch = Batch(self.name, rows, {name: table.column(c) for name, c in wanted.items()})
                    yield batch.without_marks() if self.file.encoding.marked else batch
        finally:
            # Arrow reads ahead in threads of its own. One that calls us, or lets go of what is ours, while the
            # interpreter ends takes the process down with it: wait for them.
            file.ended = True
            if reader is not None:
                _drain(reader)
            shared = [weakref.ref(file), weakref.ref(on_ragged)]
            del reader, file, on_ragged
            _let_go(shared)
            if entry.count:
                self.report.skip(reason, entry.examples, entry.count)

    def _note_open(self, value: bytes) -> None:
        reason = "quotation mark that nothing closes (row kept, the mark stands for itself)"
        self.report.skip(reason, f"{self.name}: {written(value[:200].decode(errors='replace'))}")


def _drain(reader: pa_csv.CSVStreamingReader) -> None:
    with suppress(pa.ArrowException, OSError, StopIteration):
        while True:
            reader.read_next_batch()


def _let_go(ours: list[weakref.ref[Any]]) -> None:
    """Wait until nobody holds these any more, at most `PATIENCE`."""
    end = time.monotonic() + PATIENCE
    while any(one() is not None for one in ours) and time.monotonic() < end:
        time.sleep(1e-4)


def _numbers(first: int, count: int, left_out: np.ndarray) -> tuple[np.ndarray, int]:
    """The next `count` row numbers from `first` that are not in `left_out` (ascending, none below `first`), and the
    one after them, which is not in it either."""
    if not len(left_out):
        return np.arange(first, first + count), first + count
    numbers = np.setdiff1d(np.arange(first, first + count + len(left_out) + 1), left_out, assume_unique=True)
    return numbers[:count], int(numbers[count])


def _quoted(text: str, separator: str) -> bool:
    """Whether every value in the text that begins with a quotation mark also ends with one, and there are some."""
    between = re.escape(separator)
    text = text[: text.rfind("\n") + 1]
    value = re.compile(
        rf'(?:(?P<whole>"(?:[^"]|"")*"|"(?:[^"\\]|\\.)*")|(?P<open>"?)[^{between}\n]*)\r?(?:{between}|\n)'
    )
    some = False
    for match in value.finditer(text):
        if match["open"]:
            return False
        some = some or match["whole"] is not None
    return some


class _File:
    """Blocks of lines, as a file. Not an `io` class: those run Python code when they go, see `_let_go`."""

    closed = False

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.blocks = blocks
        self.rest = b""
        self.ended = False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.ended = True

    def read(self, size: int = -1) -> bytes:
        if self.ended:
            return b""
        if not self.rest:
            self.rest = next(self.blocks, b"")
        size = len(self.rest) if size < 0 else size
        part, self.rest = self.rest[:size], self.rest[size:]
        return part
