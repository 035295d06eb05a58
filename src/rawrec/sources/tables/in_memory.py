"""Tables that a program holds: data frames of pandas and polars, tables and streams of Arrow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import pyarrow as pa

from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.tables.columnar import plain, rows_at_once
from rawrec.sources.tables.source import Batch, Source

KINDS = "a path, a data frame of pandas or polars, or a table, record batch or stream of pyarrow"


@runtime_checkable
class Frame(Protocol):
    """What gives itself as a stream of Arrow: pandas and polars `DataFrame`, pyarrow `Table`, `RecordBatch` and
    `RecordBatchReader`, and whatever else has the interface."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


Table: TypeAlias = str | Path | Frame
"""A table on disk, or one in memory."""


def table_name(table: Table) -> str:
    """What a table is called in an account: the name of its file, else its class, as `pandas.DataFrame`."""
    if isinstance(table, str | Path):
        return Path(table).name
    return f"{type(table).__module__.partition('.')[0]}.{type(table).__name__}"


def arrow_table(data: Any, where: str) -> tuple[pa.Table, list[str]]:
    """A data frame, or a dict of columns, as a table of Arrow, whose values are checked; and the columns that are the
    index of a data frame of pandas, which the table has not.

    UserError for what is no table, for a column of mixed values, and for columns of one name.
    """
    try:
        table: pa.Table = data if isinstance(data, pa.Table) else pa.table(data)
        table.validate(full=True)
    except (TypeError, ValueError, AttributeError, OverflowError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where} is no table of Arrow ({type(data).__name__}): {reason}") from None
    index = _index(table.schema)
    return (table.drop_columns(index) if index else table), index


def _index(schema: pa.Schema) -> list[str]:
    """The columns that pandas says are its index."""
    try:
        said = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
        names = said.get("index_columns", []) if isinstance(said, dict) else []
    except ValueError:
        return []
    return [name for name in names if isinstance(name, str) and name in schema.names]


class InMemory(Source):
    """A data frame, or another table in memory. what: what it holds, for messages. The index of a data frame of pandas
    is left out, which is noted unless it merely numbers the rows. A stream is read whole.

    Raises UserError for what is no table.
    """

    format = "arrow"
    holds_bytes = True

    def __init__(self, data: Any, report: ImportReport, what: str) -> None:
        super().__init__(Path(what), report)
        if isinstance(data, Mapping) or not (isinstance(data, Frame) or hasattr(data, "to_records")):
            hint = ": give its .collect()" if hasattr(data, "collect") else ""
            raise UserError(f"{what}: {type(data).__name__} is no table: give {KINDS}{hint}")
        self.table, self.index = arrow_table(data, what)
        self.columns = self.table.column_names
        for name in self.index:
            report.note(
                f"{what}: the index of the data frame"
                + ("" if name.startswith("__index_level_") else f", {name!r},")
                + " is left out: df.reset_index() makes it a column"
            )

    @property
    def lies_in(self) -> None:
        return None

    def require(self, setting: str, names: Sequence[str | None]) -> None:
        for name in names:
            if name in self.index and name not in self.columns:
                raise UserError(f"{setting}: {name!r} is the index of {self.path}, no column: give df.reset_index()")
        super().require(setting, names)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        self.single(columns)
        wanted = self.table.select(list(dict.fromkeys(columns)))
        number, total = 1, max(self.table.num_rows, 1)
        for part in wanted.to_batches(rows_at_once(wanted.schema.types)):
            rows = np.arange(number, number + part.num_rows)
            number += part.num_rows
            self.fraction = (number - 1) / total
            yield Batch(self.name, rows, {name: plain(part.column(name)) for name in columns})
