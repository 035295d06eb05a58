"""Queries and sessions of interactions: texts and ids once, in tables of their own; an interaction holds their rows.

queries.parquet    a row per distinct query, in the order of their numbers: `query`, as it was typed
sessions.parquet   a row per session: `user` (their row) and `session_id`, as in the source

A session is of one user: the same id of two users is two sessions. What version n of a dataset added stands in
queries-n.parquet and sessions-n.parquet, if there was anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.data.arrays import pc
from rawrec.data.numbering import Numbering

ASKED = {"query": "queries", "session": "sessions"}
"""Column of the interactions -> what `dataset.yaml` counts, and its files are called."""
QUERY_SCHEMA = pa.schema([("query", pa.string())])
SESSION_SCHEMA = pa.schema([("user", pa.int32()), ("session_id", pa.string())])
SCHEMAS = {"query": QUERY_SCHEMA, "session": SESSION_SCHEMA}
BETWEEN = "\x1f"
"""Between user and id in the key of a session; users are digits, so that an id may hold it."""


def asked_file(column: str, version: int) -> str:
    """The file of what a version added of the column."""
    return f"{ASKED[column]}.parquet" if version == 1 else f"{ASKED[column]}-{version}.parquet"


def has_file(column: str, version: int, counts: dict[str, int]) -> bool:
    """Whether that file is there; counts: of the version."""
    return bool(counts.get(ASKED[column])) or (version == 1 and ASKED[column] in counts)


class Queries(Sequence[str]):
    """The distinct queries of a dataset by row, as they were typed; in memory as Arrow has them."""

    def __init__(self, texts: pa.ChunkedArray) -> None:
        self._texts = texts
        self._rows: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._texts[index].to_pylist() if isinstance(index, slice) else self._texts[index].as_py()

    def __iter__(self) -> Iterator[str]:
        for chunk in self._texts.chunks:
            yield from chunk.to_pylist()

    def arrow(self) -> pa.ChunkedArray:
        """All of them, without a copy."""
        return self._texts

    def take(self, rows: NDArray[np.integer[Any]] | Sequence[int]) -> list[str | None]:
        """The texts of rows, in that order (repeats allowed); None for -1."""
        return self._texts.take(nullable(np.asarray(rows, np.int64))).to_pylist()

    def rows(self, texts: Iterable[str]) -> NDArray[np.int64]:
        """The row of each text, -1 for one that is not among them."""
        if self._rows is None:
            self._rows = dict(zip(self, range(len(self)), strict=True))
        return np.array([self._rows.get(text, -1) for text in texts], np.int64)


def nullable(rows: NDArray[np.integer[Any]]) -> pa.Array:
    """Rows as Arrow has them: null for -1."""
    return pa.array(rows, mask=np.asarray(rows) < 0)


class Numbers:
    """Numbers the queries or the sessions of interactions, by first appearance, on their way into a dataset.

    known: the table of those that it had before. rows, without: how many interactions came, and how many of them with
    none.
    """

    def __init__(self, column: str, known: pa.Table | None = None) -> None:
        self.column = column
        self.rows = self.without = 0
        self._codes = Numbering()
        if known is not None and len(known):
            self._codes.encode(known.column("query") if column == "query" else _keys(*known.columns))
        self._known = len(self._codes)

    def __len__(self) -> int:
        return len(self._codes)

    def encode(self, users: pa.Array, values: pa.Array | pa.ChunkedArray) -> pa.Array:
        """The number of each interaction's query or session, int32; null where it has none, or a blank one.

        users: rows of the users `[n]`.
        """
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        bare = pc.utf8_trim_whitespace(values)
        kept = values if self.column == "query" else bare
        kept = pc.if_else(pc.equal(bare, ""), None, kept)
        self.rows += len(kept)
        self.without += kept.null_count
        return self._codes.encode(kept if self.column == "query" else _keys(users, kept))

    def new(self) -> pa.Table:
        """The table of those that came since."""
        found = self._codes.ids.slice(self._known)
        if self.column == "query":
            return pa.table([found], schema=QUERY_SCHEMA)
        parts = pc.split_pattern(found, BETWEEN, max_splits=1)
        return pa.table([pc.list_element(parts, 0).cast(pa.int32()), pc.list_element(parts, 1)], schema=SESSION_SCHEMA)

    def told(self) -> Iterator[str]:
        """In words: how many interactions have none, and which ids of sessions several users have."""
        if self.without:
            yield (
                f"{self.column}: {self.without:,} of {self.rows:,} interactions have none (an empty one counts as none)"
            )
        if self.column == "session":
            _, ids = self.new().columns
            distinct = pc.count_distinct(ids).as_py()
            if distinct < len(ids):
                yield (
                    f"session: a session is of one user, and several users share ids: {distinct:,} ids are "
                    f"{len(ids):,} sessions"
                )


def _keys(users: Any, ids: Any) -> Any:
    """User and id of sessions as one text, null where the id is."""
    return pc.binary_join_element_wise(users.cast(pa.string()), ids, BETWEEN)
