"""Columns as they were read -> columns as the dataset holds them, all rows at once; what does not fit is marked."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from rawrec.data.names import fits_name, is_letter
from rawrec.errors import UserError

WORDS = {"true": 1.0, "t": 1.0, "yes": 1.0, "y": 1.0, "false": 0.0, "f": 0.0, "no": 0.0, "n": 0.0}
"""Words that are labels, in letters of any size."""
RESERVED = ("user", "item", "user_id", "item_id", "timestamp", "split")


def as_text(column: pa.Array, where: str = "column") -> pa.Array:
    """The values as strings; whole floats without ".0", nan as null. UserError for lists and other nested types."""
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_floating(kind):
        column = pa.array(column.to_numpy(zero_copy_only=False), from_pandas=True)
        values = column.drop_null().to_numpy()
        if np.all(values == np.floor(values)) and np.all(np.abs(values) < 2.0**53):
            column = column.cast(pa.int64())
    try:
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise UserError(f"{where} holds values of type {kind}, which are no plain text or number") from None


def ids(column: pa.Array, where: str) -> tuple[pa.Array, np.ndarray]:
    """Ids as strings without surrounding white space, and where they are not empty `[n]`."""
    text = pc.fill_null(pc.call_function("utf8_trim_whitespace", [as_text(column, where)]), "")
    return text, (pl.Series(text) != "").to_numpy()


def numbers(column: pa.Array, where: str) -> np.ndarray:
    """float64 `[n]`; nan where there is no number; true and false are 1 and 0."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    text = pl.Series(as_text(column, where)).str.strip_chars()
    values = text.cast(pl.Float64, strict=False)
    if values.null_count():
        truth = text.str.to_lowercase().replace_strict(["true", "false"], [1.0, 0.0], default=None)
        values = values.fill_null(truth.cast(pl.Float64))
    return values.fill_null(np.nan).to_numpy()


def labels(column: pa.Array, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels as float32 `[n]`, and where they are finite numbers `[n]`; yes and no, true and false are 1 and 0."""
    values = numbers(column, where)
    if pa.types.is_string(column.type) and np.isnan(values).any():
        words = pl.Series(column).str.strip_chars().str.to_lowercase().replace_strict(WORDS, default=None)
        values = np.where(np.isnan(values), words.cast(pl.Float64).fill_null(np.nan).to_numpy(), values)
    with np.errstate(over="ignore"):  # what float32 cannot hold is inf, which is no label
        values = values.astype(np.float32)
    return values, np.isfinite(values)


def missing(column: pa.Array) -> np.ndarray:
    """Where there is nothing at all: null, nan, or text that is blank, `[n]`."""
    if pa.types.is_floating(column.type):
        return column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    if pa.types.is_string(column.type):
        return (pl.Series(column).str.strip_chars().fill_null("") == "").to_numpy()
    return column.is_null().to_numpy(zero_copy_only=False)


def extra(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """An extra column in its type, and where a value was lost because it does not fit `[n]`."""
    if column.type == kind:
        return column, np.zeros(len(column), dtype=bool)
    if pa.types.is_string(kind):
        return as_text(column), np.zeros(len(column), dtype=bool)
    if not pa.types.is_string(column.type):
        return pa.array(numbers(column, "column"), kind, from_pandas=True), np.zeros(len(column), dtype=bool)
    text = pl.Series(column).str.strip_chars()
    values = text.cast(pl.Int64 if kind == pa.int64() else pl.Float64, strict=False)
    if kind == pa.int64():  # 007 is not 7
        values = values.set((values.cast(pl.String) != text).fill_null(False), None)
    lost = (values.is_null() & (text != "")).fill_null(False).to_numpy()
    return values.to_arrow().cast(kind), lost


def string_lists(column: pa.Array, where: str, *, json_lists: bool, separator: str | None) -> list[list[str]]:
    """Per item its non-empty strings. A list stays one; a string is one value, or several between `separator`.

    json_lists: a string that is a JSON list is read as that list (values of JSON lines).
    """
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        rows = [[str(v) for v in row if v is not None] for row in column.fill_null([]).to_pylist()]
    else:
        rows = [[] if value is None else [value] for value in as_text(column, where).to_pylist()]
        if json_lists:
            rows = [_json_list(row[0]) if row else [] for row in rows]
        if separator:
            rows = [[part for value in row for part in value.split(separator)] for row in rows]
    return [[text for value in row if (text := value.strip())] for row in rows]


def _json_list(value: str) -> list[str]:
    if value.startswith("["):
        try:
            return [str(v) for v in json.loads(value) if v is not None]
        except ValueError:
            pass
    return [value]


def binary_lists(column: pa.Array, where: str) -> tuple[list[list[bytes]], np.ndarray]:
    """Per item its pictures' bytes: of a binary column, a list of binaries, or structs that have a field `bytes`; and
    how many structs say of a picture something else alone, as its path `[n]`."""
    rows = column.to_pylist()
    result, alone = [], np.zeros(len(rows), np.int64)
    for at, row in enumerate(rows):
        pictures = row if isinstance(row, list) else [row]
        alone[at] = sum(isinstance(p, dict) and p.get("bytes") is None and any(p.values()) for p in pictures)
        pictures = [p.get("bytes") if isinstance(p, dict) else p for p in pictures]
        if not all(p is None or isinstance(p, bytes) for p in pictures):
            raise UserError(
                f"{where} holds values of type {column.type}; a picture column holds bytes (of paths: image_path)"
            )
        result.append([p for p in pictures if p is not None])
    return result, alone


def stored_name(name: str) -> str:
    """The name under which a source's column is stored: letters of any script, digits, `-` and `_`, a letter first."""
    name = "".join(sign if fits_name(sign) else "_" for sign in unicodedata.normalize("NFC", name))
    return name if name and is_letter(name[0]) else f"x{name}"


def row_name(name: str) -> str:
    """The name under which a further column of the interactions is stored."""
    stored = stored_name(name)
    return f"source_{stored}" if stored in RESERVED else stored
