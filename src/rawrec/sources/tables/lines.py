"""Text files in blocks of whole lines, unpacked and in UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from rawrec.data.import_report import EXAMPLES, ImportReport
from rawrec.errors import UserError
from rawrec.sources.tables.encoding import UTF8, WESTERN, Encoding, Evidence
from rawrec.sources.tables.marks import MARKS, mark_halves, written
from rawrec.sources.tables.source import Source

BLOCK = 8 << 20
"""Bytes of text parsed at a time."""
HEAD = 1 << 20
"""Bytes looked at to find out how a text table is written."""
MAX_LINE = 8 * BLOCK
"""A longer line ends the import: the file is no table."""
BOM = "\ufeff"
UNREADABLE = "bytes that are not {} (kept, such a byte as \\xe9; a row whose id holds one is left out)"


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


class TextFile:
    """A text file and its encoding. `head`: its first `HEAD` bytes as text, with marks for what cannot be read.

    what: what it is to be, for messages. encoding: its name, if it was told. header: whether the first line names
    columns. Raises UserError for a file that is none of text, is blank, or whose encoding cannot be found out.
    """

    def __init__(
        self,
        path: Path,
        report: ImportReport,
        head: bytes,
        what: str = "a table",
        encoding: str | None = None,
        header: bool = True,
    ) -> None:
        self.path = path
        self.encoding = Encoding(path, report, head, encoding)
        self.header = header
        some = head[:4096]
        if self.encoding.is_plain and some.count(b"\0") > len(some) // 100:
            wide = next((s for at, s in ((1, "le"), (0, "be")) if some[at::2].count(b"\0") > len(some) // 3), None)
            hint = f"; if it is text in UTF-16, name that: --encoding utf-16-{wide}" if wide else ""
            raise UserError(f"{path} is a binary file, not {what}{hint}")
        whole = head[: head.rfind(b"\n") + 1] or head if len(head) == HEAD else head
        if self.encoding.name is None and not whole.isascii():
            self._decide(whole)
        self.head = self._text(head)
        self.whole = len(head) < HEAD
        if not self.head.strip():
            raise UserError(f"{path} holds nothing but blank lines")

    def _decide(self, data: bytes) -> None:
        self.encoding.decide(data, data.lstrip(b"\r\n").split(b"\n")[0] if self.header else None)

    def _text(self, head: bytes) -> str:
        name, errors = self.encoding.name or UTF8, self.encoding.errors
        return codecs.getincrementaldecoder(name)(errors).decode(head).removeprefix(BOM)

    def blocks(self, source: Source) -> Iterator[bytes]:
        """Blocks of whole lines in UTF-8. What cannot be read is counted, and stands as marks."""
        stream, found, plain = Bytes(self.path), Evidence(), self.encoding.is_plain
        rest = b""
        for chunk in self._raw(stream) if plain else self._decoded(stream):
            source.fraction = stream.fraction
            rest += chunk
            cut = rest.rfind(b"\n") + 1
            if cut:
                yield self._plain(rest[:cut], found, source) if plain else self._counted(rest[:cut], source)
                rest = rest[cut:]
            elif len(rest) > MAX_LINE:
                raise UserError(f"{self.path}: a line is longer than {MAX_LINE >> 20} MiB; this is no table of rows")
        source.fraction = 1.0
        if rest:
            yield (self._plain(rest, found, source) if plain else self._counted(rest, source)) + b"\n"

    def _raw(self, stream: Bytes) -> Iterator[bytes]:
        start = stream.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
        while chunk := start + stream.read(BLOCK):
            yield chunk
            start = b""

    def _decoded(self, stream: Bytes) -> Iterator[bytes]:
        """All bytes in UTF-8, with marks."""
        assert self.encoding.name is not None
        decoder = codecs.getincrementaldecoder(self.encoding.name)(self.encoding.errors)
        start, ended = True, False
        while not ended:
            chunk = stream.read(BLOCK)
            ended = not chunk
            text = decoder.decode(chunk, ended)
            if start and text:
                text, start = text.removeprefix(BOM), False
            text = mark_halves(text)  # as of UTF-7
            self.encoding.marked = self.encoding.marked or MARKS.search(text) is not None
            yield text.encode()

    def _plain(self, block: bytes, found: Evidence, source: Source) -> bytes:
        """Lines as they are in the file, in UTF-8; found: what was found in those before."""
        if block.isascii():
            found.lines += block.count(b"\n")
            return block
        if self.encoding.name is None:
            self._decide(block)
        before = found.invalid
        text = found.add(block)
        self.encoding.check(found, block)
        if self.encoding.name == WESTERN:
            return block.decode(WESTERN, self.encoding.errors).encode()
        if found.invalid == before:
            return block
        self.encoding.marked = True
        return self._counted(text.encode(), source)

    def _counted(self, block: bytes, source: Source) -> bytes:
        if self.encoding.marked:
            bad = [line for line in block.decode().split("\n") if MARKS.search(line)]
            examples = [f"{source.name}: {written(line)}" for line in bad[:EXAMPLES]]
            if bad:
                source.report.skip(UNREADABLE.format(self.encoding.name), examples, len(bad))
        return block
