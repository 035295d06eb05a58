"""Arrow tables on disk: streams, as `datasets` saves them, and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from rawrec.data.import_report import ImportReport
from rawrec.sources.tables.columnar import plain, rows_at_once
from rawrec.sources.tables.source import Batch, Source, reading

MAGIC = b"ARROW1"


class ArrowTable(Source):
    """An Arrow stream or file. It is mapped, so that memory holds no more than a batch, and every batch is checked
    before use: Arrow itself believes the offsets that it reads. Raises UserError for a file that is none."""

    format = "arrow"
    holds_bytes = True

    def __init__(self, path: Path, report: ImportReport) -> None:
        super().__init__(path, report)
        with reading(path), pa.memory_map(str(path)) as raw:
            self.schema = _open(raw, None).schema
            self.columns = _names(self.schema)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        self.single(columns)
        names, number = list(dict.fromkeys(columns)), 1
        size = rows_at_once([self.schema.field(name).type for name in names])
        with reading(self.path), pa.memory_map(str(self.path)) as raw:
            total = max(raw.size(), 1)
            reader = _open(raw, pa.ipc.IpcReadOptions(included_fields=[self.schema.get_field_index(n) for n in names]))
            for whole in _parts(reader):
                self.fraction = raw.tell() / total
                whole.validate(full=True)
                for at in range(0, whole.num_rows, size):
                    part = whole.slice(at, size)
                    rows = np.arange(number, number + part.num_rows)
                    number += part.num_rows
                    yield Batch(self.name, rows, {name: plain(part.column(name)) for name in columns})


def _open(
    raw: pa.NativeFile, options: pa.ipc.IpcReadOptions | None
) -> pa.ipc.RecordBatchStreamReader | pa.ipc.RecordBatchFileReader:
    is_file = raw.read(len(MAGIC)) == MAGIC
    raw.seek(0)
    return (pa.ipc.open_file if is_file else pa.ipc.open_stream)(raw, options=options)


def _parts(reader: pa.ipc.RecordBatchStreamReader | pa.ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        yield from reader


def _names(fields: pa.Schema | pa.DataType) -> list[str]:
    """The names of the fields. UnicodeDecodeError if one of them, or of what is in them, is not UTF-8."""
    found = [fields.field(i) for i in range(len(fields) if isinstance(fields, pa.Schema) else fields.num_fields)]
    for field in found:
        _names(field.type)
    return [field.name for field in found]
