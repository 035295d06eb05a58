"""In which encoding a text file is written: as it was told, as its first bytes say, or as is found out."""

from __future__ import annotations

import codecs
import difflib
import re
from dataclasses import dataclass
from encodings.aliases import aliases
from pathlib import Path

from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.tables.marks import C1, ERRORS, MARKS

UTF8, WESTERN = "utf-8", "cp1252"
BOMS = {
    codecs.BOM_UTF8: UTF8,
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""What a file begins with -> its encoding; of two that fit the first."""
NOT_TEXT = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem")
CANDIDATES = (WESTERN, "gb18030", "cp932", "big5", "cp949", "euc_jp", "cp1251")
"""Tried to say what a file could be: Western, simplified Chinese, Japanese, traditional Chinese, Korean, Japanese,
Russian."""
FEW_LINES = 0.05
"""Of the lines: so many that are not UTF-8 are damaged lines; with more the encoding is another one."""
RARE = 20
"""So many bytes that are not UTF-8 for one character that is, and the text is not UTF-8."""
COMMON = 4
"""So many characters in UTF-8 for one byte that is not, and it is UTF-8 with damage."""
FOREIGN = 0.2
"""Of the bytes above ASCII: more that Western European texts do not have, and it is none."""
SOME = 20
"""Damaged lines that speak against nothing yet."""
SAMPLE = 1 << 16

_RUNS = re.compile(rb"([A-Za-z]?)([\x80-\xff]+)([A-Za-z]?)")
_ODD = bytes([0x81, 0x82, 0x83, 0x86, 0x87, 0x88, 0x89, 0x8B, 0x8D, 0x8F, 0x90, 0x98, 0x9B, 0x9D])
"""Bytes that are control or hardly used signs in cp1252, and begin characters in Asian encodings."""


def checked(encoding: str) -> str:
    """Python's name of an encoding. UserError for one that is unknown, or none of text."""
    try:
        name = codecs.lookup(encoding).name
        b"a".decode(name, "ignore")  # refuses what is no encoding of texts
        codecs.getincrementaldecoder(name)(ERRORS).decode(b"")
    except (LookupError, ValueError, TypeError):
        name = ""
    if not name or name.replace("-", "_") in NOT_TEXT:
        near = difflib.get_close_matches(encoding.lower().replace("-", "_"), [*aliases, *aliases.values()], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        known = "utf-8, utf-16, cp1252, gb18030, shift_jis, big5, euc_kr, cp1251"
        raise UserError(f"encoding {encoding!r} is unknown{hint} Known are those of Python, for example {known}")
    return name


@dataclass
class Evidence:
    """What speaks for UTF-8 and what against it: bytes behind the first one of characters, bytes that belong to none;
    lines, and those of them that hold such bytes."""

    valid: int = 0
    invalid: int = 0
    lines: int = 0
    damaged: int = 0

    def add(self, data: bytes) -> str:
        """Look at whole lines, too; what they are as UTF-8, with marks."""
        self.lines += data.count(b"\n")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode(UTF8, ERRORS)
            self.invalid += len(MARKS.findall(text))
            self.damaged += sum(MARKS.search(line) is not None for line in text.split("\n"))
        self.valid += len(data) - len(text)
        return text

    @property
    def is_utf8(self) -> bool:
        few = self.damaged <= max(1, FEW_LINES * self.lines)
        return self.valid >= COMMON * self.invalid or few

    @property
    def is_mixed(self) -> bool:
        """Of a text in one byte a character: whether too much of it is UTF-8."""
        return self.valid * RARE > self.invalid


class Encoding:
    """The encoding of a file. `name`: None as long as all bytes were ASCII. `judged`: whether it was found out, so that
    later bytes can speak against it. `marked`: whether something could not be read, and marks stand in its place.

    given: its name, if it was told; a file whose first bytes say what it is, is that all the same.
    """

    def __init__(self, path: Path, report: ImportReport, head: bytes, given: str | None) -> None:
        self.path, self.report = path, report
        self.marked = False
        said = next((name for bom, name in BOMS.items() if head.startswith(bom)), None)
        self.name = said or (checked(given) if given is not None else None)
        self.judged = self.name is None
        self.errors = C1 if self.name == WESTERN else ERRORS
        if said is not None and said != UTF8:
            report.note(f"{path.name} is written in {said.upper()}")
        elif said is not None and given is not None and checked(given) != UTF8:
            report.note(f"{path.name} begins with the mark of UTF-8: read as that, not as {given}")
        elif self.name not in (None, UTF8):
            whole = head[: head.rfind(b"\n") + 1] or head
            too = "" if whole.isascii() or not _is_utf8(whole) else "; it could be UTF-8, too"
            report.note(f"{path.name}: read as {self.name}, as was told{too}")

    @property
    def is_plain(self) -> bool:
        """Whether line ends are bytes of their own, and blocks of whole lines can be read one by one."""
        return self.name in (None, UTF8, WESTERN)

    def decide(self, data: bytes, first: bytes | None = None) -> None:
        """Find out the encoding by whole lines of which some are not ASCII.

        first: the line that names the columns, where there is one. UserError where it cannot be told.
        """
        found = Evidence()
        found.add(data)
        if not found.invalid:
            self.name = UTF8
        elif found.valid * RARE <= found.invalid and _is_western(data):
            self.name, self.errors = WESTERN, C1
            self.report.note(
                f"{self.path.name} is not UTF-8; read as {WESTERN} (Western European). If its letters are wrong, name "
                "its encoding (--encoding)"
            )
        elif found.is_utf8 and (first is None or _is_utf8(first)):
            self.name = UTF8
        else:
            raise self._unknown(data)

    def check(self, found: Evidence, data: bytes) -> None:
        """UserError where what was read since, `data` the last of it, speaks against what was found out."""
        if self.judged and (found.is_mixed if self.name == WESTERN else found.damaged > SOME and not found.is_utf8):
            raise self._unknown(data)

    def _unknown(self, data: bytes) -> UserError:
        line = next((line for line in data.split(b"\n") if not _is_utf8(line)), data)[:SAMPLE]
        sample = data[: data.rfind(b"\n", 0, SAMPLE) + 1] or data[:SAMPLE]
        readings = [f"{text} ({name})" for name in CANDIDATES if (text := _reading(name, sample, line))]
        could = f". Of its lines that are not, the first could be {', '.join(readings)}" if readings else ""
        return UserError(
            f"{self.path} is not written in UTF-8, or not all of it{could}. Name its encoding (--encoding), or save it "
            "as UTF-8; --encoding utf-8 leaves out the rows whose ids cannot be read"
        )


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _reading(encoding: str, sample: bytes, line: bytes) -> str:
    """The line in an encoding, if the whole sample can be read so."""
    try:
        sample.decode(encoding)
        text = line.decode(encoding).strip()
    except UnicodeDecodeError:
        return ""
    return text[:30] if text.replace("\t", "").isprintable() else ""


def _is_western(data: bytes) -> bool:
    """Whether bytes above ASCII stand as in Western European texts: few at a time, beside letters that are ASCII."""
    total = foreign = 0
    for match in _RUNS.finditer(data):
        before, run, after = match.groups()
        total += len(run)
        alone = not before and not after and len(run) > 1
        if (len(run) > 2 or alone) and len(set(run)) > 1:
            foreign += len(run)
        else:
            foreign += sum(byte in _ODD for byte in run)
    return foreign <= FOREIGN * total
