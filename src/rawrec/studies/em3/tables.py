"""Tables 1 to 7 of a study's results: each arm beside its baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rawrec.studies.em3.arms import Arms, Comparison
from rawrec.studies.em3.results import Result
from rawrec.studies.gains import Gain, gain, note, percent
from rawrec.studies.table import Cell, Plot, Row, Table, Value

HEADS = {"auc": "AUC", "gain": "AUC gain", "interval": "95 % of users", "p": "p of seeds", "gauc": "GAUC"}
NOTE = (
    "AUC gain: relative to the baseline's AUC, as in the paper, with the interval that holds 95 % of its "
    "resamplings of users. * p < 0.05 by the paired t-test over seeds. The best in bold."
)


def tables(arms: Arms, results: Mapping[str, Result]) -> list[Table]:
    return [_table(comparison, results) for comparison in arms.comparisons]


def _table(comparison: Comparison, results: Mapping[str, Result]) -> Table:
    gains: list[Gain] = []
    groups: list[list[Row]] = []
    bars: dict[str, dict[str, float]] = {}
    for arms in comparison.groups:
        base = results[arms[0].key]
        values = [value.mean for arm in arms if (value := results[arm.key].value("auc")) is not None]
        best = max(values) if len(values) > 1 else None
        rows = []
        for arm in arms:
            result = results[arm.key]
            found = None if arm is arms[0] else gain(result, base)
            if found is not None:
                gains.append(replace(found, row=arm.label, baseline=arms[0].label))
            rows.append(_row(arm.label, result, found, best))
            if (auc := result.value("auc")) is not None:
                bars.setdefault(arm.label, {})["AUC"] = auc.mean
        groups.append(rows)
    plot = Plot(f"AUC (table {comparison.number})", bars, ["AUC"]) if bars else None
    about = f"{comparison.about} {NOTE}"
    return Table(comparison.number, comparison.title, HEADS, groups, about, gains, plot=plot)


def _row(label: str, result: Result, found: Gain | None, best: float | None) -> Row:
    cells: dict[str, Cell] = {}
    if (auc := result.value("auc")) is not None:
        cells["auc"] = Cell(auc, auc.mean == best, found is not None and found.significant)
    if found is not None:
        low, high = found.interval.low, found.interval.high
        cells["gain"] = Cell(Value(found.gain), text=percent(found.gain))
        if low == low:  # defined
            cells["interval"] = Cell(Value((low + high) / 2), text=f"{percent(low)} to {percent(high)}")
        if found.p is not None:
            cells["p"] = Cell(Value(found.p))
    if (gauc := result.value("gauc")) is not None:
        cells["gauc"] = Cell(gauc)
    return Row(label, cells, "" if cells else note(result.standing), len(result.standing.runs) if cells else 0)
