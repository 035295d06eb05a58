"""The tables of a study's results: each arm beside the first of its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rawrec.studies.gains import Gain, Judged, gain, note, percent
from rawrec.studies.lemur.arms import Arms, Comparison
from rawrec.studies.lemur.results import ENCODED, LEARNED, RATE, STEP, Result
from rawrec.studies.table import Cell, Plot, Row, Table, Value

WORDS: dict[Judged, str] = {"qauc": "QAUC", "gauc": "GAUC", "auc": "AUC"}
UNITS: dict[Judged, str] = {"qauc": "queries", "gauc": "users", "auc": "users"}
SHARES: dict[Judged, str] = {"qauc": "qauc_share", "gauc": "share", "auc": "share"}
COSTS = {STEP: "step, ms", RATE: "samples/s", ENCODED: "encoded", LEARNED: "with gradient"}
BANK = {
    "bank/age_mean": "age", "bank/age_p95": "age, p95", "bank/cosine": "cosine", "bank/cosine/rare": "cosine, few rows",
    "bank/cosine/warm": "cosine, many rows", "bank/coverage": "coverage",
}  # fmt: skip
MORE = {4: COSTS, 5: BANK}
"""Columns of single tables."""
DIGITS = {STEP: 1, RATE: 0, ENCODED: 0, LEARNED: 0, "bank/age_mean": 1, "bank/age_p95": 0}


def tables(arms: Arms, results: Mapping[str, Result]) -> list[Table]:
    return [_table(arms, comparison, results) for comparison in arms.comparisons]


def _table(arms: Arms, comparison: Comparison, results: Mapping[str, Result]) -> Table:
    metric, words = arms.metric, WORDS[arms.metric]
    found = [results[arm.key] for arm in comparison.arms]
    base, first, share = found[0], comparison.arms[0].label, SHARES[arms.metric]
    values = [value.mean for one in found if (value := one.value(metric)) is not None]
    best = max(values) if len(values) > 1 else None
    more = {
        name: head for name, head in MORE.get(comparison.number, {}).items() if any(name in r.training for r in found)
    }
    heads = {metric: words, "gain": f"{words} gain", "interval": f"95 % of {UNITS[metric]}", "p": "p of seeds"}
    if any(share in one.seeds for one in found):
        heads[share] = f"share of the best {words if metric == 'qauc' else 'AUC'}"
    heads |= {"auc": "AUC", "auc_gain": "AUC gain"}
    if comparison.number == 5:
        heads[f"stale/{metric}"] = f"{words}, read stale"
    gains: list[Gain] = []
    rows = []
    for arm, one in zip(comparison.arms, found, strict=True):
        cells: dict[str, Cell] = {}
        against = None if one is base else gain(one, base, metric)
        if (value := one.value(metric)) is not None:
            cells[metric] = Cell(value, value.mean == best, against is not None and against.significant)
        if against is not None:
            gains.append(replace(against, row=arm.label, baseline=first))
            cells |= _gained(against)
        if one is not base and (other := gain(one, base, "auc")) is not None:
            gains.append(replace(other, row=arm.label, baseline=first))
            cells["auc_gain"] = Cell(Value(other.gain), text=percent(other.gain))
        for name in ("auc", share, f"stale/{metric}"):
            if name in heads and (value := one.value(name)) is not None:
                cells[name] = Cell(value)
        if cells:
            cells |= {name: _rounded(name, one.training[name]) for name in more if name in one.training}
        rows.append(Row(arm.label, cells, "" if cells else note(one.standing), len(one.standing.runs) if cells else 0))
    about = f"{comparison.about} {_caption(arms, first)}"
    pairs = zip(comparison.arms, found, strict=True)
    bars = {arm.label: {words: value.mean} for arm, one in pairs if (value := one.value(metric)) is not None}
    plot = Plot(f"{words} (table {comparison.number})", bars, [words]) if bars else None
    return Table(comparison.number, comparison.title, heads | more, [rows], about, gains, plot=plot)


def _gained(found: Gain) -> dict[str, Cell]:
    low, high = found.interval.low, found.interval.high
    cells = {"gain": Cell(Value(found.gain), text=percent(found.gain))}
    if low == low:  # defined
        cells["interval"] = Cell(Value((low + high) / 2), text=f"{percent(low)} to {percent(high)}")
    if found.p is not None:
        cells["p"] = Cell(Value(found.p))
    return cells


def _rounded(name: str, values: list[float]) -> Cell:
    value = Value.of(values)
    return Cell(value, text=f"{value.mean:,.{DIGITS[name]}f}") if name in DIGITS else Cell(value)


def _caption(arms: Arms, base: str) -> str:
    metric = arms.metric
    by = (
        "QAUC is the AUC within each query, weighted by impressions."
        if metric == "qauc"
        else "The data have no queries, so GAUC, within each user, stands in the place of QAUC."
    )
    return (
        f"{by} Gains are relative to the row {base!r}, as in the paper, with the interval that holds 95 % of their "
        f"resamplings of {UNITS[metric]}. * p < 0.05 by the paired t-test over seeds. The best in bold."
    )
