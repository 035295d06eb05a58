"""What a run is and how well it does, gathered from its folder and its dataset into one page."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from rawrec import config
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import TIMELESS
from rawrec.errors import UserError
from rawrec.evaluation.ctr import auc, buckets_of, ece, pcoc, reliability
from rawrec.evaluation.significance import (
    Interval,
    Metric,
    paired_bootstrap,
    paired_mean_bootstrap,
    user_bootstrap,
)
from rawrec.report import plots
from rawrec.report.pictures import Tile, Tiles
from rawrec.training.run import RunFolder
from rawrec.training.trainer import LOWER_IS_BETTER

SAMPLED_USERS = SAMPLED_ITEMS = 6
SHOWN = 8
TEST = 2
BUCKET_NAMES = {
    "": "all items",
    "cold": "cold: no training row",
    "rare": "rare: 1 to 4",
    "medium": "medium: 5 to 19",
    "warm": "warm: 20 and more",
}
METRICS: dict[Metric, tuple[str, str, bool]] = {
    "auc": ("AUC", "chance that a positive scores above a negative; higher is better", True),
    "gauc": ("GAUC", "the same within each user, weighted by impressions; higher is better", True),
    "logloss": ("Logloss", "cost of the probabilities; lower is better", False),
}
RANKING = {"recall": "Recall", "ndcg": "NDCG", "precision": "Precision", "map": "MAP"}


class Recommending(Protocol):
    """The part of a recommender that a report shows: both give (item id, score), best first."""

    def recommend(self, *, user: str, k: int) -> Sequence[tuple[str, float]]: ...

    def similar(self, *, item: str, k: int) -> Sequence[tuple[str, float]]: ...


class Run:
    """The files of a finished run folder, read when asked for. Raises UserError on what is missing or damaged."""

    def __init__(self, path: Path):
        self.path = path
        self.name = path.resolve().name
        if not (path / "run.json").is_file():
            raise UserError(f"{path} is not a run folder: it has no run.json (make one with `rawrec train`)")
        self.info: dict[str, Any] = self._read("run.json", json.loads)
        if not self.info.get("finished"):
            raise UserError(f"{path} is not finished: complete it with `rawrec resume {path}`, then report")
        self.config = config.validate(self._read("config.yaml", yaml.safe_load))
        self.metrics: dict[str, Any] = self._read("metrics.json", json.loads)
        self.judges_impressions = not self.config.retrieval
        self.epochs: list[dict[str, Any]] = self._read(
            "metrics.jsonl", lambda text: [json.loads(line) for line in text.splitlines() if line.strip()]
        )

    @cached_property
    def test(self) -> pl.DataFrame:
        """Test impressions: row, user, item, label, score; each (row, item) once."""
        frame = self._parquet("scores.parquet", ["row", "user", "item", "label", "score", "split"])
        return frame.filter(pl.col("split") == TEST).unique(["row", "item"], keep="first", maintain_order=True)

    @cached_property
    def topk(self) -> pl.DataFrame | None:
        """Lists out of the full catalogue per test user; None where the run made none."""
        return self._parquet("topk.parquet", ["user", "items"]) if (self.path / "topk.parquet").is_file() else None

    def series(self, key: str) -> plots.Line:
        """Epochs and values of one entry of metrics.jsonl, where it is a number."""
        found = [(e["epoch"], float(e[key])) for e in self.epochs if isinstance(e.get(key), int | float)]
        return [x for x, _ in found], [y for _, y in found]

    def _read(self, name: str, parse: Callable[[str], Any]) -> Any:
        try:
            return parse((self.path / name).read_text())
        except FileNotFoundError:
            raise UserError(f"{self.path}/{name} is missing: train the run again") from None
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{self.path}/{name} cannot be read: {error}") from None

    def _parquet(self, name: str, columns: list[str]) -> pl.DataFrame:
        path = self.path / name
        try:
            frame = pl.read_parquet(path)
        except FileNotFoundError:
            raise UserError(f"{path} is missing: make it with `rawrec evaluate {self.path}`") from None
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        if missing := set(columns) - set(frame.columns):
            raise UserError(f"{path} lacks the columns {sorted(missing)}: evaluate the run again")
        return frame


@dataclass(frozen=True)
class Line:
    """One metric in one bucket: the run, the baseline, their difference, and shares of the best possible AUC."""

    bucket: str
    impressions: int
    value: Interval
    baseline: float | None
    difference: Interval | None
    good: bool | None
    bar: Markup | None
    share: float | None
    baseline_share: float | None


@dataclass(frozen=True)
class Block:
    """One metric in all buckets; its strips reach from -reach to reach."""

    title: str
    meaning: str
    lines: list[Line]
    reach: float


def build_report(
    run: str | Path,
    against: str | Path | None = None,
    out: str | Path | None = None,
    *,
    recommender: Recommending | None = None,
    data: Dataset | str | Path | None = None,
) -> Path:
    """Write the page of a run, compared with the run `against`, to `out` (default RUN/report.html); returns its path.

    recommender: the run in use, for neighbours of cold items (and for recommendations where the run stored no lists);
    without it those pictures are left out. data: where the dataset of the runs is now, if it has moved. Raises
    UserError on a run that is not finished or not comparable.
    """
    mine, other = Run(Path(run)), Run(Path(against)) if against else None
    found = RunFolder(mine.path).dataset(data)
    if other is not None:
        _check_comparable(mine, other)
        if not mine.judges_impressions and other.topk is None:
            raise UserError(f"{mine.path} and {other.path} cannot be compared: {other.name} was trained without lists")
    page = _render(_gather(mine, other, found, recommender))
    return _write(page, Path(out) if out else mine.path / "report.html")


def _check_comparable(mine: Run, other: Run) -> None:
    for what, a, b in (
        ("dataset", *_datasets(mine, other)),
        ("data.split", mine.config.data.split, other.config.data.split),
        ("data.label", mine.config.data.label, other.config.data.label),
        ("eval.protocol", mine.config.eval.protocol, other.config.eval.protocol),
    ):
        if a != b:
            raise UserError(
                f"{mine.path} and {other.path} cannot be compared: {what} is {a} in one and {b} in the other"
            )


def _datasets(mine: Run, other: Run) -> tuple[str, str]:
    """Where the datasets of two runs were; the same where their contents are, though one has moved in between."""
    same = mine.info["dataset_fingerprint"] == other.info["dataset_fingerprint"]
    return mine.info["dataset"], mine.info["dataset"] if same else other.info["dataset"]


# -------------------------------------------------------------------------------------------------------------- gather
def _gather(mine: Run, other: Run | None, data: Dataset, recommender: Recommending | None) -> dict[str, Any]:
    part = data.split(mine.config.data.split)
    train_counts = np.bincount(data.items[part == 0], minlength=data.n_items)
    buckets = buckets_of(train_counts)
    judged = [r for r in (mine, other) if r and r.judges_impressions] if mine.judges_impressions else []
    blocks, compared = _compare(mine, judged[1] if judged[1:] else None, data, buckets) if judged else ([], 0)
    users, cold = _people(mine, data, part, recommender), _cold_items(data, buckets["cold"], recommender)
    tiles = Tiles(data, users.rows() | cold.rows())
    curves = {r.name if r is not mine else "this run": _reliability(r.test) for r in judged}
    return {
        "run": mine,
        "other": other,
        "data": data,
        "metric": mine.config.train.metric,
        "blocks": blocks,
        "compared": compared,
        "curves": _curves(mine, other),
        "bank": _bank(mine),
        "reliability": plots.reliability_plot(curves) if judged and len(mine.test) else None,
        "calibration": _calibration(judged, buckets),
        "ranking": _ranking(mine, other),
        "users": users.tiles(tiles),
        "user_count": users.eligible,
        "users_note": users.note,
        "cold": cold.tiles(tiles),
        "cold_note": cold.note,
        "cold_count": int(buckets["cold"].sum()),
        "bucket_items": {name: int(mask.sum()) for name, mask in buckets.items()},
        "ratio": round(tiles.ratio, 3),
        "reasons": _reasons(mine),
        "stale_auc": mine.metrics.get("test", {}).get("stale/auc"),
        "config_text": yaml.safe_dump(mine.config.dump(), sort_keys=False),
    }


def _frames(mine: Run, other: Run | None) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """The run's test impressions, and those that both runs scored with `other` beside `score`."""
    if other is None:
        return mine.test, None
    both = mine.test.join(other.test.select("row", "item", other="score"), on=["row", "item"], how="inner")
    if both.is_empty():
        raise UserError(f"{mine.path} and {other.path} scored no test impression in common: evaluate both again")
    return mine.test, both


def _compare(
    mine: Run, other: Run | None, data: Dataset, buckets: dict[str, NDArray[np.bool_]]
) -> tuple[list[Block], int]:
    """A block of lines per metric, and the number of impressions that both runs scored."""
    test, both = _frames(mine, other)
    best = data.column("probability") if _has_best(data) else None
    n = mine.config.eval.bootstrap
    blocks = []
    for metric, (title, meaning, higher) in METRICS.items():
        lines = []
        for name in BUCKET_NAMES:
            rows = _in_bucket(test, buckets.get(name))
            if rows.is_empty():
                continue
            value = user_bootstrap(rows["user"], rows["label"], rows["score"], metric, n)
            shared = None if both is None else _in_bucket(both, buckets.get(name))
            baseline = difference = None
            if shared is not None and len(shared):
                args = shared["user"], shared["label"], shared["score"], shared["other"]
                difference = paired_bootstrap(*args, metric, n)
                baseline = user_bootstrap(args[0], args[1], args[3], metric, 0).value
            share = baseline_share = None
            if metric == "auc" and best is not None:
                top = auc(rows["label"], best[rows["row"].to_numpy()])
                share = _share(value.value, top)
                baseline_share = None if baseline is None else _share(baseline, top)
            good = (difference.value > 0) == higher if difference and difference.excludes_zero else None
            lines.append(Line(name, len(rows), value, baseline, difference, good, None, share, baseline_share))
        blocks.append(_with_bars(Block(title, meaning, lines, 0.0)))
    return blocks, 0 if both is None else len(both)


def _with_bars(block: Block) -> Block:
    """The block with a strip per difference, on a scale that a bucket of a few impressions cannot stretch."""
    extents = [max(abs(d.low), abs(d.high)) for line in block.lines if (d := line.difference) and math.isfinite(d.low)]
    if not any(extents):
        return block
    reach = _round_up(min(max(extents), max(extents[0], 1.6 * float(np.median(extents)))))
    lines = [
        replace(line, bar=plots.interval_bar(line.difference, reach, line.good))
        if line.difference and math.isfinite(line.difference.low)
        else line
        for line in block.lines
    ]
    return replace(block, lines=lines, reach=reach)


def _round_up(value: float) -> float:
    """To a number that is easy to read: 0.0122 -> 0.015."""
    unit = 10 ** math.floor(math.log10(value))
    return next(step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15) if step * unit >= value) * unit


def _has_best(data: Dataset) -> bool:
    return data.meta.generated and "probability" in data.meta.extra and not data.positive_only


def _share(value: float, best: float) -> float | None:
    share = (value - 0.5) / (best - 0.5) if best != 0.5 else math.nan
    return share if math.isfinite(share) else None


def _in_bucket(frame: pl.DataFrame, mask: NDArray[np.bool_] | None) -> pl.DataFrame:
    return frame if mask is None else frame.filter(pl.Series(mask[frame["item"].to_numpy()]))


def _reliability(test: pl.DataFrame) -> Any:
    return reliability(test["label"], test["score"])


def _calibration(runs: list[Run], buckets: dict[str, NDArray[np.bool_]]) -> list[dict[str, Any]]:
    """ece and pcoc by bucket, of the run and, where there are two, of the baseline."""
    lines = []
    for name in BUCKET_NAMES if runs else ():
        rows = [_in_bucket(r.test, buckets.get(name)) for r in runs]
        if not rows[0].is_empty():
            values = [(ece(f["label"], f["score"]), pcoc(f["label"], f["score"])) for f in rows]
            lines.append({"bucket": name, "run": values[0], "baseline": values[1] if runs[1:] else None})
    return lines


def _ranking(mine: Run, other: Run | None) -> dict[str, Any] | None:
    """Metrics of full-catalogue lists: by cut-off over all items, and by bucket at the cut-off nearest to 20."""
    test = mine.metrics.get("test", {})
    base = other.metrics.get("test", {}) if other else {}
    ks = sorted({int(k.partition("@")[2]) for k in test if k.startswith("recall@")})
    if not ks:
        return None

    def cells(prefix: str, k: int) -> list[dict[str, Any]]:
        keys = [f"{prefix}{name}@{k}" for name in RANKING]
        return [
            {"run": test.get(key), "baseline": base.get(key), "difference": _paired(mine, other, key)} for key in keys
        ]

    middle = min(ks, key=lambda k: abs(k - 20))
    prefixes = {name: f"{name}/" if name else "" for name in BUCKET_NAMES}
    kept = [n for n in BUCKET_NAMES if f"{prefixes[n]}recall@{middle}" in test]
    return {
        "names": list(RANKING.values()),
        "by_k": [{"k": k, "cells": cells("", k)} for k in ks],
        "middle": middle,
        "by_bucket": [
            {
                "bucket": n,
                "users": test.get(f"{prefixes[n]}topk_users"),
                "cells": cells(prefixes[n], middle),
            }
            for n in kept
        ],
    }


def _paired(mine: Run, other: Run | None, key: str) -> Interval | None:
    """Interval of the difference of a metric that both runs stored per user in topk.parquet."""
    a, b = mine.topk, other.topk if other else None
    if a is None or b is None or key not in a.columns or key not in b.columns:
        return None
    both = a.select("user", mine=key).join(b.select("user", other=key), on="user", how="inner")
    return paired_mean_bootstrap(
        both["mine"].cast(pl.Float64).to_numpy(), both["other"].cast(pl.Float64).to_numpy(), mine.config.eval.bootstrap
    )


def _curves(mine: Run, other: Run | None) -> list[tuple[str, Markup]]:
    """Titles and plots of the training loss and of the validation metric by epoch."""
    found = []
    parts = sorted({key for epoch in mine.epochs for key in epoch if key.startswith("loss/")})
    losses = {key.removeprefix("loss/"): line for key in parts if any((line := mine.series(key))[1])}
    losses = {"loss": mine.series("loss")} | (losses if len(losses) > 1 else {})
    if losses["loss"][0]:
        found.append(("Training loss", plots.lines("loss", losses, "epoch")))
    metric = mine.config.train.metric
    key = f"valid/{metric}"
    x, y = mine.series(key)
    if x:
        best = int(np.argmin(y) if metric in LOWER_IS_BETTER else np.argmax(y))
        series = {"this run": (x, y)} | (
            {"stale bank": line} if (line := mine.series(f"valid/stale/{metric}"))[0] else {}
        )
        dashed = {other.name: line} if other and (line := other.series(key))[0] else None
        mark = (x[best], y[best], f"{y[best]:.4f}")
        found.append((f"Validation {metric}", plots.lines(key, series, "epoch", dashed, mark)))
    return found


def _bank(mine: Run) -> list[tuple[str, str, Markup]]:
    """Title, meaning and plot of each side of the bank's health that the run logged."""
    groups = [
        ("Coverage", "share of the rows that were ever written", {"bank/coverage": "coverage"}, True),
        (
            "Age",
            "steps since a row was last written",
            {"bank/age_mean": "mean", "bank/age_p95": "95th percentile"},
            False,
        ),
        ("Drift", "1 - cosine of a row before and after it is rewritten", {"bank/drift": "drift"}, False),
        (
            "Live share",
            "share of the samples whose item was encoded in the step, by popularity",
            {f"live_share/{bucket}": bucket for bucket in BUCKET_NAMES if bucket},
            True,
        ),
    ]
    found = []
    for title, meaning, keys, share in groups:
        series = {label: line for key, label in keys.items() if (line := mine.series(key))[0]}
        if series:
            found.append((title, meaning, plots.lines(title.lower(), series, "epoch", share=share)))
    return found


def _reasons(mine: Run) -> dict[str, str]:
    """Why metrics of test are undefined, one entry per reason: metrics -> reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in mine.metrics.get("reasons", {}).get("test", {}).items():
        reasons.setdefault(str(reason), []).append(str(name))
    return {", ".join(names): reason for reason, names in reasons.items()}


# ------------------------------------------------------------------------------------------------------------ pictures
@dataclass(frozen=True)
class People:
    """Sampled users: dense index, history, recommended and later items as rows; eligible: drawn from so many.

    note: why there are none.
    """

    data: Dataset
    entries: list[tuple[int, list[int], list[int], list[int]]]
    eligible: int
    note: str = "No user has a positive in the test part and one before it."

    def rows(self) -> set[int]:
        return {row for _, *lists in self.entries for items in lists for row in items}

    def tiles(self, tiles: Tiles) -> list[dict[str, Any]]:
        return [
            {
                "user": self.data.user_ids[user],
                "history": [tiles.tile(row) for row in history],
                "recommended": [tiles.tile(row, hit=row in later) for row in recommended],
                "later": [tiles.tile(row, hit=row in recommended) for row in later[:SHOWN]],
                "hits": len(set(recommended) & set(later)),
                "later_count": len(later),
            }
            for user, history, recommended, later in self.entries
        ]


def _people(mine: Run, data: Dataset, part: NDArray[np.int8], recommender: Recommending | None) -> People:
    """Users drawn at random (seed 0) among those with an earlier and a test positive, and a list to show.

    The history is the one that the model read: what came before the user's first test positive.
    """
    positive = data.label(mine.config.data.label) > 0
    timeless = data.meta.splits[mine.config.data.split]["kind"] in TIMELESS
    times = None if timeless else data.timestamps
    taken = positive & (part == TEST)
    before = positive & (part == 0) if times is None or mine.config.data.history_mode == "train" else positive
    if times is not None:
        first = np.full(data.n_users, np.iinfo(np.int64).min)
        first[data.users[taken]] = np.iinfo(np.int64).max
        np.minimum.at(first, data.users[taken], times[taken])
        before = before & (times < first[data.users])
    eligible = np.intersect1d(data.users[before], data.users[taken])
    stored: dict[int, list[int]] = {}
    if mine.topk is not None:
        eligible = np.intersect1d(eligible, mine.topk["user"].to_numpy())
    elif recommender is None:
        return People(data, [], 0, "No list was stored with this run, and no recommender was at hand.")
    users = np.random.default_rng(0).permutation(eligible)[:SAMPLED_USERS].tolist()
    if mine.topk is not None:
        lists = mine.topk.filter(pl.col("user").is_in(users))
        stored = dict(zip(lists["user"].to_list(), lists["items"].to_list(), strict=True))

    def earliest_first(user: int, mask: NDArray[np.bool_]) -> list[int]:
        rows = np.flatnonzero((data.users == user) & mask)
        rows = rows if times is None else rows[np.argsort(times[rows], kind="stable")]
        return list(dict.fromkeys(data.items[rows].tolist()))

    entries = []
    for user in users:
        if user in stored:
            recommended = [item for item in stored[user] if item >= 0][:SHOWN]
        else:
            assert recommender is not None
            ids = [item for item, _ in recommender.recommend(user=str(data.user_ids[user]), k=SHOWN)]
            recommended = data.item_rows(ids).tolist()
        entries.append((user, earliest_first(user, before)[-SHOWN:], recommended, earliest_first(user, taken)))
    return People(data, entries, len(eligible))


@dataclass(frozen=True)
class ColdItems:
    """Sampled cold items and their neighbours (row, similarity), or a note on why there are none."""

    entries: list[tuple[int, list[tuple[int, float]]]]
    note: str = ""

    def rows(self) -> set[int]:
        return {row for item, near in self.entries for row in [item, *(n for n, _ in near)]}

    def tiles(self, tiles: Tiles) -> list[tuple[Tile, list[Tile]]]:
        return [(tiles.tile(item), [tiles.tile(row, f"{s:.2f}") for row, s in near]) for item, near in self.entries]


def _cold_items(data: Dataset, cold: NDArray[np.bool_], recommender: Recommending | None) -> ColdItems:
    """Cold items drawn at random (seed 0), with a picture where the data hold pictures."""
    if recommender is None:
        return ColdItems([], "No recommender was at hand.")
    for field in data.fields.image:
        cold = cold & data.present(field) if (cold & data.present(field)).any() else cold
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(cold))[:SAMPLED_ITEMS].tolist()
    if not drawn:
        return ColdItems([], "Every item of this dataset has training rows.")
    entries, note = [], ""
    for item in drawn:
        try:
            near = recommender.similar(item=str(data.item_ids[item]), k=SHOWN)
        except UserError as error:  # nothing is known of this item
            note = f"The model knows nothing of these items to compare them by: {error}."
            continue
        rows = data.item_rows([item_id for item_id, _ in near]).tolist()
        entries.append((item, list(zip(rows, [float(score) for _, score in near], strict=True))))
    return ColdItems(entries, note)


# -------------------------------------------------------------------------------------------------------------- render
def number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """A number for a table; – where it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def scale(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−")


def count(value: float) -> str:
    """1234567 -> 1,234,567 with thin spaces."""
    return f"{int(value):,}".replace(",", "\u2009")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    words = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0) + [f"{rest} s"] * (not hours)
    return " ".join(words)


def words(value: Any) -> str:
    """Any plain value of run.json in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {words(sub)}" if not isinstance(sub, dict | list) else f"{key}: {words(sub)}"
                         for key, sub in value.items() if sub not in (None, [], {})) or "none"  # fmt: skip
    if isinstance(value, list | tuple):
        return ", ".join(words(v) for v in value) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    return str(value)


def _render(context: dict[str, Any]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "scale": scale, "count": count, "duration": duration, "words": words}
    source = resources.files("rawrec.report").joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(context | {"bucket_names": BUCKET_NAMES})


def _write(page: str, out: Path) -> Path:
    """The page is whole or not there."""
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(page)
            Path(name).chmod(0o644)
            Path(name).replace(out)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"the report cannot be written to {out}: {error.strerror or error}") from None
    return out
