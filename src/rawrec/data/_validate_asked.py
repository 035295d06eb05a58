"""The queries and sessions of a dataset, checked: every one is there once, and interactions name those that exist."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.data.dataset import Dataset
from rawrec.data.digest import ContentDigest
from rawrec.data.findings import EXAMPLES, Validation
from rawrec.data.meta import Version
from rawrec.data.queries import ASKED, SCHEMAS, asked_file, has_file
from rawrec.reading import read_table


def check_asked(data: Dataset, found: Validation) -> NDArray[np.int32]:
    """Check the tables. The user of every session, `[n_sessions]`; none where that is not known."""
    owners = np.zeros(0, np.int32)
    for column in data.meta.asked:
        table = _read(data, found, column)
        if table is None:
            continue
        what = ASKED[column]
        frame = pl.DataFrame(pl.from_arrow(table))
        text = frame[frame.columns[-1]]
        bare = (text.str.strip_chars() == "").fill_null(True)
        again = ~frame.select(pl.struct(pl.all()).is_first_distinct()).to_series() & ~bare
        rows = again.arg_true()[:EXAMPLES].to_list()
        found.add(what, f"a {column} is empty", int(bare.sum()))
        found.add(what, f"a {column} stands there twice", int(again.sum()), [f"row {i} {text[i]!r}" for i in rows])
        found.count(what, len(table))
        if column == "session":
            owners = frame["user"].to_numpy()
            strange = (owners < 0) | (owners >= data.n_users)
            found.add(what, f"a user is not in 0..{data.n_users - 1}", int(strange.sum()))
    return owners


def _read(data: Dataset, found: Validation, column: str) -> pa.Table | None:
    """The table of all versions; None where a file cannot be read whole."""
    tables = []
    for entry in data.meta.versions:
        if not has_file(column, entry.version, entry.counts):
            continue
        name = asked_file(column, entry.version)
        with found.reading(name):
            table = read_table(data.path / name, links=True)
            table.validate(full=True)
            count = entry.counts[ASKED[column]]
            found.add(name, f"its columns are not {', '.join(SCHEMAS[column].names)}", table.schema != SCHEMAS[column])
            found.add(name, f"it has {len(table)} rows, dataset.yaml says {count}", len(table) != count)
            if table.schema == SCHEMAS[column] and len(table) == count:
                tables.append(table)
                continue
        return None
    return pa.concat_tables(tables)


def check_asked_rows(
    data: Dataset, found: Validation, entry: Version, batch: pa.RecordBatch, row: int, owners: NDArray[np.int32]
) -> None:
    """Check a batch of the interactions of a version. row: of its first; owners: the user of every session."""
    for column in data.meta.asked:
        what = ASKED[column]
        limit = sum(v.counts.get(what, 0) for v in data.meta.versions[: entry.version])
        values = batch.column(column).fill_null(-1).to_numpy()
        given = batch.column(column).is_valid().to_numpy(zero_copy_only=False)
        _add(found, f"{entry.file}, {column}", f"is not in 0..{limit - 1}", given & (values < 0), values, row)
        _add(found, f"{entry.file}, {column}", f"is not in 0..{limit - 1}", values >= limit, values, row)
        if column == "session" and len(owners) >= limit:
            inside = (values >= 0) & (values < limit)
            other = np.zeros(len(values), bool)
            other[inside] = owners[values[inside]] != batch.column("user").fill_null(-1).to_numpy()[inside]
            _add(found, f"{entry.file}, {column}", "is of another user", other, values, row)


def _add(found: Validation, where: str, what: str, bad: NDArray[np.bool_], values: NDArray[Any], row: int) -> None:
    at = np.flatnonzero(bad)
    found.add(where, what, len(at), [f"row {row + i} {values[i]}" for i in at[:EXAMPLES].tolist()])


def digest_asked(data: Dataset, found: Validation, entry: Version, digest: ContentDigest) -> None:
    """Take what a version brought into its digest."""
    for column in data.meta.asked:
        if has_file(column, entry.version, entry.counts):
            name = asked_file(column, entry.version)
            with found.reading(name):
                digest.update(ASKED[column], read_table(data.path / name, links=True))
