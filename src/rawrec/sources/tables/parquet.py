"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from rawrec.data.import_report import ImportReport
from rawrec.sources.tables.columnar import plain, rows_at_once
from rawrec.sources.tables.source import Batch, Source, reading


class Parquet(Source):
    """at_once: rows of a batch; None: as the types of its columns say."""

    format = "parquet"
    holds_bytes = True

    def __init__(self, path: Path, report: ImportReport, at_once: int | None = None) -> None:
        super().__init__(path, report)
        self.at_once = at_once
        with reading(path):
            self.file = pq.ParquetFile(path, pre_buffer=False)  # else it keeps all it has read
        self.schema = self.file.schema_arrow
        self.columns = list(self.schema.names)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        self.single(columns)
        size = self.at_once or rows_at_once([self.schema.field(name).type for name in columns])
        total, number = max(self.file.metadata.num_rows, 1), 1
        with reading(self.path):
            for table in self.file.iter_batches(batch_size=size, columns=list(dict.fromkeys(columns))):
                numbers = np.arange(number, number + table.num_rows)
                number += table.num_rows
                self.fraction = (number - 1) / total
                yield Batch(self.name, numbers, {name: plain(table.column(name)) for name in columns})
