"""What runs on searches are judged by: QAUC within queries, nDCG and MRR within sessions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.evaluation.ctr import gauc
from rawrec.evaluation.shown import shown_lists
from rawrec.report.build import build_report
from rawrec.report.comparison import compare
from rawrec.report.labels import by_label
from rawrec.sources.synthetic import best_qauc, import_synthetic
from rawrec.training.metrics import impression_metrics
from rawrec.training.tasks.impressions import ImpressionTask
from search_data import search
from systems import system

FAST: dict[str, Any] = {
    "model.dim": 4,
    "model.hidden": [8],
    "train.epochs": 2,
    "train.warmup_steps": 0,
    "train.device": "cpu",
    "train.threads": 1,
    "eval.topk": [5],
    "eval.bootstrap": 50,
}
QAUC_NAMES = {"qauc", "qauc_skipped_queries", "qauc_without_query"}
SHOWN_NAMES = {"shown/ndcg@5", "shown/ndcg@10", "shown/mrr"}
SHOWN_NAMES |= {"shown/sessions", "shown/skipped_sessions", "shown/without_session"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return search(tmp_path_factory.mktemp("search") / "d", labels=("label", "buy"))


@pytest.fixture(scope="module")
def runs(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    rawrec.train("id", data, folder / "a", FAST | {"data.labels": ["label", "buy"], "train.metric": "qauc"})
    more = {"data.labels": ["label", "buy"], "train.metric": "shown/ndcg@5", "train.lr": 0.03}
    rawrec.train("id", data, folder / "b", FAST | more)
    return folder


def measured(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


def test_metrics_of_test_are_those_of_the_scores(data: Dataset, runs: Path) -> None:
    test = measured(runs / "a")["test"]
    frame = pl.read_parquet(runs / "a" / "scores.parquet").filter(pl.col("split") == 2)
    rows = frame["row"].to_numpy()
    np.testing.assert_array_equal(frame["query"], data.query_rows[rows])
    np.testing.assert_array_equal(frame["session"], data.session_rows[rows])
    for prefix, label, score in (("", "label", "score"), ("buy/", "label/buy", "score/buy")):
        asked, inside = frame.filter(pl.col("query") >= 0), frame.filter(pl.col("session") >= 0)
        value, skipped = gauc(asked[label], asked[score], asked["query"])
        assert test[f"{prefix}qauc"] == value and test[f"{prefix}qauc_skipped_queries"] == skipped
        assert test[f"{prefix}qauc_without_query"] == len(frame) - len(asked) > 0
        found = shown_lists(inside[label], inside[score], inside["session"], [5, 10])
        assert test[f"{prefix}shown/ndcg@5"] == found.ndcg[5].mean() and test[f"{prefix}shown/mrr"] == found.mrr.mean()
        assert test[f"{prefix}shown/sessions"] == len(found.sessions)
        assert test[f"{prefix}shown/skipped_sessions"] == found.skipped
        assert test[f"{prefix}shown/without_session"] == len(frame) - len(inside) > 0
    assert {"warm/qauc", "buy/warm/qauc"} <= test.keys() and not [name for name in test if "warm/shown" in name]
    assert not [name for name in test if name.startswith("ndcg@") and name != "ndcg@5"]  # full lists keep their names
    line = json.loads((runs / "a" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"valid/qauc", "valid/shown/mrr", "valid/buy/qauc"} <= line.keys()


@pytest.mark.parametrize(("run", "metric"), [("a", "qauc"), ("b", "shown/ndcg@5")])
def test_epochs_are_chosen_by_them(runs: Path, run: str, metric: str) -> None:
    lines = [json.loads(line) for line in (runs / run / "metrics.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda line: line[f"valid/{metric}"])
    info = json.loads((runs / run / "run.json").read_text())
    assert info["best_epoch"] == best["epoch"]


@pytest.mark.parametrize("metric", ["buy/qauc", "buy/shown/mrr", "medium/qauc", "buy|label/shown/ndcg@10"])
def test_what_else_may_be_followed(data: Dataset, tmp_path: Path, metric: str) -> None:
    given = {"data.labels": ["label", "buy"], "train.metric": metric, "model.multi_label": "esmm", "train.epochs": 1}
    run = rawrec.train("id", data, tmp_path / "run", FAST | given)
    assert metric in measured(run.path)["valid"]


def refused(data: Dataset, folder: Path, model: str = "id", **given: Any) -> str:
    with pytest.raises(UserError) as error:
        rawrec.train(model, data, folder / "run", FAST | {key.replace("__", "."): v for key, v in given.items()})
    assert not (folder / "run").exists()
    return str(error.value)


def test_mistakes_are_named(data: Dataset, tmp_path: Path) -> None:
    plain = search(tmp_path / "plain", sessions=40, asked=())
    for metric, column in (
        ("qauc", "query"),
        ("qauc_share", "query"),
        ("cold/qauc", "query"),
        ("shown/mrr", "session"),
    ):
        assert f"train.metric={metric} needs a {column}" in refused(plain, tmp_path, train__metric=metric)
    said = refused(plain, tmp_path, eval__shown=[3])
    assert "eval.shown=[3] would do nothing" in said and "--session COLUMN" in said
    assert "eval.shown=[5, 10]; add 7" in refused(data, tmp_path, train__metric="shown/ndcg@7")
    assert "with queries qauc" in refused(data, tmp_path, train__metric="shown/recall@7")
    with pytest.raises(UserError, match="bpr is judged by lists"):
        rawrec.train("bpr", data, tmp_path / "run", {"train.metric": "qauc"})
    with pytest.raises(UserError, match="judged by lists of the full catalogue, not by what was shown"):
        rawrec.train("bpr", data, tmp_path / "run", {"eval.shown": [3]})


def small(data: Dataset, folder: Path, **settings: Any) -> ImpressionTask:
    return system(data, folder / "cache", **({"model__name": "id", "model__content": "none"} | settings))


@pytest.mark.parametrize("asked", [(), ("query",), ("session",)])
def test_only_what_there_is_is_measured(tmp_path: Path, asked: tuple[str, ...]) -> None:
    result = small(search(tmp_path / "d", sessions=60, asked=asked), tmp_path).probe()
    names = {name for name in result.metrics if "/" not in name or name.startswith("shown/")}
    assert {n for n in names if "qauc" in n} == (QAUC_NAMES if "query" in asked else set())
    assert {n for n in names if "shown/" in n} == (SHOWN_NAMES if "session" in asked else set())


def test_what_is_undefined_has_a_reason(data: Dataset, tmp_path: Path) -> None:
    task = small(data, tmp_path, data__labels=["label"])
    sample = task.evaluation_sample(1)
    assert sample.query is not None and sample.session is not None
    scores = np.full(sample.items.shape, 0.5, np.float32)
    sample.query[:] = -1
    sample.session[:] = -1
    metrics, reasons = impression_metrics(task, sample, scores)
    assert metrics["qauc"] is None and reasons["qauc"] == "no impression has a query"
    assert metrics["shown/mrr"] is None and reasons["shown/mrr"] == "no impression is of a session"
    sample.query[:] = np.arange(len(sample.query))
    sample.session[:] = np.arange(len(sample.session))
    metrics, reasons = impression_metrics(task, sample, scores)
    assert reasons["qauc"] == "no query has both labels" and metrics["qauc_skipped_queries"] == len(sample.rows)
    assert reasons["shown/ndcg@5"] == "no session has both labels"
    assert metrics["shown/skipped_sessions"] == len(sample.rows) and metrics["shown/sessions"] == 0
    scores[0] = np.nan
    _, reasons = impression_metrics(task, sample, scores)
    assert "not finite" in reasons["shown/mrr"]


def test_drawn_items_are_of_the_query_and_the_session_of_their_positive(tmp_path: Path) -> None:
    result = small(search(tmp_path / "d", labels=()), tmp_path).probe()
    assert result.metrics["qauc"] == 0.5 and result.metrics["qauc_skipped_queries"] == 0
    assert result.metrics["shown/skipped_sessions"] == 0


def test_the_best_possible_qauc_of_generated_data(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"items": 40, "users": 20, "impressions": 2000, "size": 32}
    shop = import_synthetic(tmp_path / "shop", **sizes, queries=True, buy_rate=0.5, progress=False)
    given = {"train.epochs": 1, "train.metric": "qauc_share", "data.labels": ["label", "buy"]}
    test = measured(rawrec.train("id", shop, tmp_path / "run", FAST | given).path)["test"]
    best = best_qauc(shop, shop.split() == 2)
    assert test["qauc_best"] == pytest.approx(best)
    assert test["qauc_share"] == pytest.approx((test["qauc"] - 0.5) / (best - 0.5))
    assert {"buy/qauc_best", "buy|label/qauc_share", "cold/qauc_best"} <= test.keys()
    plain = import_synthetic(tmp_path / "plain", **sizes, progress=False)
    assert not [name for name in small(plain, tmp_path).probe().metrics if "qauc" in name]
    with pytest.raises(UserError, match="has no queries"):
        best_qauc(plain, plain.split() == 2)


# ------------------------------------------------------------------------------------------------ comparison and report
def test_a_comparison_of_them(runs: Path) -> None:
    found = compare([runs / "a", runs / "b"], bootstrap=200)
    assert found.metrics == ["auc", "gauc", "qauc", "buy/auc"]
    wanted = ["qauc", "shown/mrr", "shown/ndcg@10", "buy/qauc", "buy/shown/ndcg@5"]
    found = compare([runs / "a", runs / "b"], metrics=wanted, bootstrap=200)
    tests = {name: measured(runs / name)["test"] for name in ("a", "b")}
    results = iter(found.results)
    for metric in wanted:
        first, second = next(results), next(results)
        assert (first.metric, first.mean, second.mean) == (metric, tests["a"][metric], tests["b"][metric])
        assert second.contrast is not None
        assert second.contrast.difference == pytest.approx(second.mean - first.mean)
        assert second.contrast.low <= second.contrast.difference <= second.contrast.high
    with pytest.raises(UserError, match="shown/ndcg@7"):
        compare([runs / "a", runs / "b"], metrics=["shown/ndcg@7"])


def test_runs_without_queries_are_compared_as_ever(tmp_path: Path) -> None:
    plain = search(tmp_path / "d", asked=())
    for name in ("a", "b"):
        rawrec.train(
            "id", plain, tmp_path / name, FAST | {"train.epochs": 1, "seed": ord(name), "train.lr": ord(name) / 1e5}
        )
    assert compare([tmp_path / "a", tmp_path / "b"], bootstrap=100).metrics == ["auc", "gauc"]
    columns = pl.read_parquet(tmp_path / "a" / "scores.parquet").columns
    assert columns == ["row", "user", "item", "label", "score", "split"]
    assert by_label(pl.read_parquet(tmp_path / "a" / "scores.parquet"), "label", [])[""].columns == columns[:-1]


def test_the_page_of_a_run_has_them(runs: Path, tmp_path: Path) -> None:
    page = build_report(runs / "a", runs / "b", tmp_path / "page.html").read_text()
    alone = build_report(runs / "a", out=tmp_path / "alone.html").read_text()
    for text in (page, alone):
        for words in ("QAUC", "the same within each query", "NDCG@5 of what was shown", "MRR of what was shown of buy"):
            assert words in text
