"""A further version of a dataset: what is new goes beside what is there, and counts when dataset.yaml names it.

Nothing that an earlier version consists of is changed. Killed at any moment, an append leaves the dataset as it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rawrec.data._updates import ItemUpdates
from rawrec.data.dataset import Dataset
from rawrec.data.digest import combined
from rawrec.data.disk import Lock, clean_lance, writing
from rawrec.data.given import Addresses
from rawrec.data.import_report import ImportReport
from rawrec.data.interactions import PART_NUMBERS
from rawrec.data.meta import ITEMS, ROWS, WITHOUT_QUERIES, Version, write_meta
from rawrec.data.numbering import Numbering
from rawrec.data.parts import PartWriter, item_schema
from rawrec.data.queries import ASKED, Numbers, asked_file, has_file
from rawrec.data.splits import PARTS
from rawrec.data.users import UserRows, bare_users, merged
from rawrec.errors import UserError
from rawrec.files import clean, move, remove, sync
from rawrec.folders import check_own_folder
from rawrec.shown import several

TIMED = ("time_user", "time_global", "leave_one_out")


class Appender(PartWriter):
    """Adds to the dataset at `path`: `add_items` and `add_interactions` in any order, then `finish`.

    part: train, valid or test, where the new interactions are in the default split; moved: what becomes there of the
    parts of all earlier ones, all at once.
    New users and items get the next numbers. Of an item that the dataset has already nothing is changed; with `update`
    its fields that the new row has are replaced (an empty value replaces nothing). pictures: download them, into an
    image field that the dataset has. One process writes at a time.

    Memory: ids, one row buffer, two media buffers; with `update` also the largest fragment of items.

    Raises UserError where there is no dataset, another process writes to it, or the disk is full or read-only.
    """

    def __init__(
        self,
        path: str | Path,
        part: str = "train",
        moved: Mapping[str, str] | None = None,
        update: bool = False,
        pictures: Addresses | None = None,
    ) -> None:
        self._part, self._moved = part, dict(moved or {})
        for name in (part, *self._moved, *self._moved.values()):
            if name not in PARTS:
                raise UserError(f"part {name!r} does not exist: use train, valid or test")
        Dataset.open(path)  # before anything is made beside it
        self._place = Path(path).resolve()
        self._lock = Lock(self._place)
        folder = self._place.with_name(f".{self._place.name}.new")
        try:
            self.data = data = Dataset.open(path)
            with writing(data.path):
                remove(folder)
                folder.mkdir()
                clean(data.path)
                for part in (ITEMS, f"{ITEMS}/data", f"{ITEMS}/_versions", f"{ITEMS}/_transactions"):
                    check_own_folder(data.path / part)
                clean_lance(data.path / ITEMS)
            stored = pq.read_schema(data.path / ROWS)
            rows = [stored.field(name) for name in stored.names if name not in ("user_id", "item_id", "split")]
            items = item_schema(data.fields, data.has_launched)
            source = pictures.open(data.path) if pictures is not None else None
            asked = {name: Numbers(name, data.asked_table(name)) for name in data.meta.asked}
            super().__init__(data.path, folder, items, pa.schema(rows), data.meta.labels, source, asked)
            self.users = UserRows(data.meta.users)
            self._old_codes = Numbering()
            self._old_codes.encode(pa.array(data.item_ids, pa.string()))
            self._old = self._old_codes.ids
            self._item_ids.append(self._old)
            self._user_codes.encode(pa.array(data.user_ids, pa.string()))
            self._items = self._current_items()
            self.STORAGE = self._items.data_storage_version
        except BaseException:
            remove(folder)
            self._lock.release()
            raise
        self._update = update
        self._updates = ItemUpdates(self._items, self._old, folder / "updates.lance", data.fields) if update else None
        self._started = time.monotonic()

    def __enter__(self) -> Appender:
        return self

    def __exit__(self, *_: object) -> None:
        self._abandon()
        if self._lock.held:
            remove(self._folder)
            self._lock.release()

    def known(self, item_ids: pa.Array) -> NDArray[np.bool_]:
        """Which items the dataset had before, `[n]`."""
        return self._old_codes.known(item_ids)

    def column_types(self) -> dict[str, pa.DataType]:
        """The types of the columns of interactions."""
        return dict(zip(self._row_schema.names, self._row_schema.types, strict=True))

    def _current_items(self) -> lance.LanceDataset:
        """The items, without what an append that was killed has left of its own."""
        uri, version = str(self.data.path / ITEMS), self.data.meta.versions[-1].items_version
        with writing(self.out):
            if lance.dataset(uri).version != version:
                lance.dataset(uri, version=version).restore()
            return lance.dataset(uri)

    def _store_items(self, table: pa.Table) -> None:
        if self._updates is not None:
            known = self.known(table.column("item_id"))
            if known.any():
                with writing(self.out):
                    self._duplicates.add(self._updates.stage(table.filter(pa.array(known))))
                table = table.filter(pa.array(~known))
        super()._store_items(table)

    # --------------------------------------------------------------------------------------------------------- finish
    def finish(self, report: ImportReport) -> Dataset:
        """Make the new version and open it. `report` becomes `import-<version>.json`. Raises UserError where nothing
        is new."""
        item_of, bare = self._flush()
        self.vectors.close(self.known)
        n_rows = pq.read_metadata(self._folder / "rows.half").num_rows if self._rows is not None else 0
        replaced = self._updates.count if self._updates is not None else 0
        attributes = self._attributes(report)
        if not (n_rows or self._fragments or replaced or attributes is not None):
            raise UserError(
                f"nothing to append to {self.out}: nothing new was read or kept"
                + several((f"; {one.count} skipped because: {reason}" for reason, one in report.skipped.items()), "")
            )
        if self._moved and not n_rows:
            raise UserError("moving parts of the split goes with new interactions, and there are none")
        meta = self.data.meta
        number = meta.version + 1
        counts = {"users": len(self._user_codes), "items": len(self._known_items())}
        counts |= {"interactions": meta.counts["interactions"] + n_rows, **self._asked_counts()}
        added = {what: count - meta.counts[what] for what, count in counts.items()}
        file, account = f"interactions-{number}.parquet", f"import-{number}.json"
        parts = np.full(n_rows, PART_NUMBERS[self._part], np.int8)
        self._account(report, added, counts, bare)
        with writing(self.out):
            if self._rows is None:
                empty = pq.read_schema(self.data.path / ROWS).empty_table()
                pq.write_table(empty, self._folder / file, compression="zstd", write_page_checksum=True)
            else:
                self._write_rows(file, item_of, parts)
                self._note_labels(file, report)
            self._write_asked(number, added)
            if attributes is not None:
                self._write_users(attributes, f"users-{number}.parquet")
            report.write(self._folder / account)
            version = Version.model_validate(
                {
                    "version": number,
                    "file": file,
                    "counts": added,
                    "items_version": self._commit_items(),
                    "digest": self._digest.hexdigest(),
                    "source": report.source,
                    "users": f"users-{number}.parquet" if attributes is not None else None,
                    "replaced": replaced,
                    "replaced_digest": self._updates.digest.hexdigest() if self._updates and replaced else "",
                    "part": self._part if n_rows else None,
                    "moved": self._moved,
                    "time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
                }
            )
            asked = [asked_file(name, number) for name in self._asked if has_file(name, number, added)]
            for name in (file, account, *filter(None, [version.users]), *asked):
                sync(self._folder / name)
                move(self._folder / name, self._place / name)
            write_meta(meta, self._place, f"dataset-{meta.version}.yaml")
            versions = [*meta.versions, version]
            changes = {
                "schema_version": max(meta.schema_version, WITHOUT_QUERIES),
                "counts": counts,
                "splits": {name: _stated(name, entry, versions) for name, entry in meta.splits.items()},
                "digest": combined([meta.digest, version.digest, version.replaced_digest]),
                "version": number,
                "versions": versions,
            }
            write_meta(meta.model_copy(update=changes), self._place)
        self.checked.remove()
        return Dataset.open(self.out)

    def _attributes(self, report: ImportReport) -> pa.Table | None:
        """The attributes of all users, where those that were given change them; rows of others are counted."""
        if not self.data.meta.users.names():
            return None
        ids = self._user_codes.ids
        new, old = self.users.aligned(ids, report), self.data.user_table()
        later = pa.table([pa.nulls(len(ids) - len(old), kind.type) for kind in old.schema], schema=old.schema)
        old = pa.concat_tables([old, later]).set_column(0, "user_id", ids)
        now = merged(old, new, self._update, report)
        if len(later):
            report.kept["users without attributes"] = bare_users(now.slice(len(now) - len(later)))
        return None if now.equals(old) else now

    def _commit_items(self) -> int:
        """The version of items.lance that has the new and the updated items."""
        items = self._items
        if self._updates is not None and self._updates.count:
            items = self._updates.replace()
        if self._fragments:
            for path in (self._folder / ITEMS / "data").iterdir():
                sync(path)
                move(path, self._place / ITEMS / "data" / path.name)
            append = lance.LanceOperation.Append(self._fragments)
            items = lance.LanceDataset.commit(items.uri, append, read_version=items.version)
        for folder in ("data", "_versions"):
            sync(self._place / ITEMS / folder)
        return items.version

    def _account(self, report: ImportReport, added: dict[str, int], counts: dict[str, int], bare: int) -> None:
        if self._pictures is not None:
            self._pictures.account(report)
        asked = [ASKED[name] for name in self._asked]
        report.kept.update({what: added[what] for what in ["items", "interactions", "users", *asked]})
        if added["items"]:
            report.coverage = {
                name: {"items": count, "share": count / added["items"]} for name, count in self._coverage.items()
            }
        self.checked.account(report)
        if self._duplicates.count:
            report.skip("duplicate item id (the first row is kept)", self._duplicates.examples, self._duplicates.count)
        if self._updates is not None:
            report.kept["items replaced"] = self._updates.count
        self._note_asked(report)
        if bare:
            report.note(self._bare_note(bare, "new items"))
            report.kept["items without a catalogue row"] = bare
        timed = self.data.meta.splits["default"]["kind"] in TIMED
        if added["interactions"] and timed and self._part == "train":
            report.note(
                "the default split goes by time, and the rows appended are in train: if they are later than rows of "
                "valid or test, those are no longer the future (append with part test to keep them so)"
            )
        report.note(
            f"version {self.data.version + 1} has {counts['users']:,} users, {counts['items']:,} items and "
            f"{counts['interactions']:,} interactions"
        )
        report.seconds = round(time.monotonic() - self._started, 3)


def _stated(name: str, entry: dict[str, Any], versions: list[Version]) -> dict[str, Any]:
    """What dataset.yaml says of a split after an append: its counts, and a statement that tells what was appended."""
    made = entry.get("version", 1)
    rows = sum(version.counts["interactions"] for version in versions[made:])
    if not rows:
        return entry
    first = entry.get("as_made", entry["statement"])
    since = f"{first} Since then {rows:,} rows were appended (version {made + 1}"
    since += f" to {len(versions)})" if len(versions) > made + 1 else ")"
    if name != "default":
        return {**entry, "as_made": first, "statement": f"{since}: they are in no part."}
    last = versions[-1]
    if not last.part:
        return entry
    moved: dict[str, str] = {**last.moved}
    before: dict[str, int] = entry["counts"]
    counts: dict[str, int] = dict.fromkeys(PARTS, 0)
    for part, count in before.items():
        counts[moved.get(part, part)] += count
    counts[last.part] += last.counts["interactions"]
    moves = "".join(f", earlier {old} became {new}" for old, new in moved.items())
    now = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    statement = f"{since}, the last {last.counts['interactions']:,} to {last.part}{moves}. Rows now: {now}."
    return {**entry, "as_made": first, "statement": statement, "counts": counts}
