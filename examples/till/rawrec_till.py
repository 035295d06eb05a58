"""A source: the journal of a till, a line a receipt, as "2024-03-01T09:12 card-17 milk,bread,milk"."""

from pathlib import Path

import pyarrow as pa
from pydantic import Field

import rawrec

AT_ONCE = 50_000


class TillOptions(rawrec.SourceOptions):
    """Import the journal of a till: which card bought what and when."""

    journal: Path = Field(description="text file; a line is a time, a card, and items")
    between: str = Field(default=",", min_length=1, description="what stands between the items of a line")
    names: Path | None = Field(default=None, description="what items are called; a line is an id, a tab, a name")


@rawrec.register_source("till", TillOptions)
def till(options, report):
    tables = rawrec.SourceTables(interactions=purchases(options, report), user="card", item="item", time="time")
    if options.names is not None:
        tables.items, tables.text = names(options, report), ["name"]
    return tables


def purchases(options, report):
    rows = []
    for time, card, items in lines(options.journal, " ", 3, report):
        rows += [{"time": time, "card": card, "item": item} for item in items.split(options.between)]
        if len(rows) >= AT_ONCE:
            yield pa.Table.from_pylist(rows)
            rows = []
    if rows:
        yield pa.Table.from_pylist(rows)


def names(options, report):
    found = list(lines(options.names, "\t", 2, report))
    yield {"item": [item for item, _ in found], "name": [name for _, name in found]}


def lines(path, between, count, report):
    """The parts of each line. A line of another number of parts is left out, and counted with its place."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            parts = line.rstrip("\n").split(between)
            if len(parts) == count:
                yield parts
            else:
                report.skip(f"line of {path.name} that has not {count} parts", f"{path.name}:{number}")
