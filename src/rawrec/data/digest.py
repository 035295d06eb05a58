"""A digest of columns that does not depend on how they were cut into batches, so that it can be computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # its functions are made at import, where a type checker does not see them


class ContentDigest:
    """Takes tables batch by batch; one stream of bytes per column and kind of value (lengths, presence, values).

    A missing list counts as an empty one. Columns of other types than numbers, truth values, strings, bytes and lists
    of these (dates, decimals: they occur among the further columns of interactions only) are left out.
    """

    def __init__(self) -> None:
        self._streams: dict[str, Any] = {}

    def update(self, what: str, table: pa.Table | pa.RecordBatch) -> None:
        """Take the next rows of the table `what`."""
        for batch in table.to_batches() if isinstance(table, pa.Table) else [table]:
            for name in batch.schema.names:
                self._add(f"{what}/{name}", batch.column(name))

    def hexdigest(self) -> str:
        """32 hex digits."""
        return combined(f"{name} {stream.hexdigest()}" for name, stream in sorted(self._streams.items()))

    def _add(self, name: str, column: pa.Array) -> None:
        kind = column.type
        if pa.types.is_list(kind):
            self._feed(f"{name}/length", pc.fill_null(pc.list_value_length(column), 0).to_numpy())
            self._add(f"{name}/piece", column.flatten())
        elif pa.types.is_fixed_size_list(kind):
            self._feed(f"{name}/present", column.is_valid().to_numpy(zero_copy_only=False))
            self._add(f"{name}/piece", column.drop_null().flatten())
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            self._strings(name, column, np.int32 if pa.types.is_string(kind) else np.int64)
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            self._strings(name, column, np.int32 if pa.types.is_binary(kind) else np.int64)
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            self._feed(f"{name}/present", column.is_valid().to_numpy(zero_copy_only=False))
            self._feed(f"{name}/value", column.drop_null().to_numpy(zero_copy_only=False))

    def _strings(self, name: str, column: pa.Array, offset_type: Any) -> None:
        self._feed(f"{name}/length", pc.fill_null(pc.binary_length(column), -1).to_numpy().astype(np.int64))
        column = column.drop_null() if column.null_count else column
        _, offsets, values = column.buffers()
        if len(column) and values is not None:
            edges = np.frombuffer(offsets, offset_type)[[column.offset, column.offset + len(column)]].tolist()
            self._feed(f"{name}/value", np.frombuffer(values, np.uint8)[edges[0] : edges[1]])

    def _feed(self, name: str, values: np.ndarray) -> None:
        if values.size:
            stream = self._streams.setdefault(name, hashlib.blake2b(digest_size=16))
            stream.update(np.ascontiguousarray(values).view(np.uint8))


def combined(words: Iterable[str]) -> str:
    """One digest of several, 32 hex digits."""
    return hashlib.blake2b("\n".join(words).encode(), digest_size=16).hexdigest()
