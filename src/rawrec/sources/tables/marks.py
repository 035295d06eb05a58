"""What of a text cannot be read: each byte, and each half of a pair, stands as a mark of its own until its row is made.

So two values that differ in such bytes only never become one. A mark is a character of the last private plane; a batch
holds `\\xe9` in its place, and says in which rows.
"""

from __future__ import annotations

import codecs
import re

BYTE, HALF = 0x10FE00, 0x10F000
MARKS = re.compile("[\U0010f000-\U0010f7ff\U0010fe00-\U0010feff]")
HALF_MARKS = re.compile("[\U0010f000-\U0010f7ff]")
WRITTEN = re.compile(r"\\(?:x[0-9a-f]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2})")
"""A mark as `written` puts it."""
HALVES = re.compile("[\ud800-\udfff]")
ERRORS = "rawrec.mark"
"""For `bytes.decode(encoding, ERRORS)`: what cannot be read becomes marks."""
C1 = "rawrec.c1"
"""For `bytes.decode("cp1252", C1)`: the five bytes that it leaves open are what they are in latin-1."""


def written(text: str) -> str:
    """The text with what marks stand for, as `\\xe9` of a byte, `\\ud83d` of half a pair."""
    return MARKS.sub(_written, text)


def written_in_json(text: str) -> str:
    """JSON whose strings are `written` then."""
    return MARKS.sub(lambda mark: "\\" + _written(mark), text)


def mark_halves(text: str) -> str:
    """The text with marks for halves of pairs, which UTF-8 cannot hold."""
    return HALVES.sub(lambda half: chr(HALF + ord(half[0]) - 0xD800), text)


def _written(mark: re.Match[str]) -> str:
    code = ord(mark[0])
    return f"\\x{code - BYTE:02x}" if code >= BYTE else f"\\u{code - HALF + 0xD800:04x}"


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    bad = error.object[error.start : error.end]
    if not error.encoding.startswith(("utf-16", "utf-32")):  # there a unit has several bytes, some of them small
        ascii_at = next((i for i, byte in enumerate(bad) if i and byte < 0x80), len(bad))
        bad = bad[:ascii_at]  # a separator or line end behind half a character stays what it is
    return "".join(chr(BYTE + byte) for byte in bad), error.start + len(bad)


def _c1(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(ERRORS, _mark)
codecs.register_error(C1, _c1)
