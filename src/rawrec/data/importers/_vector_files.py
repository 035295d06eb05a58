"""Files of vectors of items: columns of tables, .npy and .npz."""

from __future__ import annotations

import contextlib
import errno
import math
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from rawrec.data.importers._convert import as_text, ids, numbers
from rawrec.data.importers._tables import Batch, open_source
from rawrec.data.importers.report import ImportReport
from rawrec.errors import UserError

MAX_IDS = 2 << 30
"""Bytes of the ids of an .npz file, which are read whole."""
BETWEEN = r"[\s,;|]+"
"""What stands between the numbers of a vector that is a text."""
VECTOR, VALID = "vector", "valid"
"""The columns of the tables of vectors that `rawrec export` writes; where VALID is false there is none."""

pc: Any = pyarrow.compute  # its functions are made at import, where a type checker does not see them
Found = tuple[pl.Series, NDArray[np.int64], NDArray[Any]]


@dataclass(frozen=True)
class VectorFile:
    """Where the vectors of the feature `field` are.

    A table or an .npz file has them in the column or array `column`, by default one named as the field or `vector`, or
    the only one beside the ids; these are in `item_id`, or one of the name item_id. Beside an .npy file its ids are in
    `<name>.ids.jsonl`.
    """

    field: str
    path: Path
    item_id: str = "item_id"
    column: str | None = None

    def names(self, found: Sequence[str]) -> tuple[str, str, list[str]]:
        """Of the columns or arrays `found` those of ids and vectors, and VALID where it counts."""
        item = self.item_id if self.item_id in found else "item_id"
        others = [name for name in found if name not in (item, VALID)]
        vector = next((name for name in (self.column, self.field, VECTOR) if name in others), None)
        if vector is None and len(others) == 1:
            vector = others[0]
        if item not in found or vector is None:
            what, names = ("item ids", item) if item not in found else ("vectors", f"{self.field} or {VECTOR}")
            raise UserError(f"{self.path}: none of {', '.join(found)} holds the {what}: name it {names}")
        return item, vector, [VALID] if vector == VECTOR and VALID in found else []


def read_vectors(file: VectorFile, width: int, folder: Path, report: ImportReport) -> Found:
    """Ids of items; the row of each item's vector; and all vectors `[rows, width]`, on disk, numbers of any type.

    folder: for vectors that cannot be mapped where they are. Rows without an id or a vector are left out.
    Raises UserError for a file that cannot be used.
    """
    suffix = file.path.suffix.lower()
    if suffix not in (".npy", ".npz"):
        return _Table(file, width, report).read(folder / f"{file.field}.vectors")
    if not file.path.is_file():
        raise UserError(f"{file.path} does not exist or is not a file")
    if suffix == ".npy":
        batches, values = _npy(file, report)
    else:
        batches, values = _npz(file, width, folder / f"{file.field}.npy")
    _check_array(file, width, values.shape, values.dtype)
    parts, last = [(pl.Series([], dtype=pl.String), np.zeros(0, np.int64))], 0
    for batch in batches:
        found, kept = _ids(batch, report)
        parts.append((found, batch.rows[kept] - 1))
        last = max(last, int(batch.rows.max(initial=0)))
    if last != len(values):
        raise UserError(f"{file.path} has {len(values):,} vectors and {last:,} ids: each vector needs its item's id")
    return pl.concat([found for found, _ in parts]), np.concatenate([rows for _, rows in parts]), values


def _ids(batch: Batch, report: ImportReport) -> tuple[pl.Series, NDArray[np.bool_]]:
    """The ids of the rows that have one and a vector, and which rows these are `[n]`."""
    report.add_read("vectors", len(batch.rows))
    found, good = ids(batch.columns["item_id"], f"{batch.file}: item ids")
    if not good.all():
        report.skip("vector without an item id", batch.examples(~good), int((~good).sum()))
    if VALID in batch.columns:
        good &= numbers(batch.columns[VALID], f"{batch.file}: {VALID}") != 0
    return pl.Series(found).filter(pl.Series(good)), good


def _check_array(file: VectorFile, width: int, shape: tuple[int, ...], kind: np.dtype) -> None:
    if len(shape) != 2 or kind.kind not in "fiu":
        raise UserError(f"{file.path} holds {kind} of shape {shape}: vectors are numbers [items, width]")
    if shape[1] != width:
        raise UserError(_other_width(file, shape[1], width, f"is of shape {shape}"))


def _other_width(file: VectorFile, found: int, width: int, how: str) -> str:
    return (
        f"{file.path} {how}, so vectors are {found} wide, but the feature {file.field!r} of the dataset is {width} "
        f"wide: give vectors of width {width}"
    )


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
    source = open_source(beside, report)
    source.require("the item id of a vector", ["item_id"])
    return source.batches([name for name in ("item_id", VALID) if name in source.columns]), values


def _npz(file: VectorFile, width: int, place: Path) -> tuple[Iterator[Batch], NDArray[Any]]:
    """The vectors are unpacked at `place`; what is packed there is looked at before."""
    with _reading(file.path), zipfile.ZipFile(file.path) as packed:
        names = [name.removesuffix(".npy") for name in packed.namelist() if name.endswith(".npy")]
        item, vector, valid = file.names(names)
        columns = {}
        for name, of in ((item, "item_id"), *((name, name) for name in valid)):
            if packed.getinfo(f"{name}.npy").file_size > MAX_IDS:
                raise UserError(f"{file.path}: {name} is larger than {MAX_IDS >> 30} GiB: use a Parquet table")
            with packed.open(f"{name}.npy") as stream:
                columns[of] = pa.array(np.lib.format.read_array(stream, allow_pickle=False))
        with packed.open(f"{vector}.npy") as stream:
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            shape, _, kind = read[np.lib.format.read_magic(stream)[0]](stream)
            _check_array(file, width, shape, kind)
            if packed.getinfo(f"{vector}.npy").file_size != stream.tell() + math.prod(shape) * kind.itemsize:
                raise ValueError(f"{vector} is not as long as its head says")
        with packed.open(f"{vector}.npy") as stream, place.open("wb") as target:
            shutil.copyfileobj(stream, target, 1 << 20)
        values = np.load(place, mmap_mode="r", allow_pickle=False)
        rows = np.arange(1, len(columns["item_id"]) + 1)
        return iter([Batch(file.path.name, rows, columns)]), values


# -------------------------------------------------------------------------------------------------------------- tables
class _Table:
    """The vectors in a column of a table: lists of numbers, or texts of numbers with signs or blanks between them."""

    def __init__(self, file: VectorFile, width: int, report: ImportReport) -> None:
        self._file, self._width, self._report = file, width, report
        # Of a table of items the rows are counted where its other columns are read.
        self._source = open_source(file.path, ImportReport() if file.column else report)
        self._some = False

    def read(self, place: Path) -> Found:
        """The vectors are put into the file `place`."""
        item, vector, valid = self._file.names(self._source.columns)
        found, total = [pl.Series([], dtype=pl.String)], 0
        with place.open("wb") as target:
            for batch in self._source.batches([item, vector, *valid]):
                columns = {"item_id": batch.columns[item], **{name: batch.columns[name] for name in valid}}
                known, kept = _ids(Batch(batch.file, batch.rows, columns), self._report)
                values, there = self._vectors(batch.keep(kept), vector)
                target.write(values[there].data)
                found.append(known.filter(pl.Series(there)))
                total += int(there.sum())
        values = np.memmap(place, np.float32, "r") if total else np.zeros(0, np.float32)
        return pl.concat(found), np.arange(total), values.reshape(total, self._width)

    def _vectors(self, batch: Batch, name: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Vectors `[n, width]`, with nan for what is no number, and which rows have one `[n]`; others are counted.

        Raises UserError where the first vectors of the table have another width.
        """
        flat, lengths = _pieces(batch.columns[name], f"{batch.file}: {name}")
        fits = lengths == self._width
        wrong = (lengths > 0) & ~fits
        if wrong.any():
            if not (self._some or fits.any()):
                at = int(np.argmax(wrong))
                how = f"has {lengths[at]} values in column {name!r} of row {batch.rows[at]}"
                advice = ", or rename the column if it holds something else" if self._file.column else ""
                raise UserError(_other_width(self._file, int(lengths[at]), self._width, how) + advice)
            reason = f"feature {self._file.field}: not {self._width} numbers (missing)"
            self._report.skip(reason, batch.examples(wrong), int(wrong.sum()))
        self._some |= bool(fits.any())
        values = np.full((len(lengths), self._width), np.nan, np.float32)
        values[fits] = flat[np.repeat(fits, lengths)].reshape(-1, self._width)
        return values, fits


def _pieces(column: pa.Array, where: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The values of all vectors end to end, nan where there is no number, and how many each has `[n]`."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        try:
            flat = pc.list_flatten(column).cast(pa.float32(), safe=False)
        except pa.ArrowException:
            raise UserError(f"{where} holds {kind}: a vector is a list of numbers") from None
        return flat.to_numpy(zero_copy_only=False), lengths
    text = pl.Series(as_text(column, where)).fill_null("").str.strip_chars(" \t\r\n[]()").str.replace_all(BETWEEN, " ")
    words = text.str.split(" ").list.eval(pl.element().filter(pl.element() != ""))
    lengths = words.list.len().to_numpy().astype(np.int64)
    flat = words.explode().drop_nulls().cast(pl.Float32, strict=False).fill_null(np.nan)
    return flat.to_numpy(), lengths
