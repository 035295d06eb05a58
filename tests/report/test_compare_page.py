"""Several runs in one page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.report import build_comparison
from rawrec.report.compare_page import _common, _curves, _only, _settings
from rawrec.report.comparison import compare
from rawrec.report.run import Run
from report_pages import check_self_contained, make_run, pictures_of, read


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, shop: Path) -> list[Path]:
    at, data = tmp_path_factory.mktemp("runs"), Dataset.open(shop)
    made = [make_run(at / "em3", data, 0.3), make_run(at / "ids", data, 3.0, "id", seed=1, epochs=3)]
    for run in made:
        info = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(info | {"generated": True}))
    return made


@pytest.fixture(autouse=True)
def _undrawn(undrawn: None) -> None:
    pass


def test_the_page_of_two_runs(runs: list[Path], tmp_path: Path) -> None:
    found = compare(runs, metrics=["recall@20", "auc"], bootstrap=200)
    path = build_comparison(found, tmp_path / "page.html")
    check_self_contained(path)
    page, text = read(path)
    assert "2 models on shop" in text and "Generated data." in text
    for result in found.results:
        assert f"{result.mean:.4f}" in text and result.low is not None and result.low <= result.mean <= result.high  # type: ignore[operator]
        assert f"{result.low:.4f} to {result.high:.4f}" in text
    assert "Settings that differ" in text and "model.content" in text and "valid/auc" not in text
    assert sum(attrs.get("class") == "person" for _, attrs in page.tags) == 6 and pictures_of(path)
    drawings = [attrs.get("aria-label", "") for tag, attrs in page.tags if attrs.get("class") == "plot"]
    assert len(drawings) == 2 and "auc by epoch: em3, id" in drawings[0] and "minutes" in drawings[1]
    lists = {run.name: dict(pl.read_parquet(run / "topk.parquet").select("user", "items").iter_rows()) for run in runs}
    shared = np.mean([len(set(lists["em3"][u]) & set(lists["ids"][u])) / 20 for u in lists["em3"]])
    assert f"{100 * shared:.1f} %" in text


def test_what_two_lists_share_and_what_one_has_alone() -> None:
    one, other = np.array([[1, 2, 3], [4, 5, -1]]), np.array([[3, 9, 1], [6, 7, 8]])
    assert _common([one, other]) == [[1.0, pytest.approx(1 / 3)], [pytest.approx(1 / 3), 1.0]]
    found = _only({"a": one, "b": other}, 10)
    assert found["a"] == (5, 3, [(2, 1), (4, 1), (5, 1)]) and found["b"][:2] == (6, 4)


def test_curves_by_epoch_and_by_time(runs: list[Path]) -> None:
    found = {path.name: Run(path) for path in runs}
    (curve,) = _curves(found)
    assert curve.title == "auc" and len(curve.plots) == 2
    for line in found["ids"].epochs:
        line.pop("seconds")
    (curve,) = _curves(found)
    assert len(curve.plots) == 1  # no time of one of them
    keys = [key for key, _ in _settings(found)]
    assert "model.content" in keys and "seed" not in keys


def test_a_page_without_lists_says_why(runs: list[Path], tmp_path: Path) -> None:
    found = compare(runs, metrics=["auc"], bootstrap=200)
    lists = runs[1] / "topk.parquet"
    kept = lists.read_bytes()
    lists.unlink()
    try:
        text = read(build_comparison(found, tmp_path / "a.html"))[1]
    finally:
        lists.write_bytes(kept)
    assert "id stored no lists of the full catalogue" in text
    info = json.loads((runs[0] / "run.json").read_text())
    (runs[0] / "run.json").write_text(json.dumps(info | {"dataset": str(tmp_path / "gone")}))
    try:
        text = read(build_comparison(found, tmp_path / "b.html"))[1]
        assert "The dataset is not at hand" in text
        assert "Only here, only there" in read(build_comparison(found, tmp_path / "c.html", info["dataset"]))[1]
    finally:
        (runs[0] / "run.json").write_text(json.dumps(info))
    with pytest.raises(UserError):
        build_comparison(found, runs[0] / "scores.parquet")
