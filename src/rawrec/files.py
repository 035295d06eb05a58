"""Files written whole or not at all, with honest errors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def filling(path: Path) -> Iterator[None]:
    """An error of a full disk that does not say where (those of writing do not) names this file or folder."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write; it takes the place of `path` at the end, and is gone after an error."""
    partial = path.with_name(path.name + ".partial")
    try:
        with filling(path):
            yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_table(table: pa.Table, path: Path) -> None:
    """A Parquet file, replaced atomically. Raises OSError where it cannot be written."""
    with replacing(path) as partial:
        pq.write_table(table, partial)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file. Raises OSError, as other files do, where it cannot be written: disk full, read-only."""
    path.touch()
    mode = path.stat().st_mode & 0o777  # as every new file here; save_file would leave it readable by its owner only
    try:
        save_file(dict(tensors), path, metadata)
        path.chmod(mode)
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        code = int(found[1]) if found else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from None
