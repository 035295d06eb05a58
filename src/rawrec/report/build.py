"""What a run is and how well it does, gathered from its folder and its dataset into one page."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup

from rawrec.arguments import checked
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.evaluation.ctr import buckets_of
from rawrec.report import plots
from rawrec.report.catalogue import items_of, missing, searchable
from rawrec.report.cost import cost
from rawrec.report.curves import bank_health, curves
from rawrec.report.effects import effects
from rawrec.report.embedding_map import item_map
from rawrec.report.metrics import BUCKET_NAMES, ENOUGH, calibration, compare, ranking, reliability_of, tested
from rawrec.report.page import render, write
from rawrec.report.pictures import Tiles
from rawrec.report.popularity import health_of, standings
from rawrec.report.run import Run
from rawrec.report.samples import Recommending, sample_cold_items, sample_users
from rawrec.report.slices import slices
from rawrec.report.summary import sentences, warnings_of, without_times
from rawrec.training.runs import RunFolder


@checked()
def build_report(
    run: str | Path,
    against: str | Path | None = None,
    out: str | Path | None = None,
    *,
    recommender: Recommending | None = None,
    data: Dataset | str | Path | None = None,
) -> Path:
    """Write the page of a run, compared with the run `against`, to `out` (default RUN/report.html); returns its path.

    recommender: the run in use, for neighbours of cold items, the map of items and what pictures and texts add (and for
    recommendations where the run stored no lists); without it these are left out. data: where the dataset of the runs
    is now, if it has moved. Raises UserError on a run that is not finished or not comparable, and where matplotlib is
    not installed.
    """
    plots.loaded()
    mine, other = Run(Path(run)), Run(Path(against)) if against else None
    found = RunFolder(mine.path).dataset(data)
    mine.check(found)
    if other is not None:
        _check_comparable(mine, other)
        other.check(found)
        if not mine.judges_impressions and other.topk is None:
            raise UserError(f"{mine.path} and {other.path} cannot be compared: {other.name} was trained without lists")
    target = mine.path / "report.html" if out is None else Path(out)
    RunFolder(mine.path).check_export(target, found)
    page = render(_gather(mine, other, found, recommender))
    return write(page, target)


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


def _gather(mine: Run, other: Run | None, data: Dataset, recommender: Recommending | None) -> dict[str, Any]:
    read = data.retrieval_split(mine.config.data.split)  # 0: what histories are made of, too
    trained = (data.split(mine.config.data.split) if mine.judges_impressions else read) == 0
    train_counts = np.bincount(data.items[trained], minlength=data.n_items)
    buckets = buckets_of(train_counts)
    judged = [r for r in (mine, other) if r and r.judges_impressions] if mine.judges_impressions else []
    blocks, compared = compare(mine, judged[1] if judged[1:] else None, data, buckets) if judged else ([], 0)
    lists = ranking(mine, other, data)
    users, cold = sample_users(mine, data, read, recommender), sample_cold_items(data, buckets["cold"], recommender)
    tiles = Tiles(data, users.rows() | cold.rows())
    rows = searchable(data, train_counts, users.rows() | users.named() | cold.rows())
    found, map_note = item_map(data, buckets, recommender)
    rows = rows if found is None else np.union1d(rows, found.rows)
    task = getattr(recommender, "task", None)
    place = {int(row): n for n, row in enumerate(rows)}
    items = {"": data.n_items} | {name: int(mask.sum()) for name, mask in buckets.items()}
    health = [health_of(r.epochs, r.info) if r else {} for r in (mine, other)]
    reliable = {r.name if r is not mine else "this run": reliability_of(r.test) for r in judged}
    return {
        "run": mine,
        "other": other,
        "data": data,
        "said": sentences(mine, other, data, blocks, lists),
        "warned": warnings_of(mine, data, blocks, lists),
        "blocks": blocks,
        "tested": tested(blocks, mine.config.eval.bootstrap),
        "enough": ENOUGH,
        "compared": compared,
        "curves": curves(mine, other),
        "bank": bank_health(mine),
        "standings": standings(blocks, items, *health),
        "reliability": plots.reliability_plot(reliable) if judged and len(mine.test) else None,
        "calibration": calibration(judged, buckets),
        "ranking": lists,
        "users": users.tiles(tiles),
        "user_count": users.eligible,
        "users_by": users.by,
        "groups": Counter(one.group for one in users.entries),
        "further": {"users": users.plain(place), "by": users.by.name if users.by else ""},
        "slices": slices(mine, other, data),
        "effects": None if task is None else effects(task, mine.config.eval.bootstrap, buckets),
        "searched": len(rows),
        "catalogue": items_of(data, mine, rows, train_counts, tiles, found),
        "missing": missing(data, buckets),
        "map": found,
        "map_note": map_note,
        "sheet": Markup(found.sheet.uri) if found else "",
        "users_note": users.note,
        "users_told": users.told,
        "cold": cold.tiles(tiles),
        "cold_note": cold.note,
        "cold_count": int(buckets["cold"].sum()),
        "pictured": tiles.pictured,
        "pictures": tiles.style(),
        "bucket_names": BUCKET_NAMES,
        "bucket_items": {name: n for name, n in items.items() if name},
        "ratio": round(tiles.ratio, 3),
        "reasons": _reasons(mine),
        "stale_auc": mine.metrics.get("test", {}).get("stale/auc"),
        "cost": cost(mine, other),
        "split": without_times(str(mine.info["split"])),
        "config_text": yaml.safe_dump(_settings(mine), sort_keys=False),
    }


def _settings(mine: Run) -> dict[str, Any]:
    """As config.yaml has them, without a paradigm where the run has none: its model reads no content."""
    found = mine.config.dump()
    if not mine.info.get("paradigm"):
        found.pop("paradigm", None)
    return found


def _reasons(mine: Run) -> dict[str, str]:
    """Why metrics of test are undefined, one entry per reason: metrics -> reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in mine.metrics.get("reasons", {}).get("test", {}).items():
        reasons.setdefault(str(reason), []).append(str(name))
    return {", ".join(names): reason for reason, names in reasons.items()}
