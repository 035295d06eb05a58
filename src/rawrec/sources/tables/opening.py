"""From a path to a table: its format, and what can be refused at first sight."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.tables.delimited import Delimited
from rawrec.sources.tables.double_colon import DoubleColon
from rawrec.sources.tables.in_memory import InMemory, Table
from rawrec.sources.tables.json_lines import JsonLines
from rawrec.sources.tables.lines import HEAD, Bytes, TextFile
from rawrec.sources.tables.marks import written
from rawrec.sources.tables.parquet import Parquet
from rawrec.sources.tables.source import Source, reading

SUFFIXES = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".inter": "\t", ".jsonl": "", ".ndjson": "", ".parquet": ""}


def open_table(
    table: Table,
    report: ImportReport,
    what: str,
    encoding: str | None = None,
    columns: Sequence[str] | None = None,
) -> Source:
    """A table on disk as of `open_source`, or one in memory: what it holds, for messages. UserError as there, and for
    encoding or columns that are named of a table in memory."""
    if isinstance(table, str | Path):
        return open_source(Path(table), report, encoding, columns)
    if columns:
        raise UserError(f"columns: the {what} are a table in memory, which names its columns itself: leave columns out")
    return InMemory(table, report, what)


def open_source(
    path: Path, report: ImportReport, encoding: str | None = None, columns: Sequence[str] | None = None
) -> Source:
    """The table at `path`; its format follows from the suffix (.csv, .tsv, .jsonl, .parquet; text also with .gz).

    encoding: of a text; None: as it is found to be. columns: their names, of a text without a header, which may have
    any suffix. Raises UserError for a file that is absent, empty, of another kind, or whose encoding cannot be found
    out, and for another number of columns.
    """
    path = _file(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if columns:
        return _without_header(path, report, encoding, columns, SUFFIXES.get(suffix, "\t"))
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path}: {suffix or 'no suffix'} is no known format. Known: {', '.join(SUFFIXES)}; or name the columns of "
            "a text without a header (columns)"
        )
    with reading(path):
        head = Bytes(path).read(HEAD)
        if head[:4] == b"PAR1":
            if suffix != ".parquet":
                report.note(f"{path.name} is Parquet in spite of its suffix")
            return Parquet(path, report)
        if suffix == ".parquet":
            raise UserError(f"{path} is not a Parquet file")
        objects = suffix in (".jsonl", ".ndjson")
        file = TextFile(path, report, head, f"a {suffix} table", encoding, header=not objects)
        return JsonLines(file, report) if objects else Delimited(file, report, SUFFIXES[suffix])


def _without_header(
    path: Path, report: ImportReport, encoding: str | None, columns: Sequence[str], separator: str
) -> Source:
    if not separator or Bytes(path).read(4) == b"PAR1":
        raise UserError(f"columns: {path} names its columns itself: leave columns out")
    with reading(path):
        file = _text(path, report, "a table", encoding, header=False)
        source = Delimited(file, report, separator, list(columns))
        if (found := source.first_width) != len(columns):
            raise UserError(
                f"columns: the first row of {path} has {found} values, and {len(columns)} columns are named"
            )
        return source


def open_delimited(
    path: Path,
    report: ImportReport,
    separator: str,
    *,
    columns: list[str] | None = None,
    quotes: bool | None = None,
    encoding: str | None = None,
) -> Source:
    """The table of values between `separator` at `path`, whatever its suffix.

    columns: their names, where the file has no header. quotes: whether quotation marks bind; None: as they are used.
    Raises UserError like `open_source`.
    """
    with reading(path):
        file = _text(path, report, "a table", encoding, header=columns is None)
        return Delimited(file, report, separator, columns, quotes)


def open_objects(path: Path, report: ImportReport, encoding: str | None = None) -> Source:
    """The file at `path`, whatever its suffix, of one object per line: JSON or a Python dict of plain values, which is
    parsed and never executed. Its column `WHOLE` is the object. Raises UserError like `open_source`."""
    with reading(path):
        return JsonLines(_text(path, report, "a file of JSON or Python objects", encoding), report, literals=True)


def open_double_colon(path: Path, report: ImportReport, columns: list[str], encoding: str | None = None) -> DoubleColon:
    """The file at `path` of values between "::", without a header. Raises UserError like `open_source`."""
    with reading(path):
        return DoubleColon(_text(path, report, "a table", encoding), report, columns)


def first_lines(path: Path, most: int, encoding: str | None = None) -> list[str]:
    """At most so many of the first lines that are not blank. Raises UserError like `open_source`."""
    with reading(path):
        file = _text(path, ImportReport(), "text", encoding)
    lines = written(file.head).splitlines()
    return [line for line in lines[: None if file.whole else -1] if line.strip()][:most]


def _text(path: Path, report: ImportReport, what: str, encoding: str | None, header: bool = False) -> TextFile:
    path = _file(path)
    return TextFile(path, report, Bytes(path).read(HEAD), what, encoding, header)


def _file(path: Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    return path
