"""The page of a study: its tables, the paper's beside them, plots; one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from rawrec.report.page import render, write
from rawrec.report.plots import bars
from rawrec.studies.grid import Point
from rawrec.studies.printing import GENERATED, cells, heads, number
from rawrec.studies.published import Published
from rawrec.studies.tables import HEADS, READS, SHORT, Cell, Table

PLOTTED = "ndcg@20"


def write_page(
    out: Path,
    title: str,
    tables: Sequence[Table],
    published: Mapping[int, Published],
    notes: Sequence[str],
    found: Mapping[str, Any],
) -> Path:
    """Write the page to `out`."""
    context = {
        "title": title,
        "tables": [_table(table, published.get(table.number)) for table in tables],
        "notes": [note for note in notes if note != GENERATED],
        "generated": GENERATED if GENERATED in notes else None,
        "source": found["data"]["source"],
        "counts": found["data"]["counts"],
        "points": found["points"],
        "settings": yaml.safe_dump(found["settings"], sort_keys=False, allow_unicode=True),
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
    return {"table": table, "heads": heads(table), "groups": groups, "paper": paper, "plot": _plot(table)}


def _plot(table: Table) -> Markup | None:
    """NDCG@20 as bars, in groups per model, and per encoder where a table compares something else."""
    groups: dict[str, dict[str, float]] = {}
    for row in (row for group in table.groups for row in group):
        if PLOTTED in row.cells:
            name, series = _place(table, row.result.point)
            groups.setdefault(name, {})[series] = row.cells[PLOTTED].value.mean
    order = [*SHORT, *READS.values()]  # of the series; others as they come
    there = list(dict.fromkeys(key for group in groups.values() for key in group))
    series = sorted(there, key=lambda key: order.index(key) if key in order else -1)
    return bars(f"{HEADS[PLOTTED]} (table {table.number})", groups, series) if groups else None


def _place(table: Table, point: Point) -> tuple[str, str]:
    """Which bars a point stands among, and what it is called there."""
    if point.encoder is None:
        return point.model_label, "ids alone"
    if table.number == 3:
        return point.model_label, point.encoder.label
    series = point.paradigm if table.number == 4 else READS[point.modalities or "VT"]
    return f"{point.model_label} {point.encoder.label}", series or ""
