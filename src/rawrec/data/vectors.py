"""Vectors of items with their ids, in the forms that other tools read; each file is there whole or not at all."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rawrec.arguments import shown
from rawrec.errors import UserError
from rawrec.extras import need
from rawrec.files import alone, create, replacing
from rawrec.forks import check_not_forked
from rawrec.lazily import Lazily

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazily("polars")

VECTOR_FORMS = (".parquet", ".npy", ".safetensors", ".faiss")
INDEXES = ("flat", "hnsw", "ivf")
NEIGHBOURS = 32  # of an item in the graph of an hnsw index
CELL = 39  # items of an ivf index per cell at least: with fewer Faiss warns that cells are learnt from too little
CELLS_READ = 8  # a search in an ivf index reads one cell in so many


@dataclass
class Vectors:
    """A vector `[width]` for each of the items `ids`, where it has one.

    pieces: in the order of ids, values `[m, width]` float32 and which of the m items have one, `[m]` bool.
    mean_for_missing: a `.npy` file holds the mean of all vectors where an item has none, for tools that take every row
    for a vector. of: `item` or `user`: whose they are; their ids are in the column `<of>_id`.
    """

    ids: Sequence[str]
    width: int
    pieces: Iterable[tuple[NDArray[np.float32], NDArray[np.bool_]]]
    mean_for_missing: bool = False
    of: str = "item"


def write_vectors(vectors: Vectors, path: Path, index: str | None = None) -> None:
    """Write `path` in the form that its suffix names, one of VECTOR_FORMS.

    `.parquet`: item_id, vector, valid. `.npy`: float32 `[n, width]`. `.safetensors`: the same as `vectors`, and
    `valid`; beside both `<name>.ids.jsonl`, item_id and valid of every row. `.faiss`: an index of the vectors that are
    there, brought to length 1, by inner product, so that scores are cosines; beside it `<name>.ids.parquet`, whose row
    i is the item_id of Faiss' id i. index: its kind, see `check_form`. Takes memory for one piece, for `.faiss` for
    twice the vectors.

    Raises UserError where no item has a vector for a Faiss index, OSError where a file cannot be written.
    """
    if path.suffix == ".parquet":
        _parquet(vectors, path)
        return
    with alone(path, f"{path} is being written by another process: wait until it is done, or give another name"):
        if path.suffix == ".faiss":  # two files, which must be of one writer
            _faiss(vectors, path, index or "flat")
        else:
            _plain(vectors, path)


def check_form(path: Path, index: str | None) -> None:
    """Raises UserError where `write_vectors` could not write such a file, before the vectors are made.

    index: `flat` (exact; the default), `hnsw` (a graph: fast, more memory) or `ivf` (cells: fast), for `.faiss` only.
    """
    if index is not None and path.suffix != ".faiss":
        raise UserError(
            f"index={shown(index)}: {path.name} is no Faiss index; leave it out, or use a name ending in .faiss"
        )
    if index is not None and index not in INDEXES:
        raise UserError(f"index={shown(index)} is unknown. Known: {', '.join(INDEXES)}")
    if path.suffix == ".faiss":
        _faiss_library()


def _faiss_library() -> Any:
    return need("faiss", "a .faiss file needs the library Faiss")


def _parquet(vectors: Vectors, path: Path) -> None:
    vector = pa.list_(pa.float32(), vectors.width)
    schema = pa.schema([(f"{vectors.of}_id", pa.string()), ("vector", vector), ("valid", pa.bool_())])
    with replacing(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        at = 0
        for values, valid in vectors.pieces:
            ids = pa.array(vectors.ids[at : at + len(values)], pa.string())
            rows = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), vectors.width)
            writer.write_table(pa.Table.from_arrays([ids, rows, pa.array(valid)], schema=schema))
            at += len(values)


def _plain(vectors: Vectors, path: Path) -> None:
    """`.npy` and `.safetensors`: a head, and all numbers one after the other."""
    check_not_forked()
    rows, tensors = len(vectors.ids), path.suffix == ".safetensors"
    total, known = np.zeros(vectors.width), [np.zeros(0, bool)]
    with replacing(path) as partial, replacing(path.with_suffix(".ids.jsonl")) as beside:
        with create(partial) as file:
            file.write(_safetensors_head(rows, vectors.width) if tensors else _npy_head(rows, vectors.width))
            for values, valid in vectors.pieces:
                file.write(values.astype("<f4").tobytes())
                total += values[valid].sum(0, dtype=np.float64)
                known.append(valid)
            valid = np.concatenate(known)
            if tensors:
                file.write(valid.tobytes())
        if vectors.mean_for_missing and valid.any() and not valid.all():
            np.lib.format.open_memmap(partial, "r+")[~valid] = total / valid.sum()
        ids = pl.DataFrame({f"{vectors.of}_id": vectors.ids, "valid": valid})
        with create(beside) as file:
            file.write(ids.write_ndjson().encode())


def _npy_head(rows: int, width: int) -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (rows, width)})
    return head.getvalue()


def _safetensors_head(rows: int, width: int) -> bytes:
    size = rows * width * 4
    tensors = {
        "vectors": {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, size]},
        "valid": {"dtype": "BOOL", "shape": [rows], "data_offsets": [size, size + rows]},
    }
    head = json.dumps(tensors).encode()
    head += b" " * (-len(head) % 8)  # the numbers begin at a multiple of 8
    return len(head).to_bytes(8, "little") + head


def _faiss(vectors: Vectors, path: Path, kind: str) -> None:
    faiss = _faiss_library()
    array, known = _there(vectors)
    if not len(array):
        raise UserError(f"no item has a vector, so there is nothing for {path.name} to hold")
    faiss.normalize_L2(array)
    cells = max(1, min(round(4 * math.sqrt(len(array))), len(array) // CELL))
    factory = {"flat": "Flat", "hnsw": f"HNSW{NEIGHBOURS}", "ivf": f"IVF{cells},Flat"}[kind]
    index = faiss.index_factory(vectors.width, factory, faiss.METRIC_INNER_PRODUCT)
    if kind == "ivf":
        index.cp.min_points_per_centroid = 1  # fewer than CELL items are one cell, which needs no warning
        index.nprobe = -(-cells // CELLS_READ)
    index.train(array)
    index.add(array)
    if kind == "ivf":
        index.make_direct_map()  # so that the vector of an id can be asked for, as of the other kinds
    check_not_forked()
    ids = pl.DataFrame({f"{vectors.of}_id": vectors.ids}).filter(pl.Series(known))
    with replacing(path) as partial, replacing(path.with_suffix(".ids.parquet")) as beside:
        with create(partial) as file:  # by a file of ours: a full disk is an OSError then
            faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
        pq.write_table(ids.to_arrow(), beside)


def _there(vectors: Vectors) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The vectors that are there, `[m, width]`, and which items have one, `[n]`."""
    pieces = [(values[valid], valid) for values, valid in vectors.pieces]
    return np.concatenate([values for values, _ in pieces]), np.concatenate([valid for _, valid in pieces])
