"""A comparison as a table: for a terminal, in Markdown, in LaTeX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.table import Table
from rich.text import Text

from rawrec import shown
from rawrec.config.metrics import lower_is_better, of_all_lists
from rawrec.report.comparison import Comparison, Result

BETTER, WORSE = "*", "†"


def print_table(found: Comparison) -> Table:
    """Everything: means, differences from the baseline, intervals and p-values."""
    table = Table(box=None, pad_edge=False)
    heads = ["mean", "±", "difference", f"{found.level:.0%} interval", "p", "p (Holm)", ""]
    for head in ("metric", "model", "seeds", *heads):
        table.add_column(head, justify="left" if head in ("metric", "model", "") else "right")
    for result in found.results:
        against = result.contrast
        cells = [f"{result.mean:.4f}", "" if result.deviation is None else f"{result.deviation:.4f}"]
        if against is not None:
            interval = "" if against.low is None else f"[{against.low:+.4f}, {against.high:+.4f}]"
            cells += [f"{against.difference:+.4f}", interval, _p(against.p_value), _p(against.p_holm), mark(result)]
        style = "bold" if result.best else ""
        model = Text(result.model, style)  # Text: what users wrote is never markup
        table.add_row(result.metric, model, str(len(found.runs[result.model])), *cells)
    return table


def print_popularity(found: Comparison) -> Table | None:
    """By bucket of popularity the gain over the baseline and the bank's health; None where there is nothing to show."""
    if not found.popularity:
        return None
    table = Table(box=None, pad_edge=False)
    interval = f"{found.level:.0%} interval"
    health = ("coverage", "age", "age p95", "drift", "cosine")
    for head in ("items", "model", found.popularity[0].metric, "gain", interval, *health):
        table.add_column(head, justify="left" if head in ("items", "model") else "right")
    for line in found.popularity:
        bank = line.health
        bounds = "" if line.low is None else f"[{line.low:+.4f}, {line.high:+.4f}]"
        cells = [_number(line.mean, ".4f"), "" if line.gain is None else f"{line.gain:+.4f}", bounds]
        cells += [_number(bank.coverage, ".3f"), _number(bank.age_mean, ".0f"), _number(bank.age_p95, ".0f")]
        cells += [_number(bank.drift, ".4f"), _number(bank.cosine, ".4f")]
        table.add_row(line.bucket, Text(line.model), *cells)
    return table


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def markdown(found: Comparison) -> str:
    """A table for a paper: a row per model, a column per metric, and a caption that explains it."""

    def cell(result: Result) -> str:
        value = _value(result, " ± ")
        return (f"**{value}**" if result.best else value) + mark(result).replace("*", r"\*")

    rows = _rows(found, cell, shown.markdown)
    lines = [" | ".join(row) for row in rows]
    rule = " | ".join(["---", *["---:"] * (len(rows[0]) - 1)])
    table = "\n".join(f"| {line} |" for line in (lines[0], rule, *lines[1:]))
    about = caption(found, "**bold**", r"\*", WORSE, shown.markdown)
    return f"{table}\n\n{about}\n"


def latex(found: Comparison) -> str:
    """The same as a `table` environment; needs the package booktabs."""
    marks = {"": "", BETTER: "$^{*}$", WORSE: r"$^{\dagger}$"}

    def cell(result: Result) -> str:
        value = _value(result, r" $\pm$ ")
        return (rf"\textbf{{{value}}}" if result.best else value) + marks[mark(result)]

    rows = _rows(found, cell, shown.latex)
    head, *body = [" & ".join(row) + r" \\" for row in rows]
    about = caption(found, "bold", "$^{*}$", r"$^{\dagger}$", shown.latex)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{about}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def caption(
    found: Comparison, bold: str, better: str, worse: str, escaped: Callable[[str], str] = lambda text: text
) -> str:
    """What the table shows, in words: data, seeds, users, marks and the tests behind them."""
    seeds = sorted({len(runs) for runs in found.runs.values()})
    users = sorted({f"{n:,}" for n in found.users.values()})
    tests = dict.fromkeys(r.contrast.test for r in found.results if r.contrast is not None and r.contrast.test)
    kind = "generated data, " if found.generated else ""
    mean = "Mean and standard deviation" if seeds[-1] > 1 else "Mean"
    lower = [metric for metric in found.metrics if lower_is_better(metric)]
    comparisons = sum(r.contrast is not None and r.contrast.test is not None for r in found.results)
    untested = [metric for metric in found.metrics if of_all_lists(metric)]
    marks = (
        f"{better} better, {worse} worse than {escaped(found.baseline)} with p below {1 - found.level:.2g} "
        f"({' and '.join(map(str, tests))}, Holm-Bonferroni over {comparisons} comparison{'s' * (comparisons > 1)})."
    )
    parts = [
        f"Test part of {escaped(found.dataset)} ({kind}split {escaped(found.split)}, {' and '.join(users)} users).",
        f"{mean} over {' to '.join(map(str, seeds))} seed{'s' * (seeds[-1] > 1)}, best in {bold}.",
        *([f"Lower is better: {', '.join(map(escaped, lower))}."] if lower else []),
        *([marks] if tests else []),
        *([f"Of all lists together, so not tested: {', '.join(map(escaped, untested))}."] if untested else []),
        *([f"Cut short: {escaped(', '.join(_cut_short(found)))}."] if found.cut_short else []),
    ]
    return " ".join(parts)


def _cut_short(found: Comparison) -> list[str]:
    """The runs that were ended before they were done, by the model that they are of."""
    names = {path: name for name, paths in found.runs.items() for path in paths}
    return [f"{Path(path).name} of {names[path]} after {after}" for path, after in found.cut_short.items()]


def mark(result: Result) -> str:
    """Significantly better or worse than the baseline, or neither."""
    if result.contrast is None or not result.contrast.significant:
        return ""
    return BETTER if (result.contrast.difference > 0) != lower_is_better(result.metric) else WORSE


def _rows(found: Comparison, cell: Callable[[Result], str], escaped: Callable[[str], str]) -> list[list[str]]:
    """Heads, then a row per model."""
    cells = {(result.model, result.metric): cell(result) for result in found.results}
    rows = [
        [escaped(model), str(len(runs)), *(cells[model, metric] for metric in found.metrics)]
        for model, runs in found.runs.items()
    ]
    return [["model", "seeds", *map(escaped, found.metrics)], *rows]


def _value(result: Result, sign: str) -> str:
    return f"{result.mean:.4f}" + ("" if result.deviation is None else f"{sign}{result.deviation:.4f}")


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"
