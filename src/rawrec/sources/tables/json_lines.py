"""One object per line: JSON, or Python dicts of plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import polars as pl
import pyarrow as pa

from rawrec.data.import_report import EXAMPLES, ImportReport
from rawrec.errors import UserError
from rawrec.sources.tables.lines import TextFile
from rawrec.sources.tables.marks import HALF_MARKS, MARKS, written, written_in_json
from rawrec.sources.tables.objects import Reader
from rawrec.sources.tables.source import Batch, Source, reading

WHOLE = "$"
"""The column of a file of objects that holds the whole object, as JSON."""
LARGE = r"[:\[,]\s*-?[0-9]{20}"
"""What may be a whole number that loses digits where JSON is read."""
HALF = "half of a pair in an escape (kept, as \\ud83d; a row whose id holds one is left out)"


class JsonLines(Source):
    """One JSON object per line. Values arrive as strings, lists and objects as their JSON text, null as null.

    What `json.dumps` of Python writes is read, too: NaN and Infinity as null, halves of pairs. literals: a line may
    also be a Python dict of plain values. `columns`: the keys of the first lines, and those asked for by `seek` that
    come later, or that are keys within objects: `attributes.brand`.
    """

    format = "jsonl"

    def __init__(self, file: TextFile, report: ImportReport, literals: bool = False) -> None:
        super().__init__(file.path, report)
        self.file, self.literals = file, literals
        lines, good = self._objects(pl.Series(file.head.split("\n")[:1000], dtype=pl.String), ImportReport())
        names = dict.fromkeys(name for line in lines.filter(good) for name in json.loads(line))
        self.columns = [name for name in names if not MARKS.search(name)]
        self.nested: frozenset[str] = frozenset()
        if not self.columns:
            raise UserError(f"{self.path}: none of the first lines is {self.what}")

    @property
    def what(self) -> str:
        return "a JSON object" + (" or a Python dict of plain values" if self.literals else "")

    def seek(self, names: Sequence[str | None]) -> None:
        sought = [name for name in dict.fromkeys(names) if name is not None and name not in self.columns]
        if not sought:
            return
        looker = self.again()
        within = {name for name in sought if "." in name and name.partition(".")[0] in self.columns}
        looker.nested = self.nested | within
        for batch in looker.batches(sought):
            found = [name for name in sought if batch.columns[name].null_count < len(batch.rows)]
            self.columns += found
            self.nested |= within & set(found)
            sought = [name for name in sought if name not in found]
            if not sought:
                return

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        number = 1
        with reading(self.path):
            for block in self.file.blocks(self):
                lines = pl.Series(block.decode().split("\n"))
                lines, good = self._objects(lines.filter(lines.str.strip_chars() != ""), self.report)
                rows = np.arange(number, number + len(lines))
                number += len(lines)
                if not good.all():
                    bad = Batch(self.name, rows, {"line": lines.to_arrow().cast(pa.string())}).without_marks()
                    self.report.skip(f"not {self.what}", bad.examples(~good.to_numpy(), "line"), int((~good).sum()))
                    lines, rows = lines.filter(good), rows[good.to_numpy()]
                found = {
                    name: lines if name == WHOLE else lines.str.json_path_match(self._path(name)) for name in columns
                }
                values = {name: column.to_arrow().cast(pa.string()) for name, column in found.items()}
                batch = Batch(self.name, rows, values, composite=partial(self._composite, lines, found))
                yield batch.without_marks(_written) if self.file.encoding.marked else batch

    def _composite(self, lines: pl.Series, found: dict[str, pl.Series], name: str) -> np.ndarray:
        maybe = found[name].str.contains(r"^[\[{]").fill_null(False).to_numpy()
        parts = name.split(".") if name in self.nested else [name]
        bad = np.zeros(len(lines), bool)
        for at in np.flatnonzero(maybe).tolist():
            value = json.loads(lines[at])
            for part in parts:
                value = value[part]
            bad[at] = isinstance(value, list | dict)
        return bad

    def again(self) -> JsonLines:
        other = super().again()
        assert isinstance(other, JsonLines)
        return other

    def _path(self, name: str) -> str:
        return "$" + "".join(map(_key, name.split(".") if name in self.nested else [name]))

    def _objects(self, lines: pl.Series, report: ImportReport) -> tuple[pl.Series, pl.Series]:
        """The lines as strict JSON, and which of them are objects."""
        lines = lines.str.strip_chars()
        good = lines.str.starts_with("{") & lines.str.json_path_match("$").is_not_null()
        odd = ~good | lines.str.contains(LARGE)
        if not odd.any():
            return lines, good
        read = Reader(self.literals)
        found = [read(line) for line in lines.filter(odd)]
        halves = [line for line in found if line is not None and HALF_MARKS.search(line)]
        if read.no_numbers:
            report.note(f"{self.name}: NaN and Infinity are read as missing")
        if halves:
            self.file.encoding.marked = True
            examples = [f"{self.name}: {written(line)}" for line in halves[:EXAMPLES]]
            report.skip(HALF, examples, len(halves))
        kept = [old if new is None else new for old, new in zip(lines.filter(odd), found, strict=True)]
        good = good.scatter(odd.arg_true(), [new is not None for new in found])
        return lines.scatter(odd.arg_true(), kept), good


def _written(value: str) -> str:
    return written_in_json(value) if value.startswith(("[", "{")) else written(value)


def _key(name: str) -> str:
    quote = "'" if "'" not in name else '"'
    return f"[{quote}{name}{quote}]"
