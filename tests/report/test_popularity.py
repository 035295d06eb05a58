"""Gains by popularity beside the bank's health: against counting pairs by hand, on the page, in comparisons."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import rawrec
from rawrec import cli
from rawrec.content.health import Health as Kept
from rawrec.data.dataset import Dataset
from rawrec.data.splits import BUCKETS
from rawrec.evaluation.significance import paired_bootstrap
from rawrec.report.build import build_report
from rawrec.report.comparison import compare
from rawrec.report.popularity import Health, bucket_masks, health_of, mean_health
from search_data import search

pytestmark = pytest.mark.usefixtures("undrawn")

FAST: dict[str, Any] = {
    "model.dim": 4,
    "model.hidden": [8],
    "train.epochs": 2,
    "train.warmup_steps": 0,
    "train.device": "cpu",
    "train.threads": 1,
    "eval.bootstrap": 50,
}


def told(masks: dict[str, np.ndarray], step: int) -> dict[str, float | None]:
    """What a bank tells whose rows were made at steps 0, 1, 2, ..., all as fresh ones but those of rare items."""
    buckets = {name: torch.from_numpy(mask) for name, mask in masks.items()}
    kept, n = Kept(), len(masks["cold"])
    kept.group(buckets)
    rows = torch.arange(n)
    old = torch.tensor([[1.0, 0.0]]).expand(n, 2)
    new = torch.where(buckets["rare"][:, None], torch.tensor([[0.0, 1.0]]), old)
    kept.note_cosine(rows, old, new)
    kept.note_drift(rows, old, new, torch.ones(n, dtype=torch.bool))
    return kept.told(torch.ones(n, dtype=torch.bool), rows.clone(), step) | kept.told_cosine()


def tell(run: Path, masks: dict[str, np.ndarray], steps: list[int]) -> None:
    """Epochs of a run as if it had a bank."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [line | told(masks, step) for line, step in zip(lines, steps, strict=True)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    info = json.loads((run / "run.json").read_text())
    info.pop("sum")
    (run / "run.json").write_text(json.dumps(info | {"best_epoch": 1, "files": {}}))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Searches of items of which some are rare."""
    return search(tmp_path_factory.mktemp("search") / "d", sessions=60, items=60)


@pytest.fixture(scope="module")
def runs(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A baseline without a bank and a run with one, two seeds each."""
    folder, masks = tmp_path_factory.mktemp("runs"), bucket_masks(data, "default")
    found = []
    for name, more in (("base", {}), ("run", {"train.lr": 0.03})):
        for seed in (0, 1):
            rawrec.train("id", data, folder / f"{name}-{seed}", FAST | more | {"seed": seed})
            found.append(folder / f"{name}-{seed}")
    for run, steps in zip(found[2:], ([100, 200], [104, 204]), strict=True):
        tell(run, masks, steps)
    return found


def plain_qauc(frame: pl.DataFrame) -> float:
    """Of every query the share of (positive, negative) pairs in the right order, weighted by its rows."""
    found, weights = [], []
    for query in sorted({q for q in frame["query"] if q >= 0}):
        of_query = frame.filter(pl.col("query") == query)
        positive, negative = (of_query.filter(pl.col("label") == label)["score"].to_list() for label in (1, 0))
        if positive and negative:
            pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
            found.append(sum(pairs) / len(pairs))
            weights.append(len(of_query))
    return float(np.average(found, weights=weights)) if found else np.nan


def in_bucket(run: Path, mask: np.ndarray) -> pl.DataFrame:
    frame = pl.read_parquet(run / "scores.parquet").filter(pl.col("split") == 2)
    return frame.filter(pl.Series(mask[frame["item"].to_numpy()]))


def test_gains_are_those_of_pairs_of_the_bucket(data: Dataset, runs: list[Path]) -> None:
    found, masks = compare(runs, bootstrap=100), bucket_masks(data, "default")
    assert found.popularity_missing is None and {line.metric for line in found.popularity} == {"qauc"}
    names, base = list(found.runs), found.baseline
    shown = [name for name in BUCKETS if len(in_bucket(runs[0], masks[name]))]
    assert {"rare", "medium"} <= set(shown)
    assert [(line.bucket, line.model) for line in found.popularity] == [(b, m) for b in shown for m in names]
    for line in found.popularity:
        mask = masks[line.bucket]
        members = runs[:2] if line.model == base else runs[2:]
        mean = np.mean([plain_qauc(in_bucket(run, mask)) for run in members])
        assert line.mean == pytest.approx(mean, abs=1e-9) and line.impressions == len(in_bucket(runs[0], mask))
        made = np.flatnonzero(mask)  # the step at which the row of each item was made
        if line.model == base:
            assert line.gain is None and line.low is None and line.health == Health()
        else:
            against = np.mean([plain_qauc(in_bucket(run, mask)) for run in runs[:2]])
            assert line.gain == pytest.approx(mean - against, abs=1e-9)
            assert line.low is not None and line.gain is not None and line.high is not None
            assert line.low <= line.gain <= line.high
            assert line.health.age_mean == pytest.approx(102 - made.mean())  # of the epoch kept, mean of the seeds
            assert line.health.coverage == 1
            assert line.health.cosine == pytest.approx(0 if line.bucket == "rare" else 1)
            assert line.health.drift == pytest.approx(1 if line.bucket == "rare" else 0)


def test_intervals_are_paired(data: Dataset, runs: list[Path]) -> None:
    found, masks = compare([runs[0], runs[2]], bootstrap=100), bucket_masks(data, "default")
    line = next(line for line in found.popularity if line.bucket == "rare" and line.gain is not None)
    mine, other = (in_bucket(run, masks["rare"]) for run in (runs[2], runs[0]))
    wanted = paired_bootstrap(
        mine["user"], mine["label"], mine["score"], other["score"], "qauc", 100, queries=mine["query"]
    )
    assert (line.gain, line.low, line.high) == pytest.approx((wanted.value, wanted.low, wanted.high))


def test_only_where_a_bank_has_told_and_the_metric_is_compared(runs: list[Path]) -> None:
    assert compare(runs[:1] + runs[2:3], metrics=["auc"], bootstrap=100).popularity == []
    by_user = compare(runs[:1] + runs[2:3], metrics=["gauc"], bootstrap=100).popularity
    assert {line.metric for line in by_user} == {"gauc"}
    assert compare(groups={"a": runs[:1], "b": runs[1:2]}, bootstrap=100).popularity == []


def test_the_page_and_the_command_show_them(
    data: Dataset, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = re.sub(
        r"<[^>]+>", " ", build_report(runs[2], runs[0], tmp_path / "a.html").read_text().partition("<main>")[2]
    )
    text = " ".join(text.split())
    grey = re.findall(r'<tr class="small">.*?</tr>', (tmp_path / "a.html").read_text(), re.DOTALL)
    assert len(grey) > 4 and not any(" to +" in row or " to −" in row for row in grey)  # no results: no interval
    found = compare([runs[0], runs[2]], bootstrap=100)
    assert "By popularity QAUC within the items of a bucket, what this run gains over base-0 there" in text
    table = text.partition("In all QAUC Gain Coverage Age Drift Cosine")[2].partition("All settings")[0]
    for line in found.popularity:
        if line.gain is not None and line.mean is not None:
            row = table.partition(f"{line.bucket}: ")[2]
            gain = f"{line.gain:+.4f}".replace("-", "−")
            assert f"{line.mean:.4f}" in row[:80] and gain in row[:110]
            assert f"1.000 {line.health.age_mean:.0f}, {line.health.age_p95:.0f}" in row[:160]
    alone = build_report(runs[2], out=tmp_path / "b.html").read_text()
    assert "<th>In all</th><th>QAUC</th><th>Coverage</th>" in alone
    assert "<th>In all</th>" not in build_report(runs[0], runs[1], tmp_path / "c.html").read_text()

    monkeypatch.setattr("sys.argv", ["rawrec", "compare", str(runs[0]), str(runs[2]), "--bootstrap", "100"])
    monkeypatch.setenv("COLUMNS", "220")
    with pytest.raises(SystemExit):
        cli.main()
    out = capsys.readouterr().out.partition("Holm-Bonferroni")[2]
    assert "cosine" in out and re.search(r"rare .* [+-]0\.\d{4} .* 1\.000 .* 0\.0000", out)


def test_a_dataset_that_is_gone_leaves_the_rest(data: Dataset, runs: list[Path], tmp_path: Path) -> None:
    at = tmp_path / "d"
    moved = search(at, sessions=60, items=60)
    rawrec.train("id", moved, tmp_path / "a", FAST)
    rawrec.train("id", moved, tmp_path / "b", FAST | {"train.lr": 0.03})
    tell(tmp_path / "b", bucket_masks(moved, "default"), [100, 200])
    at.rename(tmp_path / "elsewhere")
    found = compare([tmp_path / "a", tmp_path / "b"], bootstrap=100)
    assert found.results and not found.popularity
    assert found.popularity_missing is not None and "is not there" in found.popularity_missing


def test_health_of_runs() -> None:
    lines = [{"epoch": 1, "bank/age_mean": 3.0, "bank/age_mean/warm": 1.0}, {"epoch": 2, "bank/age_mean/cold": 9.0}]
    assert health_of(lines, {"best_epoch": 1})["warm"] == Health(age_mean=1.0)
    assert health_of(lines, {"best_epoch": 1})[""] == Health(age_mean=3.0)
    assert health_of(lines, {})["cold"] == Health(age_mean=9.0)
    assert health_of([{"epoch": 1, "bank/age_mean": 3.0}], {}) == {} == health_of([], {})  # of an earlier version
    assert mean_health([Health(1.0, 2.0), Health(0.0)]) == Health(0.5, 2.0) and mean_health([]) == Health()
