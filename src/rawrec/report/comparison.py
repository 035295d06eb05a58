"""Finished runs side by side on test: which model is better, and whether the users seen are enough to tell.

Lists of the full catalogue (recall@K, ndcg@K, ...): each user's values, averaged over the seeds of a model, are tested
against the baseline's by a paired t-test. Impressions (auc, gauc, qauc, logloss) and what sessions showed
(shown/ndcg@K, shown/mrr): users are drawn again and again with all that they were shown, the same for every model, and
the draws in which the difference changes its sign are counted. All p-values of one comparison are corrected together
(Holm-Bonferroni). Of the lists as a whole (coverage@K, personalisation@K, ...) there are no values of users to test:
the difference stands alone.
"""

from __future__ import annotations

import hashlib
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
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
from rawrec.report.labels import by_label, session_values
from rawrec.report.popularity import GAINS, Gain, Health, bucket_masks, gains, health_of
from rawrec.report.tables_of_runs import LISTS, SCORES, read_frame
from rawrec.training.runs import RunFolder, cut_short, not_finished

IMPRESSION_METRICS = ("auc", "gauc", "logloss")
SHOWN = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
SHOWN_OF_ALL = ("coverage@20", "personalisation@20")
OF_THE_MACHINE = (
    "seed",
    "train.threads",
    "train.device",
    "train.checkpoint_every",
    "train.checkpoint_share",
    "train.on_interrupt",
)
"""Runs that differ in nothing else are seeds of one model."""
TEST_PART = 2
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


class _Run:
    """What a comparison reads of a finished run."""

    def __init__(self, path: Path):
        self.folder = RunFolder.open(path)
        self.path = self.folder.path
        self.info = self.folder.info()
        if not self.info["finished"]:
            pruned = self.info.get("pruned")
            why = "was pruned by its sweep" if pruned else not_finished(path)
            raise UserError(f"{path} {why}, so it has no test metrics to compare")
        self.cfg = self.folder.config()
        self.settings = dict(_flat(self.cfg.dump()))
        self.same = {key: value for key, value in self.settings.items() if key not in OF_THE_MACHINE}

    @cached_property
    def lists(self) -> pl.DataFrame:
        """Columns user and a metric each, a row per user; empty where the run made no lists."""
        path = self.path / "topk.parquet"
        return read_frame(path, LISTS).drop("items") if os.path.lexists(path) else pl.DataFrame()

    @cached_property
    def impressions(self) -> pl.DataFrame:
        """Columns row, user, item, label, score of test; empty where the run is of a retrieval model."""
        return self.labels[""]

    @cached_property
    def labels(self) -> dict[str, pl.DataFrame]:
        """The same of each label, see `by_label`."""
        path = self.path / "scores.parquet"
        if not os.path.lexists(path):
            return {"": pl.DataFrame()}
        return by_label(
            read_frame(path, SCORES).filter(pl.col("split") == TEST_PART), self.cfg.data.label, self.measured
        )

    @cached_property
    def measured(self) -> dict[str, Any]:
        """Its metrics of test, by name."""
        return self.folder.metrics()["test"] if os.path.lexists(self.path / "metrics.json") else {}

    @cached_property
    def health(self) -> dict[str, Health]:
        """Its bank's by bucket, see `health_of`."""
        return health_of(self.folder.metrics_lines(), self.info)

    @property
    def draws_users(self) -> bool:
        """Whether its lists are of users drawn from those who could have one, see `eval.topk_users`."""
        return "topk_users_of" in self.measured

    @property
    def metrics(self) -> list[str]:
        scored = [prefix for prefix, frame in self.labels.items() if frame.height]
        names = [prefix + name for prefix in scored for name in [*IMPRESSION_METRICS, *self._asked(prefix)]]
        whole = [name for name, value in self.measured.items() if of_all_lists(name) and value is not None]
        return [*names, *self.lists.columns[1:], *(whole if self.lists.height else [])]

    def _asked(self, prefix: str) -> list[str]:
        """Metrics of queries and sessions that it has of a label."""
        columns = self.labels[prefix].columns
        shown = [name for label, name in map(of_label, self.measured) if label == prefix and of_sessions(name)]
        return ["qauc"] * ("query" in columns) + shown * ("session" in columns)

    def shown(self, prefix: str) -> str:
        """Digest of the impressions that were scored; drawn negatives differ with the seed."""
        columns = self.labels[prefix].select("row", "item", "label").to_numpy()
        return hashlib.sha256(columns.tobytes()).hexdigest()


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
    models = _models(runs, groups or {}, baseline)
    everyone = [run for members in models.values() for run in members]
    _check_same_data(everyone)
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


# -------------------------------------------------------------------------------------------------------------- models
def _models(
    runs: Sequence[str | Path], groups: Mapping[str, Sequence[str | Path]], baseline: str | Path | None
) -> dict[str, list[_Run]]:
    """The runs of each model by its name, the baseline's first."""
    paths = [Path(path).absolute() for path in (*runs, *(path for group in groups.values() for path in group))]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice")
    single: list[list[_Run]] = []
    for run in (_Run(Path(path)) for path in runs):
        members = next((members for members in single if members[0].same == run.same), None)
        if members is None:
            single.append([run])
            continue
        twin = next((other for other in members if other.cfg.seed == run.cfg.seed), None)
        if twin is not None:
            raise UserError(
                f"{twin.path} and {run.path} have the same settings and the same seed={run.cfg.seed}: leave one out"
            )
        members.append(run)
    models = dict(zip(_names([members[0] for members in single]), single, strict=True))
    for name, members in groups.items():
        if name in models or not members:
            why = "has no runs" if not members else "is the name of another model too; choose another"
            raise UserError(f"group {name!r} {why}")
        models[name] = [_Run(Path(path)) for path in members]
    if len(models) < 2:
        found = f"all {len(paths)} runs are seeds of one" if len(paths) > 1 else "give two runs or more"
        raise UserError(f"a comparison needs two models: {found}")
    first = _baseline(models, baseline)
    return {first: models[first], **models}


def _baseline(models: dict[str, list[_Run]], baseline: str | Path | None) -> str:
    if baseline is None or str(baseline) in models:
        return next(iter(models)) if baseline is None else str(baseline)
    path = Path(baseline).absolute()
    found = [name for name, members in models.items() if path in [run.path for run in members]]
    if not found:
        raise UserError(f"baseline {baseline} is none of the runs, nor the name of a model: {', '.join(models)}")
    return found[0]


def _names(runs: list[_Run]) -> list[str]:
    """The model's name; where several share it, with the settings in which they differ, else the folder's name."""
    names = []
    for run in runs:
        name = run.cfg.label
        alike = [other for other in runs if other.cfg.label == name]
        keys = [k for k in run.same if any(other.same.get(k) != run.same[k] for other in alike)]
        words = [name, *(f"{key.rpartition('.')[2]}={run.same[key]}" for key in keys)]
        names.append(" ".join(words) if len(keys) <= 3 else run.path.name)
    if len(set(names)) < len(names):
        names = [run.path.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for key, value in tree.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return pairs


def _check_same_data(runs: list[_Run]) -> None:
    """All of one dataset, split, label and protocol, and lists that leave out the same."""
    first = runs[0]
    for run in runs[1:]:
        if run.info["dataset_fingerprint"] != first.info["dataset_fingerprint"]:
            raise UserError(
                f"{first.path} and {run.path} are of different data: {first.info['dataset']}, {run.info['dataset']}; "
                "or the dataset was changed, or added to, between them"
            )
        for key in ("data.split", "data.label", "eval.protocol", "eval.exclude_seen"):
            usual = "positives" if key == "eval.exclude_seen" else None  # of runs from before it was a setting
            a, b = first.settings[key] or usual, run.settings[key] or usual
            if a != b:
                raise UserError(f"{first.path} and {run.path} cannot be compared: {key}={a} there, {key}={b} here")


def _metrics(runs: list[_Run], wanted: Sequence[str] | None) -> list[str]:
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
            raise UserError(f"metric {metric!r} is not in every run. Known: {', '.join(known)}")
    return list(dict.fromkeys(wanted))


# ------------------------------------------------------------------------------------------------------------- metrics
Row = tuple[str, list[float], "tuple[str | None, Interval, float | None, float | None] | None"]
"""A model in a metric: its name, a value per seed, and against the baseline: test, interval, statistic, p."""


def _of_all_lists(models: dict[str, list[_Run]], metric: str) -> list[Row]:
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
    return [(name, values[name], (None, differences[name], None, None) if name != first else None) for name in models]


class _ListValues:
    """Per-user values of lists of the full catalogue."""

    def __init__(self, models: dict[str, list[_Run]], bootstrap: int, level: float):
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

    def _of(self, run: _Run, metric: str) -> NDArray[np.float64]:
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
        rows: list[Row] = []
        for place, (name, values) in enumerate(zip(self.models, seeds, strict=True)):
            contrast = None
            if place:
                test = paired_t_test(means[place], means[0])
                contrast = (T_TEST, intervals[place - 1], test.statistic, test.p_value)
            rows.append((name, values.mean(1).tolist(), contrast))
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


def _impressions(models: dict[str, list[_Run]], metric: str, bootstrap: int, level: float) -> list[Row]:
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
        rows.append((name, values[name], contrast))
    return rows


def _popularity(
    models: dict[str, list[_Run]], chosen: list[str], bootstrap: int, level: float
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


def _with_tests(rows: list[tuple[str, str, list[float], Any]], level: float) -> list[Result]:
    """Results with p-values corrected over all comparisons, the best of each metric marked."""
    corrected = iter(holm([row[3][3] for row in rows if row[3] is not None and row[3][3] is not None]).tolist())
    means = [statistics.fmean(values) for _, _, values, _ in rows]
    best: dict[str, float] = {}
    for (metric, *_), mean in zip(rows, means, strict=True):
        better = min if lower_is_better(metric) else max
        best[metric] = better(best.get(metric, mean), mean)
    results = []
    for (metric, model, values, found), mean in zip(rows, means, strict=True):
        contrast = None
        if found is not None:
            test, interval, statistic, p = found
            p_holm = None if p is None else next(corrected)
            t = None if statistic is None or np.isnan(statistic) else statistic
            bounds = (None, None) if p is None else (interval.low, interval.high)
            contrast = Contrast(interval.value, *bounds, test, t, p, p_holm, p_holm is not None and p_holm < 1 - level)
        deviation = statistics.stdev(values) if len(values) > 1 else None
        results.append(Result(model, metric, mean, deviation, mean == best[metric], contrast))
    return results
