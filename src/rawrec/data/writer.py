"""Writing a dataset folder: streaming, in bounded memory, and atomically.

A dataset is written beside its place and moved there whole, so that a killed import leaves nothing that looks like one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lance.fragment import write_fragments
from numpy.typing import NDArray

from rawrec.data.dataset import (
    NAME,
    ROW_COLUMNS,
    Dataset,
    Fields,
    Meta,
    Values,
    first_line,
    pc,
    pieces,
    present_in,
    read_version,
    split_entry,
    unknown_name,
    write_meta,
    writing,
)
from rawrec.data.importers.report import ImportReport
from rawrec.data.splits import SplitSpec, make_split
from rawrec.errors import UserError


class DatasetWriter:
    """Writes a dataset folder, streaming: `add_items` and `add_interactions` in any order, then `finish`.

    Everything goes to a hidden folder beside `out`, which takes its place in one atomic step at the end: killed at any
    moment, or left by an exception, there is nothing at `out` that looks whole, and the next import into the same place
    removes what was left. One process writes to a place at a time.

    Memory: ids, one row buffer, one media buffer, and about 100 bytes per interaction at `finish`.

    fields: the item fields. labels: label columns of the interactions, empty for positive-only data. label_rule: how a
    label came to be, e.g. "rating >= 4". extra: further interaction columns and their types. has_time, has_launched:
    whether interactions have a `timestamp`, items a `launched` time. overwrite: replace a dataset that is there.

    Raises UserError where the place is taken, cannot be written, is full, or where a value is not acceptable.
    """

    ROW_BUFFER = 1 << 20
    MEDIA_BUFFER = 64 << 20

    def __init__(
        self,
        out: str | Path,
        *,
        fields: Fields,
        source: str,
        labels: list[str],
        label_rule: str = "",
        generated: bool = False,
        extra: dict[str, pa.DataType] | None = None,
        has_time: bool,
        overwrite: bool = False,
        has_launched: bool = False,
    ) -> None:
        self.out = Path(out)
        self._meta: dict[str, Any] = {
            "source": source,
            "generated": generated,
            "fields": fields,
            "labels": labels,
            "label_rule": label_rule,
            "extra": list(extra or {}),
            "has_time": has_time,
        }
        self._fields = fields
        _check_names(fields, labels, list(extra or {}))
        self._item_schema = _item_schema(fields, has_launched)
        self._row_schema = pa.schema(
            [("user", pa.int32()), ("item", pa.int32())]
            + ([("timestamp", pa.int64())] if has_time else [])
            + [(name, pa.float32()) for name in labels]
            + list((extra or {}).items())
        )
        self._place = _Place(self.out, overwrite)
        self._folder = self._place.folder
        self._started = time.monotonic()
        self._digest = hashlib.blake2b(digest_size=16)
        for schema in (self._item_schema, self._row_schema):
            self._digest.update(schema.to_string().encode())
        self._item_buffer: list[pa.RecordBatch] = []
        self._item_bytes = 0
        self._item_ids: list[pa.Array] = []
        self._fragments: list[Any] = []
        self._duplicates = _Counted()
        self._coverage = dict.fromkeys(fields.names(), 0)
        self._row_buffer: list[pa.Table] = []
        self._n_buffered = 0
        self._user_codes = Codes()
        self._item_codes = Codes()
        self._rows: pq.ParquetWriter | None = None

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rows is not None:
            with contextlib.suppress(Exception):
                self._rows.close()
        self._place.leave()

    # ---------------------------------------------------------------------------------------------------------- items
    def add_items(self, batch: Mapping[str, Values]) -> None:
        """Add items: `item_id` and, per field, one value per item (None: missing; an absent field: all missing).

        Image, text and categorical values are lists (empty pieces are dropped); numeric values floats; features rows
        of floats or one `[n, width]` array, where a row that is not finite is missing. Of items with the same id the
        first is kept.
        """
        self._check_keys("items", batch, self._item_schema.names, ["item_id"])
        n = len(batch["item_id"])
        columns: dict[str, pa.Array] = {"item_id": _ids("item", batch["item_id"])}
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
                columns[name] = _array(name, values, kind)
                if pa.types.is_list(kind):
                    columns[name] = _drop_empty(columns[name])
        part = pa.record_batch(list(columns.values()), schema=self._item_schema)
        self._item_buffer.append(part)
        self._item_bytes += part.nbytes
        if self._item_bytes >= self.MEDIA_BUFFER:
            self._flush_items()

    def _flush_items(self) -> None:
        table = pa.Table.from_batches(self._item_buffer, self._item_schema)
        self._item_buffer, self._item_bytes = [], 0
        ids = table.column("item_id").combine_chunks()
        known = pa.concat_arrays(self._item_ids) if self._item_ids else pa.array([], pa.string())
        keep = ~pc.is_in(ids, value_set=known).to_numpy(zero_copy_only=False)
        first = np.zeros(len(ids), bool)
        first[_first_rows(ids)] = True
        keep &= first
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
        self._hash(table)
        with writing(self.out):
            self._fragments += write_fragments(
                table,
                str(self._folder / "items.lance"),
                schema=self._item_schema,
                mode="create",
                data_storage_version="stable",
                enable_stable_row_ids=True,
            )

    # --------------------------------------------------------------------------------------------------- interactions
    def add_interactions(self, batch: Mapping[str, Values]) -> None:
        """Add interactions: `user_id`, `item_id`, `timestamp` if there are times, every label, every extra column."""
        names = ["user_id", "item_id", *self._row_schema.names[2:]]
        self._check_keys("interactions", batch, names, names)
        columns: dict[str, pa.Array] = {
            "user_id": _ids("user", batch["user_id"]),
            "item_id": _ids("item", batch["item_id"]),
        }
        for name in names[2:]:
            columns[name] = _array(name, batch[name], self._row_schema.field(name).type)
            if name == "timestamp" or name in self._meta["labels"]:
                bad = columns[name].null_count or (name != "timestamp" and pc.any(pc.is_nan(columns[name])).as_py())
                if bad:
                    raise UserError(f"interactions: {name} has empty values; leave those rows out")
        if len({len(c) for c in columns.values()}) > 1:
            sizes = ", ".join(f"{name} {len(c)}" for name, c in columns.items())
            raise UserError(f"interactions: the columns differ in length: {sizes}")
        self._row_buffer.append(pa.table(columns))
        self._n_buffered += len(columns["user_id"])
        if self._n_buffered >= self.ROW_BUFFER:
            self._flush_rows()

    def _flush_rows(self) -> None:
        table = pa.concat_tables(self._row_buffer)
        self._row_buffer, self._n_buffered = [], 0
        self._hash(table)
        coded = pa.table(
            [
                self._user_codes.encode(table.column("user_id")),
                self._item_codes.encode(table.column("item_id")),
                *(table.column(name) for name in self._row_schema.names[2:]),
            ],
            schema=self._row_schema,
        )
        with writing(self.out):
            if self._rows is None:
                self._rows = pq.ParquetWriter(self._folder / "rows.half", self._row_schema, compression="lz4")
            self._rows.write_table(coded, row_group_size=1 << 18)

    # --------------------------------------------------------------------------------------------------------- finish
    def finish(self, split: SplitSpec, report: ImportReport) -> Dataset:
        """Complete the dataset, put it in its place and open it.

        Items that occur in interactions only are added without content. `report` gets kept counts, coverage and
        duplicates, and becomes `import.json`. Raises UserError where there are no interactions or the split is
        impossible.
        """
        if self._row_buffer:
            self._flush_rows()
        if self._rows is None or not len(self._user_codes):
            raise UserError(
                f"nothing to import into {self.out}: no interaction was read or kept"
                + "".join(f"; {entry.count} skipped because: {reason}" for reason, entry in report.skipped.items())
            )
        with writing(self.out):
            self._rows.close()
        if self._item_buffer:
            self._flush_items()
        known = pa.concat_arrays(self._item_ids) if self._item_ids else pa.array([], pa.string())
        bare = self._item_codes.ids.filter(pc.invert(pc.is_in(self._item_codes.ids, value_set=known)))
        if len(bare):
            self.add_items({"item_id": bare})
            self._flush_items()
            known = pa.concat_arrays(self._item_ids)
        item_of = pc.index_in(self._item_codes.ids, value_set=known)
        with writing(self.out):
            operation = lance.LanceOperation.Overwrite(self._item_schema, self._fragments)
            lance.LanceDataset.commit(str(self._folder / "items.lance"), operation, enable_stable_row_ids=True)
        parts, statement = self._split(split, item_of.to_numpy(), len(known))
        with writing(self.out):
            self._write_rows(item_of, parts)
        counts = {"users": len(self._user_codes), "items": len(known), "interactions": len(parts)}
        self._account(report, counts, len(bare))
        meta = Meta(
            **self._meta,
            counts=counts,
            splits={"default": split_entry(split, statement, parts)},
            digest=self._digest.hexdigest(),
        )
        with writing(self.out):
            report.write(self._folder / "import.json")
            write_meta(meta, self._folder)
            self._place.take()
        return Dataset.open(self.out)

    def _split(self, spec: SplitSpec, item_of: NDArray[np.int32], n_items: int) -> tuple[NDArray[np.int8], str]:
        names = set(self._row_schema.names)
        if spec.column and spec.column not in names:
            raise UserError(unknown_name(f"{self.out}: split column", spec.column, self._row_schema.names[2:]))
        columns = ["user", "item", *sorted(names & {"timestamp", spec.column or ""})]
        rows = pq.read_table(self._folder / "rows.half", columns=columns)
        present = None
        if spec.field:
            meta = Meta(**self._meta, counts={"items": n_items}, splits={}, digest="")
            present = Dataset(self._folder, meta, lance.dataset(str(self._folder / "items.lance"))).present(spec.field)
        return make_split(
            spec,
            rows.column("user").to_numpy(),
            item_of[rows.column("item").to_numpy()],
            rows.column("timestamp").to_numpy() if "timestamp" in columns else None,
            rows.column(spec.column).to_numpy() if spec.column else None,
            present,
            n_items,
        )

    def _write_rows(self, item_of: pa.Array, parts: NDArray[np.int8]) -> None:
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
        with (
            pq.ParquetFile(half) as source,
            pq.ParquetWriter(self._folder / "interactions.parquet", schema, compression="zstd") as target,
        ):
            for batch in source.iter_batches(1 << 18):
                columns = {name: batch.column(name) for name in batch.schema.names}
                columns["user_id"] = self._user_codes.ids.take(columns["user"])
                columns["item_id"] = self._item_codes.ids.take(columns["item"])
                columns["item"] = item_of.take(columns["item"])
                columns["split"] = pa.array(parts[start : start + len(batch)])
                target.write_batch(pa.record_batch([columns[name] for name in names], schema=schema))
                start += len(batch)
        half.unlink()

    def _account(self, report: ImportReport, counts: dict[str, int], bare: int) -> None:
        report.source = report.source or self._meta["source"]
        report.kept.update({"items": counts["items"], "interactions": counts["interactions"], "users": counts["users"]})
        report.coverage = {
            name: {"items": count, "share": count / counts["items"]} for name, count in self._coverage.items()
        }
        if self._duplicates.count:
            examples = self._duplicates.examples
            report.skip("duplicate item id (the first row is kept)", examples, count=self._duplicates.count)
        if bare:
            report.note(f"{bare:,} items of the interactions have no catalogue row: added without content")
            report.kept["items without a catalogue row"] = bare
        report.seconds = round(time.monotonic() - self._started, 3)

    def _check_keys(self, what: str, batch: Mapping[str, Values], names: list[str], needed: list[str]) -> None:
        for key in batch:
            if key not in names:
                raise UserError(unknown_name(f"{what}: column", key, [n for n in names if "/" not in n]))
        for key in needed:
            if key not in batch:
                raise UserError(f"{what}: the column {key!r} is missing")

    def _hash(self, table: pa.Table) -> None:
        for batch in table.to_batches():
            self._digest.update(batch.serialize())


class Codes:
    """Ids numbered by first appearance; vectorised, one hash table per call."""

    def __init__(self) -> None:
        self.ids = pa.array([], pa.string())

    def __len__(self) -> int:
        return len(self.ids)

    def encode(self, ids: pa.ChunkedArray) -> pa.Array:
        """The number of every id, int32; new ids get the next numbers."""
        coded = ids.combine_chunks().dictionary_encode()
        words = coded.dictionary
        new = words.filter(pc.invert(pc.is_in(words, value_set=self.ids)))
        self.ids = pa.concat_arrays([self.ids, new])
        return pc.index_in(words, value_set=self.ids).take(coded.indices)


class _Counted:
    """How many, and the first twenty."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, values: pa.Array) -> None:
        self.count += len(values)
        self.examples += values[: 20 - len(self.examples)].to_pylist()


class _Place:
    """The place of a dataset: locked while it is written, taken in one atomic step.

    Siblings of `out`: `.<name>.lock` (held by the writing process), `.<name>.new` (being written) and `.<name>.old`
    (what is being replaced). Whoever holds the lock may remove what a dead process left of the others.
    """

    def __init__(self, out: Path, overwrite: bool) -> None:
        with writing(out):
            self.out = out.resolve()
            self.out.parent.mkdir(parents=True, exist_ok=True)
        if not self.out.name:
            raise UserError(f"{out} cannot be a dataset folder: name one that does not exist yet")
        self.folder = self.out.with_name(f".{self.out.name}.new")
        self._old = self.out.with_name(f".{self.out.name}.old")
        self._lock_file = self.out.with_name(f".{self.out.name}.lock")
        self._overwrite = overwrite
        self._lock = self._acquire()
        try:
            with writing(self.out):
                if self._old.exists() and not self.out.exists():
                    self._old.rename(self.out)
                for left in (self.folder, self._old):
                    if left.exists():
                        shutil.rmtree(left)
            self._check()
            with writing(self.out):
                self.folder.mkdir()
        except BaseException:
            self._release()
            raise

    def _acquire(self) -> int | None:
        while True:
            with writing(self.out):
                lock = os.open(self._lock_file, os.O_CREAT | os.O_RDWR, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_ino == self._lock_file.stat().st_ino:
                    return lock
            except BlockingIOError:
                os.close(lock)
                raise UserError(
                    f"another import is writing to {self.out} now: wait, or choose another folder"
                ) from None
            except FileNotFoundError:
                pass
            os.close(lock)  # its last owner removed the file between our opening and locking it

    def _check(self) -> bool:
        """Whether there is a dataset that may be replaced. Raises UserError where the place is taken."""
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return False
        try:
            read_version(self.out)
        except UserError:
            raise UserError(f"{self.out} exists and is not a rawrec dataset: choose another folder") from None
        if not self._overwrite:
            raise UserError(f"{self.out} exists: choose another folder, or replace it with --overwrite")
        return True

    def take(self) -> None:
        """Put the folder in its place; a dataset that stood there goes."""
        for path in self.folder.rglob("*"):
            if path.is_file():  # on the disk before its name says that it is whole
                _sync(path)
        if self._check():
            self.out.rename(self._old)
        self.folder.rename(self.out)
        _sync(self.out.parent)
        shutil.rmtree(self._old, ignore_errors=True)
        self._release()

    def leave(self) -> None:
        """Remove what was not taken."""
        if self._lock is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock_file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


# -------------------------------------------------------------------------------------------------------------- arrays
def _item_schema(fields: Fields, has_launched: bool) -> pa.Schema:
    columns: list[tuple[str, pa.DataType]] = [("item_id", pa.string())]
    columns += [(name, pa.list_(pa.large_binary())) for name in fields.image]
    columns += [(name, pa.list_(pa.string())) for name in [*fields.text, *fields.categorical]]
    columns += [(name, pa.float64()) for name in fields.numeric]
    columns += [(name, pa.list_(pa.float32(), width)) for name, width in fields.feature.items()]
    columns += [(f"count/{name}", pa.int32()) for name in [*fields.image, *fields.text]]
    columns += [(f"bytes/{name}", pa.int64()) for name in fields.image]
    columns += [("launched", pa.int64())] if has_launched else []
    return pa.schema(columns)


def _check_names(fields: Fields, labels: list[str], extra: list[str]) -> None:
    for what, names, reserved in (
        ("item field", fields.names(), ("item_id", "launched", "fields")),
        ("interaction column", [*labels, *extra], ROW_COLUMNS),
    ):
        for i, name in enumerate(names):
            if not NAME.match(name):
                raise UserError(f"{what} {name!r}: use letters, digits, - and _, and begin with a letter")
            if name in reserved or name in names[:i]:
                raise UserError(f"{what} {name!r} is {'reserved' if name in reserved else 'named twice'}: rename it")
    for name, width in fields.feature.items():
        if width < 1:
            raise UserError(f"feature {name!r} has width {width}: it must be at least 1")


def _array(name: str, values: Values, kind: pa.DataType) -> pa.Array:
    array: Any = values
    try:
        if isinstance(values, pa.ChunkedArray):
            array = array.combine_chunks()
        if isinstance(array, pa.Array):
            return array.cast(kind)
        return pa.array(values, None if kind == pa.string() else kind).cast(kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{name}: values are not of type {kind}: {first_line(error)}") from None


def _ids(what: str, values: Values) -> pa.Array:
    """Ids as strings without surrounding white space, none of them empty."""
    ids = pc.utf8_trim_whitespace(_array(f"{what}_id", values, pa.string()))
    bad = pc.fill_null(pc.equal(ids, ""), True)
    if pc.any(bad).as_py():
        raise UserError(f"{what}_id of row {pc.index(bad, True).as_py()} of a batch is empty: leave such rows out")
    return ids


def _first_rows(ids: pa.Array) -> NDArray[np.int64]:
    """Row of the first occurrence of every distinct id."""
    coded = ids.dictionary_encode().indices.to_numpy()
    return np.unique(coded, return_index=True)[1]


def _drop_empty(lists: pa.Array) -> pa.Array:
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
        return _array(name, values, kind)
    if values.ndim != 2 or values.shape[1] != kind.list_size:
        raise UserError(f"{name}: features of shape {values.shape} where width {kind.list_size} is declared")
    missing = ~np.all(np.isfinite(values), axis=1)
    flat = np.where(missing[:, None], 0, values).astype(np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind, mask=pa.array(missing))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
