"""Finished runs side by side on test: which model is better, and whether the users seen are enough to tell.

Lists of the full catalogue (recall@K, ndcg@K, ...): each user's values, averaged over the seeds of a model, are tested
against the baseline's by a paired t-test. Impressions (auc, gauc, qauc, logloss) and what sessions showed
(shown/ndcg@K, shown/mrr): users are drawn again and again with all that they were shown, the same for every model, and
the draws in which the difference changes its sign are counted. All p-values of one comparison are corrected together
(Holm-Bonferroni). Of the lists as a whole (coverage@K, personalisation@K, ...) there are no values of users to test:
the difference stands alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rawrec.arguments import checked
from rawrec.config.metrics import lower_is_better, of_all_lists, of_label, of_sessions
from rawrec.errors import UserError
from rawrec.evaluation.significance import (
    Interval,
    Metric,
    bootstrap_test,
    holm,
    mean_bootstraps,
    mean_resamplings,
    paired_t_test,
    resamplings,
)
from rawrec.forks import check_not_forked
from rawrec.report.compared_runs import IMPRESSION_METRICS, ComparedRun, check_same_data, models_of
from rawrec.report.labels import session_values
from rawrec.report.popularity import GAINS, Gain, bucket_masks, gains
from rawrec.shown import listed
from rawrec.training.runs import cut_short

SHOWN = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
SHOWN_OF_ALL = ("coverage@20", "personalisation@20")
T_TEST, BOOTSTRAP = "paired t-test over users", "bootstrap over users"


@dataclass(frozen=True)
class Contrast:
    """A model against the baseline in one metric: mean difference, its interval, and how sure it is.

    All but the difference is None, and `significant` False, of a metric of the lists as a whole, which has no test."""

    difference: float
    low: float | None
    high: float | None
    test: str | None
    statistic: float | None  # t; None: the test has none, or the models do not differ
    p_value: float | None
    p_holm: float | None
    significant: bool


@dataclass(frozen=True)
class Result:
    """A model in one metric: mean and standard deviation over its seeds (None with one seed)."""

    model: str
    metric: str
    mean: float
    deviation: float | None
    best: bool
    contrast: Contrast | None  # None: it is the baseline
    low: float | None = None  # of the interval of the mean over users; None of a metric of the lists as a whole
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. `results` go by metric, then by model, the baseline first."""

    dataset: str
    generated: bool  # the data are not real
    split: str
    users: dict[str, int]  # by metric
    baseline: str
    runs: dict[str, list[str]]  # the run folders of each model, one per seed
    metrics: list[str]
    results: list[Result]
    level: float
    resamplings: int
    popularity: list[Gain] = field(default_factory=list)
    """By bucket, then by model: the gain in QAUC, without queries in GAUC, and the bank's health; empty where no run
    logged its bank by bucket, or that metric is not among `metrics`."""
    popularity_missing: str | None = None  # why `popularity` could not be made
    cut_short: dict[str, str] = field(default_factory=dict)
    """Of the run folders that `rawrec finish` ended: after how many epochs."""

    def dump(self) -> dict[str, Any]:
        """Plain values that fit into JSON."""
        return asdict(self)


@checked()
def compare(
    runs: Sequence[str | Path] = (),
    baseline: str | Path | None = None,
    groups: Mapping[str, Sequence[str | Path]] | None = None,
    metrics: Sequence[str] | None = None,
    level: float = 0.95,
    bootstrap: int = 2000,
) -> Comparison:
    """Test finished runs of one dataset and split against a baseline.

    runs: run folders; those that differ in the seed only are one model. groups: name -> its run folders. baseline: a
    run folder or the name of a model; None: the first. metrics: None: auc and gauc of rankers (and qauc, of data with
    queries), recall and ndcg at 10 and 20, coverage and personalisation at 20 of others. level: of intervals; p-values
    below 1 - level are significant. bootstrap: resamplings of users behind an interval. Raises UserError for runs that
    are not finished or cannot be compared.

    >>> found = rawrec.compare(["runs/lightgcn", "runs/freedom"], metrics=["recall@20"])
    >>> found.results[1].contrast.p_holm
    """
    check_not_forked()
    if not 0 < level < 1:
        raise UserError(f"level={level}: give a number between 0 and 1, for example 0.95")
    if bootstrap < 100:
        raise UserError(f"bootstrap={bootstrap}: an interval needs 100 resamplings or more, for example 2000")
    models = models_of(runs, groups or {}, baseline)
    everyone = [run for members in models.values() for run in members]
    check_same_data(everyone)
    chosen = _metrics(everyone, metrics)
    values = _ListValues(models, bootstrap, level) if not all(map(_of_impressions, chosen)) else None
    users: dict[str, int] = {}
    rows = []
    for metric in chosen:
        if values is None or _of_impressions(metric):
            found = _impressions(models, metric, bootstrap, level)
            users[metric] = everyone[0].labels[of_label(metric)[0]]["user"].n_unique()
        elif of_all_lists(metric):
            found = _of_all_lists(models, metric)
            users[metric] = values.users
        else:
            found, users[metric] = values.results(metric)
        rows += [(metric, *row) for row in found]
    popularity, missing = _popularity(models, chosen, bootstrap, level)
    return Comparison(
        dataset=everyone[0].info["dataset_name"],
        generated=bool(everyone[0].info["generated"]),
        split=everyone[0].cfg.data.split,
        users=users,
        baseline=next(iter(models)),
        runs={name: [str(run.path) for run in members] for name, members in models.items()},
        metrics=chosen,
        results=_with_tests(rows, level),
        level=level,
        resamplings=bootstrap,
        popularity=popularity,
        popularity_missing=missing,
        cut_short={str(run.path): after for run in everyone if (after := cut_short(run.info))},
    )


def _metrics(runs: list[ComparedRun], wanted: Sequence[str] | None) -> list[str]:
    """The metrics to compare: those asked for, else the main ones of all that every run has."""
    known = [metric for metric in runs[0].metrics if all(metric in run.metrics for run in runs)]
    if not known:
        raise UserError(
            "the runs have no metric in common: rankers make lists of the full catalogue with eval.full_ranking=true, "
            "and only those can be compared with a retrieval model's"
        )
    if wanted is None:
        of_all = SHOWN_OF_ALL if len({run.lists.height for run in runs}) == 1 else ()
        main = ("auc", "gauc", "qauc") if "auc" in known else (*SHOWN, *of_all)
        main = [metric for metric in main if metric in known]
        further = [metric for metric in known if metric.endswith("/auc")]
        return [*main, *(m for m in further if all(run.measured.get(m) is not None for run in runs))] or known
    for metric in wanted:
        if metric not in known:
            raise UserError(f"metric {metric!r} is not in every run. Known: {listed(known, metric)}")
    return list(dict.fromkeys(wanted))


# ------------------------------------------------------------------------------------------------------------- metrics
Row = tuple[str, list[float], "tuple[str | None, Interval, float | None, float | None] | None", "Interval | None"]
"""A model in a metric: its name, a value per seed, against the baseline test, interval, statistic, p; its interval."""


def _of_all_lists(models: dict[str, list[ComparedRun]], metric: str) -> list[Row]:
    """A metric of the lists as a whole. Raises UserError where they are of different users: more lists hold more."""
    everyone = [run for members in models.values() for run in members]
    few, many = (choose(everyone, key=lambda run: run.lists.height) for choose in (min, max))
    if few.lists.height != many.lists.height:
        raise UserError(
            f"{metric} is of all lists together, and {few.path} has {few.lists.height} of them, {many.path} "
            f"{many.lists.height}: compare runs of one eval.topk_users, or other metrics"
        )
    values = {name: [float(run.measured[metric]) for run in members] for name, members in models.items()}
    means = {name: statistics.fmean(of_seeds) for name, of_seeds in values.items()}
    first = next(iter(models))
    differences = {name: Interval(mean - means[first], np.nan, np.nan) for name, mean in means.items()}
    return [(n, values[n], (None, differences[n], None, None) if n != first else None, None) for n in models]


class _ListValues:
    """Per-user values of lists of the full catalogue."""

    def __init__(self, models: dict[str, list[ComparedRun]], bootstrap: int, level: float):
        self.models, self.bootstrap, self.level = models, bootstrap, level
        everyone = [run for members in models.values() for run in members]
        least = min(everyone, key=lambda run: run.lists.height)
        rows = least.lists["user"]
        self.users = len(rows)
        for run in everyone:
            users = run.lists["user"]
            if len(users) > self.users and least.draws_users:  # who is drawn by the one is among those of the others
                users = users.filter(users.is_in(rows.implode()))
            if not users.equals(rows):
                raise UserError(
                    f"{least.path} and {run.path} were judged on different users ({self.users} and "
                    f"{run.lists.height}): their split or label differs"
                )
        self.rows = rows

    def _of(self, run: ComparedRun, metric: str) -> NDArray[np.float64]:
        """A run's values, `[users]`, of the users whom all runs have."""
        return run.lists.filter(pl.col("user").is_in(self.rows.implode()))[metric].to_numpy()

    def results(self, metric: str) -> tuple[list[Row], int]:
        """Of a metric, and how many users have it in every run: a list may be without two items of known content."""
        seeds = [np.stack([self._of(run, metric) for run in members]) for members in self.models.values()]
        known = ~np.isnan(np.concatenate(seeds)).any(0)
        if not known.any():
            raise UserError(f"{metric} is undefined for every user of one of the runs")
        seeds = [values[:, known] for values in seeds]
        means = np.stack([values.mean(0) for values in seeds])  # [models, users]
        intervals = mean_bootstraps(means[1:] - means[0], self.bootstrap, level=self.level)
        own = mean_bootstraps(means, self.bootstrap, level=self.level)
        rows: list[Row] = []
        for place, (name, values) in enumerate(zip(self.models, seeds, strict=True)):
            contrast = None
            if place:
                test = paired_t_test(means[place], means[0])
                contrast = (T_TEST, intervals[place - 1], test.statistic, test.p_value)
            rows.append((name, values.mean(1).tolist(), contrast, own[place]))
        return rows, int(known.sum())


def _of_impressions(metric: str) -> bool:
    bare = of_label(metric)[1]
    return bare in (*IMPRESSION_METRICS, "qauc") or of_sessions(bare)


def _resampled(scores: pl.DataFrame, metric: str, bootstrap: int) -> tuple[float, NDArray[np.float64]]:
    """A metric of scored impressions, and its values in resamplings of the users."""
    if not of_sessions(metric):
        query = scores["query"] if metric == "qauc" else None
        rows = scores["user"], scores["label"], scores["score"]
        return resamplings(*rows, cast(Metric, metric), bootstrap, queries=query)
    users, found = session_values(scores, "score", [int(metric.partition("@")[2] or 1)])
    return mean_resamplings(users, found[metric], bootstrap)


def _impressions(models: dict[str, list[ComparedRun]], metric: str, bootstrap: int, level: float) -> list[Row]:
    """A metric of impressions; that of several seeds is the mean of theirs, in every resampling."""
    prefix, bare = of_label(metric)
    prints = {name: sorted(run.shown(prefix) for run in members) for name, members in models.items()}
    first = next(iter(prints))
    for name, shown in prints.items():
        if shown != prints[first] and len({*shown, *prints[first]}) > 1:
            raise UserError(
                f"{first} and {name} were judged on different impressions, since negatives are drawn by seed: "
                f"compare runs of the same seeds, or lists, for example with --metric {SHOWN[1]}"
            )
    values: dict[str, list[float]] = {}
    draws: dict[str, NDArray[np.float64]] = {}
    for name, members in models.items():
        frames = [run.labels[prefix] for run in members]
        sampled = [_resampled(frame, bare, bootstrap) for frame in frames]
        values[name], draws[name] = [value for value, _ in sampled], np.stack([d for _, d in sampled]).mean(0)
        if np.isnan(values[name]).any():
            raise UserError(f"{metric} is undefined on the test impressions of {name}: a label is missing")
    rows: list[Row] = []
    for name in models:
        contrast = None
        if name != first:
            difference = statistics.fmean(values[name]) - statistics.fmean(values[first])
            interval, p = bootstrap_test(difference, draws[name] - draws[first], level)
            contrast = (BOOTSTRAP, interval, None, p)
        own = bootstrap_test(statistics.fmean(values[name]), draws[name], level)[0]
        rows.append((name, values[name], contrast, own))
    return rows


def _popularity(
    models: dict[str, list[ComparedRun]], chosen: list[str], bootstrap: int, level: float
) -> tuple[list[Gain], str | None]:
    """Gains by popularity beside the bank's health, or why there are none although a run has told of its bank."""
    metric: Metric | None = next((name for name in GAINS if name in chosen), None)
    everyone = [run for members in models.values() for run in members]
    if metric is None or not any(run.health for run in everyone):
        return [], None
    try:
        data = everyone[0].folder.dataset()
    except UserError as error:
        return [], f"buckets of popularity need the training rows: {error}"
    frames = {name: [run.labels[""] for run in members] for name, members in models.items()}
    health = {name: [run.health for run in members] for name, members in models.items()}
    masks = bucket_masks(data, everyone[0].cfg.data.split)
    return gains(frames, health, metric, masks, bootstrap, level), None


def _with_tests(rows: list[tuple[str, str, list[float], Any, Interval | None]], level: float) -> list[Result]:
    """Results with p-values corrected over all comparisons, the best of each metric marked."""
    corrected = iter(holm([row[3][3] for row in rows if row[3] is not None and row[3][3] is not None]).tolist())
    means = [statistics.fmean(values) for _, _, values, *_ in rows]
    best: dict[str, float] = {}
    for (metric, *_), mean in zip(rows, means, strict=True):
        better = min if lower_is_better(metric) else max
        best[metric] = better(best.get(metric, mean), mean)
    results = []
    for (metric, model, values, found, own), mean in zip(rows, means, strict=True):
        contrast = None
        if found is not None:
            test, interval, statistic, p = found
            p_holm = None if p is None else next(corrected)
            t = None if statistic is None or np.isnan(statistic) else statistic
            bounds = (None, None) if p is None else (interval.low, interval.high)
            contrast = Contrast(interval.value, *bounds, test, t, p, p_holm, p_holm is not None and p_holm < 1 - level)
        deviation = statistics.stdev(values) if len(values) > 1 else None
        ends = (None, None) if own is None else (own.low, own.high)
        results.append(Result(model, metric, mean, deviation, mean == best[metric], contrast, *ends))
    return results
