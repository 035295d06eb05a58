"""The members of a tar archive, plain or gzipped, read front to back. Nothing is written anywhere.

Archives come from strangers. The reader of the standard library holds extended headers of any size in memory and takes
a damaged header for the end of the archive; this one bounds what it holds and says where an archive is damaged.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rawrec.sources.tables.marks import ERRORS

BLOCK = 512
PIECE = 1 << 20
MAX_HEADER = 1 << 20
"""Bytes of the largest extended header: a name, or attributes."""
MAX_SIZE = 1 << 60
MAX_RATIO = 50
"""A gzipped archive that unpacks to more than so many times its bytes is given up ..."""
FREE_BYTES = 256 << 20
"""... once it has unpacked to this many. Pictures do not shrink; 1000 is what gzip reaches with zeros."""
PLAIN = (b"0", b"\0", b"7")
WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
KINDS = {b"1": "link", b"2": "link", b"3": "device", b"4": "device", b"6": "pipe"}


class Damaged(Exception):
    """The archive cannot be read on from here; the text is the reason."""


@dataclass
class Member:
    """One entry. kind: "file", "folder", "link", "device", "pipe" or "unknown". size: bytes of a file."""

    name: str
    kind: str
    size: int


class Tar:
    """An open archive. `fraction`: how much of it has been read, 0 to 1. OSError where it cannot be opened.

    encoding: of names; what of them cannot be read stands as marks.
    """

    def __init__(self, path: Path, encoding: str = "utf-8") -> None:
        self.encoding = encoding
        self._raw = path.open("rb")
        self._size = max(path.stat().st_size, 1)
        is_gzip = self._raw.read(2) == b"\x1f\x8b"
        self._raw.seek(0)
        self._file = gzip.GzipFile(fileobj=self._raw) if is_gzip else self._raw
        self._unpacked = 0
        self._left = 0  # of the current member, with what fills its last block

    def __enter__(self) -> Tar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._raw.close()

    @property
    def fraction(self) -> float:
        return min(self._raw.tell() / self._size, 1.0)

    def members(self) -> Iterator[Member]:
        """The entries in their order; `read` gives the bytes of the one that came last. Raises Damaged."""
        name: str | None = None
        size: bytes | None = None
        while head := self._header():
            kind, length = head[156:157], _number(head[124:136])
            if size is not None and kind not in (b"L", b"K", b"x", b"g"):
                length = int(_digits(size) or b"0")
            if not 0 <= length < MAX_SIZE:
                raise Damaged("size that no file has")
            self._left = 0 if kind in WITHOUT_DATA else -(-length // BLOCK) * BLOCK
            if kind in (b"L", b"x"):
                if length > MAX_HEADER:
                    raise Damaged("extended header of more than 1 MiB")
                data = self._take(self._left)[:length]
                if kind == b"L":
                    name = self._text(data)
                else:
                    attributes = _attributes(data)
                    path = attributes.get(b"path")  # in UTF-8, always
                    name = name if path is None else path.split(b"\0")[0].decode(errors=ERRORS)
                    size = attributes.get(b"size", size)
                continue
            if kind in (b"g", b"K"):  # attributes of all that follows, targets of links: of no use here
                self._skip()
                continue
            prefix = self._text(head[345:500]) if head[257:263] == b"ustar\0" else ""
            own = "/".join(filter(None, [prefix, self._text(head[:100])]))
            member = Member(own if name is None else name, KINDS.get(kind, "unknown"), length)
            if kind in PLAIN:
                member.kind = "folder" if member.name.endswith("/") else "file"
            elif kind == b"5":
                member.kind = "folder"
            name, size = None, None
            yield member
            self._skip()

    def read(self, member: Member) -> bytes:
        """The bytes of the member that `members` gave last. Raises Damaged where the archive ends within them."""
        return self._take(self._left)[: member.size]

    def _text(self, field: bytes) -> str:
        return field.split(b"\0")[0].decode(self.encoding, ERRORS)

    def _header(self) -> bytes | None:
        """The next header; None at the end mark."""
        head = self._take(BLOCK)
        if not any(head):
            return None
        total = sum(head) - sum(head[148:156]) + 8 * ord(" ")
        if _number(head[148:156]) != total:
            raise Damaged("no header where one should be")
        return head

    def _take(self, size: int) -> bytes:
        """Exactly so many bytes."""
        parts, missing = [], size
        while missing:
            part = self._read(min(missing, PIECE))
            if not part:
                raise Damaged("cut off")
            parts.append(part)
            missing -= len(part)
        self._left = max(self._left - size, 0)
        return b"".join(parts)

    def _skip(self) -> None:
        if self._file is self._raw:
            self._raw.seek(self._left, 1)
            self._left = 0
        while self._left:
            self._take(min(self._left, PIECE))

    def _read(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise Damaged(f"cut off or not readable: {error}") from None
        self._unpacked += len(data)
        if self._unpacked > max(FREE_BYTES, MAX_RATIO * self._raw.tell()):
            raise Damaged(f"unpacks to more than {MAX_RATIO} times its size")
        return data


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or, after a byte of 128, binary."""
    if field[0] == 0x80:
        return int.from_bytes(field[-8:], "big", signed=True)
    text = field.split(b"\0")[0].strip()
    return int(_digits(text, b"01234567") or b"0", 8)


def _digits(text: bytes, allowed: bytes = b"0123456789") -> bytes:
    if text.strip(allowed) or len(text) > 18:
        raise Damaged("no number where a header should have one")
    return text


def _attributes(data: bytes) -> dict[bytes, bytes]:
    """The records `length key=value` of an extended header."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        digits = data[at : at + 8].split(b" ")[0]
        length = int(_digits(digits) or b"0")
        key, equals, value = data[at + len(digits) + 1 : at + length].removesuffix(b"\n").partition(b"=")
        if length <= len(digits) or not equals:
            raise Damaged("extended header that is none")
        found[key] = value
        at += length
    return found
