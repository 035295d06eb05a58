"""The settings of a run on a dataset: what was asked for, and what the data say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rawrec.arguments import shown
from rawrec.config import Config, DataConfig, resolve
from rawrec.config.metrics import followed
from rawrec.config.resolution import single
from rawrec.data.dataset import Dataset
from rawrec.errors import IdleSetting, UserError
from rawrec.shown import listed


def configure(preset: str | Path | Mapping[str, Any] | Config, data: Dataset, overrides: Mapping[str, Any]) -> Config:
    """The config of a run on a dataset. Raises UserError where it is impossible, or asks for what the data have not."""
    fields = {"image": data.fields.image, "text": data.fields.text, "feature": data.fields.feature}
    kinds = {name: kind for kind, names in fields.items() for name in names}
    overrides = single(overrides)
    cfg = resolve(preset.dump() if isinstance(preset, Config) else preset, overrides, kinds)
    if "data.negatives" in overrides and not data.positive_only:
        raise IdleSetting(
            "data.negatives",
            f"data.negatives={cfg.data.negatives} would do nothing: negatives are drawn for positive-only data, "
            f"and this dataset has labels ({listed(data.meta.labels)})",
        )
    if "eval.shown" in overrides and not data.has_sessions:
        raise IdleSetting(
            "eval.shown",
            f"eval.shown={cfg.eval.shown} would do nothing: {data.path} has no sessions; import it anew with session "
            "(--session COLUMN)",
        )
    _check_metric(cfg.train.metric, data)
    if cfg.train.init is not None:  # a run may be resumed from another place
        cfg.train.init = str(Path(cfg.train.init).absolute())
    if cfg.data.split not in data.meta.splits:
        known = listed(data.meta.splits, cfg.data.split)
        raise UserError(f"data.split={shown(cfg.data.split)}: the dataset has no such split. Known: {known}")
    given = "data.label" in overrides or cfg.data.labels
    if cfg.data.label == DataConfig().label and not given and data.meta.labels:
        cfg.data.label = _default_label(data)
    if cfg.data.further_labels and data.positive_only:
        raise UserError(f"data.labels={cfg.data.labels}: {data.path} has no labels, every interaction is a positive")
    for name in cfg.data.label_names:
        data.check_label(name)
    if cfg.eval.exclude_seen is None:
        by_rating = data.meta.rated == "seen" and cfg.eval.protocol != "mmrec"
        cfg.eval.exclude_seen = "interactions" if by_rating else "positives"
    return cfg


def _check_metric(metric: str, data: Dataset) -> None:
    """UserError where the metric that is followed needs queries or sessions, and the dataset has none."""
    name = followed(metric).name
    for begin, column in (("qauc", "query"), ("shown/", "session")):
        if name.startswith(begin) and column not in data.meta.asked:
            raise UserError(
                f"train.metric={metric} needs a {column} of impressions, and {data.path} has none: import it anew with "
                f"{column} (--{column} COLUMN), or follow another metric"
            )


def _default_label(data: Dataset) -> str:
    """`label`, or the only label that the dataset has."""
    labels = data.meta.labels
    if DataConfig().label not in labels and len(labels) > 1:
        raise UserError(
            f"the dataset has the labels {listed(labels)}: say which one to learn, data.label={labels[0]}, or "
            f"several, data.labels=[{labels[0]},{labels[1]}]"
        )
    return DataConfig().label if DataConfig().label in labels else labels[0]
