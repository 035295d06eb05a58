"""Tables on disk, read in batches of bounded size: CSV, TSV, JSON and Python lines, Parquet, Arrow and "::" files; and
tables in memory.

The columns of a text format arrive as strings; Parquet and Arrow keep their types. What cannot be read is skipped and
counted in the `ImportReport`, with the file and the row. Rows are numbered from 1, the header of a text table being
row 1; blank lines are not counted.
"""

from rawrec.sources.tables.arrow import ArrowTable
from rawrec.sources.tables.double_colon import DoubleColon
from rawrec.sources.tables.in_memory import Frame, Table, table_name
from rawrec.sources.tables.json_lines import WHOLE
from rawrec.sources.tables.opening import (
    first_lines,
    open_delimited,
    open_double_colon,
    open_objects,
    open_source,
    open_table,
)
from rawrec.sources.tables.source import Batch, Source

__all__ = [
    "WHOLE",
    "ArrowTable",
    "Batch",
    "DoubleColon",
    "Frame",
    "Source",
    "Table",
    "first_lines",
    "open_delimited",
    "open_double_colon",
    "open_objects",
    "open_source",
    "open_table",
    "table_name",
]
