"""Files of vectors of items: tables, .npy and .npz."""

from __future__ import annotations

import contextlib
import errno
import math
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.data.given import Found
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.files import create
from rawrec.shown import listed
from rawrec.sources.tables import Batch, Source, open_source
from rawrec.sources.tables.convert import numbers
from rawrec.sources.tables.rows import read_ids
from rawrec.sources.tables.vector_columns import VectorColumn, column_width, other_width

MAX_IDS = 2 << 30
"""Bytes of the ids of an .npz file, which are read whole."""
VECTOR, VALID = "vector", "valid"
"""The columns of the tables of vectors that `rawrec export` writes; where VALID is false there is none."""


@dataclass(frozen=True)
class VectorFile:
    """Where the vectors of the feature `field` are.

    A table or an .npz file has them in the column or array named as the field or `vector`, or the only one beside the
    ids; these are in `item_id`, or one of the name item_id. Beside an .npy file its ids are in `<name>.ids.jsonl`.
    """

    field: str
    path: Path
    item_id: str = "item_id"
    encoding: str | None = None

    def names(self, found: Sequence[str]) -> tuple[str, str, list[str]]:
        """Of the columns or arrays `found` those of ids and vectors, and VALID where it counts."""
        item = self.item_id if self.item_id in found else "item_id"
        others = [name for name in found if name not in (item, VALID)]
        vector = next((name for name in (self.field, VECTOR) if name in others), None)
        if vector is None and len(others) == 1:
            vector = others[0]
        if item not in found or vector is None:
            what, names = ("item ids", item) if item not in found else ("vectors", f"{self.field} or {VECTOR}")
            raise UserError(f"{self.path}: none of {listed(found, names)} holds the {what}: name it {names}")
        return item, vector, [VALID] if vector == VECTOR and VALID in found else []

    def names_in(self, source: Source) -> tuple[str, str, list[str]]:
        """The same of a table, where columns may come late."""
        try:
            return self.names(source.columns)
        except UserError:
            source.seek([self.item_id, "item_id", self.field, VECTOR, VALID])
            return self.names(source.columns)

    def read(self, width: int, folder: Path, report: ImportReport) -> Found:
        """Ids of items; the row of each item's vector; and all vectors `[rows, width]`, on disk, numbers of any type.

        folder: for vectors that cannot be mapped where they are. Rows without an id or a vector are left out.
        Raises UserError for a file that cannot be used.
        """
        suffix = _suffix(self.path)
        if not suffix:
            return _table(self, width, folder / f"{self.field}.vectors", report)
        if suffix == ".npy":
            batches, values = _npy(self, report)
        else:
            batches, values = _npz(self, width, folder / f"{self.field}.npy")
        _checked(self, values.shape, values.dtype, width)
        parts, last = [(pl.Series([], dtype=pl.String), np.zeros(0, np.int64))], 0
        for batch in batches:
            found, kept = _ids(batch, report)
            parts.append((found, batch.rows[kept] - 1))
            last = max(last, int(batch.rows.max(initial=0)))
        if last != len(values):
            raise UserError(
                f"{self.path} has {len(values):,} vectors and {last:,} ids: each vector needs its item's id"
            )
        return pl.concat([found for found, _ in parts]), np.concatenate([rows for _, rows in parts]), values


def vector_files(files: Mapping[str, str | Path] | None, item_id: str, encoding: str | None = None) -> list[VectorFile]:
    """Files by feature; item_id: the column or array of ids of those that have one of this name. encoding: of texts."""
    return [VectorFile(field, Path(path), item_id, encoding) for field, path in (files or {}).items()]


def vector_width(file: VectorFile) -> int:
    """How wide the vectors of a file are; those of a table as `column_width` says.

    Raises UserError for a file that cannot be used.
    """
    suffix = _suffix(file.path)
    if not suffix:
        source = open_source(file.path, ImportReport(), file.encoding)
        return column_width(source, file.names_in(source)[1])
    with _reading(file.path):
        if suffix == ".npy":
            values = np.load(file.path, mmap_mode="r", allow_pickle=False)
            return _checked(file, values.shape, values.dtype)
        with zipfile.ZipFile(file.path) as packed:
            return _checked_head(file, packed, file.names(_arrays(packed))[1])


def _ids(batch: Batch, report: ImportReport) -> tuple[pl.Series, NDArray[np.bool_]]:
    """The ids of the rows that have one and a vector, and which rows these are `[n]`."""
    report.add_read("vectors", len(batch.rows))
    found, good = read_ids(batch, "item_id", report, "vectors", "vector without an item id")
    if VALID in batch.columns:
        good &= numbers(batch.columns[VALID], f"{batch.file}: {VALID}") != 0
    return pl.Series(found).filter(pl.Series(good)), good


def _suffix(path: Path) -> str:
    """`.npy` or `.npz`, "" for a table. Raises UserError where an array's file is absent."""
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz"):
        return ""
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    return suffix


def _checked(file: VectorFile, shape: tuple[int, ...], kind: np.dtype, width: int | None = None) -> int:
    """The width of the vectors of an array. Raises UserError where it holds none, or none of the `width` wanted."""
    if len(shape) != 2 or kind.kind not in "fiu":
        raise UserError(f"{file.path} holds {kind} of shape {shape}: vectors are numbers [items, width]")
    if width is not None and shape[1] != width:
        raise UserError(other_width(file.path, file.field, shape[1], width, f"is of shape {shape}"))
    if not shape[1]:
        raise UserError(f"{file.path}: feature {file.field!r} has width 0: it must be at least 1")
    return shape[1]


def _table(file: VectorFile, width: int, place: Path, report: ImportReport) -> Found:
    """The vectors are put into the file `place`."""
    source = open_source(file.path, report, file.encoding)
    item, vector, valid = file.names_in(source)
    column = VectorColumn(source, vector, file.field, width)
    found, total = [pl.Series([], dtype=pl.String)], 0
    with create(place) as target:
        for batch in source.batches([item, vector, *valid]):
            columns = {"item_id": batch.columns[item], **{name: batch.columns[name] for name in valid}}
            bad = {"item_id": batch.unreadable[item]} if item in batch.unreadable else {}
            known, kept = _ids(Batch(batch.file, batch.rows, columns, bad), report)
            values, there = column.read(batch.keep(kept))
            target.write(values[there].data)
            found.append(known.filter(pl.Series(there)))
            total += int(there.sum())
    values = np.memmap(place, np.float32, "r") if total else np.zeros(0, np.float32)
    return pl.concat(found), np.arange(total), values.reshape(total, width)


# -------------------------------------------------------------------------------------------------------------- arrays
@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """The head of an array is Python text, and a damaged one raises nearly everything."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # of what is unpacked
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as plain numbers (pickled objects never are): {reason}") from None


def _npy(file: VectorFile, report: ImportReport) -> tuple[Iterator[Batch], NDArray[Any]]:
    beside = file.path.with_suffix(".ids.jsonl")
    if not beside.is_file():
        raise UserError(
            f"{file.path}: whose vectors are these? Put {beside.name} beside it, a line "
            f'{{"item_id": ...}} for each, or give an .npz file or a table with ids'
        )
    with _reading(file.path):
        values = np.load(file.path, mmap_mode="r", allow_pickle=False)
    source = open_source(beside, report, file.encoding)
    source.require("the item id of a vector", ["item_id"])
    return source.batches([name for name in ("item_id", VALID) if name in source.columns]), values


def _npz(file: VectorFile, width: int, place: Path) -> tuple[Iterator[Batch], NDArray[Any]]:
    """The vectors are unpacked at `place`; what is packed there is looked at before."""
    with _reading(file.path), zipfile.ZipFile(file.path) as packed:
        item, vector, valid = file.names(_arrays(packed))
        columns = {}
        for name, of in ((item, "item_id"), *((name, name) for name in valid)):
            if packed.getinfo(f"{name}.npy").file_size > MAX_IDS:
                raise UserError(f"{file.path}: {name} is larger than {MAX_IDS >> 30} GiB: use a Parquet table")
            with packed.open(f"{name}.npy") as stream:
                columns[of] = pa.array(np.lib.format.read_array(stream, allow_pickle=False))
        _checked_head(file, packed, vector, width)
        with packed.open(f"{vector}.npy") as stream, create(place) as target:
            shutil.copyfileobj(stream, target, 1 << 20)
        values = np.load(place, mmap_mode="r", allow_pickle=False)
        rows = np.arange(1, len(columns["item_id"]) + 1)
        return iter([Batch(file.path.name, rows, columns)]), values


def _arrays(packed: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in packed.namelist() if name.endswith(".npy")]


def _checked_head(file: VectorFile, packed: zipfile.ZipFile, name: str, width: int | None = None) -> int:
    """As `_checked`, of a packed array. Raises ValueError where it is not as long as its head says."""
    with packed.open(f"{name}.npy") as stream:
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, _, kind = read[np.lib.format.read_magic(stream)[0]](stream)
        found = _checked(file, shape, kind, width)
        if packed.getinfo(f"{name}.npy").file_size != stream.tell() + math.prod(shape) * kind.itemsize:
            raise ValueError(f"{name} is not as long as its head says")
    return found
