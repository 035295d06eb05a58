"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rawrec.data.arrays import pc
from rawrec.data.import_report import ImportReport
from rawrec.sources.tables.columnar import plain, rows_at_once
from rawrec.sources.tables.source import Batch, Source, reading


class Parquet(Source):
    """at_once: rows of a batch; None: as the types of its columns say. `columns`: those of the schema, and fields of
    structs that were asked for by `seek`: `attributes.brand`."""

    format = "parquet"
    holds_bytes = True

    def __init__(self, path: Path, report: ImportReport, at_once: int | None = None) -> None:
        super().__init__(path, report)
        self.at_once = at_once
        with reading(path):
            self.file = pq.ParquetFile(path, pre_buffer=False)  # else it keeps all it has read
        self.schema = self.file.schema_arrow
        self.columns = list(self.schema.names)

    def seek(self, names: Sequence[str | None]) -> None:
        for name in dict.fromkeys(names):
            if name is not None and name not in self.columns and self._type(name.split(".")) is not None:
                self.columns.append(name)

    def _type(self, parts: list[str]) -> pa.DataType | None:
        """The type of a field within structs; None where there is none."""
        first, *within = parts
        if not within or self.schema.names.count(first) != 1:
            return None
        kind = self.schema.field(first).type
        for part in within:
            if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
                return None
            kind = kind.field(part).type
        return kind

    def _parts(self, name: str) -> list[str]:
        """The fields, from the outermost, that lead to a column."""
        return [name] if name in self.schema.names else name.split(".")

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        self.single(columns)
        kinds = [self._type(self._parts(name)) or self.schema.field(name).type for name in columns]
        size = self.at_once or rows_at_once(kinds)
        total, number = max(self.file.metadata.num_rows, 1), 1
        with reading(self.path):
            for table in self.file.iter_batches(batch_size=size, columns=list(dict.fromkeys(columns))):
                numbers = np.arange(number, number + table.num_rows)
                number += table.num_rows
                self.fraction = (number - 1) / total
                yield Batch(self.name, numbers, {name: plain(_within(table, self._parts(name))) for name in columns})


def _within(table: pa.RecordBatch, parts: list[str]) -> pa.Array:
    """The values of a column, or of a field within it, null where what it is in is null."""
    column = table.column(parts[0])
    return pc.struct_field(column, parts[1:]) if len(parts) > 1 else column
