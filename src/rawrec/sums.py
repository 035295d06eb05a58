"""Check sums, by which damage is found: of files, of texts that hold their own, of tensors.

They find what a disk, a memory or a cable changes, not what somebody changes on purpose. Where all bytes are read it is
CRC-32, 4 GB/s on a core; any change of up to 32 bits in a row is found for sure, others but for one of 4 billion.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rawrec.errors import UserError
from rawrec.reading import check_plain

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 22  # bytes read at once
END = "end "  # before the sum of the end of a Parquet file
PARQUET = b"PAR1"
SEALED = re.compile(r"\n?# sum of this text: ([0-9a-f]{8})\n\Z")
SUM = re.compile(r"^# sum of (.+): ((?:end )?[0-9a-f]{8} [0-9]+)$", re.MULTILINE)


# --------------------------------------------------------------------------------------------------------------- files
def file_sum(path: Path) -> str:
    """Check sum and size of a file."""
    total, size = 0, 0
    with path.open("rb") as file:
        while part := file.read(BLOCK):
            total, size = zlib.crc32(part, total), size + len(part)
    return f"{total:08x} {size}"


def end_sum(path: Path) -> str:
    """The same of a Parquet file, whose pages have check sums of their own: of what comes behind them alone."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 8, 0))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little") + 8
        if len(tail) < 8 or tail[4:] != PARQUET or length > size:
            raise OSError(f"{path} is no whole Parquet file")
        file.seek(size - length)
        return f"{END}{zlib.crc32(file.read(length)):08x} {size}"


def check_file(path: Path, expected: str | None, then: str, links: bool = False) -> None:
    """UserError where a file is not as its sum says; None: it has none (of an earlier version). then: what to do.
    links: it may be one."""
    if expected is None:
        return
    try:
        check_plain(path, links)
        found = ""
        if str(path.stat().st_size) == expected.rpartition(" ")[2]:  # else it may be without an end
            found = end_sum(path) if expected.startswith(END) else file_sum(path)
    except FileNotFoundError:
        raise UserError(f"{path} is damaged: it is not there. {then[:1].upper() + then[1:]}") from None
    except OSError:
        found = ""
    if found != expected:
        what = then[:1].upper() + then[1:]
        raise UserError(f"{path} is damaged: its check sum is not the one it was written with. {what}")


# --------------------------------------------------------------------------------------------------------------- texts
def sealed(text: str, sums: Mapping[str, str] | None = None) -> str:
    """A text of YAML with its check sum, and those of the files `sums`, in comments behind it."""
    text += "".join(f"# sum of {name}: {value}\n" for name, value in sorted((sums or {}).items()))
    return f"{text}# sum of this text: {zlib.crc32(text.encode()):08x}\n"


def check_text(text: str, path: Path, then: str) -> None:
    """UserError where a sealed text is not as it was written; one without a seal (of an earlier version, or one that
    somebody took it from) is taken. then: what to do."""
    match = SEALED.search(text)
    if match is None:
        if "# sum of this text" in text:
            raise UserError(f"{path} is damaged: it does not end as it was written. {then}")
        return
    rest = text[: match.start() + text[match.start() :].index("#")]
    if f"{zlib.crc32(rest.encode()):08x}" != match[1]:
        raise UserError(
            f"{path} is not as it was written (its check sum differs). {then}; whoever has changed it on purpose "
            "removes its last line, '# sum of this text'"
        )


def sums_in(text: str) -> dict[str, str]:
    """The sums of files that a sealed text holds."""
    return dict(SUM.findall(text))


# ------------------------------------------------------------------------------------------------------------- tensors
def tensors_sum(tensors: Mapping[str, Tensor], more: str = "") -> str:
    """Of tensors on the CPU with their names, types and shapes, and of a text."""
    from torch import uint8

    total = zlib.crc32(more.encode())
    for name in sorted(tensors):
        values = tensors[name].detach().contiguous()
        total = zlib.crc32(f"{name} {values.dtype} {[*values.shape]}".encode(), total)
        if values.numel():
            total = zlib.crc32(values.reshape(-1).view(uint8).numpy().data, total)
    return f"{total:08x}"
