"""Several runs side by side in one page: results, curves, the same users' lists, what differs in their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from rawrec.arguments import checked
from rawrec.config.metrics import lower_is_better
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.report import plots
from rawrec.report.compared_runs import OF_THE_MACHINE, flat
from rawrec.report.comparison import Comparison, Result
from rawrec.report.cost import told
from rawrec.report.page import render, words, write
from rawrec.report.pictures import Tile, Tiles
from rawrec.report.run import Run
from rawrec.report.samples import DRAWN, SHOWN, sample_users
from rawrec.report.slices import padded
from rawrec.report.tables import caption
from rawrec.training.runs import RunFolder

LISTED = 20
"""Places of the lists that are compared."""
FOLLOWED = ("recall@20", "ndcg@20", "auc", "gauc", "logloss")
NONE = "–"
WIDEST = 60
"""Characters of a value of a setting."""


@checked()
def build_comparison(found: Comparison, out: str | Path, data: Dataset | str | Path | None = None) -> Path:
    """Write the page of what `compare` found to `out`; returns its path. data: where the dataset of the runs is now, if
    it has moved; the page is without lists where it is not there.

    >>> rawrec.report.build_comparison(rawrec.compare(["runs/lightgcn", "runs/freedom"]), "compare.html")
    """
    plots.loaded()
    runs = {name: Run(Path(paths[0])) for name, paths in found.runs.items()}
    target, folder = Path(out), RunFolder(next(iter(runs.values())).path)
    why = ""
    dataset: Dataset | None = None
    try:
        dataset = folder.dataset(data)
    except UserError as error:
        why = f"The dataset is not at hand: {error}."
    for paths in found.runs.values():
        for path in paths:
            RunFolder(Path(path)).check_export(target, dataset)
    lists, missing = _lists(runs, dataset) if dataset is not None else (None, why)
    settings = _settings(runs)
    context = {
        "found": found,
        "runs": runs,
        "caption": caption(found, "bold", "Green", "red"),
        "metrics": [_line(found, metric) for metric in found.metrics],
        "curves": _curves(runs),
        "cost": _cost(runs),
        "lists": lists,
        "lists_missing": missing,
        "settings": [line for line in settings if NONE not in line[1]],
        "further": [line for line in settings if NONE in line[1]],
        "pictured": lists is not None and lists.pictured,
        "pictures": lists.style if lists else "",
        "ratio": lists.ratio if lists else 1.0,
        "other": None,
    }
    return write(render(context, template="compare.html"), target)


def _line(found: Comparison, metric: str) -> dict[str, Any]:
    """A metric of all models; good: significantly better (True) or worse than the baseline, else None."""
    results = [result for result in found.results if result.metric == metric]
    return {
        "name": metric,
        "lower": lower_is_better(metric),
        "users": found.users[metric],
        "cells": [{"result": result, "good": _good(result)} for result in results],
    }


def _good(result: Result) -> bool | None:
    if result.contrast is None or not result.contrast.significant:
        return None
    return (result.contrast.difference > 0) != lower_is_better(result.metric)


def _cost(runs: Mapping[str, Run]) -> list[tuple[str, list[str]]]:
    found = {name: told(run) for name, run in runs.items()}
    lines = dict.fromkeys(line for one in found.values() for line in one)
    return [(line, [one.get(line, NONE) for one in found.values()]) for line in lines]


def _settings(runs: Mapping[str, Run]) -> list[tuple[str, list[str]]]:
    """Settings in which the runs differ, the first run of each model."""
    found = {name: dict(flat(run.config.dump())) for name, run in runs.items()}
    keys = sorted(dict.fromkeys(key for one in found.values() for key in one))
    lines = []
    for key in keys:
        values = [words(one[key]) if key in one else NONE for one in found.values()]
        if len(set(values)) > 1 and key not in OF_THE_MACHINE:
            lines.append((key, [v if len(v) <= WIDEST else v[: WIDEST - 1] + "…" for v in values]))
    return lines


# -------------------------------------------------------------------------------------------------------------- curves
@dataclass(frozen=True)
class Curve:
    """title and meaning, and the drawings: by epochs, and by minutes of training."""

    title: str
    meaning: str
    plots: list[Markup]


def _curves(runs: Mapping[str, Run]) -> list[Curve]:
    """Of the metrics that two runs or more have followed on the validation part."""
    wanted = dict.fromkeys([*(run.config.train.metric for run in runs.values()), *FOLLOWED])
    found = []
    for metric in wanted:
        lines = {name: run.series(f"valid/{metric}") for name, run in runs.items()}
        lines = {name: line for name, line in lines.items() if line[0]}
        if len(lines) < 2 or max(len(x) for x, _ in lines.values()) < 2:
            continue
        drawn = [plots.lines(f"{metric} by epoch", lines, "epoch")]
        timed = {name: (_minutes(runs[name], x), y) for name, (x, y) in lines.items()}
        if all(times is not None for times, _ in timed.values()):
            by_time = {name: (times or [], y) for name, (times, y) in timed.items()}
            drawn.append(plots.lines(f"{metric} by time", by_time, "minutes of training and validation", whole=False))
        meaning = f"on the validation part; {'lower' if lower_is_better(metric) else 'higher'} is better"
        found.append(Curve(metric, meaning, drawn))
    return found[:4]


def _minutes(run: Run, epochs: Sequence[float]) -> list[float] | None:
    """When each of the epochs was done, in minutes since the first began; None where a run does not tell."""
    at, done = {}, 0.0
    for line in run.epochs:
        if not isinstance(line.get("seconds"), int | float):
            return None
        done += float(line["seconds"]) + float(line.get("validation_seconds") or 0)
        at[line["epoch"]] = done / 60
    return [at[epoch] for epoch in epochs]


# --------------------------------------------------------------------------------------------------------------- lists
@dataclass(frozen=True)
class Lists:
    """people: the same users under every model. common: of each two models the mean share of a list of LISTED that
    both have. only: of each model how many items its lists hold, how many that no other model's hold, and the most
    listed of those."""

    names: list[str]
    people: list[dict[str, Any]]
    users: int
    common: list[list[float]]
    only: list[tuple[str, int, int, list[Tile]]]
    pictured: bool
    style: Markup
    ratio: float


def _lists(runs: Mapping[str, Run], data: Dataset) -> tuple[Lists | None, str]:
    """Or why there are none."""
    frames = {name: run.topk for name, run in runs.items()}
    without = [name for name, frame in frames.items() if frame is None or frame.is_empty()]
    if without:
        return None, f"{', '.join(without)} stored no lists of the full catalogue (rankers: eval.full_ranking=true)."
    users = None
    for frame in frames.values():
        own = frame["user"].to_numpy() if frame is not None else np.zeros(0, np.int64)
        users = np.sort(own) if users is None else np.intersect1d(users, own)
    assert users is not None
    if not len(users):
        return None, "The runs made lists of no user in common."
    items = {name: padded(frame, users, LISTED) for name, frame in frames.items() if frame is not None}
    first = next(iter(runs.values()))
    people = sample_users(first, data, data.retrieval_split(first.config.data.split), None, users)
    drawn = [one for one in people.entries if one.group == DRAWN]
    at = {user: int(np.searchsorted(users, user)) for user in (one.user for one in drawn)}
    own_only = _only(items, data.n_items)
    rows = {row for one in drawn for row in [*one.history, *one.later[:SHOWN]]}
    rows |= {int(row) for one in drawn for of in items.values() for row in of[at[one.user], :SHOWN] if row >= 0}
    rows |= {row for _, _, examples in own_only.values() for row, _ in examples}
    tiles = Tiles(data, rows)
    shown = []
    for one in drawn:
        listed = {name: [row for row in of[at[one.user]].tolist() if row >= 0] for name, of in items.items()}
        lines = []
        for name, mine in listed.items():
            others = {row for other, theirs in listed.items() if other != name for row in theirs}
            marks = [
                tiles.tile(row, "only here" if row not in others else "", hit=row in one.later,
                           mark="" if row in others else "only")
                for row in mine[:SHOWN]
            ]  # fmt: skip
            lines.append((name, marks, len(set(mine) & set(one.later))))
        later = [tiles.tile(row) for row in one.later[:SHOWN]]
        history = [tiles.tile(row) for row in one.history]
        shown.append({"user": data.user_ids[one.user], "history": history, "lists": lines, "later": later,
                      "later_count": len(one.later)})  # fmt: skip
    only = [
        (name, held, alone, [tiles.tile(row, f"in {count:,} lists") for row, count in examples])
        for name, (held, alone, examples) in own_only.items()
    ]
    found = Lists(list(items), shown, len(users), _common(list(items.values())), only, tiles.pictured,
                  tiles.style(), round(tiles.ratio, 3))  # fmt: skip
    return found, ""


def _common(lists: Sequence[NDArray[np.int64]]) -> list[list[float]]:
    """Of each two models the mean over users of the share of the longer list that stands in both."""

    def of(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
        both = np.sort(np.concatenate([np.where(one < 0, -1, one), np.where(other < 0, -2, other)], 1), 1)
        shared = ((both[:, 1:] == both[:, :-1]) & (both[:, 1:] >= 0)).sum(1)
        longer = np.maximum((one >= 0).sum(1), (other >= 0).sum(1))
        return float(np.mean(shared / np.maximum(longer, 1)))

    return [[of(one, other) for other in lists] for one in lists]


def _only(lists: Mapping[str, NDArray[np.int64]], n_items: int) -> dict[str, tuple[int, int, list[tuple[int, int]]]]:
    counts = {name: np.bincount(items[items >= 0], minlength=n_items) for name, items in lists.items()}
    found = {}
    for name, own in counts.items():
        others = sum((other for key, other in counts.items() if key != name), np.zeros(n_items, np.int64))
        alone = np.flatnonzero((own > 0) & (others == 0))
        most = alone[np.argsort(-own[alone], kind="stable")[:SHOWN]].tolist()
        found[name] = int((own > 0).sum()), len(alone), [(row, int(own[row])) for row in most]
    return found
