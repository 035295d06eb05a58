"""The one door for what is read from folders that somebody else may have made: plain files of bounded size, plain
values of stated types, tables and tensors of which no damage is more than a message.

Every function here raises UserError, which names the file, for whatever is wrong in it, and FileNotFoundError where
there is none. Files of run folders are not read through links; those of datasets are (`links`), which may be spread
over disks.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from rawrec.errors import UserError
from rawrec.shown import listed

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

MIB = 1 << 20
SETTINGS = MIB
"""Bytes of a file of settings: rawrec writes some thousand."""
DESCRIPTION = 8 * MIB
"""Bytes of a dataset's description: some hundred a version."""
RECORD = 64 * MIB
"""Bytes of what a run says of itself, or of its metrics of all epochs."""
HEAD = 64 * MIB
"""Bytes of the head of a safetensors file."""
DEPTH = 40
"""Levels of lists and mappings; what rawrec writes has fewer than ten."""
MOST = 100_000
"""Values of a file of settings."""
LONGEST = 2**63
"""No whole number is as large."""
DAMAGED = "is damaged, or cannot be read"
T = TypeVar("T")


# --------------------------------------------------------------------------------------------------------------- files
def check_plain(path: Path, links: bool = False) -> None:
    """UserError where `path` is no regular file: a folder, a pipe, a device, and, unless `links`, a link, which can
    lead to any of them and out of the folder."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) and links:
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        what = "a link, which could lead anywhere" if stat.S_ISLNK(found.st_mode) else "no plain file"
        raise UserError(f"{path} is {what}: it is not read. Put the file itself there")


def read_bytes(path: Path, limit: int, links: bool = False) -> bytes:
    """What a file holds, of at most `limit` bytes."""
    check_plain(path, links)
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW))
    with os.fdopen(handle, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UserError(f"{path} is larger than {limit / MIB:,.0f} MiB: it is damaged, or nothing that rawrec wrote")
    return data


def read_text(path: Path, limit: int, links: bool = False) -> str:
    try:
        return read_bytes(path, limit, links).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}") from None


def read_json(path: Path, limit: int = RECORD) -> Any:
    """Plain values, see `plain`."""
    text = read_text(path, limit)
    with damaged(path):
        return json_of(text)


def read_json_lines(path: Path, limit: int = RECORD) -> list[Any]:
    """Plain values, one a line; empty lines count for nothing."""
    lines = read_text(path, limit).splitlines()
    with damaged(path):
        return [json_of(line) for line in lines if line.strip()]


def read_yaml(path: Path, limit: int, links: bool = False) -> Any:
    """Plain values without names for parts of them (anchors), which can make much of little."""
    text = read_text(path, limit, links)
    with damaged(path):
        return yaml_of(text)


# -------------------------------------------------------------------------------------------------------------- values
def json_of(text: str) -> Any:
    """Plain values of a JSON text. Raises ValueError, RecursionError."""
    return plain(json.loads(text, parse_constant=_no_number))


def yaml_of(text: str) -> Any:
    """Plain values of a YAML text. Raises yaml.YAMLError, ValueError, RecursionError."""
    if "&" not in text and "*" not in text:
        with suppress(yaml.YAMLError, ValueError):  # the other says what is wrong, and reads names that are no UTF-8
            return plain(yaml.load(text, _QUICK))
    return plain(yaml.load(text, _Plain))


_QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, nine times as quick, for texts without anchors; it has a bound of depth of its own."""


class _Plain(yaml.SafeLoader):
    """Without anchors and aliases, of bounded depth."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError(f"names for parts (& and *) are not read here (line {event.start_mark.line + 1})")
        self.depth += 1
        if self.depth > DEPTH:
            raise yaml.YAMLError(f"more than {DEPTH} levels (line {event.start_mark.line + 1})")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def plain(value: T) -> T:
    """The value, known to be of at most DEPTH levels, its numbers finite and whole ones below 2**63. ValueError."""
    for one in _parts(value):
        if isinstance(one, float) and not math.isfinite(one):
            raise ValueError(f"{one} is no number")
        if isinstance(one, int) and abs(one) >= LONGEST:
            raise ValueError("a number is larger than 64 bits")
    return value


def bounded(value: T) -> T:
    """The value, known to be of at most DEPTH levels and MOST parts: names for parts (anchors of YAML) can make more of
    a few lines than memory holds. ValueError."""
    for _ in _parts(value, MOST):
        pass
    return value


def _parts(value: Any, most: int = 2**24) -> Iterator[Any]:
    """Everything in a value, level by level."""
    level: list[Any] = [value]
    for _ in range(DEPTH + 1):
        yield from level
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += [*one, *one.values()]
            elif isinstance(one, list | tuple | set):
                below += one
            if len(below) > most:
                raise ValueError(f"more than {most:,} values: some stand for many others")
        if not below:
            return
        level = below
    raise ValueError(f"more than {DEPTH} levels of lists and mappings")


def typed(kind: Any, value: Any, path: Path) -> Any:
    """A value of JSON as pydantic reads it as `kind`, in strict mode: 1 is no truth and "1" no number. UserError, which
    names the place in the file."""
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except (ValidationError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {first_problem(error)}") from None


def first_problem(error: BaseException) -> str:
    """In a line, what pydantic found first."""
    if not isinstance(error, ValidationError):
        return first_line(error)
    found = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part)[:60] for part in found["loc"])
    return f"{where}: {found['msg']}" if where else str(found["msg"])


# ----------------------------------------------------------------------------------------------------- tables, tensors
def panicked(error: BaseException) -> bool:
    """Whether a library in Rust gave up: its exception is none that `except Exception` sees."""
    return type(error).__name__ == "PanicException"


@contextmanager
def damaged(path: Path | str, then: str = "", says: str = DAMAGED, missing: bool = False) -> Iterator[None]:
    """Inside, whatever a library says, or cries, of a file becomes a UserError that names it and `says` that. then:
    what to do. missing: so is what is said of a file that is not there, which is else passed on."""
    known = (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError)
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        if not missing:
            raise
        raise UserError(f"{path} {says}: {first_line(error)}{then}") from None
    except BaseException as error:
        library = type(error).__module__.split(".")[0]  # "" and "builtins" are of Python itself
        ours = isinstance(error, (*known, yaml.YAMLError)) or library in ("pyarrow", "polars", "safetensors")
        unopened = isinstance(error, RuntimeError) and str(error).startswith("unable to open file")  # of torch
        if not ours and not unopened and not panicked(error) and type(error).__name__ != "SafetensorError":
            raise
        raise UserError(f"{path} {says}: {first_line(error)}{then}") from None


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, at most 200 characters of it."""
    line = (str(error).splitlines() or [""])[0].strip()
    return line[:200] or type(error).__name__


def read_table(path: Path, columns: Sequence[str] | None = None, links: bool = False) -> pa.Table:
    """A Parquet file, whose name is taken as it is, by columns; pages are compared with their check sums."""
    check_plain(path, links)
    with damaged(path), parquet(path) as file:
        if columns is not None and (missing := [name for name in columns if name not in file.schema_arrow.names]):
            raise UserError(f"{path} lacks the columns {missing}")
        return file.read(columns=None if columns is None else list(columns))


def parquet(path: Path) -> Any:
    """A Parquet file of ours, whose pages are compared with their check sums as they are read, one after the other."""
    import pyarrow.parquet as pq  # which the pages of the command line do without

    return pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)


def check_names(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path, of: str) -> None:
    """UserError where tensors are not by name those that a model made here has. of: what they should be of."""
    for what, names in (("lacks", expected.keys() - found.keys()), ("has too many:", found.keys() - expected.keys())):
        if names:
            raise UserError(f"{path} is not {of}: it {what} {listed(sorted(names))}")


def check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """UserError where a tensor that is found under a name is not what is expected there: by shape, by kind (whole
    numbers or others), or where its values are no numbers."""
    for name, value in found.items():
        target = expected.get(name)
        if target is None:
            continue
        why = ""
        if value.shape != target.shape:
            why = f"has the shape {[*value.shape]}, and {[*target.shape]} is needed"
        elif value.is_floating_point() != target.is_floating_point():
            why = f"is of {value.dtype}, and {target.dtype} is needed".replace("torch.", "")
        elif value.is_floating_point() and not bool(value.isfinite().all()):
            why = "holds values that are no numbers"
        if why:
            raise UserError(f"{path} is damaged, or of another model: {name} {why}")


def check_head(path: Path, links: bool = False) -> None:
    """UserError where a safetensors file has a head that is too long to be one of ours."""
    check_plain(path, links)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > HEAD:
        raise UserError(f"{path} is damaged: its head is larger than {HEAD / MIB:,.0f} MiB")
