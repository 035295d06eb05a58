"""Quotation marks that nothing closes, in tables of values between separators.

One such mark would take all rows up to the next one, or to the end of the file, for a single value. A value that begins
with a mark binds line ends only if a mark closes it right before a separator or the end of a row. Where none does, the
mark stands for itself.

Some write a mark within a value as `\\"` instead of `""` (MySQL, Spark, Hive): `escaped` tells, `unescaped` mends it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

MAX_VALUE = 8 << 20
"""Bytes of the longest value in quotation marks that is waited for."""


def closed(blocks: Iterator[bytes], separator: str, found: Callable[[bytes], None]) -> Iterator[bytes]:
    """The bytes of `blocks` of whole lines, not all of them cut there; a value whose mark is not closed is written so
    that the mark stands for itself. `found` gets each such value as it was."""
    between = re.escape(separator.encode())
    inside, inside_line = (rb'"[^"%b]*+(?:""[^"%b]*+)*+"' % (ends, ends) for ends in (b"", rb"\r\n"))
    opening = rb"(?:(?<=[%b\r\n])|\A)" % between
    good = re.compile(
        rb'(?:[^"]++|%b(?:%b(?=[%b\r\n])|%b(?<!\\")[^%b\r\n]*+(?=[%b\r\n]))|(?<![%b\r\n])(?!\A)")*+'
        % (opening, inside, between, inside_line, between, between, between)
    )
    closing = re.compile(rb'[^"]*+(?:""[^"]*+)*+"')
    value = re.compile(rb"[^%b\r\n]*+" % between)

    def mended(data: bytes, at: int, last: bool) -> tuple[list[bytes], int]:
        """Pieces of `data` from `at` on, and where a value begins that needs more bytes, if there is one."""
        pieces: list[bytes] = []
        while True:
            end = _end(good, data, at)
            pieces.append(data[at:end])
            waits = not last and len(data) - end < MAX_VALUE and closing.match(data, end + 1) is None
            if end == len(data) or waits:
                return pieces, end
            at = _end(value, data, end)
            found(data[end:at])
            pieces.append(b'"%b"' % data[end:at].replace(b'"', b'""'))

    rest, start = b"", 0
    for block in blocks:
        if not rest and b'"' not in block:
            yield block
            continue
        data = rest + block
        pieces, end = mended(data, start, False)
        if end > start:  # an empty part would pass for the end
            yield b"".join(pieces)
        start = min(end, 1) if end < len(data) else 0  # the byte before shows that a value begins here
        rest = data[end - start :]
    if rest:
        yield b"".join(mended(rest, start, True)[0])


def escaped(text: str, separator: str) -> bool:
    """Whether marks within values are written with a backslash, not doubled: more of the first kind are certain."""
    between = re.escape(separator)
    backslash = re.compile(rf'(?:^|(?<=[{between}\n]))"(?:[^"\\\n]++|\\[^"])*+\\"[^{between}"\r\n]')
    doubled = re.compile(rf'(?<=[^{between}\n"\\])""(?=[^{between}\r\n"])')
    count = sum(1 for _ in backslash.finditer(text))
    return count > 0 and count >= sum(1 for _ in doubled.finditer(text))


def unescaped(blocks: Iterator[bytes], separator: str) -> Iterator[bytes]:
    """The bytes of `blocks` with marks in marks doubled that stand behind a backslash; of backslashes before a mark
    every second one goes. Others, and those of values without marks around them, stay as they are."""
    start = rb"(?:(?<=[%b\r\n])|\A)" % re.escape(separator.encode())
    value = re.compile(start + rb'"((?:[^"\\]++|\\.)*+\\?)("|\Z)', re.DOTALL)
    before_mark = re.compile(rb'(\\+)("|\Z)')

    def double(found: re.Match[bytes]) -> bytes:
        return found[1][: len(found[1]) // 2] + 2 * found[2]

    rest = b""
    for block in blocks:
        data, pieces, at = rest + block, [], 0
        rest = b""
        for found in value.finditer(data):
            if not found[2] and len(data) - found.start() < MAX_VALUE:
                rest = data[found.start() :]
                break
            if found[2]:
                pieces += [data[at : found.start()], b'"', before_mark.sub(double, found[1]), b'"']
                at = found.end()
        pieces.append(data[at : len(data) - len(rest)])
        if whole := b"".join(pieces):
            yield whole
    if rest:
        yield rest


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    match = pattern.match(data, at)
    assert match is not None  # both match nothing at all, too
    return match.end()
