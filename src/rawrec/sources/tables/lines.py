"""Text files in blocks of whole lines, unpacked and in UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from rawrec.errors import UserError
from rawrec.sources.tables.source import Source

BLOCK = 8 << 20
"""Bytes of text parsed at a time."""
MAX_LINE = 8 * BLOCK
"""A longer line ends the import: the file is no table."""
BOM = b"\xef\xbb\xbf"


class Bytes:
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


def line_blocks(path: Path, source: Source, fallback: str) -> Iterator[bytes]:
    """Blocks of whole lines in UTF-8. Bytes that are not UTF-8 are read as `fallback` (latin-1, or replaced)."""
    stream = Bytes(path)
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
