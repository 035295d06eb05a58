"""The runs of a comparison: what is read of them, which are seeds of one model, and whether they can be compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from rawrec.config.metrics import of_all_lists, of_label, of_sessions
from rawrec.errors import UserError
from rawrec.report.labels import by_label
from rawrec.report.popularity import Health, health_of
from rawrec.report.tables_of_runs import LISTS, SCORES, read_frame
from rawrec.shown import listed
from rawrec.training.runs import RunFolder, not_finished

IMPRESSION_METRICS = ("auc", "gauc", "logloss")
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


class ComparedRun:
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
        self.settings = dict(flat(self.cfg.dump()))
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


def models_of(
    runs: Sequence[str | Path], groups: Mapping[str, Sequence[str | Path]], baseline: str | Path | None
) -> dict[str, list[ComparedRun]]:
    """The runs of each model by its name, the baseline's first."""
    paths = [Path(path).absolute() for path in (*runs, *(path for group in groups.values() for path in group))]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice")
    single: list[list[ComparedRun]] = []
    for run in (ComparedRun(Path(path)) for path in runs):
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
        models[name] = [ComparedRun(Path(path)) for path in members]
    if len(models) < 2:
        found = f"all {len(paths)} runs are seeds of one" if len(paths) > 1 else "give two runs or more"
        raise UserError(f"a comparison needs two models: {found}")
    first = _baseline(models, baseline)
    return {first: models[first], **models}


def _baseline(models: dict[str, list[ComparedRun]], baseline: str | Path | None) -> str:
    if baseline is None or str(baseline) in models:
        return next(iter(models)) if baseline is None else str(baseline)
    path = Path(baseline).absolute()
    found = [name for name, members in models.items() if path in [run.path for run in members]]
    if not found:
        raise UserError(f"baseline {baseline} is none of the runs, nor the name of a model: {listed(models, baseline)}")
    return found[0]


def _names(runs: list[ComparedRun]) -> list[str]:
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


def flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings by their keys with dots."""
    pairs = []
    for key, value in tree.items():
        pairs += flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return pairs


def check_same_data(runs: list[ComparedRun]) -> None:
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
