"""From a path to a table: its format, and what can be refused at first sight."""

from __future__ import annotations

from pathlib import Path

from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.tables.delimited import Delimited
from rawrec.sources.tables.json_lines import JsonLines
from rawrec.sources.tables.lines import Bytes
from rawrec.sources.tables.parquet import Parquet
from rawrec.sources.tables.source import Source, reading

HEAD = 1 << 20
"""Bytes looked at to find out how a text table is written."""
SUFFIXES = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".inter": "\t", ".jsonl": "", ".ndjson": "", ".parquet": ""}


def open_source(path: Path, report: ImportReport) -> Source:
    """The table at `path`; its format follows from the suffix (.csv, .tsv, .jsonl, .parquet; text also with .gz).

    Raises UserError for a file that is absent, empty, of another kind, or not written in UTF-8 or ASCII.
    """
    path = _file(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: {suffix or 'no suffix'} is no known format. Known: {', '.join(SUFFIXES)}")
    with reading(path):
        head = Bytes(path).read(HEAD)
        if head[:4] == b"PAR1":
            if suffix != ".parquet":
                report.note(f"{path.name} is Parquet in spite of its suffix")
            return Parquet(path, report)
        if suffix == ".parquet":
            raise UserError(f"{path} is not a Parquet file")
        _check_text(path, head, f"a {suffix} table")
        if suffix in (".jsonl", ".ndjson"):
            return JsonLines(path, report, head)
        return Delimited(path, report, head, SUFFIXES[suffix])


def open_delimited(
    path: Path, report: ImportReport, separator: str, *, columns: list[str] | None = None, quotes: bool | None = None
) -> Source:
    """The table of values between `separator` at `path`, whatever its suffix.

    columns: their names, where the file has no header. quotes: whether quotation marks bind; None: as they are used.
    Raises UserError like `open_source`.
    """
    path = _file(path)
    with reading(path):
        head = Bytes(path).read(HEAD)
        _check_text(path, head, "a table")
        return Delimited(path, report, head, separator, columns, quotes)


def open_objects(path: Path, report: ImportReport) -> Source:
    """The file at `path`, whatever its suffix, of one object per line: JSON or a Python dict of plain values, which is
    parsed and never executed. Its column `WHOLE` is the object. Raises UserError like `open_source`."""
    path = _file(path)
    with reading(path):
        head = Bytes(path).read(HEAD)
        _check_text(path, head, "a file of JSON or Python objects")
        return JsonLines(path, report, head, literals=True)


def first_lines(path: Path, most: int) -> list[str]:
    """At most so many of the first lines that are not blank. Raises UserError like `open_source`."""
    path = _file(path)
    with reading(path):
        head = Bytes(path).read(HEAD)
    _check_text(path, head, "text")
    lines = head.decode("utf-8-sig", errors="replace").splitlines()
    return [line for line in lines[: -1 if len(head) == HEAD else None] if line.strip()][:most]


def _file(path: Path) -> Path:
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
