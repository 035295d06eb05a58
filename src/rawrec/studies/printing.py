"""The tables of a study for a terminal, in Markdown and in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from rawrec import shown
from rawrec.shown import latex as escape
from rawrec.studies.table import Cell, Published, Row, Table

NOTHING = "–"
GENERATED = "The data is generated: products, users and clicks are not real."
Form = Callable[[Cell], str]


def number(cell: Cell, sign: str = " ± ") -> str:
    """Mean, and deviation where there are several seeds."""
    if cell.text:
        return cell.text
    deviation = "" if cell.value.deviation is None else f"{sign}{cell.value.deviation:.4f}"
    return f"{cell.value.mean:.4f}{deviation}"


def heads(table: Table) -> list[str]:
    return ["", *table.metrics.values(), "seeds"]


def cells(row: Row, table: Table, form: Form) -> list[str]:
    """What stands behind a row's label."""
    if not row.cells:
        return [row.note, *[""] * len(table.metrics)]
    return [*(form(row.cells[name]) if name in row.cells else NOTHING for name in table.metrics), str(row.seeds)]


# ------------------------------------------------------------------------------------------------------------- terminal
def show(tables: Sequence[Table], notes: Sequence[str], console: Console) -> None:
    """All tables, one below the other."""
    for table in tables:
        console.print(Text(f"\nTable {table.number}: {table.title}", "bold"), soft_wrap=True)
        if table.empty:
            console.print(Text(f"no points: it {table.empty}"), soft_wrap=True)
            continue
        console.print(_rich(table))
        for line in (table.caption, *(count.words for count in table.counts)):
            console.print(Text(line), soft_wrap=True)
    for note in notes:
        console.print(Text(f"\n{note}"), soft_wrap=True)


def _rich(table: Table) -> RichTable:
    shown = RichTable(box=None, pad_edge=False)
    for head in heads(table):
        shown.add_column(head, justify="right" if head else "left", no_wrap=True)
    for group in table.groups:
        for row in group:
            if not row.cells:
                shown.add_row(row.label, Text(NOTHING), *[""] * len(table.metrics))
                continue
            values = [
                Text(number(cell) + "*" * cell.star, "bold" if cell.best else "")
                if (cell := row.cells.get(name)) is not None
                else Text(NOTHING)
                for name in table.metrics
            ]
            shown.add_row(Text(row.label), *values, str(row.seeds))
    return shown


# ------------------------------------------------------------------------------------------------------------- Markdown
def markdown(title: str, tables: Sequence[Table], published: Mapping[int, Published], notes: Sequence[str]) -> str:
    """All tables, each with the paper's below it where there is one."""

    def cell(one: Cell) -> str:
        return (f"**{number(one)}**" if one.best else number(one)) + r"\*" * one.star

    parts = [f"# {shown.markdown(title)}", *map(shown.markdown, notes)]
    for table in tables:
        parts.append(f"## Table {table.number}: {shown.markdown(table.title)}")
        if table.empty:
            parts.append(f"No points: it {table.empty}.")
            continue
        rows = [[shown.markdown(row.label), *cells(row, table, cell)] for group in table.groups for row in group]
        parts += [_markdown(heads(table), rows), shown.markdown(table.caption)]
        if table.counts:
            parts.append("\n".join(f"- {shown.markdown(count.words)}" for count in table.counts))
        if (paper := published.get(table.number)) is not None:
            rows = [[label, *(value.replace("*", r"\*") for value in values)] for label, *values in paper.rows]
            parts += [f"In the paper, {paper.dataset}:", _markdown(["", *paper.columns], rows)]
    return "\n\n".join(parts) + "\n"


def _markdown(top: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(top) - 1)]
    lines = [top, rule, *rows]
    return "\n".join(
        "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\|", shown.line(cell)) for cell in line) + " |" for line in lines
    )


# ---------------------------------------------------------------------------------------------------------------- LaTeX
def latex(tables: Sequence[Table], published: Mapping[int, Published]) -> str:
    """A `table` environment of each; needs the package booktabs."""

    def cell(one: Cell) -> str:
        value = escape(one.text) if one.text else number(one, r" $\pm$ ")
        return (rf"\textbf{{{value}}}" if one.best else value) + "$^{*}$" * one.star

    made = []
    for table in tables:
        if table.empty:
            made.append(shown.line(f"% Table {table.number}, {table.title}: no points, it {table.empty}"))
            continue
        groups = []
        for group in table.groups:
            groups.append([_latex_row(row, table, cell) for row in group])
        caption = " ".join([table.title + ".", table.caption, *(f"{count.words}." for count in table.counts)])
        made.append(_environment([escape(head) for head in heads(table)], groups, escape(caption).replace("<", "$<$")))
        if (paper := published.get(table.number)) is not None:
            rows = [" & ".join(_starred(value) for value in row) + r" \\" for row in paper.rows]
            about = f"Table {table.number} as published, {paper.dataset}."
            made.append(_environment(["", *map(escape, paper.columns)], [rows], escape(about)))
    return "\n".join(made)


def _latex_row(row: Row, table: Table, form: Form) -> str:
    label = escape(row.label)
    if not row.cells:
        return rf"{label} & \multicolumn{{{len(table.metrics) + 1}}}{{l}}{{{escape(_brief(row.note))}}} \\"
    return " & ".join([label, *cells(row, table, form)]) + r" \\"


def _brief(note: str) -> str:
    """The reasons stand in Markdown and on the page: a paper has no room for them."""
    return note.partition(":")[0]


def _starred(value: str) -> str:
    return escape(value.removesuffix("*")) + "$^{*}$" * value.endswith("*")


def _environment(top: Sequence[str], groups: Sequence[Sequence[str]], caption: str) -> str:
    body: list[str] = []
    for group in groups:
        body += [r"\midrule", *group]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(top) - 1)}}}",
            r"\toprule",
            " & ".join(top) + r" \\",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
