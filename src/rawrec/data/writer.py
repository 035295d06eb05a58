"""Writing a dataset folder: streaming, in bounded memory, and atomically.

A dataset is written beside its place and moved there whole, so that a killed import leaves nothing that looks like one.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rawrec.data.dataset import Dataset
from rawrec.data.disk import Lock, writing
from rawrec.data.division import Rows, make_split
from rawrec.data.given import Addresses
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import (
    ITEMS,
    ROWS,
    USERS,
    Columns,
    Fields,
    Meta,
    Rated,
    Version,
    read_version,
    split_entry,
    write_meta,
)
from rawrec.data.names import unknown_name
from rawrec.data.parts import PartWriter, check_names, item_schema
from rawrec.data.queries import ASKED, Numbers
from rawrec.data.splits import SplitSpec
from rawrec.data.users import UserRows, account
from rawrec.errors import UserError
from rawrec.files import clean, remove, sync
from rawrec.folders import beside, restore, swap, sync_all
from rawrec.forks import check_not_forked
from rawrec.reading import parquet
from rawrec.remote import refuse
from rawrec.shown import several


class DatasetWriter(PartWriter):
    """Writes a dataset folder, streaming: `add_items` and `add_interactions` in any order, then `finish`.

    Everything goes to a hidden folder beside `out`, which takes its place in one atomic step at the end: killed at any
    moment, or left by an exception, there is nothing at `out` that looks whole, and the next import into the same place
    removes what was left, and does not decode the pictures again that were found whole. One process writes to a place
    at a time.

    Memory: ids, one row buffer, two media buffers, what `make_split` takes, and a byte per interaction at `finish`.

    fields: the item fields. labels: label columns of the interactions, empty for positive-only data. label_rule: how a
    label came to be, e.g. "rating >= 4". extra: further interaction columns and their types; context: those of them
    that a ranker may read, by kind; of `query` and `session`, too. users: attributes of users, whose rows `users`
    takes. has_time, has_launched: whether interactions have a `timestamp`, items a `launched` time. overwrite: replace
    a dataset that is there. pictures: pictures given by address, which become one more image field. asked: which of
    `query` and `session` the interactions have. rated: see `Rated`.
    needed: fields that were asked for, `pictures` being another; None: all. allow_empty: whether one of them may be one
    that no item has; otherwise `finish` refuses it.

    Raises UserError where the place is taken, cannot be written, is full, or where a value is not acceptable.
    """

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
        context: Columns | None = None,
        users: Columns | None = None,
        has_time: bool,
        overwrite: bool = False,
        has_launched: bool = False,
        pictures: Addresses | None = None,
        asked: Collection[str] = (),
        rated: Rated = "unseen",
        needed: Collection[str] | None = None,
        allow_empty: bool = True,
    ) -> None:
        check_not_forked()
        self._allow_empty, self._needed = allow_empty, None if needed is None else {*needed}
        if pictures is not None:
            if self._needed is not None:
                self._needed.add(pictures.field)
            fields = fields.model_copy(update={"image": [*fields.image, pictures.field]})
        self._meta: dict[str, Any] = {
            "source": source,
            "generated": generated,
            "fields": fields,
            "labels": labels,
            "label_rule": label_rule,
            "extra": list(extra or {}),
            "context": context or Columns(),
            "users": users or Columns(),
            "rated": rated,
            "has_time": has_time,
        }
        numbers = {name: Numbers(name) for name in ASKED if name in asked}
        check_names(fields, labels, list(extra or {}), list(numbers))
        self.users = UserRows(users or Columns())
        row_schema = pa.schema(
            [("user", pa.int32()), ("item", pa.int32())]
            + ([("timestamp", pa.int64())] if has_time else [])
            + [(name, pa.float32()) for name in labels]
            + list((extra or {}).items())
            + [(name, pa.int32()) for name in numbers]
        )
        source_of_pictures = pictures.open(Path(out)) if pictures is not None else None
        self._place = _Place(Path(out), overwrite)
        items = item_schema(fields, has_launched)
        super().__init__(Path(out), self._place.folder, items, row_schema, labels, source_of_pictures, numbers)
        self._started = time.monotonic()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandon()
        self._place.leave()

    # --------------------------------------------------------------------------------------------------------- finish
    def finish(self, split: SplitSpec, report: ImportReport, catalogue_alone: bool = False) -> Dataset:
        """Complete the dataset, put it in its place and open it.

        Items that occur in interactions only are added without content. `report` gets kept counts, coverage and
        duplicates, and becomes `import.json`. Raises UserError where there are no interactions or the split is
        impossible, or a field is empty that must not be. catalogue_alone: there are no interactions, and so no model
        can be trained on it.
        """
        if catalogue_alone:
            self._store_rows(pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())}))
        item_of, bare = self._flush()
        self.vectors.close()
        if self._rows is None or not (len(self._user_codes) or catalogue_alone):
            raise UserError(
                f"nothing to import into {self.out}: no interaction was read or kept"
                + several((f"; {one.count} skipped because: {reason}" for reason, one in report.skipped.items()), "")
            )
        with writing(self.out):
            operation = lance.LanceOperation.Overwrite(self._item_schema, self._fragments)
            table = lance.LanceDataset.commit(str(self._folder / ITEMS), operation, enable_stable_row_ids=True)
        n_items = len(self._known_items())
        if catalogue_alone:
            parts, statement = np.zeros(0, np.int8), "a catalogue alone, without interactions"
        else:
            parts, statement = self._split(split, item_of, n_items)
        with writing(self.out):
            self._write_rows(ROWS, item_of, parts)
        self._note_labels(ROWS, report)
        counts = {"users": len(self._user_codes), "items": n_items, "interactions": len(parts), **self._asked_counts()}
        self._write_asked(1, counts)
        self._account(report, counts, bare)
        empty = [name for name in report.empty_fields() if self._needed is None or name in self._needed]
        if empty and not self._allow_empty:
            images = self._meta["fields"].image
            raise UserError(
                several((report.why_empty(name, name in images) for name in empty), "; ")
                + ". Leave out what is not there, or keep it empty with --allow-empty (allow_empty=True)"
            )
        attributes = USERS if self.users.columns.names() else None
        if attributes:
            table_of_users = self.users.aligned(self._user_codes.ids, report)
            account(table_of_users, report)
            self._write_users(table_of_users, attributes)
        digest = self._digest.hexdigest()
        first = Version(
            version=1,
            file=ROWS,
            counts=counts,
            items_version=table.version,
            digest=digest,
            source=self._meta["source"],
            users=attributes,
        )
        meta = Meta(
            **self._meta,
            counts=counts,
            splits={"default": split_entry(split, statement, parts)},
            digest=digest,
            versions=[first],
        )
        with writing(self.out):
            report.write(self._folder / "import.json")
            write_meta(meta, self._folder)
            self._place.take()
        self.checked.remove()
        return Dataset.open(self.out)

    def _split(self, spec: SplitSpec, item_of: pa.Array, n_items: int) -> tuple[NDArray[np.int8], str]:
        spec.check_asked(list(self._asked))
        for name in spec.columns:
            if name not in self._row_schema.names[2:]:
                raise UserError(unknown_name(f"{self.out}: split column", name, self._row_schema.names[2:]))
        present = None
        if spec.field:
            meta = Meta(**self._meta, counts={"items": n_items, **self._asked_counts()}, splits={}, digest="")
            present = Dataset(self._folder, meta, lance.dataset(str(self._folder / ITEMS))).present(spec.field)
        half = self._folder / "rows.half"

        def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
            with parquet(half) as source:
                for batch in source.iter_batches(1 << 18, columns=columns):
                    if (at := batch.schema.get_field_index("item")) >= 0:
                        batch = batch.set_column(at, "item", item_of.take(batch.column(at)))
                    yield batch

        rows = Rows(pq.read_metadata(half).num_rows, self._row_schema.names, read)
        return make_split(spec, rows, n_items, present)

    def _account(self, report: ImportReport, counts: dict[str, int], bare: int) -> None:
        report.source = report.source or self._meta["source"]
        report.kept.update({what: counts[what] for what in ("items", "interactions", "users")} | self._asked_counts())
        report.coverage = {
            name: {"items": count, "share": count / counts["items"]} for name, count in self._coverage.items()
        }
        if self._pictures is not None:
            self._pictures.account(report)
        self.checked.account(report)
        if self._duplicates.count:
            examples = self._duplicates.examples
            report.skip("duplicate item id (the first row is kept)", examples, count=self._duplicates.count)
        self._note_asked(report)
        if bare:
            report.note(self._bare_note(bare, "items"))
            report.kept["items without a catalogue row"] = bare
        report.seconds = round(time.monotonic() - self._started, 3)


class _Place:
    """The place of a dataset: locked while it is written, taken in one atomic step.

    Siblings of `out`: `.<name>.lock` (held by the writing process), `.<name>.new` (being written, or what was just
    replaced) and, where the system cannot exchange two folders, for a moment `.<name>.old` (what is being replaced).
    Whoever holds the lock may remove what a dead process left of the others.
    """

    def __init__(self, out: Path, overwrite: bool) -> None:
        refuse(out, "a dataset")
        with writing(out):
            self.out = out.resolve()
            self.out.parent.mkdir(parents=True, exist_ok=True)
        if not self.out.name:
            raise UserError(f"{out} cannot be a dataset folder: name one that does not exist yet")
        self.folder = self.out.with_name(f".{self.out.name}.new")
        self._overwrite = overwrite
        self._lock = Lock(self.out)
        try:
            with writing(self.out):
                restore(self.out)
                clean(self.out.parent)
                for left in (self.folder, beside(self.out)):
                    remove(left)
            self._check()
            with writing(self.out):
                self.folder.mkdir()
        except BaseException:
            self._lock.release()
            raise

    def _check(self) -> bool:
        """Whether there is a dataset that may be replaced. Raises UserError where the place is taken."""
        if self.out.is_mount():
            raise UserError(f"{self.out} is a mount point, in whose place no folder can be put: name one within it")
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
        sync_all(self.folder)  # on the disk before its name says that it is whole
        if self._check():
            swap(self.folder, self.out)
        else:
            self.folder.rename(self.out)
            sync(self.out.parent)
        self._lock.release()

    def leave(self) -> None:
        """Remove what was not taken."""
        if self._lock.held:
            remove(self.folder)
            self._lock.release()
