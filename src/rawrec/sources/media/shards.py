"""Tar shards as WebDataset has them: the files of one sample follow one another and share a key."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.shown import several
from rawrec.sources.media.pictures import FLUSH_BYTES, MAX_BYTES, SUFFIXES
from rawrec.sources.media.tar import Damaged, Member, Tar
from rawrec.sources.tables import Batch, Source
from rawrec.sources.tables.convert import stored_name
from rawrec.sources.tables.encoding import UTF8, checked
from rawrec.sources.tables.json_lines import HALF
from rawrec.sources.tables.lines import BOM, UNREADABLE
from rawrec.sources.tables.marks import ERRORS, HALVES, MARKS, mark_halves, written
from rawrec.sources.tables.objects import Reader

FIELDS = dict.fromkeys(SUFFIXES, "image") | {"txt": "text", "cls": "cls"}
"""The last part of a file's name -> the field; parts between the key and it are added to the field's name."""
KEY = "__key__"
"""The column of the samples' keys."""
MAX_WORDS = 4 << 20
"""A larger text, class or JSON file is skipped."""
MAX_SAMPLE = 4 * MAX_BYTES
SURVEYED = 1000
"""Samples looked at to find out which fields there are."""
MAX_SHARDS = 100_000
SAMPLES_AT_ONCE = 1024
BRACES = re.compile(r"\{([^{}]*)\}")


def expand(names: Sequence[str]) -> list[Path]:
    """The files that names with braces and wildcards stand for. UserError where there is none, or one is missing."""
    found: list[Path] = []
    for name in itertools.chain.from_iterable(map(_braces, names)):
        if Path(name).exists() or not glob.has_magic(name):
            found.append(Path(name))
        elif matches := sorted(glob.glob(name)):  # noqa: PTH207
            found += map(Path, matches)
        else:
            raise UserError(f"no file is called {name}")
    found = list(dict.fromkeys(found))
    if missing := [path for path in found if not path.is_file()]:
        raise UserError(f"{missing[0]} does not exist or is not a file ({len(missing)} of {len(found)} shards)")
    return found


def _braces(name: str) -> Iterator[str]:
    """`a{0..2}` as a0, a1, a2; `{x,y}` as x, y."""
    ready, waiting = 0, [name]
    if Path(name).exists():
        yield waiting.pop()
    while waiting:
        name = waiting.pop()
        match = BRACES.search(name)
        if match is None:
            ready += 1
            yield name
            continue
        values = match[1].split(",")
        if limits := re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", match[1]):
            first, last = (int(limit) for limit in limits.groups())
            width = len(limits[1]) if limits[1].startswith("0") else 0
            if last < first or last - first >= MAX_SHARDS:
                raise UserError(f"{name}: {{{match[1]}}} stands for no shards, or for more than {MAX_SHARDS:,}")
            values = [f"{i:0{width}}" for i in range(first, last + 1)]
        if ready + len(waiting) + len(values) > MAX_SHARDS:
            raise UserError(f"{name} stands for more than {MAX_SHARDS:,} shards")
        waiting += [name[: match.start()] + value + name[match.end() :] for value in reversed(values)]


@dataclass
class _Sample:
    """The files of one key: field -> pictures or words, and the JSON. number: in its shard, from 1. size: bytes held.
    fraction: how much of the shard has been read."""

    key: str
    number: int
    files: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    seen: set[str] = dataclasses.field(default_factory=set)
    size: int = 0
    fraction: float = 0.0


class Shards(Source):
    """The samples of tar shards as a table: the key, a column per field of files, a column per key of the JSON.

    fields: field -> "image", "text" or "cls". keys: of the JSON files of the first samples. `Batch.rows` are the
    numbers of the samples in their shard. encoding: of names, texts and JSON.
    """

    format = "jsonl"  # values that are lists are lists of JSON
    holds_bytes = True

    def __init__(
        self, paths: Sequence[Path], name: str, image: Sequence[str], report: ImportReport, encoding: str | None = None
    ) -> None:
        super().__init__(Path(name), report)
        self.paths, self.encoding = paths, UTF8 if encoding is None else checked(encoding)
        self.image = [extension.lower().lstrip(".") for extension in image]
        if wrong := [extension for extension in self.image if extension.split(".")[-1] not in SUFFIXES]:
            raise UserError(f"image: {wrong[0]!r} is no extension of pictures. Known: {', '.join(SUFFIXES)}")
        self.fields = dict.fromkeys(map(_field, self.image), "image")
        self.keys: dict[str, None] = {}
        self._survey()
        self.columns = [KEY, *self.fields, *(key for key in self.keys if key not in self.fields)]

    def _survey(self) -> None:
        """Find out the fields and the keys of the JSON from the first samples."""
        found: dict[str, str] = {}
        looker = self.again()
        assert isinstance(looker, Shards)
        count = 0
        for sample in itertools.islice((s for path in self.paths for s in looker._samples(path, found)), SURVEYED):
            count += 1
            self.keys.update(dict.fromkeys(key for key in sample.meta if not HALVES.search(key)))
        if not count:
            reasons = [f"{reason}: {entry.examples[0]}" for reason, entry in looker.report.skipped.items()]
            raise UserError(several([f"{self.path} holds no samples", *reasons], "; "))
        self.fields |= found

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        for i, path in enumerate(self.paths):
            held: list[_Sample] = []
            size = 0
            for sample in self._samples(path, None):
                held.append(sample)
                size += sample.size
                if size >= FLUSH_BYTES or len(held) == SAMPLES_AT_ONCE:
                    yield self._batch(path, held, columns)
                    held, size = [], 0
                self.fraction = (i + sample.fraction) / len(self.paths)
            if held:
                yield self._batch(path, held, columns)

    def _batch(self, path: Path, held: list[_Sample], columns: Sequence[str]) -> Batch:
        if "image" in self.fields.values():
            for sample in held:
                if not any(self.fields.get(name) == "image" for name in sample.files):
                    self.report.skip(
                        "sample without a picture (kept)", f"{path.name}:{sample.number} {written(sample.key)!r}"
                    )
        taken: dict[str, pa.Array] = {}
        for name in columns:
            if name == KEY:
                taken[name] = pa.array([sample.key for sample in held], pa.string())
            elif name in self.fields:
                kind = pa.list_(pa.large_binary() if self.fields[name] == "image" else pa.string())
                taken[name] = pa.array([sample.files.get(name, []) for sample in held], kind)
            else:
                taken[name] = pa.array([_value(sample.meta.get(name)) for sample in held], pa.string())
        return Batch(path.name, np.array([sample.number for sample in held]), taken).without_marks()

    def _samples(self, path: Path, found: dict[str, str] | None) -> Iterator[_Sample]:
        """The samples of a shard up to its end, or to where it is damaged. found: takes down fields, and no picture or
        text is read; None: only what has one of `fields` is taken."""
        sample, number = None, 0
        try:
            tar = Tar(path, self.encoding)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        with tar:
            try:
                for member in tar.members():
                    name = self._split(path, member)
                    if name is None:
                        continue
                    if sample is None or sample.key != name[0]:
                        if sample is not None:
                            yield sample
                        number += 1
                        sample = _Sample(name[0], number)
                    sample.fraction = tar.fraction
                    self._add(sample, name[1], tar, member, f"{path.name}:{number} {written(member.name)!r}", found)
            except Damaged as error:
                self.report.skip("shard is damaged (what stands before is in)", f"{path.name}: {error}")
                if sample is not None and not sample.seen:
                    sample = None
        if sample is not None:
            yield sample

    def _split(self, path: Path, member: Member) -> tuple[str, str] | None:
        """A file's key and its extension, in small letters; None for what belongs to no sample, which is counted."""
        where = f"{path.name} {written(member.name)!r}"
        if member.kind == "folder":
            return None
        if member.kind != "file":
            self.report.skip(f"{member.kind} in a shard (not followed)", where)
            return None
        parts = PurePosixPath(member.name).parts
        if not parts or parts[0] == "/" or ".." in parts:
            self.report.skip("unsafe name in a shard (leads out of it)", where)
            return None
        stem, _, extension = parts[-1].partition(".")
        if not stem or not extension or stem.startswith("__"):
            self.report.skip("file of a shard without a key and an extension", where)
            return None
        return "/".join([*parts[:-1], stem]), extension.lower()

    def _add(
        self, sample: _Sample, extension: str, tar: Tar, member: Member, where: str, found: dict[str, str] | None
    ) -> None:
        """Read a file into its sample, if it is of use and not too large."""
        kind = "json" if extension == "json" else FIELDS.get(extension.rpartition(".")[2])
        field = _field(extension)
        if kind is None:
            self.report.skip("file of a kind that is not read", where)
        elif kind == "image" and self.image and extension not in self.image:
            return
        elif found is not None and kind != "json":
            found[field] = kind
        elif kind != "json" and field not in self.fields:
            self.report.skip(f"file of a field that none of the first {SURVEYED:,} samples has", where)
        elif extension in sample.seen:
            self.report.skip("file that its sample has already (the first is kept)", where)
        elif member.size > (limit := MAX_BYTES if kind == "image" else MAX_WORDS):
            self.report.skip(f"file of a shard larger than {limit >> 20} MiB", where)
        elif sample.size + member.size > MAX_SAMPLE:
            self.report.skip(f"file of a sample larger than {MAX_SAMPLE >> 20} MiB", where)
        else:
            data = tar.read(member)
            sample.seen.add(extension)
            sample.size += len(data)
            if kind == "json":
                sample.meta = self._object(data, where)
            else:
                sample.files.setdefault(field, []).append(
                    data if kind == "image" else written(self._words(data, where))
                )

    def _object(self, data: bytes, where: str) -> dict[str, Any]:
        read = Reader(literals=False)
        value = read.value(self._words(data, where).strip())
        if read.no_numbers:
            self.report.note("NaN and Infinity in the JSON of samples are read as missing")
        if value is None:
            self.report.skip("JSON of a sample is no object (sample kept without)", where)
            return {}
        if b"\\u" in data and HALVES.search(json.dumps(value, ensure_ascii=False)):
            self.report.skip(HALF, where)
        return value

    def _words(self, data: bytes, where: str) -> str:
        text = mark_halves(data.decode(self.encoding, ERRORS)).removeprefix(BOM)
        if MARKS.search(text):
            self.report.skip(UNREADABLE.format(self.encoding), where)
        return text


def _field(extension: str) -> str:
    """`jpg` -> image, `front.jpg` -> image_front, `txt` -> text."""
    *parts, last = extension.split(".")
    return stored_name("_".join([FIELDS.get(last, last), *parts]))


def _value(value: Any) -> str | None:
    """A value of JSON as a string; lists, objects and numbers as their JSON."""
    if value is None:
        return None
    return mark_halves(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
