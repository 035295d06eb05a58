"""The paper's tables 1, 3, 4 and 5 of a study's results, free of how they are printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rawrec.studies.lmm.grid import Point
from rawrec.studies.lmm.results import METRICS, NEW_ITEMS, Count, Result, Test, compared
from rawrec.studies.table import Cell, Plot, Row, Table

HEADS = {
    "recall@10": "Recall@10",
    "recall@20": "Recall@20",
    "ndcg@10": "NDCG@10",
    "ndcg@20": "NDCG@20",
    NEW_ITEMS: "new items Recall@20",
}
SHORT = {"pretrained": "PT", "two_stage": "FT", "end_to_end": "ETE"}
READS = {"VT": "V&T", "V": "V", "T": "T"}
P = "p < 0.05"
PLOTTED = "ndcg@20"


def tables(results: Mapping[Point, Result]) -> list[Table]:
    """All of them. A table that has no points says what to ask for."""
    return [_modalities(results), _encoders(results), _paradigms(results), _contribution(results)]


# ---------------------------------------------------------------------------------------------------------------- rows
def _row(result: Result, label: str, metrics: Sequence[str], best: Mapping[str, float], stars: set[str]) -> Row:
    values = {name: value for name in metrics if (value := result.value(name)) is not None}
    cells = {name: Cell(value, value.mean == best.get(name), name in stars) for name, value in values.items()}
    return Row(label, cells, "" if cells else _note(result), len(result.standing.runs) if cells else 0)


def _note(result: Result) -> str:
    state, reason = result.standing.state, result.standing.reason.partition(". ")[0]
    return {"undefined": f"not defined: {reason}", "failed": f"failed: {reason}", "unfinished": "not finished"}[state]


def _group(entries: Sequence[tuple[str, Result]], metrics: Sequence[str], tests: Iterable[Test] = ()) -> list[Row]:
    """Rows of which the best of each metric is marked, where there are two; starred where a test says so."""
    best: dict[str, float] = {}
    for name in metrics:
        values = [value.mean for _, result in entries if (value := result.value(name)) is not None]
        if len(values) > 1:
            best[name] = max(values)
    stars: dict[Point, set[str]] = {}
    for test in tests:
        if test.significant:
            stars.setdefault(test.point, set()).add(test.metric)
    return [_row(result, label, metrics, best, stars.get(result.point, set())) for label, result in entries]


def _heads(metrics: Sequence[str]) -> dict[str, str]:
    return {name: HEADS[name] for name in metrics}


def _plot(number: int, groups_of: Sequence[Sequence[tuple[str, Result]]]) -> Plot | None:
    """NDCG@20 as bars, in groups per model, and per encoder where a table compares something else."""
    groups: dict[str, dict[str, float]] = {}
    for _, result in (entry for entries in groups_of for entry in entries):
        if (value := result.value(PLOTTED)) is not None:
            name, series = _place(number, result.point)
            groups.setdefault(name, {})[series] = value.mean
    order = [*SHORT, *READS.values()]  # of the series; others as they come
    there = list(dict.fromkeys(key for group in groups.values() for key in group))
    series = sorted(there, key=lambda key: order.index(key) if key in order else -1)
    return Plot(f"{HEADS[PLOTTED]} (table {number})", groups, series) if groups else None


def _place(number: int, point: Point) -> tuple[str, str]:
    """Which bars a point stands among, and what it is called there."""
    if point.encoder is None:
        return point.model_label, "ids alone"
    if number == 3:
        return point.model_label, point.encoder.label
    series = point.paradigm if number == 4 else READS[point.modalities or "VT"]
    return f"{point.model_label} {point.encoder.label}", series or ""


def _find(results: Mapping[Point, Result], **wanted: Any) -> list[Result]:
    """The results of points with encoders of these properties, in the order of the grid."""
    return [
        result
        for point, result in results.items()
        if point.encoder is not None and all(getattr(point, key) == value for key, value in wanted.items())
    ]


def _done(*found: Result) -> bool:
    return all(result.users for result in found)


def _by(results: Iterable[Result], *keys: str) -> list[list[Result]]:
    """Results in groups of equal keys."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(tuple(getattr(result.point, key) for key in keys), []).append(result)
    return list(groups.values())


def _specific(result: Result) -> bool:
    encoder = result.point.encoder
    return encoder is not None and encoder.specific


def _encoder(result: Result) -> str:
    return result.point.encoder.label if result.point.encoder is not None else "ids"


def _read_by(results: list[Result], several: bool) -> list[tuple[str, Result]]:
    """One row for each of the modalities, in the paper's order."""
    order = sorted(results, key=lambda result: list(READS).index(result.point.modalities or "VT"))
    return [
        (
            f"{result.point.model_label}{f' {_encoder(result)}' * several} ({READS[result.point.modalities or 'VT']})",
            result,
        )
        for result in order
    ]


# -------------------------------------------------------------------------------------------------------------- tables
def _modalities(results: Mapping[Point, Result]) -> Table:
    """Table 1: what each modality brings, by pretrained encoders of one modality each."""
    found = [result for result in _find(results, paradigm="pretrained") if _specific(result)]
    several = len({result.point.encoder for result in found}) > 1
    entries = [_read_by(group, several) for group in _by(found, "encoder", "model")]
    return Table(
        1,
        "Modalities with modality-specific encoders",
        _heads(("ndcg@20", NEW_ITEMS)),
        [_group(group, ("ndcg@20", NEW_ITEMS)) for group in entries],
        "NDCG@20 of each model by the modalities that it reads (V pictures, T texts), features of frozen "
        "modality-specific encoders. The best of each model in bold.",
        empty=""
        if found
        else "needs the paradigm pretrained and encoders apart, for example efficientnet_lite0+minilm",
        plot=_plot(1, entries),
    )


def _encoders(results: Mapping[Point, Result]) -> Table:
    """Table 3: pretrained encoders with a common space against those of one modality each."""
    found = _find(results, paradigm="pretrained", modalities="VT")
    baseline = next((result.point.encoder for result in found if _specific(result)), None)
    pairs = []
    for group in _by(found, "model"):
        base = next((result for result in group if result.point.encoder == baseline and _done(result)), None)
        others = [result for result in group if base is not None and result is not base and _done(result)]
        pairs += [(metric, result, base) for result in others if base is not None for metric in METRICS]
    tests = compared(pairs, "none")
    cases = [test for test in tests if test.point.encoder is not None and not test.point.encoder.specific]
    shown = (*METRICS, NEW_ITEMS)
    ids = [result for point, result in results.items() if point.encoder is None]
    entries = [[(result.point.model_label, result)] for result in ids]
    for group in _by(found, "model"):
        entries.append([(f"{result.point.model_label} {_encoder(result)}", result) for result in group])
    stars = "No encoder of one modality each to compare with: add one, for example efficientnet_lite0+minilm."
    if baseline is not None:
        stars = (
            f"* a significant difference from the baseline, {baseline.label}, by the paired t-test with {P}, as in the "
        )
        stars += "paper without a correction."
    return Table(
        3,
        "Pretrained encoders with a common space against modality-specific ones",
        _heads(shown),
        [_group(group, shown, tests) for group in entries],
        f"Frozen pretrained encoders, pictures and texts. The best of each model in bold. {stars}",
        tests,
        _counts("pretrained against the baseline", cases),
        "" if found or ids else "needs the paradigm pretrained and the modalities VT",
        _plot(3, entries),
    )


def _paradigms(results: Mapping[Point, Result]) -> Table:
    """Table 4: pretrained, tuned in two stages, end to end."""
    found = _find(results, modalities="VT")
    groups = _by(found, "model", "encoder")
    against_best, tuned, ends, ends_tuned = [], [], [], []
    for group in groups:
        done = {result.point.paradigm: result for result in group if _done(result)}
        for metric in METRICS if len(done) > 1 else ():
            best = max(done.values(), key=lambda result: _mean(result, metric))
            against_best += [(metric, result, best) for result in done.values() if result is not best]
            earlier = [done[name] for name in ("pretrained", "two_stage") if name in done]
            if "two_stage" in done and "pretrained" in done:
                tuned.append((metric, done["two_stage"], done["pretrained"]))
            if "end_to_end" in done and earlier:
                ends.append((metric, done["end_to_end"], max(earlier, key=lambda result: _mean(result, metric))))
            if "end_to_end" in done and "two_stage" in done:
                ends_tuned.append((metric, done["end_to_end"], done["two_stage"]))
    tests = compared(against_best, "holm")
    shown = (*METRICS, NEW_ITEMS)
    entries = []
    for group in groups:
        order = sorted(group, key=lambda result: list(SHORT).index(result.point.paradigm or "pretrained"))
        name = f"{order[0].point.model_label} {_encoder(order[0])}"
        entries.append([(f"{name}-{SHORT[result.point.paradigm or 'pretrained']}", result) for result in order])
    counts = [
        *_counts("two_stage against pretrained", compared(tuned, "holm")),
        *_counts("end_to_end against two_stage", compared(ends_tuned, "holm")),
        *_counts("end_to_end against the better of the others", compared(ends, "holm")),
    ]
    return Table(
        4,
        "Pretrained, tuned in two stages, end to end",
        _heads(shown),
        [_group(group, shown, tests) for group in entries],
        "PT: frozen as pretrained; FT: tuned on the catalogue's pictures and texts, then frozen; ETE: trained with the "
        "model's own loss. The best of each model and encoder in bold. * a significant difference from the best, by "
        f"the paired t-test with the Holm-Bonferroni correction over the table's {len(tests)} comparisons, {P}.",
        tests,
        counts,
        "" if found else "needs the modalities VT",
        _plot(4, entries),
    )


def _contribution(results: Mapping[Point, Result]) -> Table:
    """Table 5: what each modality brings, end to end."""
    found = _find(results, paradigm="end_to_end")
    groups = _by(found, "encoder", "model")
    pairs = []
    for group in groups:
        both = next((result for result in group if result.point.modalities == "VT" and _done(result)), None)
        others = [result for result in group if both is not None and result is not both and _done(result)]
        pairs += [("ndcg@20", result, both) for result in others if both is not None]
    tests = compared(pairs, "none")
    mirrored = compared([(metric, other, one) for metric, one, other in pairs], "none")
    shown = ("ndcg@20", NEW_ITEMS)
    entries = [[(_ending(label), result) for label, result in _read_by(group, True)] for group in groups]
    return Table(
        5,
        "Modalities end to end",
        _heads(shown),
        [_group(group, shown, tests) for group in entries],
        "NDCG@20 of each model by the modalities that it reads, encoders trained end to end. The best of each model "
        f"and encoder in bold. * a significant difference from V&T, by the paired t-test with {P}, as in the paper "
        "without a correction.",
        tests,
        _counts("both modalities against one", mirrored),
        "" if found else "needs the paradigm end_to_end",
        _plot(5, entries),
    )


def _ending(label: str) -> str:
    name, _, read = label.rpartition(" ")
    return f"{name}-ETE {read}"


def _mean(result: Result, metric: str) -> float:
    value = result.value(metric)
    return value.mean if value is not None else 0.0


def _counts(what: str, tests: Sequence[Test]) -> list[Count]:
    """Over all cases, and by encoder where there are several."""
    if not tests:
        return []
    encoders = list(dict.fromkeys(test.point.encoder for test in tests if test.point.encoder is not None))
    each = [
        Count.of(f"{what}, {encoder.label}", [t for t in tests if t.point.encoder == encoder]) for encoder in encoders
    ]
    return [Count.of(what, tests), *(each if len(encoders) > 1 else [])]
