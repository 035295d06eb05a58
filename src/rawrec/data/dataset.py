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
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rawrec.arguments import checked
from rawrec.data.arrays import lists_of_codes
from rawrec.data.disk import Lock, check_lance, writing
from rawrec.data.division import Rows, make_split
from rawrec.data.import_report import ImportReport
from rawrec.data.interactions import Interactions
from rawrec.data.items import Items
from rawrec.data.meta import (
    ITEMS,
    ROWS,
    Fields,
    again,
    check_fields,
    check_part,
    read_meta,
    rows_of,
    split_entry,
    split_file,
    write_meta,
)
from rawrec.data.names import NAMES, is_name, known, lookup
from rawrec.data.splits import SplitSpec
from rawrec.errors import UserError
from rawrec.files import clean, replacing
from rawrec.folders import own_folder
from rawrec.forks import check_not_forked
from rawrec.reading import read_table
from rawrec.remote import local

__all__ = ["Dataset", "Fields"]


class Dataset(Items, Interactions):
    """An imported dataset. Opening reads `dataset.yaml` and file headers only; columns and media are read on demand."""

    @classmethod
    @checked()
    def open(cls, path: str | Path, version: int | None = None, *, sums: bool = True) -> Dataset:
        """The dataset in the folder `path`, as of its newest or of an earlier version. sums: compare files with their
        check sums as they are read.

        Raises UserError where there is none, or a newer or a damaged one, or no such version.
        """
        check_not_forked()
        path = local(path, "dataset")
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
            check_lance(path / ITEMS)
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

    def fingerprint(self) -> str:
        """32 hex digits that change when items or interactions do (not with splits): a key for caches."""
        self.check_here()
        size = sum((self.path / entry.file).stat().st_size for entry in self.meta.versions)
        state = f"{self.meta.digest} {self._table.version} {self.n_items} {self.n_interactions} {size}"
        return hashlib.blake2b(state.encode(), digest_size=16).hexdigest()

    # ------------------------------------------------------------------------------------------------ users, and when
    @cached_property
    def user_ids(self) -> NDArray[np.object_]:
        """Original ids, `[n_users]`, by dense index."""
        ids = np.empty(self.n_users, object)
        for batch in self.interaction_batches(["user", "user_id"]):
            ids[batch["user"].to_numpy()] = batch["user_id"].to_numpy(zero_copy_only=False)
        return ids

    def user_rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Dense indices of user ids. Raises UserError that names the first unknown id and close matches."""
        return lookup("user", ids, self._user_lookup, self._name())

    def has_user(self, user: str) -> bool:
        """Whether there is a user of this id."""
        return user in self._user_lookup

    @cached_property
    def _user_lookup(self) -> dict[str, int]:
        return dict(zip(self.user_ids.tolist(), range(self.n_users), strict=True))

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

    # --------------------------------------------------------------------------------------------------------- splits
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
