"""Columns of tables whose values are vectors: lists of numbers, or texts of numbers with signs or blanks between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from rawrec.errors import UserError
from rawrec.sources.tables import Batch, Source
from rawrec.sources.tables.convert import as_text

BETWEEN = r"[\s,;|]+"
"""What stands between the numbers of a vector that is a text."""

pc: Any = pyarrow.compute  # its functions are made at import, where a type checker does not see them


def column_width(source: Source, column: str) -> int:
    """How wide the vectors of a column are: as its first that is all numbers. UserError where there is none."""
    for batch in source.again().batches([column]):
        flat, lengths = _pieces(batch.columns[column], f"{batch.file}: {column}")
        owners = np.repeat(np.arange(len(lengths)), lengths)
        whole = (np.bincount(owners[np.isfinite(flat)], minlength=len(lengths)) == lengths) & (lengths > 0)
        if whole.any():
            return int(lengths[np.argmax(whole)])
    raise UserError(
        f"{source.path}: no row of column {column!r} is a list of numbers, as a vector is: name another column"
    )


class VectorColumn:
    """The column of vectors `name` of a table, for the feature `field`, `width` wide.

    advice: what more to do about vectors of another width.
    """

    def __init__(self, source: Source, name: str, field: str, width: int, advice: str = "") -> None:
        self.source, self.name, self.field, self.width, self._advice = source, name, field, width, advice
        self._some = False

    def read(self, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Vectors `[n, width]`, with nan for what is no number, and which rows have one `[n]`; others are counted.

        Raises UserError where the first vectors of the table have another width.
        """
        flat, lengths = _pieces(batch.columns[self.name], f"{batch.file}: {self.name}")
        fits = lengths == self.width
        wrong = (lengths > 0) & ~fits
        if wrong.any():
            if not (self._some or fits.any()):
                at = int(np.argmax(wrong))
                column = self.source.name_in_file(self.name)
                how = f"has {lengths[at]} values in column {column!r} of row {batch.rows[at]}"
                raise UserError(other_width(self.source.path, self.field, lengths[at], self.width, how) + self._advice)
            reason = f"feature {self.field}: not {self.width} numbers (missing)"
            self.source.report.skip(reason, batch.examples(wrong), int(wrong.sum()))
        self._some |= bool(fits.any())
        values = np.full((len(lengths), self.width), np.nan, np.float32)
        values[fits] = flat[np.repeat(fits, lengths)].reshape(-1, self.width)
        return values, fits


def other_width(path: Path, field: str, found: int, width: int, how: str) -> str:
    return (
        f"{path} {how}, so vectors are {found} wide, but the feature {field!r} of the dataset is {width} "
        f"wide: give vectors of width {width}"
    )


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
