"""Values between "::", as MovieLens had them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.data.import_report import ImportReport
from rawrec.sources.tables.lines import TextFile
from rawrec.sources.tables.source import Batch, Source, reading


class DoubleColon(Source):
    """The `.dat` files of MovieLens: values between "::", no header; rows count from 1."""

    format = "text"

    def __init__(self, file: TextFile, report: ImportReport, columns: list[str]) -> None:
        super().__init__(file.path, report)
        self.file, self.columns = file, columns

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        number, width = 1, len(self.columns)
        with reading(self.path):
            for block in self.file.blocks(self):
                lines = pl.Series(block.decode().split("\n")).str.strip_chars_end("\r")
                lines = lines.filter(lines != "")
                rows = np.arange(number, number + len(lines))
                number += len(lines)
                values = lines.str.split("::")
                good = (values.list.len() == width).to_numpy()
                if not good.all():
                    bad = Batch(self.name, rows, {"line": lines.to_arrow().cast(pa.string())}).without_marks()
                    reason = f"row has not {width} values between '::'"
                    self.report.skip(reason, bad.examples(~good, "line"), int((~good).sum()))
                    values, rows = values.filter(pl.Series(good)), rows[good]
                found = {name: values.list.get(self.columns.index(name)).to_arrow() for name in columns}
                batch = Batch(self.name, rows, {name: column.cast(pa.string()) for name, column in found.items()})
                yield batch.without_marks() if self.file.encoding.marked else batch
