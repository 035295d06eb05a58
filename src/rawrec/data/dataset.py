"""A dataset folder: written once, streaming and atomically; opened lazily; readable with pyarrow alone.

dataset.yaml           what there is: fields, labels, counts, splits
items.lance            one row per item: id, raw media, texts, columns; the row is the item's dense index
interactions.parquet   one row per interaction: dense and original ids, time, labels, further columns, split
splits/<name>.parquet  further splits, aligned with the rows of interactions.parquet
import.json            what was read, skipped and why
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import yaml
from lance.fragment import write_fragments
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rawrec.data.importers.report import ImportReport
from rawrec.data.splits import PARTS, SplitSpec, make_split
from rawrec.errors import UserError

SCHEMA_VERSION = 1
ROW_COLUMNS = ("user", "item", "user_id", "item_id", "timestamp", "split")
NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*$")

Values = Sequence[Any] | NDArray[Any] | pa.Array | pa.ChunkedArray
pc: Any = pyarrow.compute  # its functions are made at import, where a type checker does not see them


# ------------------------------------------------------------------------------------------------------ what there is
class Fields(BaseModel):
    """The named fields of an item, by kind; `feature` maps a ready-made feature column to its width."""

    model_config = ConfigDict(extra="forbid")

    image: list[str] = Field(default_factory=list)
    text: list[str] = Field(default_factory=list)
    categorical: list[str] = Field(default_factory=list)
    numeric: list[str] = Field(default_factory=list)
    feature: dict[str, int] = Field(default_factory=dict)

    def names(self) -> list[str]:
        return [*self.image, *self.text, *self.categorical, *self.numeric, *self.feature]


class Meta(BaseModel):
    """`dataset.yaml`.

    labels: label columns; empty means positive-only data. digest: of all items and interactions, as imported.
    splits: name -> the `SplitSpec` and a statement of it in words with counts.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    source: str
    generated: bool = False
    fields: Fields
    labels: list[str]
    label_rule: str = ""
    extra: list[str] = Field(default_factory=list)
    has_time: bool
    counts: dict[str, int]
    splits: dict[str, dict[str, Any]]
    digest: str


class Dataset:
    """An imported dataset. Opening reads `dataset.yaml` and file headers only; columns and media are read on demand."""

    def __init__(self, path: Path, meta: Meta, table: lance.LanceDataset) -> None:
        self.path = path
        self.meta = meta
        self._table = table

    @classmethod
    def open(cls, path: str | Path) -> Dataset:
        """The dataset in the folder `path`. Raises UserError where there is none, or a newer or a damaged one."""
        path = Path(path)
        meta = _read_meta(path)
        try:
            table = lance.dataset(str(path / "items.lance"))
            n_items = table.count_rows()
            n_rows = pq.read_metadata(path / "interactions.parquet").num_rows
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path} is damaged, import it again: {_first_line(error)}") from None
        if not table.has_stable_row_ids:
            raise UserError(f"{path}/items.lance was written without stable row ids: import it again")
        if (n_items, n_rows) != (meta.counts["items"], meta.counts["interactions"]):
            raise UserError(
                f"{path} is damaged, import it again: it holds {n_items} items and {n_rows} interactions, "
                f"dataset.yaml says {meta.counts['items']} and {meta.counts['interactions']}"
            )
        return cls(path, meta, table)

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}: {self.n_users} users, {self.n_items} items, {self.n_interactions} rows)"

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

    def fingerprint(self) -> str:
        """32 hex digits that change when items or interactions do (not with splits): a key for caches."""
        size = (self.path / "interactions.parquet").stat().st_size
        state = f"{self.meta.digest} {self._table.version} {self.n_items} {self.n_interactions} {size}"
        return hashlib.blake2b(state.encode(), digest_size=16).hexdigest()

    # ------------------------------------------------------------------------------------------------------------ ids
    @cached_property
    def item_ids(self) -> NDArray[np.object_]:
        """Original ids, `[n_items]`, by dense index."""
        return self._item_column("item_id").to_numpy(zero_copy_only=False)

    @cached_property
    def user_ids(self) -> NDArray[np.object_]:
        """Original ids, `[n_users]`, by dense index."""
        ids = np.empty(self.n_users, object)
        for batch in self._batches(["user", "user_id"]):
            ids[batch["user"].to_numpy()] = batch["user_id"].to_numpy(zero_copy_only=False)
        return ids

    def item_rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Dense indices of item ids. Raises UserError that names the first unknown id and close matches."""
        return _lookup("item", ids, self._item_lookup, self.path)

    def user_rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Dense indices of user ids. Raises UserError that names the first unknown id and close matches."""
        return _lookup("user", ids, self._user_lookup, self.path)

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
        return self._row_column("user")

    @cached_property
    def items(self) -> NDArray[np.int32]:
        """Dense item of every interaction, `[n_interactions]`."""
        return self._row_column("item")

    @cached_property
    def timestamps(self) -> NDArray[np.int64] | None:
        """Time of every interaction, `[n_interactions]`, or None where the data have no times."""
        return self._row_column("timestamp") if self.meta.has_time else None

    def label(self, name: str = "label") -> NDArray[np.float32]:
        """A label column, `[n_interactions]`; ones where the data are positive-only. UserError for an unknown one."""
        if self.positive_only:
            return np.ones(self.n_interactions, np.float32)
        _known("label", name, self.meta.labels, self.path)
        return self._row_column(name)

    def column(self, name: str) -> NDArray[Any]:
        """Any column of the interactions, `[n_interactions]`; strings as objects. UserError for an unknown one."""
        _known("column", name, pq.read_schema(self.path / "interactions.parquet").names, self.path)
        return self._row_column(name)

    def split(self, name: str = "default") -> NDArray[np.int8]:
        """Part of every interaction, `[n_interactions]`: 0 train, 1 valid, 2 test, -1 in none."""
        _known("split", name, list(self.meta.splits), self.path)
        if name == "default":
            return self._row_column("split")
        values = pq.read_table(self.path / "splits" / f"{name}.parquet").column("split").to_numpy()
        if len(values) != self.n_interactions:
            raise UserError(f"{self.path}/splits/{name}.parquet does not fit the interactions: delete it, split again")
        return values

    def add_split(self, name: str, spec: SplitSpec) -> None:
        """Store a further split under a new name. Raises UserError where the name is taken or the split impossible."""
        if not NAME.match(name):
            raise UserError(f"split name {name!r}: use letters, digits, - and _, and begin with a letter")
        if name in self.meta.splits:
            raise UserError(f"{self.path} already has a split {name!r} ({self.meta.splits[name]['statement']})")
        values = self.column(spec.column) if spec.column else None
        present = self.present(spec.field) if spec.field else None
        parts, statement = make_split(spec, self.users, self.items, self.timestamps, values, present, self.n_items)
        with _writing(self.path):
            folder = self.path / "splits"
            folder.mkdir(exist_ok=True)
            half = folder / f".{name}.half"
            pq.write_table(pa.table({"split": parts}), half)
            half.replace(folder / f"{name}.parquet")
            splits = {**self.meta.splits, name: _split_entry(spec, statement, parts)}
            meta = self.meta.model_copy(update={"splits": splits})
            _write_meta(meta, self.path)
        self.meta = meta

    # ---------------------------------------------------------------------------------------------------------- items
    @cached_property
    def launched(self) -> NDArray[np.int64] | None:
        """Time from which each item existed, `[n_items]`, or None where that is unknown."""
        if "launched" not in self._table.schema.names:
            return None
        return self._item_column("launched").to_numpy()

    def images(self, field: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[list[bytes]]:
        """Raw bytes of an image field for the items `rows`, in that order (repeats allowed); no image: empty list."""
        _known("image field", field, self.fields.image, self.path)
        return self._take(field, rows)

    def texts(self, field: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[list[str]]:
        """Strings of a text field for the items `rows`, in that order (repeats allowed); no text: empty list."""
        _known("text field", field, self.fields.text, self.path)
        return self._take(field, rows)

    def counts(self, field: str) -> NDArray[np.int32]:
        """Images or texts that each item has in a field, `[n_items]`, without reading media."""
        _known("image or text field", field, self.fields.image + self.fields.text, self.path)
        return self._item_column(f"count/{field}").to_numpy()

    def image_bytes(self, field: str) -> NDArray[np.int64]:
        """Bytes of each item's images in a field, `[n_items]`, without reading media."""
        _known("image field", field, self.fields.image, self.path)
        return self._item_column(f"bytes/{field}").to_numpy()

    def present(self, field: str) -> NDArray[np.bool_]:
        """Items with a non-empty value of an image, text, categorical or numeric field or a feature, `[n_items]`."""
        if field in self.fields.image + self.fields.text:
            return self.counts(field) > 0
        _known("field", field, self.fields.names(), self.path)
        return _present(self._item_column(field), self.n_items)

    def categorical(self, field: str) -> tuple[NDArray[np.int64], NDArray[np.int32], list[str]]:
        """A categorical field: `ptr [n_items + 1]`, `codes [values]` into the sorted vocabulary, the vocabulary."""
        _known("categorical field", field, self.fields.categorical, self.path)
        column = self._item_column(field)
        ptr = np.zeros(self.n_items + 1, np.int64)
        np.cumsum(_pieces(column).to_numpy(), out=ptr[1:])
        coded = pc.list_flatten(column).dictionary_encode()
        words = coded.dictionary.to_pylist()
        order = sorted(range(len(words)), key=words.__getitem__)
        rank = np.empty(len(words), np.int32)
        rank[order] = np.arange(len(words), dtype=np.int32)
        return ptr, rank[coded.indices.to_numpy()], [words[i] for i in order]

    def numeric(self, field: str) -> NDArray[np.float64]:
        """A numeric field, `[n_items]`; nan where it is missing."""
        _known("numeric field", field, self.fields.numeric, self.path)
        return self._item_column(field).to_numpy(zero_copy_only=False).astype(np.float64)

    def feature(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A ready-made feature, `[n_items, width]` (zeros where missing), and which items have it, `[n_items]`."""
        _known("feature", name, list(self.fields.feature), self.path)
        values = np.zeros((self.n_items, self.fields.feature[name]), np.float32)
        valid = np.zeros(self.n_items, bool)
        start = 0
        for batch in self._table.to_batches(columns=[name]):
            column = batch.column(name)
            stop = start + len(column)
            valid[start:stop] = column.is_valid().to_numpy(zero_copy_only=False)
            values[start:stop][valid[start:stop]] = column.drop_null().flatten().to_numpy().reshape(-1, values.shape[1])
            start = stop
        return values, valid

    # -------------------------------------------------------------------------------------------------------- reading
    def _item_column(self, name: str) -> pa.Array:
        column = self._table.to_table(columns=[name]).column(name)
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    def _take(self, field: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[list[Any]]:
        index = np.asarray(rows, np.int64).reshape(-1)
        if not len(index):
            return []
        if index.min() < 0 or index.max() >= self.n_items:
            raise IndexError(f"item rows must be in 0..{self.n_items - 1}, found {index.min()}..{index.max()}")
        unique, inverse = np.unique(index, return_inverse=True)
        values = self._table.take(unique.tolist(), columns=[field]).column(field).to_pylist()
        return [list(values[i] or []) for i in inverse.tolist()]

    def _row_column(self, name: str) -> NDArray[Any]:
        table = pq.read_table(self.path / "interactions.parquet", columns=[name])
        return table.column(name).to_numpy()

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path / "interactions.parquet") as file:
            yield from file.iter_batches(1 << 20, columns=columns)


# ------------------------------------------------------------------------------------------------------------- writing
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
        self._user_codes = _Codes()
        self._item_codes = _Codes()
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
                columns[name] = _pieces(columns[field]) if what == "count" else _bytes(columns[field])
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
            present = column.to_numpy() > 0 if column.type == pa.int32() else _present(column, len(ids))
            self._coverage[name] += int(present.sum())
        self._hash(table)
        with _writing(self.out):
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
        with _writing(self.out):
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
        with _writing(self.out):
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
        with _writing(self.out):
            operation = lance.LanceOperation.Overwrite(self._item_schema, self._fragments)
            lance.LanceDataset.commit(str(self._folder / "items.lance"), operation, enable_stable_row_ids=True)
        parts, statement = self._split(split, item_of.to_numpy(), len(known))
        with _writing(self.out):
            self._write_rows(item_of, parts)
        counts = {"users": len(self._user_codes), "items": len(known), "interactions": len(parts)}
        self._account(report, counts, len(bare))
        meta = Meta(
            **self._meta,
            counts=counts,
            splits={"default": _split_entry(split, statement, parts)},
            digest=self._digest.hexdigest(),
        )
        with _writing(self.out):
            report.write(self._folder / "import.json")
            _write_meta(meta, self._folder)
            self._place.take()
        return Dataset.open(self.out)

    def _split(self, spec: SplitSpec, item_of: NDArray[np.int32], n_items: int) -> tuple[NDArray[np.int8], str]:
        names = set(self._row_schema.names)
        if spec.column and spec.column not in names:
            raise UserError(_unknown(f"{self.out}: split column", spec.column, self._row_schema.names[2:]))
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
                raise UserError(_unknown(f"{what}: column", key, [n for n in names if "/" not in n]))
        for key in needed:
            if key not in batch:
                raise UserError(f"{what}: the column {key!r} is missing")

    def _hash(self, table: pa.Table) -> None:
        for batch in table.to_batches():
            self._digest.update(batch.serialize())


class _Codes:
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
        with _writing(out):
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
            with _writing(self.out):
                if self._old.exists() and not self.out.exists():
                    self._old.rename(self.out)
                for left in (self.folder, self._old):
                    if left.exists():
                        shutil.rmtree(left)
            self._check()
            with _writing(self.out):
                self.folder.mkdir()
        except BaseException:
            self._release()
            raise

    def _acquire(self) -> int | None:
        while True:
            with _writing(self.out):
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
            _read_version(self.out)
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


# -------------------------------------------------------------------------------------------------------- dataset.yaml
def _read_version(path: Path) -> dict[str, Any]:
    """What `dataset.yaml` holds, known to have a schema version. Raises UserError where `path` is no dataset."""
    file = path / "dataset.yaml"
    if not file.is_file():
        what = "is not a rawrec dataset (it holds no dataset.yaml)" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}: make one with `rawrec import`")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read: {_first_line(error)}") from None
    if not isinstance(values, dict) or not isinstance(values.get("schema_version"), int):
        raise UserError(f"{file} is not the description of a rawrec dataset (no schema_version)")
    return values


def _read_meta(path: Path) -> Meta:
    values = _read_version(path)
    if values["schema_version"] > SCHEMA_VERSION:
        version = values["schema_version"]
        raise UserError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}: update rawrec")
    try:
        return Meta.model_validate(values)
    except ValidationError as error:
        where, why = ".".join(str(p) for p in error.errors()[0]["loc"]), error.errors()[0]["msg"]
        raise UserError(f"{path}/dataset.yaml is damaged at {where!r} ({why}): import the data again") from None


def _write_meta(meta: Meta, folder: Path) -> None:
    half = folder / ".dataset.yaml.half"
    text = yaml.safe_dump(meta.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    half.write_text(text, encoding="utf-8")
    half.replace(folder / "dataset.yaml")


def _split_entry(spec: SplitSpec, statement: str, parts: NDArray[np.int8]) -> dict[str, Any]:
    counts = {name: int((parts == i).sum()) for i, name in enumerate(PARTS)}
    return {**spec.settings(), "statement": statement, "counts": counts}


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
        raise UserError(f"{name}: values are not of type {kind}: {_first_line(error)}") from None


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
    edges = np.concatenate([[0], np.cumsum(_pieces(lists).to_numpy())])
    kept = np.concatenate([[0], np.cumsum(keep)])
    return pa.ListArray.from_arrays(pa.array(kept[edges], pa.int32()), flat.filter(pa.array(keep)), type=lists.type)


def _pieces(lists: pa.Array) -> pa.Array:
    return pc.fill_null(pc.list_value_length(lists), 0)


def _bytes(lists: pa.Array) -> pa.Array:
    """Bytes of all pieces of each list, int64."""
    edges = np.concatenate([[0], np.cumsum(_pieces(lists).to_numpy())])
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


def _present(column: pa.Array | pa.ChunkedArray, n: int) -> NDArray[np.bool_]:
    if pa.types.is_list(column.type):
        present = pc.fill_null(pc.greater(pc.list_value_length(column), 0), False)
    elif pa.types.is_floating(column.type):
        present = pc.invert(pc.is_null(column, nan_is_null=True))
    else:
        present = pc.is_valid(column)
    return np.asarray(present, bool).reshape(n)


# -------------------------------------------------------------------------------------------------------------- errors
def _known(what: str, name: str, known: Sequence[str], path: Path) -> None:
    if name not in known:
        raise UserError(_unknown(f"{path}: {what}", name, known))


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{what} {name!r} does not exist{hint} There are: {', '.join(known) or 'none'}"


def _lookup(what: str, ids: Sequence[str], table: dict[str, int], path: Path) -> NDArray[np.int64]:
    rows = np.fromiter((table.get(str(i), -1) for i in ids), np.int64, len(ids))
    if (rows < 0).any():
        unknown = str(ids[int(np.argmax(rows < 0))])
        near = difflib.get_close_matches(unknown, list(table)[:20_000], n=3)
        hint = f"; close to it: {', '.join(near)}" if near else ""
        raise UserError(f"{what} {unknown!r} is not in {path}{hint}")
    return rows


_CAUSES = {
    errno.ENOSPC: "the disk is full: free some space or choose a folder on another disk",
    errno.EDQUOT: "the disk quota is used up: free some space or choose a folder on another disk",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "writing is not permitted there: choose another folder or change its permissions",
    errno.EPERM: "writing is not permitted there: choose another folder or change its permissions",
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another folder",
    errno.EEXIST: "a part of the path is a file, not a folder: choose another folder",
    errno.ENOTEMPTY: "something else was written there meanwhile: choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turn what the system refuses while writing into a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        # Libraries below raise some of these without a number, but with its text.
        found = re.search(r"os error (\d+)", str(error))
        code = error.errno or (int(found.group(1)) if found else None)
        for number in _CAUSES:
            if code is None and os.strerror(number) in str(error):
                code = number
        cause = _CAUSES.get(code or 0, _first_line(error))
        raise UserError(f"cannot write the dataset {out}: {cause}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
