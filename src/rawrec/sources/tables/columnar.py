"""Formats that store columns: rows at a time, and columns as a batch has them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

ROWS = 65536
LARGE_ROWS = 256
"""Rows at a time where values can be as large as pictures, or vectors of thousands of numbers."""


def rows_at_once(types: Sequence[pa.DataType]) -> int:
    """Rows of a batch with columns of these types: few where values can be large: bytes, lists of floats."""
    return ROWS if all(_is_small(kind) for kind in types) else LARGE_ROWS


def _is_small(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return not pa.types.is_floating(kind.value_type) and _is_small(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_small(kind.field(i).type) for i in range(kind.num_fields))
    return not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def plain(column: pa.Array) -> pa.Array:
    """Without dictionary and without views, at any depth of lists, and every kind of string as `string`."""
    if isinstance(column, pa.DictionaryArray):
        words = column.dictionary
        column = pa.DictionaryArray.from_arrays(column.indices, words.cast(_owned(words.type))).dictionary_decode()
    kind = pa.string() if pa.types.is_large_string(column.type) else _owned(column.type)
    return column if kind == column.type else column.cast(kind)


def _owned(kind: pa.DataType) -> pa.DataType:
    """A type without views, which most of Arrow's functions do not take."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _owned(kind.value_type)
        if inner != kind.value_type:
            return (pa.large_list if pa.types.is_large_list(kind) else pa.list_)(inner)
    return kind
