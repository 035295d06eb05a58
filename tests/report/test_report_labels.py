"""Report and comparison of runs of several labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rawrec.cli.training import _main_metrics, _metrics_table
from rawrec.report import build_report
from rawrec.report.comparison import compare
from rawrec.report.labels import by_label, words
from rawrec.sources.synthetic import import_synthetic
from rawrec.training.job import train

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL: dict[str, Any] = {
    "model.dim": 8,
    "model.hidden": [8],
    "data.history": 5,
    "train.epochs": 1,
    "train.device": "cpu",
    "train.threads": 1,
    "eval.full_ranking": False,
    "eval.bootstrap": 100,
}
RUNS: dict[str, dict[str, Any]] = {
    "alone": {"data.label": "label"},
    "apart": {"data.labels": ["label", "buy"]},
    "esmm": {"data.labels": ["label", "buy"], "model.multi_label": "esmm"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of three runs of a shop with purchases."""
    folder = tmp_path_factory.mktemp("labels")
    import_synthetic(folder / "shop", items=40, users=30, impressions=3000, size=32, buy_rate=0.4, progress=False)
    for name, settings in RUNS.items():
        train("id", folder / "shop", folder / name, SMALL | settings)
    return folder


def test_impressions_of_each_label_leave_out_what_is_unknown() -> None:
    nan = float("nan")
    columns = {"label": [1, 1, 0, nan], "score": [0.5, 0.8, 0.1, 0.2], "label/buy": [1, nan, 0, 1]}
    ids = {name: [0, 1, 2, 3] for name in ("row", "user", "item")}
    frame = pl.DataFrame(ids | columns | {"score/buy": [0.2, 0.4, 0.0, 0.1]}, strict=False)
    found = by_label(frame, "click", {"buy|click/auc"})
    assert list(found) == ["", "buy/", "buy|click/"] and [words(prefix) for prefix in found][2] == "buy given click"
    assert [f["row"].to_list() for f in found.values()] == [[0, 1, 2], [0, 2, 3], [0]]
    assert found["buy/"]["score"].to_list() == [0.2, 0.0, 0.1]
    assert found["buy|click/"]["score"].to_list() == pytest.approx([0.4])
    assert list(by_label(frame, "click", {"auc"})) == ["", "buy/"]


def test_a_comparison_is_of_each_label_that_all_runs_have(runs: Path) -> None:
    found = compare([runs / "apart", runs / "esmm"], bootstrap=100)
    assert found.metrics == ["auc", "gauc", "buy/auc", "buy|label/auc"]
    assert compare([runs / "alone", runs / "esmm"], bootstrap=100).metrics == ["auc", "gauc"]
    losses = compare([runs / "apart", runs / "esmm"], metrics=["buy/logloss"], bootstrap=100).results
    assert [r.best for r in losses] == [r.mean == min(r.mean for r in losses) for r in losses]


def test_the_page_has_the_metrics_of_each_label(runs: Path, tmp_path: Path) -> None:
    page = build_report(runs / "esmm", runs / "apart", tmp_path / "page.html").read_text()
    assert all(f"<b>{title}</b>" in page for title in ("AUC", "AUC of buy", "Logloss of buy given label"))
    assert "<td>buy, all items</td>" in page and "<td>buy given label, all items</td>" in page
    alone = build_report(runs / "esmm", runs / "alone", tmp_path / "alone.html").read_text()
    assert "AUC of buy" in alone
    assert "AUC of buy" not in build_report(runs / "alone", None, tmp_path / "one.html").read_text()


def test_the_table_of_a_run_shows_further_labels_with_their_buckets() -> None:
    metrics = {
        "auc": 0.7,
        "cold/auc": 0.6,
        "stale/auc": 0.5,
        "buy/auc": 0.8,
        "buy/cold/auc": 0.55,
        "buy|click/pcoc": 1.1,
    }
    assert _main_metrics(metrics) == ["auc", "buy/auc", "buy|click/pcoc"]
    table = _metrics_table({"test": metrics}, _main_metrics(metrics))
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["auc", "buy/auc", "buy|click/pcoc"] and cells[2] == ["0.6000", "0.5500", ""]
