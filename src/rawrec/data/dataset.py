"""A dataset folder: imported once (`writer.py`), added to (`append.py`), opened lazily, readable with pyarrow alone.

dataset.yaml           what there is: fields, labels, counts, splits, versions
items.lance            one row per item: id, raw media, texts, columns; the row is the item's dense index
interactions.parquet   one row per interaction: dense and original ids, time, labels, further columns, split
users.parquet          attributes of users, where there are any: a row per user, in their order
queries.parquet        the distinct queries, and sessions.parquet the sessions, where interactions have them
splits/<name>.parquet  further splits, aligned with the rows of interactions.parquet
import.json            what was read, skipped and why

An append makes version 2, 3 ...: its rows are interactions-2.parquet, its items a version of items.lance, its report
import-2.json, the attributes of all users users-2.parquet where it brought some, new queries and sessions
queries-2.parquet and sessions-2.parquet, and what dataset.yaml said before stays in dataset-1.yaml. Items, users, rows,
queries and sessions that were there keep their numbers, so that an earlier version is what the newest one begins with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rawrec.arguments import checked
from rawrec.data.arrays import lists_of_codes, pc, present_in, sorted_codes
from rawrec.data.disk import Lock, writing
from rawrec.data.division import Rows, above_zero, make_split
from rawrec.data.import_report import ImportReport
from rawrec.data.labels import binary, is_positive
from rawrec.data.meta import (
    ITEMS,
    ROWS,
    Fields,
    Meta,
    again,
    check_asked,
    check_fields,
    check_part,
    each,
    read_asked,
    read_meta,
    rows_of,
    split_entry,
    split_file,
    write_meta,
)
from rawrec.data.names import NAMES, is_name, known, lookup
from rawrec.data.queries import Queries, nullable
from rawrec.data.splits import PARTS, SplitSpec
from rawrec.errors import UserError
from rawrec.files import clean, replacing
from rawrec.folders import own_folder
from rawrec.reading import damaged, parquet, read_table

ROW_COLUMNS = ("user", "item", "user_id", "item_id", "timestamp", "split")
PART_NUMBERS = {name: number for number, name in enumerate(PARTS)}


CHECKED = 1 << 30
"""Bytes of items that are compared with their check sums whenever some of them are read: a quarter of a second."""


def folder_id(path: Path) -> tuple[int, int] | None:
    """What a folder is, whatever its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Dataset:
    """An imported dataset. Opening reads `dataset.yaml` and file headers only; columns and media are read on demand."""

    def __init__(self, path: Path, meta: Meta, table: lance.LanceDataset, newest: int | None = None) -> None:
        self.path = path
        self.meta = meta
        self.newest = newest or meta.version
        self._table = table
        self._folder = folder_id(path)
        self._items_checked = False

    @classmethod
    @checked()
    def open(cls, path: str | Path, version: int | None = None, *, sums: bool = True) -> Dataset:
        """The dataset in the folder `path`, as of its newest or of an earlier version. sums: compare files with their
        check sums as they are read.

        Raises UserError where there is none, or a newer or a damaged one, or no such version.
        """
        path = Path(path)
        meta = newest = read_meta(path)
        if version is not None and version != newest.version:
            if not 1 <= version <= newest.version:
                raise UserError(f"{path} has no version {version}: there are versions 1 to {newest.version}")
            meta = read_meta(path, f"dataset-{version}.yaml")
        if not sums:
            meta = meta.model_copy(update={"sums": {}})
        for name in meta.sums:
            if name.startswith(f"{ITEMS}/_versions/") and (path / name).is_file():
                check_part(path, meta, name)
        for entry in meta.versions:
            check_part(path, meta, entry.file)
        with again(path):
            table = lance.dataset(str(path / ITEMS), version=meta.versions[-1].items_version)
            n_items = table.count_rows()
            n_rows = sum(rows_of(path / entry.file, meta) for entry in meta.versions)
        check_fields(path, meta, table.schema)
        if not table.has_stable_row_ids:
            raise UserError(f"{path}/items.lance was written without stable row ids: import it again")
        if (n_items, n_rows) != (meta.counts["items"], meta.counts["interactions"]):
            raise UserError(
                f"{path} is damaged, import it again: it holds {n_items} items and {n_rows} interactions, "
                f"dataset.yaml says {meta.counts['items']} and {meta.counts['interactions']}"
            )
        return cls(path, meta, table, newest.version)

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}: {self.n_users} users, {self.n_items} items, {self.n_interactions} rows)"

    @property
    def report(self) -> ImportReport:
        """What the import, or the append that made this version, read, kept and skipped: `print(data.report)`."""
        name = "import.json" if self.version == 1 else f"import-{self.version}.json"
        return ImportReport.load(self.path / name)

    @property
    def fields(self) -> Fields:
        return self.meta.fields

    @property
    def n_users(self) -> int:
        return self.meta.counts["users"]

    @property
    def n_items(self) -> int:
        return self.meta.counts["items"]

    @property
    def n_interactions(self) -> int:
        return self.meta.counts["interactions"]

    @property
    def positive_only(self) -> bool:
        """True where the data hold no labels: every interaction counts as positive."""
        return not self.meta.labels

    @property
    def version(self) -> int:
        """1 as imported; every append adds 1."""
        return self.meta.version

    def fingerprint(self) -> str:
        """32 hex digits that change when items or interactions do (not with splits): a key for caches."""
        self.check_here()
        size = sum((self.path / entry.file).stat().st_size for entry in self.meta.versions)
        state = f"{self.meta.digest} {self._table.version} {self.n_items} {self.n_interactions} {size}"
        return hashlib.blake2b(state.encode(), digest_size=16).hexdigest()

    def check_here(self) -> None:
        """UserError where another dataset stands in the place of this one since it was opened. Everything that reads
        asks for it: what had been read of the one and what is read of the other would not belong together."""
        if folder_id(self.path) != self._folder:
            raise UserError(f"{self.path} was replaced, or removed, since it was opened: open it again")

    def check_items(self, all_of_them: bool = True) -> None:
        """UserError where a file of the items is not as it was written; where they have check sums, and once.

        That takes as long as reading them. all_of_them: False leaves out items of more than CHECKED bytes: who reads a
        few of them, or their ids, does not read them all for that.
        """
        if self._items_checked:
            return
        names = [name for name in self.meta.sums if name.startswith(ITEMS) and (self.path / name).is_file()]
        if all_of_them or sum((self.path / name).stat().st_size for name in names) <= CHECKED:
            for name in names:
                check_part(self.path, self.meta, name)
            self._items_checked = True

    # ------------------------------------------------------------------------------------------------------------ ids
    @cached_property
    def item_ids(self) -> NDArray[np.object_]:
        """Original ids, `[n_items]`, by dense index."""
        return self._item_column("item_id").to_numpy(zero_copy_only=False)

    @cached_property
    def user_ids(self) -> NDArray[np.object_]:
        """Original ids, `[n_users]`, by dense index."""
        ids = np.empty(self.n_users, object)
        for batch in self.interaction_batches(["user", "user_id"]):
            ids[batch["user"].to_numpy()] = batch["user_id"].to_numpy(zero_copy_only=False)
        return ids

    def item_rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Dense indices of item ids. Raises UserError that names the first unknown id and close matches."""
        return lookup("item", ids, self._item_lookup, self._name())

    def user_rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Dense indices of user ids. Raises UserError that names the first unknown id and close matches."""
        return lookup("user", ids, self._user_lookup, self._name())

    def _name(self) -> str:
        """How messages about ids name this dataset."""
        if self.version == self.newest:
            return str(self.path)
        return f"version {self.version} of {self.path}, which is read here (the newest is {self.newest})"

    @cached_property
    def _item_lookup(self) -> dict[str, int]:
        return dict(zip(self.item_ids.tolist(), range(self.n_items), strict=True))

    @cached_property
    def _user_lookup(self) -> dict[str, int]:
        return dict(zip(self.user_ids.tolist(), range(self.n_users), strict=True))

    # --------------------------------------------------------------------------------------------------- interactions
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

    def label(self, name: str = "label") -> NDArray[np.float32]:
        """A label column, `[n_interactions]`, nan where a row has none of it; ones where the data are positive-only.
        UserError for an unknown one."""
        if self.positive_only:
            return np.ones(self.n_interactions, np.float32)
        known("label", name, self.meta.labels, self.path)
        return self._row_column(name)

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

    @checked()
    def add_split(self, name: str, spec: SplitSpec) -> None:
        """Store a further split under a new name. Raises UserError where the name is taken or the split impossible.

        Rows that make histories only under the default split do so under this one, too, if it names no others.
        """
        if not is_name(name):
            raise UserError(f"split name {name!r}: use {NAMES}")
        with Lock(self.path.resolve()):
            clean(self.path)
            self._add_split(name, spec)

    def _add_split(self, name: str, spec: SplitSpec) -> None:
        now = read_meta(self.path)
        if (now.version, now.digest) != (self.meta.version, self.meta.digest):
            raise UserError(f"{self.path} has changed since it was opened: open it again, then split")
        if name in now.splits:
            raise UserError(f"{self.path} already has a split {name!r} ({now.splits[name]['statement']})")
        names = pq.read_schema(self.path / ROWS).names
        spec.check_asked(self.meta.asked)
        for column in spec.columns:
            known("column", column, names, self.path)
        if spec.history is None:
            spec = spec.model_copy(update={"history": now.splits["default"].get("history")})
        present = self.present(spec.field) if spec.field else None
        rows = Rows(self.n_interactions, names, self.interaction_batches)
        parts, statement = make_split(spec, rows, self.n_items, present)
        with writing(self.path):
            folder = own_folder(self.path / "splits")
            with replacing(folder / f"{name}.parquet") as partial:
                pq.write_table(pa.table({"split": parts}), partial, write_page_checksum=True)
            entry = {**split_entry(spec, statement, parts), "version": self.version}
            now.sums.pop(split_file(name), None)  # of one that was killed between the two files
            meta = now.model_copy(update={"splits": {**now.splits, name: entry}})
            write_meta(meta, self.path)
        self.meta = meta

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

    # ---------------------------------------------------------------------------------------------------------- items
    @property
    def has_launched(self) -> bool:
        """Whether it is known since when each item existed."""
        return "launched" in self._table.schema.names

    @cached_property
    def launched(self) -> NDArray[np.int64] | None:
        """Time from which each item existed, `[n_items]`, or None where that is unknown. An item without one, of a
        dataset whose items have such a time, existed from its first interaction."""
        if not self.has_launched:
            return None
        column = self._item_column("launched")
        if not column.null_count:
            return column.to_numpy()
        first = np.full(self.n_items, np.iinfo(np.int64).max)
        if self.timestamps is not None:
            np.minimum.at(first, self.items, self.timestamps)
        there = column.is_valid().to_numpy(zero_copy_only=False)
        return np.where(there, column.fill_null(0).to_numpy(), first)

    def item_table(self, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
        """Columns (default: all) of the items `start` to `stop`, media included."""
        with again(self.path):
            return self._table.to_table(columns=columns, offset=start, limit=stop - start)

    def item_batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Columns of the items in their order, some thousands at a time."""
        yield from each(self.path, self._table.to_batches(columns=columns, batch_size=4096))

    def images(self, field: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[list[bytes]]:
        """Raw bytes of an image field for the items `rows`, in that order (repeats allowed); no image: empty list."""
        known("image field", field, self.fields.image, self.path)
        return self._take(field, rows)

    def texts(self, field: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[list[str]]:
        """Strings of a text field for the items `rows`, in that order (repeats allowed); no text: empty list."""
        known("text field", field, self.fields.text, self.path)
        return self._take(field, rows)

    def counts(self, field: str) -> NDArray[np.int32]:
        """Images or texts that each item has in a field, `[n_items]`, without reading media."""
        known("image or text field", field, self.fields.image + self.fields.text, self.path)
        return self._item_column(f"count/{field}").to_numpy()

    def image_bytes(self, field: str) -> NDArray[np.int64]:
        """Bytes of each item's images in a field, `[n_items]`, without reading media."""
        known("image field", field, self.fields.image, self.path)
        return self._item_column(f"bytes/{field}").to_numpy()

    def present(self, field: str) -> NDArray[np.bool_]:
        """Items with a non-empty value of an image, text, categorical or numeric field or a feature, `[n_items]`."""
        if field in self.fields.image + self.fields.text:
            return self.counts(field) > 0
        known("field", field, self.fields.names(), self.path)
        return present_in(self._item_column(field), self.n_items)

    def categorical(self, field: str) -> tuple[NDArray[np.int64], NDArray[np.int32], list[str]]:
        """A categorical field: `ptr [n_items + 1]`, `codes [values]` into the sorted vocabulary, the vocabulary."""
        known("categorical field", field, self.fields.categorical, self.path)
        return lists_of_codes(self._item_column(field))

    def numeric(self, field: str) -> NDArray[np.float64]:
        """A numeric field, `[n_items]`; nan where it is missing."""
        known("numeric field", field, self.fields.numeric, self.path)
        return self._item_column(field).to_numpy(zero_copy_only=False).astype(np.float64)

    # ---------------------------------------------------------------------------------------------------------- users
    def user_categorical(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.int32], list[str]]:
        """A categorical attribute of users: `ptr [n_users + 1]`, `codes [values]` into the sorted vocabulary, it."""
        known("categorical column of users", name, self.meta.users.categorical, self.path)
        return lists_of_codes(self.user_table([name]).column(name).combine_chunks())

    def user_numeric(self, name: str) -> NDArray[np.float64]:
        """A numeric attribute of users, `[n_users]`; nan where it is missing."""
        known("numeric column of users", name, self.meta.users.numeric, self.path)
        return self.user_table([name]).column(name).to_numpy()

    def user_table(self, columns: list[str] | None = None) -> pa.Table:
        """Attributes of users (default: all, and `user_id`), a row per user; empty for those that came later."""
        file = next(entry.users for entry in reversed(self.meta.versions) if entry.users)
        self.check_here()
        check_part(self.path, self.meta, file)
        with again(self.path):
            table = read_table(self.path / file, columns, links=True)
        if len(table) < self.n_users:
            empty = [pa.nulls(self.n_users - len(table), kind.type) for kind in table.schema]
            table = pa.concat_tables([table, pa.table(empty, schema=table.schema)])
        return table

    # -------------------------------------------------------------------------------------------------------- features
    def feature(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A ready-made feature, `[n_items, width]` (zeros where missing), and which items have it, `[n_items]`."""
        known("feature", name, list(self.fields.feature), self.path)
        values = np.zeros((self.n_items, self.fields.feature[name]), np.float32)
        valid = np.zeros(self.n_items, bool)
        start = 0
        self._check_reading()
        for batch in each(self.path, self._table.to_batches(columns=[name])):
            column = batch.column(name)
            stop = start + len(column)
            valid[start:stop] = column.is_valid().to_numpy(zero_copy_only=False)
            values[start:stop][valid[start:stop]] = column.drop_null().flatten().to_numpy().reshape(-1, values.shape[1])
            start = stop
        return values, valid

    # -------------------------------------------------------------------------------------------------------- reading
    def _check_reading(self) -> None:
        """Before items are read."""
        self.check_here()
        self.check_items(all_of_them=False)

    def _item_column(self, name: str) -> pa.Array:
        self._check_reading()
        with again(self.path):
            column = self._table.to_table(columns=[name]).column(name)
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    def _take(self, field: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[list[Any]]:
        index = np.asarray(rows, np.int64).reshape(-1)
        if not len(index):
            return []
        if index.min() < 0 or index.max() >= self.n_items:
            raise IndexError(f"item rows must be in 0..{self.n_items - 1}, found {index.min()}..{index.max()}")
        unique, inverse = np.unique(index, return_inverse=True)
        self._check_reading()
        with again(self.path):
            values = self._table.take(unique.tolist(), columns=[field]).column(field).to_pylist()
        return [list(values[i] or []) for i in inverse.tolist()]

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
