"""Columns of Arrow: what is present, how long lists are, texts as codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

Values = Sequence[Any] | NDArray[Any] | pa.Array | pa.ChunkedArray
pc: Any = pyarrow.compute  # its functions are made at import, where a type checker does not see them


def lists_of_codes(column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int32], list[str]]:
    """Lists of strings: `ptr [n + 1]`, `codes [values]` into the sorted vocabulary, the vocabulary."""
    ptr = np.zeros(len(column) + 1, np.int64)
    np.cumsum(pieces(column).to_numpy(), out=ptr[1:])
    codes, words = sorted_codes(pc.list_flatten(column))
    return ptr, codes.to_numpy(), words


def sorted_codes(values: pa.Array) -> tuple[pa.Array, list[str]]:
    """Strings as int32 codes into their sorted vocabulary, null where they are; and the vocabulary."""
    coded = values.dictionary_encode()
    words = coded.dictionary.to_pylist()
    order = sorted(range(len(words)), key=words.__getitem__)
    rank = np.empty(len(words), np.int32)
    rank[order] = np.arange(len(words), dtype=np.int32)
    return pa.array(rank, pa.int32()).take(coded.indices), [words[i] for i in order]


def pieces(lists: pa.Array) -> pa.Array:
    """Length of each list, 0 for a missing one."""
    return pc.fill_null(pc.list_value_length(lists), 0)


def present_in(column: pa.Array | pa.ChunkedArray, n: int) -> NDArray[np.bool_]:
    """Which of the `n` rows of a column have a value."""
    if pa.types.is_list(column.type):
        present = pc.fill_null(pc.greater(pc.list_value_length(column), 0), False)
    elif pa.types.is_floating(column.type):
        present = pc.invert(pc.is_null(column, nan_is_null=True))
    else:
        present = pc.is_valid(column)
    return np.asarray(present, bool).reshape(n)
