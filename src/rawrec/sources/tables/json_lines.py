"""One object per line: JSON, or Python dicts of plain values."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.tables.lines import line_blocks
from rawrec.sources.tables.source import Batch, Source, reading

MAX_LITERAL = 1 << 18
"""Characters of the longest line that is read as a Python literal."""
WHOLE = "$"
"""The column of a file of objects that holds the whole object, as JSON."""


class JsonLines(Source):
    """One JSON object per line. Values arrive as strings, lists and objects as their JSON text, null as null.

    literals: a line may also be a Python dict of plain values.
    """

    format = "jsonl"

    def __init__(self, path: Path, report: ImportReport, head: bytes, literals: bool = False) -> None:
        super().__init__(path, report)
        self.literals = literals
        lines, good = self._objects(pl.Series(head.decode("utf-8-sig", errors="replace").split("\n")[:1000]))
        self.columns = list(dict.fromkeys(name for line in lines.filter(good) for name in json.loads(line)))
        if not self.columns:
            raise UserError(f"{path}: none of the first lines is {self.what}")

    @property
    def what(self) -> str:
        return "a JSON object" + (" or a Python dict of plain values" if self.literals else "")

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        number = 1
        with reading(self.path):
            for block in line_blocks(self.path, self, "replace"):
                lines = pl.Series(block.decode().split("\n"))
                lines, good = self._objects(lines.filter(lines.str.strip_chars() != ""))
                rows = np.arange(number, number + len(lines))
                number += len(lines)
                if not good.all():
                    batch = Batch(self.name, rows, {"line": lines.to_arrow()})
                    self.report.skip(f"not {self.what}", batch.examples(~good.to_numpy(), "line"), int((~good).sum()))
                    lines, rows = lines.filter(good), rows[good.to_numpy()]
                found = {
                    name: lines if name == WHOLE else lines.str.json_path_match(_json_path(name)) for name in columns
                }
                yield Batch(
                    self.name, rows, {name: column.to_arrow().cast(pa.string()) for name, column in found.items()}
                )

    def _objects(self, lines: pl.Series) -> tuple[pl.Series, pl.Series]:
        """The lines, Python dicts as JSON, and which of them are objects."""
        lines = lines.str.strip_chars()
        good = _are_objects(lines)
        if self.literals and not good.all():
            with warnings.catch_warnings():  # of odd escapes in strings
                warnings.simplefilter("ignore")
                found = [_from_literal(line) or line for line in lines.filter(~good)]
            lines = lines.scatter((~good).arg_true(), found)
            good = _are_objects(lines)
        return lines, good


def _are_objects(lines: pl.Series) -> pl.Series:
    return lines.str.starts_with("{") & lines.str.json_path_match("$").is_not_null()


def _from_literal(line: str) -> str | None:
    """A Python dict of plain values as JSON; None for anything else. Nothing is executed."""
    if len(line) > MAX_LITERAL or not line.startswith("{"):
        return None
    try:
        text = json.dumps(ast.literal_eval(line), ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return text.encode(errors="replace").decode()


def _json_path(name: str) -> str:
    quote = "'" if "'" not in name else '"'
    return f"$[{quote}{name}{quote}]"
