"""The interactions and splits of a dataset, checked against its items, its counts and themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rawrec.data._validate_asked import check_asked, check_asked_rows, digest_asked
from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset
from rawrec.data.digest import ContentDigest
from rawrec.data.findings import EXAMPLES, Validation
from rawrec.data.meta import ROWS
from rawrec.data.splits import PARTS, SplitSpec
from rawrec.data.users import user_schema
from rawrec.reading import parquet, read_table

ROWS_AT_ONCE = 1 << 19
STATED = ("statement", "as_made", "counts", "version")
"""What dataset.yaml says of a split beside its settings."""


@dataclass
class _Watch:
    """A split under watch: no training row of a user may be later than the user's rows of valid or test (of anybody's,
    where `per` is "all"), or no item of valid or test may have training rows (`per` is "item").

    parts: of the first rows. problem: a violation is one; else it is worth a note.
    """

    name: str
    per: str
    parts: NDArray[np.int8]
    problem: bool
    size: int

    def __post_init__(self) -> None:
        self.last = np.full(self.size, np.iinfo(np.int64).min)
        self.first = np.full(self.size, np.iinfo(np.int64).max)

    def see(self, row: int, users: NDArray[Any], items: NDArray[Any], times: NDArray[np.int64] | None) -> None:
        parts = self.parts[row : row + len(users)]
        keys = {"user": users, "item": items}.get(self.per, np.zeros(len(users), np.int64))[: len(parts)]
        train, held = parts == 0, parts > 0
        if self.per == "item" or times is None:
            self.last[keys[train]] = 1
            self.first[keys[held]] = 0
            return
        times = times[: len(parts)]
        np.maximum.at(self.last, keys[train], times[train])
        np.minimum.at(self.first, keys[held], times[held])

    def tell(self, data: Dataset, found: Validation) -> None:
        broken = np.flatnonzero(self.last > self.first)
        what = {
            "item": "an item that is held out has training rows",
            "user": "a user has training rows that are later than some of valid or test",
            "all": "training rows are later than some of valid or test",
        }[self.per]
        if len(broken) and self.problem:
            ids = {"item": lambda: data.item_ids, "user": lambda: data.user_ids, "all": lambda: ["of all"]}[self.per]()
            advice = "the rows of train know what comes after: make another split with rawrec split, train with that"
            found.add(f"split {self.name}", what, len(broken), [ids[i] for i in broken[:EXAMPLES].tolist()], advice)
        elif len(broken):
            found.notes.append(f"split {self.name}, since rows were appended or moved: {what} ({len(broken):,} times)")


def check_rows(data: Dataset, found: Validation, item_hashes: NDArray[np.uint64], bar: Bar) -> None:
    """Check all interactions and stored splits. item_hashes: of the items' ids, `[n_items]`, 0 where unknown."""
    watches = _watches(data, found)
    _check_context(data, found)
    owners = check_asked(data, found)
    user_hashes = np.zeros(data.n_users, np.uint64)
    keys = np.zeros(data.n_interactions, np.uint64)
    task = bar.progress.add_task("interactions", total=1.0, rows=0)
    start = users = 0
    whole_files = 0
    for entry in data.meta.versions:
        row, users = start, users + entry.counts["users"]
        digest = found.digests.get(entry.version)
        with (
            found.reading(entry.file),
            parquet(data.path / entry.file) as file,
        ):
            expected = pq.read_schema(data.path / ROWS)
            if not file.schema_arrow.equals(expected):
                found.add(entry.file, f"its columns are not those of {ROWS}", 1)
                continue
            for batch in file.iter_batches(ROWS_AT_ONCE):
                _check_batch(data, found, entry.file, batch, row, users, user_hashes, item_hashes, watches, keys)
                check_asked_rows(data, found, entry, batch, row, owners)
                if digest is not None:
                    _digest(digest, batch)
                row += len(batch)
                bar.progress.update(task, completed=row / data.n_interactions, rows=row)
        start += entry.counts["interactions"]
        whole_files += row == start
        if digest is not None and entry.users is not None:
            with found.reading(entry.users):
                digest.update("users", read_table(data.path / entry.users, links=True))
        if digest is not None:
            digest_asked(data, found, entry, digest)
        if digest is not None:
            differs = digest.hexdigest() != entry.digest
            found.add("dataset.yaml", f"the digest of version {entry.version} is not that of its content", differs)
            found.count("digests", 1)
    if whole_files < len(data.meta.versions):
        return  # what follows is of all interactions
    _check_users(data, found, user_hashes)
    known = user_hashes[user_hashes != 0]
    found.add("dataset.yaml", "users that it counts have no interaction", data.n_users - len(known))
    found.add(ROWS, "two users have the same id", len(known) - len(np.unique(known)))
    for watch in watches:
        with found.reading(f"split {watch.name}"):
            watch.tell(data, found)
    keys.sort()
    again = int((keys[1:] == keys[:-1]).sum())
    if again:
        found.notes.append(f"{again:,} interactions repeat the user, item and time of another")


def _check_context(data: Dataset, found: Validation) -> None:
    """Check that the columns of the context are there, and of a kind that can be read."""
    context = data.meta.context
    for name in context.names():
        with found.reading(f"the context's {name}"):
            if name in context.categorical:
                data.row_categories(name)
            else:
                data.row_numbers(name)
            found.count("columns of the context", 1)


def _check_users(data: Dataset, found: Validation, user_hashes: NDArray[np.uint64]) -> None:
    """Check the files of the users' attributes; user_hashes: of the users' ids, 0 where unknown."""
    n_users = 0
    for entry in data.meta.versions:
        n_users += entry.counts["users"]
        if entry.users is None:
            continue
        with found.reading(entry.users):
            table = read_table(data.path / entry.users, links=True)
            table.validate(full=True)
            if table.schema != user_schema(data.meta.users):
                found.add(entry.users, f"its columns are not those in dataset.yaml: {table.schema.names}", 1)
                continue
            if len(table) != n_users:
                found.add(entry.users, f"it has {len(table)} rows, and version {entry.version} has {n_users} users", 1)
                continue
            ids = table.column("user_id")
            differs = (pl.Series(ids).hash().to_numpy() != user_hashes[:n_users]) & (user_hashes[:n_users] != 0)
            at = np.flatnonzero(differs)
            found.add(entry.users, "is not the id of the row's user", len(at), [ids[i].as_py() for i in at[:EXAMPLES]])
            for name in data.meta.users.numeric:
                values = table.column(name).drop_null().to_numpy()
                found.add(f"{entry.users}, {name}", "is not finite", int((~np.isfinite(values)).sum()))
            found.count("rows of users", len(table))


def _digest(digest: ContentDigest, batch: pa.RecordBatch) -> None:
    names = [name for name in batch.schema.names if name not in ("user", "item", "split")]
    digest.update("interactions", batch.select(names))


def _check_batch(
    data: Dataset,
    found: Validation,
    file: str,
    batch: pa.RecordBatch,
    row: int,
    n_users: int,
    user_hashes: NDArray[np.uint64],
    item_hashes: NDArray[np.uint64],
    watches: list[_Watch],
    keys: NDArray[np.uint64],
) -> None:
    """row: of the first interaction of the batch among all of them. n_users: of the version and those before it."""
    batch.validate(full=True)
    found.count("interactions", len(batch))
    meta = data.meta

    def add(what: str, bad: NDArray[np.bool_], column: str) -> None:
        at = np.flatnonzero(bad)
        examples = [f"row {row + i} {batch.column(column)[i].as_py()!r}" for i in at[:5].tolist()]
        found.add(f"{file}, {column}", what, len(at), examples)

    labels = meta.labels if len(meta.labels) == 1 else []  # of several, some may be empty
    needed = ["user", "item", "user_id", "item_id", *["timestamp"] * meta.has_time, *labels, "split"]
    empty = np.zeros(len(batch), bool)
    for name in needed:
        bad = batch.column(name).is_null().to_numpy(zero_copy_only=False)
        add("is empty", bad, name)
        empty |= bad
    if len(meta.labels) > 1:
        none = [batch.column(name).is_null().to_numpy(zero_copy_only=False) for name in meta.labels]
        add("is empty, and so are all other labels", np.logical_and.reduce(none), meta.labels[0])
    good = ~empty
    for name, limit in (("user", n_users), ("item", data.n_items)):
        values = batch.column(name).fill_null(0).to_numpy()
        bad = good & ((values < 0) | (values >= limit))
        add(f"is not in 0..{limit - 1}", bad, name)
        good &= ~bad
    users, items = (batch.column(name).fill_null(0).to_numpy()[good] for name in ("user", "item"))
    hashes = {name: pl.Series(batch.column(name)).hash().to_numpy()[good] for name in ("user_id", "item_id")}
    new = user_hashes[users] == 0
    user_hashes[users[new]] = hashes["user_id"][new]
    for name, rows, known in (("user_id", users, user_hashes), ("item_id", items, item_hashes)):
        differs = np.zeros(len(batch), bool)
        differs[good] = (known[rows] != hashes[name]) & (known[rows] != 0)
        add(f"is not the id of the row's {name.removesuffix('_id')}", differs, name)
    for name in meta.labels:
        values = batch.column(name).fill_null(0).to_numpy()
        add("is not finite", ~np.isfinite(values), name)
    parts = batch.column("split").fill_null(0).to_numpy()
    add("is none of -1, 0, 1, 2", (parts < -1) | (parts >= len(PARTS)), "split")
    times = batch.column("timestamp").fill_null(0).to_numpy() if meta.has_time else None
    if good.all():
        for watch in watches:
            watch.see(row, users, items, times)
    same = pl.DataFrame({"user": users, "item": items} | ({} if times is None else {"time": times[good]}))
    mine = keys[row : row + len(batch)]
    mine[:] = np.arange(row, row + len(batch))  # what could not be used repeats nothing
    mine[good] = same.hash_rows().to_numpy()


# -------------------------------------------------------------------------------------------------------------- splits
def _watches(data: Dataset, found: Validation) -> list[_Watch]:
    """Check the stored splits; those whose rule can be checked against the interactions."""
    watches = []
    for name, entry in data.meta.splits.items():
        where = f"splits/{name}.parquet" if name != "default" else "the default split"
        with found.reading(where):
            if name != "default":
                read_table(data.path / where, links=True).validate(full=True)
            parts = data.split(name)
            found.count("splits", 1)
            odd = int(((parts < -1) | (parts >= len(PARTS))).sum())
            found.add(where, "a part is none of -1, 0, 1, 2", odd)
            SplitSpec.model_validate({key: value for key, value in entry.items() if key not in STATED})
            counts = {part: int((parts == i).sum()) for i, part in enumerate(PARTS)}
            says = {part: entry["counts"].get(part) for part in PARTS}
            found.add(where, f"dataset.yaml counts {says}, there are {counts}", counts != says)
            per = _per(data, entry)
            if per is None:
                continue
            size = {"user": data.n_users, "item": data.n_items, "all": 1}[per]
            if name != "default":
                watches.append(_Watch(name, per, parts, True, size))
                continue
            imported = read_table(data.path / ROWS, ["split"], links=True).column("split").to_numpy()
            watches.append(_Watch(name, per, imported, True, size))
            if data.version > 1:
                watches.append(_Watch(name, per, parts, False, size))
    return watches


def _per(data: Dataset, entry: dict[str, Any]) -> str | None:
    """By what a split must be in order."""
    kind = entry["kind"]
    if kind == "new_items":
        return "item"
    if not data.meta.has_time or (kind == "time_global" and "together" in entry):  # a list goes by its last row
        return None
    return {"time_user": "user", "leave_one_out": "user", "time_global": "all"}.get(kind)
