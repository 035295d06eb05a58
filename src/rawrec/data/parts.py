"""Items and interactions on their way into the files of a dataset: checked, numbered, buffered, streamed to disk."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lance.fragment import write_fragments
from numpy.typing import NDArray

from rawrec.data.arrays import Values, pc, pieces, present_in
from rawrec.data.checked import Checked
from rawrec.data.digest import ContentDigest
from rawrec.data.disk import first_line, writing
from rawrec.data.given import GivenVectors, PictureSource, VectorFile
from rawrec.data.import_report import ImportReport
from rawrec.data.interactions import ROW_COLUMNS
from rawrec.data.labels import LabelValues
from rawrec.data.meta import ITEMS, Fields
from rawrec.data.names import NAMES, is_name, unknown_name
from rawrec.data.numbering import Numbering
from rawrec.data.queries import ASKED, Numbers, asked_file, has_file
from rawrec.errors import UserError
from rawrec.reading import parquet
from rawrec.shown import listed


class PartWriter:
    """Takes items and interactions in any order and streams them into the folder `folder`: `items.lance` gets
    fragments, which nothing names yet, `rows.half` the interactions with coded ids.

    out: the dataset, for messages. item_schema, row_schema: what an item and an interaction have.
    pictures: where one of the image fields is downloaded from, if it is. asked: `query` and `session`, where
    interactions have them; they come as texts and ids, and are numbered.

    `checked`: which pictures need not be checked again; kept where the import does not come to its end. `vectors`: of
    items, from files.
    """

    ROW_BUFFER: int = 1 << 20
    MEDIA_BUFFER = 64 << 20
    STORAGE = "stable"
    """Lance's file format."""

    def __init__(
        self,
        out: Path,
        folder: Path,
        item_schema: pa.Schema,
        row_schema: pa.Schema,
        labels: list[str],
        pictures: PictureSource | None = None,
        asked: Mapping[str, Numbers] | None = None,
    ) -> None:
        self.out = out
        self._pictures = pictures
        self._folder = folder
        self._item_schema, self._row_schema, self._labels = item_schema, row_schema, labels
        self._digest = ContentDigest()
        self._item_buffer: list[pa.RecordBatch] = []
        self._item_bytes = 0
        self._item_ids: list[pa.Array] = []
        self._fragments: list[Any] = []
        self._duplicates = Counted()
        self._coverage = {n: 0 for n in item_schema.names if "/" not in n and n not in ("item_id", "launched")}
        self._row_buffer: list[pa.Table] = []
        self._n_buffered = 0
        self._user_codes = Numbering()
        self._item_codes = Numbering()
        self._asked = dict(asked or {})
        self._rows: pq.ParquetWriter | None = None
        self._background = ThreadPoolExecutor(1)  # makes rows and items while others are read or written
        self._rows_written: Future[None] | None = None
        self._items_written: Future[None] | None = None
        self.vectors = GivenVectors(folder / "vectors")
        self.checked = Checked(out.resolve())

    # ---------------------------------------------------------------------------------------------------------- items
    def take_vectors(self, files: Sequence[VectorFile], report: ImportReport) -> None:
        """Items that come from here on have features from these files, where a batch of items has none of the name.

        Raises UserError for files that cannot be used.
        """
        with writing(self.out):
            for file in files:
                self.vectors.open(file, self._item_schema.field(file.field).type.list_size, report)

    def add_items(self, batch: Mapping[str, Values]) -> None:
        """Add items: `item_id` and, per field, one value per item (None: missing; an absent field: all missing).

        Image, text and categorical values are lists (empty pieces are dropped); numeric values floats; features rows
        of floats or one `[n, width]` array, where a row that is not finite is missing. Of items with the same id the
        first is kept. Where pictures are downloaded, the column `urls/<field>` may hold lists of addresses.
        """
        for whole in self.vectors.join(batch):
            if self._pictures is None:
                self._add_items(whole)
                continue
            for part in self._pictures.parts(as_ids("item", whole["item_id"]).to_pylist(), whole, self.checked):
                self._add_items(part)

    def _add_items(self, batch: Mapping[str, Values]) -> None:
        self._check_keys("items", batch, self._item_schema.names, ["item_id"])
        n = len(batch["item_id"])
        columns: dict[str, pa.Array] = {"item_id": as_ids("item", batch["item_id"])}
        for name in self._item_schema.names[1:]:
            if "/" in name:
                what, field = name.split("/")
                columns[name] = pieces(columns[field]) if what == "count" else _bytes(columns[field])
                continue
            kind = self._item_schema.field(name).type
            values = batch.get(name)
            if values is None:
                columns[name] = pa.nulls(n, kind)
            elif len(values) != n:
                raise UserError(f"items: {name} has {len(values)} values for {n} items")
            elif pa.types.is_fixed_size_list(kind):
                columns[name] = _features(name, values, kind)
            else:
                columns[name] = as_array(name, values, kind)
                if pa.types.is_list(kind):
                    columns[name] = without_empty(columns[name])
        part = pa.record_batch(list(columns.values()), schema=self._item_schema)
        self._item_buffer.append(part)
        self._item_bytes += part.nbytes
        if self._item_bytes >= self.MEDIA_BUFFER:
            self._flush_items()

    def _flush_items(self) -> None:
        """Begin to write what is buffered, when what was written before is done. Raises what that raised."""
        self._wait_for_items()
        table = pa.Table.from_batches(self._item_buffer, self._item_schema)
        self._item_buffer, self._item_bytes = [], 0
        self._items_written = self._background.submit(self._store_items, table)

    def _wait_for_items(self) -> None:
        written, self._items_written = self._items_written, None
        if written is not None:
            written.result()

    def _store_items(self, table: pa.Table) -> None:
        ids = table.column("item_id").combine_chunks()
        known = self._known_items()
        keep = ~pc.is_in(ids, value_set=known).to_numpy(zero_copy_only=False)
        keep &= first_of_each(ids)
        if not keep.all():
            self._duplicates.add(ids.filter(pa.array(~keep)))
            table = table.filter(pa.array(keep))
            ids = table.column("item_id").combine_chunks()
        if not len(ids):
            return
        self._item_ids.append(ids)
        for name in self._coverage:
            column = table.column(f"count/{name}" if f"count/{name}" in table.column_names else name)
            present = column.to_numpy() > 0 if column.type == pa.int32() else present_in(column, len(ids))
            self._coverage[name] += int(present.sum())
        self._digest.update("items", table)
        with writing(self.out):
            self._fragments += write_fragments(
                table,
                str(self._folder / ITEMS),
                schema=self._item_schema,
                mode="create",
                data_storage_version=self.STORAGE,
                enable_stable_row_ids=True,
            )

    # --------------------------------------------------------------------------------------------------- interactions
    def add_interactions(self, batch: Mapping[str, Values]) -> None:
        """Add interactions: `user_id`, `item_id`, `timestamp` if there are times, every label, every extra column,
        `query` (a text) and `session` (any id) where they are declared; empty or None: the row has none.

        Of several labels some may be empty (or nan) in a row, but not all.
        """
        names = ["user_id", "item_id", *self._row_schema.names[2:]]
        self._check_keys("interactions", batch, names, names)
        columns: dict[str, pa.Array] = {
            "user_id": as_ids("user", batch["user_id"]),
            "item_id": as_ids("item", batch["item_id"]),
        }
        for name in names[2:]:
            kind = pa.string() if name in self._asked else self._row_schema.field(name).type
            columns[name] = as_array(name, batch[name], kind)
            if name in self._labels and pc.any(pc.is_nan(columns[name])).as_py():
                columns[name] = pc.if_else(pc.is_nan(columns[name]), None, columns[name])
            if columns[name].null_count and (name == "timestamp" or [name] == self._labels):
                raise UserError(f"interactions: {name} has empty values; leave those rows out")
        if len({len(c) for c in columns.values()}) > 1:
            sizes = listed(f"{name} {len(c)}" for name, c in columns.items())
            raise UserError(f"interactions: the columns differ in length: {sizes}")
        nowhere = [columns[name].is_null().to_numpy(zero_copy_only=False) for name in self._labels]
        if nowhere and np.logical_and.reduce(nowhere).any():
            raise UserError(f"interactions: rows without any label of {listed(self._labels)}; leave them out")
        self._row_buffer.append(pa.table(columns))
        self._n_buffered += len(columns["user_id"])
        if self._n_buffered >= self.ROW_BUFFER:
            self._flush_rows()

    def _flush_rows(self) -> None:
        """Begin to write what is buffered, when what was written before is done. Raises what that raised."""
        self._wait_for_rows()
        table = pa.concat_tables(self._row_buffer)
        self._row_buffer, self._n_buffered = [], 0
        self._rows_written = self._background.submit(self._store_rows, table)

    def _wait_for_rows(self) -> None:
        written, self._rows_written = self._rows_written, None
        if written is not None:
            written.result()

    def items_met(self) -> pa.Array:
        """Ids of the items of all interactions so far, by first appearance."""
        if self._row_buffer:
            self._flush_rows()
        self._wait_for_rows()
        return self._item_codes.ids

    def _store_rows(self, table: pa.Table) -> None:
        users = self._user_codes.encode(table.column("user_id"))
        for name, numbers in self._asked.items():
            values = numbers.encode(users, table.column(name))
            table = table.set_column(table.column_names.index(name), name, values)
        self._digest.update("interactions", table)
        coded = pa.table(
            [
                users,
                self._item_codes.encode(table.column("item_id")),
                *(table.column(name) for name in self._row_schema.names[2:]),
            ],
            schema=self._row_schema,
        )
        with writing(self.out):
            if self._rows is None:
                repeated = [field.name for field in self._row_schema if pa.types.is_string(field.type)]
                settings: dict[str, Any] = {"compression": "lz4", "use_dictionary": repeated}
                self._rows = pq.ParquetWriter(self._folder / "rows.half", self._row_schema, **settings)
            self._rows.write_table(coded, row_group_size=1 << 18)

    # ----------------------------------------------------------------------------------------------------- completing
    def _known_items(self) -> pa.Array:
        return pa.concat_arrays(self._item_ids) if self._item_ids else pa.array([], pa.string())

    def _flush(self) -> tuple[pa.Array, int]:
        """Write what is buffered, and items that occur in interactions only, without content.

        The item of every item code, and how many items were added.
        """
        if self._row_buffer:
            self._flush_rows()
        self._wait_for_rows()
        if self._rows is not None:
            with writing(self.out):
                self._rows.close()
        if self._item_buffer:
            self._flush_items()
        self._wait_for_items()
        bare = self._item_codes.ids.filter(pc.invert(pc.is_in(self._item_codes.ids, value_set=self._known_items())))
        if len(bare):
            self.add_items({"item_id": bare})
            self._flush_items()
            self._wait_for_items()
        return pc.index_in(self._item_codes.ids, value_set=self._known_items()), len(bare)

    def _bare_note(self, bare: int, what: str) -> str:
        """Of `bare` items that interactions alone brought."""
        given = ", but for vectors" if self.vectors.files else ""
        return f"{bare:,} {what} of the interactions have no catalogue row: added without content{given}"

    def _abandon(self) -> None:
        if self._pictures is not None:
            self._pictures.close()
        self._background.shutdown()
        self.checked.close()
        if self._rows is not None:
            with contextlib.suppress(Exception):
                self._rows.close()

    def _write_rows(self, name: str, item_of: pa.Array, parts: NDArray[np.int8]) -> None:
        """Make the file `name` of the interactions, with their items and parts `[rows]`."""
        names = ["user", "item", "user_id", "item_id", *self._row_schema.names[2:], "split"]
        schema = pa.schema(
            [
                *(self._row_schema.field(name) for name in ("user", "item")),
                ("user_id", pa.string()),
                ("item_id", pa.string()),
                *(self._row_schema.field(name) for name in self._row_schema.names[2:]),
                ("split", pa.int8()),
            ]
        )
        half, start = self._folder / "rows.half", 0

        def whole(batch: pa.RecordBatch, parts: NDArray[np.int8]) -> pa.RecordBatch:
            columns = {name: batch.column(name) for name in batch.schema.names}
            columns["user_id"] = self._user_codes.ids.take(columns["user"])
            columns["item_id"] = self._item_codes.ids.take(columns["item"])
            columns["item"] = item_of.take(columns["item"])
            columns["split"] = pa.array(parts)
            return pa.record_batch([columns[name] for name in names], schema=schema)

        with (
            parquet(half) as source,  # else it keeps all it has read
            pq.ParquetWriter(self._folder / name, schema, compression="zstd", write_page_checksum=True) as target,
        ):
            ready = None  # made in the background while the one before is written
            for batch in source.iter_batches(1 << 18):
                made = self._background.submit(whole, batch, parts[start : start + len(batch)])
                start += len(batch)
                if ready is not None:
                    target.write_batch(ready.result())
                ready = made
            if ready is not None:
                target.write_batch(ready.result())
        half.unlink()

    def _write_users(self, table: pa.Table, name: str) -> None:
        """Make the file `name` of the users' attributes."""
        self._digest.update("users", table)
        with writing(self.out):
            pq.write_table(table, self._folder / name, compression="zstd", write_page_checksum=True)

    def _asked_counts(self) -> dict[str, int]:
        """How many queries and sessions there are, where interactions have them."""
        return {ASKED[name]: len(numbers) for name, numbers in self._asked.items()}

    def _write_asked(self, version: int, counts: dict[str, int]) -> None:
        """Make the files of the queries and sessions that came; counts: of what is new in the version."""
        for name, numbers in self._asked.items():
            if not has_file(name, version, counts):
                continue
            table = numbers.new()
            self._digest.update(ASKED[name], table)
            with writing(self.out):
                pq.write_table(
                    table, self._folder / asked_file(name, version), compression="zstd", write_page_checksum=True
                )

    def _note_asked(self, report: ImportReport) -> None:
        """Note how many interactions have no query, and how many no session, and ids of sessions that users share."""
        for numbers in self._asked.values():
            for told in numbers.told():
                report.note(told)

    def _note_labels(self, name: str, report: ImportReport) -> None:
        """Note label columns in the file `name` of the interactions that hold values other than 0 and 1."""
        for label in self._labels:
            with parquet(self._folder / name) as file:
                batches = file.iter_batches(1 << 18, columns=[label])
                values = LabelValues.of(batch.column(0).to_numpy(zero_copy_only=False) for batch in batches)
            if remark := values.remark(label):
                report.note(remark)

    def _check_keys(self, what: str, batch: Mapping[str, Values], names: list[str], needed: list[str]) -> None:
        for key in batch:
            if key not in names:
                raise UserError(unknown_name(f"{what}: column", key, [n for n in names if "/" not in n]))
        for key in needed:
            if key not in batch:
                raise UserError(f"{what}: the column {key!r} is missing")


class Counted:
    """How many, and the first twenty."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, values: pa.Array) -> None:
        self.count += len(values)
        self.examples += values[: 20 - len(self.examples)].to_pylist()


# -------------------------------------------------------------------------------------------------------------- arrays
def item_schema(fields: Fields, has_launched: bool) -> pa.Schema:
    columns: list[tuple[str, pa.DataType]] = [("item_id", pa.string())]
    columns += [(name, pa.list_(pa.large_binary())) for name in fields.image]
    columns += [(name, pa.list_(pa.string())) for name in [*fields.text, *fields.categorical]]
    columns += [(name, pa.float64()) for name in fields.numeric]
    columns += [(name, pa.list_(pa.float32(), width)) for name, width in fields.feature.items()]
    columns += [(f"count/{name}", pa.int32()) for name in [*fields.image, *fields.text]]
    columns += [(f"bytes/{name}", pa.int64()) for name in fields.image]
    columns += [("launched", pa.int64())] if has_launched else []
    return pa.schema(columns)


def check_names(fields: Fields, labels: list[str], extra: list[str], asked: Sequence[str] = ()) -> None:
    for what, names, reserved in (
        ("item field", fields.names(), ("item_id", "launched", "fields")),
        ("interaction column", [*labels, *extra], (*ROW_COLUMNS, *asked)),
    ):
        for i, name in enumerate(names):
            check_column(what, name, names[:i], reserved)


def check_column(what: str, name: str, earlier: Sequence[str], reserved: Sequence[str]) -> None:
    """UserError for a name that cannot be a column's."""
    if not is_name(name):
        raise UserError(f"{what} {name!r}: use {NAMES}")
    if name in reserved or name in earlier:
        raise UserError(f"{what} {name!r} is {'reserved' if name in reserved else 'named twice'}: rename it")


def as_array(name: str, values: Values, kind: pa.DataType) -> pa.Array:
    array: Any = values
    try:
        if isinstance(values, pa.ChunkedArray):
            array = array.combine_chunks()
        if isinstance(array, pa.Array):
            return array.cast(kind)
        return pa.array(values, None if kind == pa.string() else kind).cast(kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{name}: values are not of type {kind}: {first_line(error)}") from None


def as_ids(what: str, values: Values) -> pa.Array:
    """Ids as strings without surrounding white space, none of them empty."""
    ids = pc.utf8_trim_whitespace(as_array(f"{what}_id", values, pa.string()))
    bad = pc.fill_null(pc.equal(ids, ""), True)
    if pc.any(bad).as_py():
        raise UserError(f"{what}_id of row {pc.index(bad, True).as_py()} of a batch is empty: leave such rows out")
    return ids


def first_of_each(ids: pa.Array) -> NDArray[np.bool_]:
    """Where an id occurs for the first time, `[n]`."""
    first = np.zeros(len(ids), bool)
    first[np.unique(ids.dictionary_encode().indices.to_numpy(), return_index=True)[1]] = True
    return first


def without_empty(lists: pa.Array) -> pa.Array:
    """Lists without their null and empty pieces; a list that was missing is an empty one."""
    flat = lists.flatten()
    length = pc.binary_length(flat)
    keep = pc.fill_null(pc.greater(length, 0), False).to_numpy(zero_copy_only=False)
    if keep.all() and not lists.null_count:
        return lists
    edges = np.concatenate([[0], np.cumsum(pieces(lists).to_numpy())])
    kept = np.concatenate([[0], np.cumsum(keep)])
    return pa.ListArray.from_arrays(pa.array(kept[edges], pa.int32()), flat.filter(pa.array(keep)), type=lists.type)


def _bytes(lists: pa.Array) -> pa.Array:
    """Bytes of all pieces of each list, int64."""
    edges = np.concatenate([[0], np.cumsum(pieces(lists).to_numpy())])
    size = np.concatenate([[0], np.cumsum(pc.binary_length(lists.flatten()).to_numpy())])
    return pa.array(np.diff(size[edges]), pa.int64())


def _features(name: str, values: Values, kind: pa.FixedSizeListType) -> pa.Array:
    if not isinstance(values, np.ndarray):
        return as_array(name, values, kind)
    if values.ndim != 2 or values.shape[1] != kind.list_size:
        raise UserError(f"{name}: features of shape {values.shape} where width {kind.list_size} is declared")
    missing = ~np.all(np.isfinite(values), axis=1)
    flat = np.where(missing[:, None], 0, values).astype(np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind, mask=pa.array(missing))
