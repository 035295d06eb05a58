"""What a run gains over a baseline by how popular items are, beside the health of its bank there."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rawrec.data.dataset import Dataset
from rawrec.data.splits import BUCKETS
from rawrec.evaluation.ctr import buckets_of
from rawrec.evaluation.significance import Interval, Metric, bootstrap_test, resamplings
from rawrec.report.metrics import METRICS, Block, Line

GAINS: tuple[Metric, ...] = ("qauc", "gauc")
"""What a gain is of: the first that there is."""


@dataclass(frozen=True)
class Health:
    """Of the bank's rows of a bucket, as `metrics.jsonl` has it; None: not logged, or no item."""

    coverage: float | None = None
    age_mean: float | None = None
    age_p95: float | None = None
    drift: float | None = None
    cosine: float | None = None

    @property
    def told(self) -> bool:
        return any(value is not None for value in asdict(self).values())


def health_of(epochs: Sequence[Mapping[str, Any]], info: Mapping[str, Any]) -> dict[str, Health]:
    """The health of each bucket ("": all items) at the end of the epoch whose weights a run kept (`best_epoch` of
    `info`, else the last); empty where the run did not log it by bucket. epochs: the lines of `metrics.jsonl`."""
    kept = [line for line in epochs if line.get("epoch") == info.get("best_epoch")] or epochs[-1:]
    found = {}
    for name in ("", *BUCKETS):
        keys = {field: f"bank/{field}/{name}" if name else f"bank/{field}" for field in Health.__dataclass_fields__}
        found[name] = Health(**{field: kept[-1].get(key) if kept else None for field, key in keys.items()})
    return found if any(found[name].told for name in BUCKETS) else {}


def mean_health(found: Iterable[Health]) -> Health:
    """The mean over runs of what each has."""
    values: dict[str, list[float]] = {}
    for one in found:
        for field, value in asdict(one).items():
            values.setdefault(field, []).extend([] if value is None else [value])
    return Health(**{field: statistics.fmean(known) for field, known in values.items() if known})


def bucket_masks(data: Dataset, split: str) -> dict[str, NDArray[np.bool_]]:
    """Which items are in a bucket by the rows that rankers train on, `[n_items]` each."""
    return buckets_of(np.bincount(data.items[data.split(split) == 0], minlength=data.n_items))


# ---------------------------------------------------------------------------------------------------------- the report
@dataclass(frozen=True)
class Standing:
    """A line of the page: a metric of a bucket of items, and the rows of the bank of the run and of the baseline."""

    line: Line
    items: int
    mine: Health
    other: Health


def standings(
    blocks: Sequence[Block], items: Mapping[str, int], mine: Mapping[str, Health], other: Mapping[str, Health]
) -> tuple[str, list[Standing]]:
    """The name of the metric (QAUC, or GAUC where there are no queries), and a line per bucket that has impressions;
    none where neither run told of its bank by bucket. items: how many are in each bucket, "": in all."""
    block = next((b for title in (METRICS[name][0] for name in GAINS) for b in blocks if b.title == title), None)
    if block is None or not (mine or other):
        return "", []
    none = Health()
    lines = [
        Standing(line, items[line.bucket], mine.get(line.bucket, none), other.get(line.bucket, none))
        for line in block.lines
    ]
    return block.title, lines


# -------------------------------------------------------------------------------------------------------- a comparison
@dataclass(frozen=True)
class Gain:
    """A model in a bucket: its metric, the gain over the baseline with its interval (None of the baseline itself, or
    undefined), and its bank's health there; each the mean over its seeds."""

    model: str
    bucket: str
    metric: Metric
    impressions: int
    mean: float | None
    gain: float | None
    low: float | None
    high: float | None
    health: Health


def gains(
    models: Mapping[str, Sequence[pl.DataFrame]],
    health: Mapping[str, Sequence[Mapping[str, Health]]],
    metric: Metric,
    masks: Mapping[str, NDArray[np.bool_]],
    bootstrap: int,
    level: float,
) -> list[Gain]:
    """By bucket, then by model, the first being the baseline.

    models: of each seed the scored test impressions, of all models the same ones; health: of each seed `health_of`;
    masks: see `bucket_masks`. Users are drawn again as in the comparison of all items; buckets without impressions are
    left out.
    """
    found = []
    for bucket in BUCKETS:
        first: tuple[float, NDArray[np.float64]] | None = None
        for model, frames in models.items():
            inside = [frame.filter(pl.Series(masks[bucket][frame["item"].to_numpy()])) for frame in frames]
            if not len(inside[0]):
                break
            sampled = [_resampled(frame, metric, bootstrap) for frame in inside]
            mean, draws = statistics.fmean(v for v, _ in sampled), np.stack([d for _, d in sampled]).mean(0)
            interval = None
            if first is None:
                first = mean, draws
            else:
                interval = bootstrap_test(mean - first[0], draws - first[1], level)[0]
            own = mean_health(one[bucket] for one in health[model] if one)
            found.append(Gain(model, bucket, metric, len(inside[0]), _known(mean), *_bounds(interval), own))
    return found


def _resampled(frame: pl.DataFrame, metric: Metric, bootstrap: int) -> tuple[float, NDArray[np.float64]]:
    query = frame["query"] if metric == "qauc" else None
    return resamplings(frame["user"], frame["label"], frame["score"], metric, bootstrap, queries=query)


def _bounds(interval: Interval | None) -> tuple[float | None, float | None, float | None]:
    if interval is None:
        return None, None, None
    return _known(interval.value), _known(interval.low), _known(interval.high)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
