"""Where a run is good and where not: parts of items and of users, their metrics, one correction for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rawrec.data.dataset import Dataset
from rawrec.evaluation.ctr import auc, group_auc
from rawrec.evaluation.significance import (
    holm,
    mean_bootstrap,
    mean_resamplings_of_parts,
    normal_test,
    resamplings,
    resamplings_of_parts,
)
from rawrec.report import build_report
from rawrec.report.run import Run
from rawrec.report.slices import _values, quarters, slices
from report_pages import make_run, read
from systems import small_dataset

KINDS = ("hat", "mug", "lamp")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """120 users with 4 to 12 rows of training, 6 of test; a third of 45 items of each kind, one without any."""
    rng = np.random.default_rng(0)
    rows, parts = [], []
    for user in range(120):
        of = ["train"] * int(rng.integers(4, 13)) + ["valid"] + ["test"] * 6
        rows += [(user, int(item), 100 * k + user, float(rng.random() < 0.4))
                 for k, item in enumerate(rng.permutation(45)[: len(of)])]  # fmt: skip
        parts += of
    kinds = [[KINDS[item % 3]] if item else [] for item in range(45)]
    return small_dataset(tmp_path_factory.mktemp("data") / "d", rows, 45, categorical=kinds, parts=parts)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> tuple[Run, Run]:
    at = tmp_path_factory.mktemp("runs")
    return Run(make_run(at / "em3", data, 0.3)), Run(make_run(at / "ids", data, 3.0, "id", seed=1))


@pytest.fixture(autouse=True)
def _undrawn(undrawn: None) -> None:
    pass


def test_quarters_hold_every_value_once() -> None:
    values = np.array([3.0, 1.0, np.nan, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    parts = quarters(values)
    assert [part.name for part in parts] == ["1 to 2", "3 to 4", "5 to 6", "7 to 8", "unknown"]
    assert np.array(np.sum([part.mask for part in parts], 0) == 1).all()
    tied = quarters(np.array([0.0] * 9 + [1.0]))
    assert [(part.name, int(part.mask.sum())) for part in tied] == [("0 to 1", 10)]
    assert [part.name for part in quarters(np.array([2.5, 2.5]))] == ["2.5"]
    assert [part.name for part in quarters(np.array([np.nan, np.nan]))] == ["unknown"]
    assert quarters(np.zeros(0)) == []


def test_values_with_most_to_judge_have_their_own_line() -> None:
    ptr, codes = np.array([0, 2, 3, 3, 4]), np.array([0, 1, 1, 2], np.int32)
    parts = _values(ptr, codes, ["a", "b", "c"], np.array([5, 1, 2, 0]))
    assert [part.name for part in parts] == ["b", "a", "none"]  # c is of an item that nothing is judged of
    assert [np.flatnonzero(part.mask).tolist() for part in parts] == [[0, 1], [0], [2]]
    many = _values(np.arange(13), np.arange(12, dtype=np.int32), list("abcdefghijkl"), np.arange(12, 0, -1))
    assert [part.name for part in many] == [*"abcdefgh", "4 other values"] and many[-1].mask.sum() == 4


def test_metrics_of_parts_and_one_correction(runs: tuple[Run, Run], data: Dataset) -> None:
    mine, other = runs
    found = slices(mine, other, data)
    assert found is not None and found.names == ["AUC", "GAUC"]
    assert [table.column.title for table in found.tables] == ["kind", "activity"]
    both = mine.test.join(other.test.select("row", "item", other="score"), on=["row", "item"])
    ps, corrected = [], []
    for table in found.tables:
        masks = {part.name: part.mask for part in table.column.parts}
        for line in table.lines:
            at = masks[line.name][both["user" if table.column.by_user else "item"].to_numpy()]
            inside = both.filter(pl.Series(at))
            assert line.judged == len(inside) and line.small == (all(cell is None for cell in line.cells))
            if line.small:
                continue
            own, theirs = (auc(inside["label"], inside[name]) for name in ("score", "other"))
            first, second = line.cells
            assert first is not None and second is not None and first.difference is not None
            assert first.value.value == pytest.approx(own) and first.baseline == pytest.approx(theirs)
            assert first.difference.value == pytest.approx(own - theirs)
            grouped = group_auc(inside["label"], inside["score"], inside["user"]).mean
            assert second.value.value == pytest.approx(grouped)
            for cell in line.cells:
                assert cell is not None
                ps.append(cell.p)
                corrected.append(cell.corrected)
                assert (cell.good is not None) == (cell.corrected is not None and cell.corrected < 0.05)
    known = [p for p in ps if p is not None]
    assert len(known) >= 12 and [c for c in corrected if c is not None] == holm(known).tolist()
    assert found.tested.count == len(known)


def test_without_a_baseline_parts_are_held_against_the_whole(runs: tuple[Run, Run], data: Dataset) -> None:
    mine, _ = runs
    found = slices(mine, None, data)
    assert found is not None
    whole = auc(mine.test["label"], mine.test["score"])
    for table in found.tables:
        for line in table.lines:
            for cell in line.cells[:1]:
                if cell is not None and cell.difference is not None:
                    assert cell.baseline is None
                    assert cell.difference.value == pytest.approx(cell.value.value - whole)


def test_draws_of_parts_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    users, labels, scores = rng.integers(0, 30, 400), rng.integers(0, 2, 400), rng.random(400)
    everything, some = np.ones(400, bool), users < 20
    for metric in ("auc", "gauc", "logloss"):
        name: Any = metric
        whole, part = resamplings_of_parts(users, labels, scores, [everything, some], name, 40)
        value, draws = resamplings(users, labels, scores, name, 40)
        assert whole[0] == value and np.allclose(whole[1], draws, equal_nan=True)
        assert part[0] == pytest.approx(resamplings(users[some], labels[some], scores[some], name, 0)[0])
        assert len(part[1]) == 40 and np.nanstd(part[1]) > 0
    values = np.where(rng.random((3, 50)) < 0.2, np.nan, rng.random((3, 50)))
    values[2] = np.nan
    first, _, none = mean_resamplings_of_parts(values, 60)
    assert first[0] == pytest.approx(np.nanmean(values[0])) and len(first[1]) == 60
    assert np.isnan(none[0]) and np.isnan(none[1]).all()
    full = mean_resamplings_of_parts(rng.random((1, 50)), 60)[0]
    wanted = mean_bootstrap(np.random.default_rng(1).random(50), 60)
    assert abs((np.quantile(full[1], 0.975) - np.quantile(full[1], 0.025)) / (wanted.high - wanted.low) - 1) < 0.5


def test_p_by_the_deviation_of_the_draws() -> None:
    draws = np.random.default_rng(0).normal(0.3, 0.1, 4000)
    interval, p = normal_test(0.3, draws)
    assert p == pytest.approx(0.0027, rel=0.2) and interval.low == pytest.approx(0.104, abs=0.02)
    assert normal_test(0.3, np.full(10, 0.3))[1] is None and normal_test(np.nan, draws)[1] is None
    assert normal_test(0.3, np.r_[draws[:10], np.full(30, np.nan)])[1] is None  # of next to nothing


def test_parts_on_the_page(runs: tuple[Run, Run], tmp_path: Path) -> None:
    _, text = read(build_report(runs[0].path, runs[1].path, tmp_path / "page.html"))
    assert "Where it is good, and where not" in text and "By kind of the item" in text
    assert "By activity" in text and "differences are those of the two runs" in text
    _, text = read(build_report(runs[0].path, out=tmp_path / "alone.html"))
    assert "differences are those of the part from the whole" in text


def test_lists_by_parts(runs: tuple[Run, Run], data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a retrieval model: recall within what a user took of a part, by hand."""
    mine, _ = runs
    monkeypatch.setattr(mine, "judges_impressions", False)
    monkeypatch.setattr("rawrec.report.slices.ENOUGH", 20)
    found = slices(mine, None, data)
    assert found is not None and found.names == ["Recall@20", "NDCG@20"] and found.judged == "Users"
    assert mine.topk is not None
    lists = dict(zip(mine.topk["user"].to_list(), mine.topk["items"].to_list(), strict=True))
    taken, earlier = (
        {user: set(data.items[mask & (data.users == user)].tolist()) for user in lists}
        for mask in (data.positive() & (data.split() == 2), data.positive() & (data.split() < 2))
    )
    (kinds,) = [table for table in found.tables if table.column.title == "kind"]
    for line in kinds.lines:
        inside = np.flatnonzero(next(part.mask for part in kinds.column.parts if part.name == line.name)).tolist()
        values = []
        for user, items in lists.items():
            wanted = (taken[user] - earlier[user]) & set(inside)
            if wanted:
                values.append(len(wanted & set(items)) / len(wanted))
        assert line.judged == len(values) and line.small == (len(values) < 20)
        cell = line.cells[0]
        if cell is not None:
            assert cell.value.value == pytest.approx(np.mean(values))
