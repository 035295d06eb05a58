"""The page of a study: its tables, the paper's beside them, plots; one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rawrec.files import yaml_text
from rawrec.report.page import render, write
from rawrec.report.plots import bars
from rawrec.studies.printing import GENERATED, cells, heads, number
from rawrec.studies.table import Cell, Published, Table


def write_page(
    out: Path,
    title: str,
    tables: Sequence[Table],
    published: Mapping[int, Published],
    notes: Sequence[str],
    found: Mapping[str, Any],
    pictures: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write the page to `out`. pictures: title, about and rows of tiles of each grid of pictures."""
    context = {
        "title": title,
        "tables": [_table(table, published.get(table.number)) for table in tables],
        "notes": [note for note in notes if note != GENERATED],
        "generated": GENERATED if GENERATED in notes else None,
        "source": found["data"]["source"],
        "counts": found["data"]["counts"],
        "points": found["points"],
        "pictures": pictures,
        "settings": yaml_text(found["settings"]),
    }
    return write(render(context, "rawrec.studies", "study.html"), out)


def _table(table: Table, paper: Published | None) -> dict[str, Any]:
    def cell(one: Cell) -> Markup:
        text = Markup("<b>{}</b>").format(number(one)) if one.best else Markup("{}").format(number(one))
        return text + "*" * one.star

    groups = [
        [{"label": row.label, "there": bool(row.cells), "cells": cells(row, table, cell)} for row in group]
        for group in table.groups
    ]
    plot = table.plot and bars(table.plot.title, table.plot.groups, table.plot.series)
    return {"table": table, "heads": heads(table), "groups": groups, "paper": paper, "plot": plot}
