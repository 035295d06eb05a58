"""The interactions of a dataset: who, what, when, labels, context, queries, sessions, and which part of a split each
is of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rawrec.data.arrays import pc, sorted_codes
from rawrec.data.boundaries import within_seconds
from rawrec.data.division import above_zero
from rawrec.data.labels import binary, is_positive
from rawrec.data.meta import MILLISECOND, ROWS, again, check_asked, check_part, read_asked, split_file
from rawrec.data.names import known
from rawrec.data.opened import Opened
from rawrec.data.queries import Queries, nullable
from rawrec.data.splits import PARTS
from rawrec.errors import UserError
from rawrec.reading import damaged, parquet, read_table

ROW_COLUMNS = ("user", "item", "user_id", "item_id", "timestamp", "split")
PART_NUMBERS = {name: number for number, name in enumerate(PARTS)}


class Interactions(Opened):
    """What is read of the interactions, in their order, of one version after the other."""

    @cached_property
    def users(self) -> NDArray[np.int32]:
        """Dense user of every interaction, `[n_interactions]`."""
        return self._numbers("user", self.n_users)

    @cached_property
    def items(self) -> NDArray[np.int32]:
        """Dense item of every interaction, `[n_interactions]`."""
        return self._numbers("item", self.n_items)

    @cached_property
    def timestamps(self) -> NDArray[np.int64] | None:
        """Time of every interaction, `[n_interactions]`, or None where the data have no times."""
        return self._row_column("timestamp") if self.meta.has_time else None

    @cached_property
    def thousandths(self) -> NDArray[np.int16] | None:
        """Of the second of every interaction, `[n_interactions]`; None where times are whole seconds."""
        if not self.meta.has_time or MILLISECOND not in self.meta.extra:
            return None
        return np.nan_to_num(self._row_column(MILLISECOND)).astype(np.int16)  # rows that were appended may have none

    def in_order(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The rows of `chosen`, `[n_interactions]`, those of one second in the order of its thousandths; to be sorted
        by time, equal times staying as they are."""
        return within_seconds(np.flatnonzero(chosen), self.thousandths)

    def label(self, name: str = "label") -> NDArray[np.float32]:
        """A label column, `[n_interactions]`, nan where a row has none of it; ones where the data are positive-only.
        UserError for an unknown one."""
        if self.positive_only:
            return np.ones(self.n_interactions, np.float32)
        self.check_label(name)
        return self._row_column(name)

    def check_label(self, name: str) -> None:
        """UserError for an unknown label, of data that have any."""
        if not self.positive_only:
            known("label", name, self.meta.labels, self.path)

    def positive(self, label: str = "label") -> NDArray[np.bool_]:
        """Which interactions are positive, `[n_interactions]`: those with a label above 0. All losses and metrics ask
        here, so that 0 and 1, -1 and 1, counts and seconds say the same."""
        return is_positive(self.label(label))

    def binary(self, label: str = "label") -> NDArray[np.float32]:
        """1 for positive interactions, 0 for the others, nan where the label is unknown, `[n_interactions]`."""
        return binary(self.label(label))

    def true_probability(self, label: str) -> NDArray[np.float32]:
        """Of generated data, the known probability of a label, a click or what follows one, `[n_interactions]`."""
        given = self.true_given_click(label)
        clicks = self.column("probability")
        return clicks if given is None else clicks * given

    def true_given_click(self, label: str) -> NDArray[np.float32] | None:
        """The same given a click; None for the click itself."""
        name = f"{label}_probability"
        return self.column(name) if name in self.meta.extra else None

    def column(self, name: str) -> NDArray[Any]:
        """Any column of the interactions, `[n_interactions]`; strings as objects, among them the texts of queries and
        the ids of sessions (None where there is none). UserError for an unknown one."""
        known("column", name, pq.read_schema(self.path / ROWS).names, self.path)
        if name in self.meta.asked:
            return self._words(name).to_numpy(zero_copy_only=False)
        return self._row_column(name)

    def row_categories(self, name: str) -> tuple[NDArray[np.int32], list[str]]:
        """A categorical column of the context: codes `[n_interactions]` into the sorted vocabulary, -1 = missing (also
        empty or blank), and the vocabulary."""
        known("categorical column of the context", name, self.meta.context.categorical, self.path)
        if name in self.meta.asked:
            values = pc.utf8_trim_whitespace(self._words(name))
        else:
            read = self._read_column(name, pa.string())
            values = pc.utf8_trim_whitespace(pa.chunked_array([c for part in read for c in part.chunks], pa.string()))
        values = pc.if_else(pc.equal(values, ""), None, values)
        codes, words = sorted_codes(values.combine_chunks())
        return codes.fill_null(-1).to_numpy(), words

    def row_numbers(self, name: str) -> NDArray[np.float64]:
        """A numeric column of the context, `[n_interactions]`; nan where it is missing or not finite."""
        known("numeric column of the context", name, self.meta.context.numeric, self.path)
        values = np.concatenate([part.to_numpy() for part in self._read_column(name, pa.float64())])
        return np.where(np.isfinite(values), values, np.nan)

    def interaction_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Columns of the interactions in their order, at most a million rows at a time."""
        self.check_here()
        for entry in self.meta.versions:
            with again(self.path), parquet(self.path / entry.file) as file:
                for batch in file.iter_batches(1 << 20, columns=columns):
                    if "split" in columns:
                        parts = self._now(entry.version, batch.column("split").to_numpy())
                        batch = batch.set_column(batch.schema.names.index("split"), "split", pa.array(parts))
                    yield batch

    def split(self, name: str = "default") -> NDArray[np.int8]:
        """Part of every interaction, `[n_interactions]`: 0 train, 1 valid, 2 test, -1 in none.

        Interactions that were appended after a further split was made are in none of its parts.
        """
        known("split", name, list(self.meta.splits), self.path)
        if name == "default":
            return self._row_column("split")
        self.check_here()
        check_part(self.path, self.meta, split_file(name))
        place = self.path / split_file(name)
        values = read_table(place, ["split"], links=True).column("split").to_numpy()
        if values.dtype != np.int8:
            raise UserError(f"{place} is damaged: it holds no parts of a split")
        made = self.meta.splits[name].get("version", 1)
        if len(values) != sum(entry.counts["interactions"] for entry in self.meta.versions[:made]):
            raise UserError(f"{self.path}/splits/{name}.parquet does not fit the interactions: delete it, split again")
        return np.pad(values, (0, self.n_interactions - len(values)), constant_values=-1)

    def history_rows(self, split: str = "default") -> NDArray[np.bool_]:
        """Interactions that are in no part of a split and make histories only, `[n_interactions]`.

        Those of items that a `new_items` split holds out are not among them, for training must not meet such items.
        """
        parts = self.split(split)
        entry = self.meta.splits[split]
        name = entry.get("history")
        if name is None:
            return np.zeros(self.n_interactions, bool)
        found = np.concatenate([above_zero(batch.column(0), name) for batch in self.interaction_batches([name])])
        found &= parts < 0
        if entry["kind"] == "new_items":
            held_out = np.zeros(self.n_items, bool)
            held_out[self.items[parts > 0]] = True
            found &= ~held_out[self.items]
        return found

    def retrieval_split(self, name: str = "default") -> NDArray[np.int8]:
        """`split` as models of positives alone read it: rows that make histories only are of train, `[n_interactions]`.

        A model of shown lists would learn from such rows that everything is clicked; one that draws its negatives
        needs every positive.
        """
        parts = self.split(name)
        return np.where(self.history_rows(name), np.int8(0), parts)

    # --------------------------------------------------------------------------------------------- queries and sessions
    @property
    def has_queries(self) -> bool:
        """Whether interactions may have a query."""
        return "query" in self.meta.asked

    @property
    def has_sessions(self) -> bool:
        """Whether interactions may be of a session: what was shown together."""
        return "session" in self.meta.asked

    @cached_property
    def queries(self) -> Queries:
        """The distinct queries, as they were typed, by row. UserError where there are none."""
        return Queries(self.asked_table("query").column("query"))

    @cached_property
    def session_ids(self) -> NDArray[np.object_]:
        """Original ids of the sessions, by row, `[n_sessions]`; one that several users have is several sessions."""
        return self.asked_table("session").column("session_id").to_numpy()

    @cached_property
    def query_rows(self) -> NDArray[np.int32]:
        """Row in `queries` of every interaction, -1 = none, `[n_interactions]`. UserError where there are none."""
        return self._asked_rows("query")

    @cached_property
    def session_rows(self) -> NDArray[np.int32]:
        """Row of the session of every interaction, -1 = none, `[n_interactions]`. UserError where there are none."""
        return self._asked_rows("session")

    def asked_table(self, column: str) -> pa.Table:
        """The table of the queries or of the sessions, see `queries.py`. UserError where there are none, or damage."""
        return read_asked(self.path, self.meta, column)

    def _asked_rows(self, column: str) -> NDArray[np.int32]:
        check_asked(self.path, self.meta, column)
        return np.concatenate([part.fill_null(-1).to_numpy() for part in self._read_column(column, pa.int32())])

    def _words(self, column: str) -> pa.ChunkedArray:
        """The text of the query, or the id of the session, of every interaction; null where it has none."""
        table = self.asked_table(column)
        rows = self.query_rows if column == "query" else self.session_rows
        outside = (rows >= len(table)) | (rows < -1)
        if outside.any():
            raise UserError(f"{self.path} is damaged, import it again: {column} {rows[outside][0]} does not exist")
        return table.column(table.column_names[-1]).take(nullable(rows))

    # -------------------------------------------------------------------------------------------------------- reading
    def _numbers(self, name: str, count: int) -> NDArray[np.int32]:
        """A column of numbers of users or items, of which there are `count`. UserError where one does not exist."""
        found = self._row_column(name)
        if len(found) and not (found.dtype == np.int32 and 0 <= found.min() <= found.max() < count):
            raise UserError(f"{self.path} is damaged, import it again: an interaction has a {name} that is not there")
        return found

    def _row_column(self, name: str) -> NDArray[Any]:
        found = [part.to_numpy() for part in self._read_column(name)]
        if name == "split":
            found = [self._now(entry.version, v) for entry, v in zip(self.meta.versions, found, strict=True)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _read_column(self, name: str, kind: pa.DataType | None = None) -> list[pa.ChunkedArray]:
        """A column of the interactions of each version, of the type `kind` (None: as it is stored). UserError where
        there is no such column, or another one than `dataset.yaml` says."""
        self.check_here()
        says = f"is damaged, import it again: column {name!r} of the interactions cannot be read"
        with damaged(self.path, says=says):
            files = [self.path / entry.file for entry in self.meta.versions]
            read = [read_table(file, [name], links=True).column(name) for file in files]
            return read if kind is None else [part.cast(kind) for part in read]

    def _now(self, version: int, parts: NDArray[np.int8]) -> NDArray[np.int8]:
        """The parts of interactions of a version after the moves of all later ones."""
        moves = [entry.moved for entry in self.meta.versions[version:] if entry.moved]
        if not moves:
            return parts
        table = np.arange(-1, len(PARTS), dtype=np.int8)  # by part + 1
        for moved in moves:
            step = {PART_NUMBERS[old]: PART_NUMBERS[new] for old, new in moved.items()}
            table = np.array([step.get(part, part) for part in table.tolist()], np.int8)
        if len(parts) and not -1 <= parts.min() <= parts.max() < len(PARTS):
            raise UserError(f"{self.path} is damaged, import it again: a part is none of -1, 0, 1, 2")
        return table[parts + 1]
