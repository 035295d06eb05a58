"""Tables on disk, read in batches of bounded size: CSV, TSV, JSON and Python lines, Parquet and "::" files.

The columns of a text format arrive as strings; Parquet keeps its types. What cannot be read is skipped and counted in
the `ImportReport`, with the file and the row. Rows are numbered from 1, the header of a text table being row 1; blank
lines are not counted.
"""

from __future__ import annotations

import ast
import copy
import csv
import difflib
import io
import json
import re
import warnings
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from rawrec.data.importers._quotes import closed
from rawrec.data.importers.report import EXAMPLES, ImportReport, Skipped
from rawrec.errors import UserError

BLOCK = 8 << 20
"""Bytes of text parsed at a time."""
MAX_LINE = 8 * BLOCK
"""A longer line ends the import: the file is no table."""
BOM = b"\xef\xbb\xbf"
HEAD = 1 << 20
"""Bytes looked at to find out how a text table is written."""
PARQUET_ROWS = 65536
MAX_LITERAL = 1 << 18
"""Characters of the longest line that is read as a Python literal."""
WHOLE = "$"
"""The column of a file of objects that holds the whole object, as JSON."""
SUFFIXES = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".inter": "\t", ".jsonl": "", ".ndjson": "", ".parquet": ""}
SEPARATOR_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


@dataclass
class Batch:
    """Some rows of a table: their numbers in the file `[n]` and the columns that were asked for, each `[n]`."""

    file: str
    rows: np.ndarray
    columns: dict[str, pa.Array]

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
        return Batch(self.file, self.rows[good], {name: col.filter(mask) for name, col in self.columns.items()})


class Source:
    """One table on disk. `columns`: the names found; `fraction`: how much of it has been read, 0 to 1; `holds_bytes`:
    whether its values can be bytes, as of pictures."""

    format: str
    columns: list[str]
    holds_bytes = False

    def __init__(self, path: Path, report: ImportReport) -> None:
        self.path = path
        self.name = path.name
        self.report = report
        self.fraction = 0.0

    def again(self) -> Source:
        """The same table for one more reading, whose findings are not counted a second time."""
        other = copy.copy(self)
        other.report = ImportReport()
        return other

    def require(self, setting: str, names: Sequence[str | None]) -> None:
        """UserError if a column that `setting` names does not exist."""
        for name in names:
            if name is not None and name not in self.columns:
                near = difflib.get_close_matches(name, self.columns, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                raise UserError(
                    f"{setting}: {self.path} has no column {name!r}{hint} Columns found: {', '.join(self.columns)}"
                )

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """All rows in the file's order, with these columns."""
        raise NotImplementedError


def open_source(path: Path, report: ImportReport) -> Source:
    """The table at `path`; its format follows from the suffix (.csv, .tsv, .jsonl, .parquet; text also with .gz).

    Raises UserError for a file that is absent, empty, of another kind, or not written in UTF-8 or ASCII.
    """
    path = _there(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: {suffix or 'no suffix'} is no known format. Known: {', '.join(SUFFIXES)}")
    with _reading(path):
        head = _Bytes(path).read(HEAD)
        if head[:4] == b"PAR1":
            if suffix != ".parquet":
                report.note(f"{path.name} is Parquet in spite of its suffix")
            return _Parquet(path, report)
        if suffix == ".parquet":
            raise UserError(f"{path} is not a Parquet file")
        _check_text(path, head, f"a {suffix} table")
        if suffix in (".jsonl", ".ndjson"):
            return _JsonLines(path, report, head)
        return _Delimited(path, report, head, SUFFIXES[suffix])


def open_delimited(
    path: Path, report: ImportReport, separator: str, *, columns: list[str] | None = None, quotes: bool | None = None
) -> Source:
    """The table of values between `separator` at `path`, whatever its suffix.

    columns: their names, where the file has no header. quotes: whether quotation marks bind; None: as they are used.
    Raises UserError like `open_source`.
    """
    path = _there(path)
    with _reading(path):
        head = _Bytes(path).read(HEAD)
        _check_text(path, head, "a table")
        return _Delimited(path, report, head, separator, columns, quotes)


def open_objects(path: Path, report: ImportReport) -> Source:
    """The file at `path`, whatever its suffix, of one object per line: JSON or a Python dict of plain values, which is
    parsed and never executed. Its column `WHOLE` is the object. Raises UserError like `open_source`."""
    path = _there(path)
    with _reading(path):
        head = _Bytes(path).read(HEAD)
        _check_text(path, head, "a file of JSON or Python objects")
        return _JsonLines(path, report, head, literals=True)


def first_lines(path: Path, most: int) -> list[str]:
    """At most so many of the first lines that are not blank. Raises UserError like `open_source`."""
    path = _there(path)
    with _reading(path):
        head = _Bytes(path).read(HEAD)
    _check_text(path, head, "text")
    lines = head.decode("utf-8-sig", errors="replace").splitlines()
    return [line for line in lines[: -1 if len(head) == HEAD else None] if line.strip()][:most]


def _there(path: Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    return path


def _check_text(path: Path, head: bytes, what: str) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path} is written in UTF-16; save it as UTF-8")
    if head[:4096].count(b"\0") > len(head[:4096]) // 100:
        raise UserError(f"{path} is a binary file, not {what}")
    if not head.strip():
        raise UserError(f"{path} holds nothing but blank lines")


class _Bytes:
    """The bytes of a file, unpacked where its name ends in .gz."""

    def __init__(self, path: Path) -> None:
        self.raw = pa.OSFile(str(path))
        self.size = max(self.raw.size(), 1)
        self.stream = pa.CompressedInputStream(self.raw, "gzip") if path.suffix == ".gz" else self.raw

    def read(self, size: int) -> bytes:
        return self.stream.read(size)

    @property
    def fraction(self) -> float:
        return self.raw.tell() / self.size


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what the readers below raise into a UserError that names the file."""
    try:
        yield
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, pa.ArrowInvalid) and ("straddling" in reason or "out of sync" in reason):
            reason = "a quoted value does not end, or a row is longer than 8 MiB; look for an unpaired quotation mark"
        raise UserError(f"{path} cannot be read: {reason}") from None


def _lines(path: Path, source: Source, fallback: str) -> Iterator[bytes]:
    """Blocks of whole lines in UTF-8. Bytes that are not UTF-8 are read as `fallback` (latin-1, or replaced)."""
    stream = _Bytes(path)
    rest = stream.read(len(BOM)).removeprefix(BOM)
    while block := stream.read(BLOCK):
        source.fraction = stream.fraction
        rest += block
        cut = rest.rfind(b"\n") + 1
        if cut:
            yield _utf8(rest[:cut], source, fallback)
            rest = rest[cut:]
        elif len(rest) > MAX_LINE:
            raise UserError(f"{path}: a line is longer than {MAX_LINE >> 20} MiB; this is no table of rows")
    source.fraction = 1.0
    if rest:
        yield _utf8(rest, source, fallback) + b"\n"


def _utf8(block: bytes, source: Source, fallback: str) -> bytes:
    try:
        block.decode()
    except UnicodeDecodeError:
        if fallback == "latin-1":
            source.report.note(f"{source.name} is not UTF-8; read as latin-1")
            return block.decode("latin-1").encode()
        text = block.decode(errors="replace")
        lines = [f"{source.name}: {line}" for line in text.split("\n") if "�" in line]
        source.report.skip("bytes that are not UTF-8 (rows kept, the bytes replaced by �)", lines[:20], len(lines))
        return text.encode()
    return block


class _File(io.RawIOBase):
    """Blocks of lines, as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.blocks = blocks
        self.rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self.rest:
            self.rest = next(self.blocks, b"")
        size = len(self.rest) if size < 0 else size
        part, self.rest = self.rest[:size], self.rest[size:]
        return part


class _Delimited(Source):
    """CSV and its like. The separator is found in the header; quotation marks bind as in CSV, in a file separated by
    tabs only where every value that begins with one also ends with one."""

    format = "text"

    def __init__(
        self,
        path: Path,
        report: ImportReport,
        head: bytes,
        separator: str,
        columns: list[str] | None = None,
        quotes: bool | None = None,
    ) -> None:
        super().__init__(path, report)
        text = head.decode("utf-8-sig", errors="replace")
        stripped = text.lstrip("\r\n")
        if not stripped.strip():
            raise UserError(f"{path} holds nothing but blank lines")
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
        if columns is None:
            try:
                quoting = csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE
                columns = next(csv.reader([header], delimiter=separator, quoting=quoting))
            except csv.Error as error:  # of a name that is too long
                raise UserError(f"{path}: the header, its first line, cannot be read: {error}") from None
        self.columns = [name.strip() for name in columns]

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
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

        blocks = _lines(self.path, self, "replace")
        if self.quotes:
            blocks = closed(blocks, self.separator, self._note_open)
        with _reading(self.path):
            reader = pa_csv.open_csv(
                pa.PythonFile(_File(blocks), mode="r"),
                read_options=pa_csv.ReadOptions(
                    use_threads=False, block_size=BLOCK, column_names=names, skip_rows=self.skip_rows
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
                yield Batch(self.name, rows, {name: table.column(c) for name, c in wanted.items()})
            if entry.count:
                self.report.skip(reason, entry.examples, entry.count)

    def _note_open(self, value: bytes) -> None:
        reason = "quotation mark that nothing closes (row kept, the mark stands for itself)"
        self.report.skip(reason, f"{self.name}: {value[:200].decode(errors='replace')}")


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
    value = re.compile(rf'(?:(?P<whole>"(?:[^"]|"")*")|(?P<open>"?)[^{between}\n]*)\r?(?:{between}|\n)')
    some = False
    for match in value.finditer(text):
        if match["open"]:
            return False
        some = some or match["whole"] is not None
    return some


class _JsonLines(Source):
    """One JSON object per line. Values arrive as strings, lists and objects as their JSON text, null as null.

    literals: a line may also be a Python dict of plain values.
    """

    format = "jsonl"

    def __init__(self, path: Path, report: ImportReport, head: bytes, literals: bool = False) -> None:
        super().__init__(path, report)
        self.literals = literals
        lines, good = self._objects(pl.Series(head.decode("utf-8-sig", errors="replace").split("\n")[:1000]))
        self.columns = list(dict.fromkeys(name for line in lines.filter(good) for name in json.loads(line)))
        if not self.columns:
            raise UserError(f"{path}: none of the first lines is {self.what}")

    @property
    def what(self) -> str:
        return "a JSON object" + (" or a Python dict of plain values" if self.literals else "")

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        number = 1
        with _reading(self.path):
            for block in _lines(self.path, self, "replace"):
                lines = pl.Series(block.decode().split("\n"))
                lines, good = self._objects(lines.filter(lines.str.strip_chars() != ""))
                rows = np.arange(number, number + len(lines))
                number += len(lines)
                if not good.all():
                    batch = Batch(self.name, rows, {"line": lines.to_arrow()})
                    self.report.skip(f"not {self.what}", batch.examples(~good.to_numpy(), "line"), int((~good).sum()))
                    lines, rows = lines.filter(good), rows[good.to_numpy()]
                found = {
                    name: lines if name == WHOLE else lines.str.json_path_match(_json_path(name)) for name in columns
                }
                yield Batch(
                    self.name, rows, {name: column.to_arrow().cast(pa.string()) for name, column in found.items()}
                )

    def _objects(self, lines: pl.Series) -> tuple[pl.Series, pl.Series]:
        """The lines, Python dicts as JSON, and which of them are objects."""
        lines = lines.str.strip_chars()
        good = _are_objects(lines)
        if self.literals and not good.all():
            with warnings.catch_warnings():  # of odd escapes in strings
                warnings.simplefilter("ignore")
                found = [_from_literal(line) or line for line in lines.filter(~good)]
            lines = lines.scatter((~good).arg_true(), found)
            good = _are_objects(lines)
        return lines, good


def _are_objects(lines: pl.Series) -> pl.Series:
    return lines.str.starts_with("{") & lines.str.json_path_match("$").is_not_null()


def _from_literal(line: str) -> str | None:
    """A Python dict of plain values as JSON; None for anything else. Nothing is executed."""
    if len(line) > MAX_LITERAL or not line.startswith("{"):
        return None
    try:
        text = json.dumps(ast.literal_eval(line), ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return text.encode(errors="replace").decode()


def _json_path(name: str) -> str:
    quote = "'" if "'" not in name else '"'
    return f"$[{quote}{name}{quote}]"


class _Parquet(Source):
    format = "parquet"
    holds_bytes = True

    def __init__(self, path: Path, report: ImportReport) -> None:
        super().__init__(path, report)
        with _reading(path):
            self.file = pq.ParquetFile(path, pre_buffer=False)  # else it keeps all it has read
        self.schema = self.file.schema_arrow
        self.columns = list(self.schema.names)

    def batches(self, columns: Sequence[str], rows: int = PARQUET_ROWS) -> Iterator[Batch]:
        """Like `Source.batches`; binary columns come in batches of few rows, for they are large."""
        types = [self.file.schema_arrow.field(name).type for name in columns]
        size = rows if all(_is_small(t) for t in types) else 256
        total, number = max(self.file.metadata.num_rows, 1), 1
        with _reading(self.path):
            for table in self.file.iter_batches(batch_size=size, columns=list(dict.fromkeys(columns))):
                numbers = np.arange(number, number + table.num_rows)
                number += table.num_rows
                self.fraction = (number - 1) / total
                yield Batch(self.name, numbers, {name: _plain(table.column(name)) for name in columns})


def _is_small(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_struct(kind):
        return all(_is_small(kind.field(i).type) for i in range(kind.num_fields))
    return not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _plain(column: pa.Array) -> pa.Array:
    """Without dictionary, and every kind of string as `string`."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    is_text = pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type)
    return column.cast(pa.string()) if is_text else column


class DoubleColon(Source):
    """The `.dat` files of MovieLens: values between "::", no header, UTF-8 or latin-1; rows count from 1."""

    format = "text"

    def __init__(self, path: Path, report: ImportReport, columns: list[str]) -> None:
        super().__init__(path, report)
        self.columns = columns

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        number, width = 1, len(self.columns)
        with _reading(self.path):
            for block in _lines(self.path, self, "latin-1"):
                lines = pl.Series(block.decode().split("\n")).str.strip_chars_end("\r")
                lines = lines.filter(lines != "")
                rows = np.arange(number, number + len(lines))
                number += len(lines)
                values = lines.str.split("::")
                good = (values.list.len() == width).to_numpy()
                if not good.all():
                    bad = Batch(self.name, rows, {"line": lines.to_arrow()})
                    reason = f"row has not {width} values between '::'"
                    self.report.skip(reason, bad.examples(~good, "line"), int((~good).sum()))
                    values, rows = values.filter(pl.Series(good)), rows[good]
                found = {name: values.list.get(self.columns.index(name)).to_arrow() for name in columns}
                yield Batch(self.name, rows, {name: column.cast(pa.string()) for name, column in found.items()})


class Bar:
    """A progress bar on stderr; none where stderr is not a terminal or it is not wanted."""

    def __init__(self, wanted: bool) -> None:
        console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows"),
            TimeRemainingColumn(),
            console=console,
            disable=not (wanted and console.is_terminal),
        )

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def track(self, label: str, source: Source, columns: Sequence[str]) -> Iterator[Batch]:
        """The batches of a source, shown as they pass."""
        task = self.progress.add_task(label, total=1.0, rows=0)
        rows = 0
        for batch in source.batches(columns):
            yield batch
            rows += len(batch.rows)
            self.progress.update(task, completed=source.fraction, rows=rows)
        self.progress.update(task, completed=1.0)
