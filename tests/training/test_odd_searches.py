"""Searches in which something is missing: whole runs go on, leave it out, and say how much it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rawrec
from rawrec.config import resolve
from rawrec.data.dataset import Dataset
from rawrec.training.tasks.impressions import ImpressionTask
from search_data import search

TINY: dict[str, Any] = {
    "model.name": "dot_mlp", "model.hidden": [8], "model.dim": 8, "data.history": 4, "content.dim": 16,
    "content.item.encoder": "joint:tiny", "content.text.max_length": 8, "content.query.max_length": 4,
    "model.sqdc_weight": 0.02, "train.epochs": 1, "train.threads": 1, "train.batch_size": 64,
    "train.precision": "fp32", "train.device": "cpu", "eval.topk": [5],
}  # fmt: skip


def run(data: Dataset, out: Path, **overrides: Any) -> tuple[rawrec.Recommender, dict[str, Any], list[str]]:
    """A run of `lemur`, what its first epoch measured, and what was told."""
    told: list[str] = []

    def observe(event: str, **values: Any) -> None:
        told.extend([values["text"]] if event == "note" else [])

    given = {**TINY, **{name.replace("__", "."): value for name, value in overrides.items()}}
    made = rawrec.train("lemur", data, out, given, observer=observe)
    (line,) = [json.loads(text) for text in (made.path / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(line["loss"])
    return rawrec.Recommender.load(made.path, device="cpu"), line, told


def test_sessions_of_one_item_have_no_order(tmp_path: Path) -> None:
    data = search(tmp_path / "d", sessions=300, shown=1)
    rec, line, _ = run(data, tmp_path / "run", model__sqdc_mask=["query", "session"])
    assert line["sqdc/anchors"] > 0 and line["sqdc/negatives"] > 0
    found = json.loads((rec.run.path / "metrics.json").read_text())
    test, reasons = found["test"], found["reasons"]["test"]
    assert test["shown/mrr"] is None and reasons["shown/mrr"] == "no session has both labels"
    rows = data.split() == 2
    sessions = len(np.unique(data.session_rows[rows & (data.session_rows >= 0)]))
    assert test["shown/skipped_sessions"] == sessions > 0 == test["shown/sessions"]
    assert test["auc"] is not None and test["qauc"] is not None


def test_one_query_in_all_batches_is_no_contrast_and_told_once(tmp_path: Path) -> None:
    data = search(tmp_path / "d", queries=("red mug",))
    data.query_rows[:] = 0  # else documents shown for no query were negatives
    rec, line, told = run(data, tmp_path / "run")
    assert line["loss/sqdc"] == 0 and line["sqdc/alone"] == 1 and line["sqdc/negatives"] == 0 < line["sqdc/anchors"]
    (note,) = [text for text in told if "sqdc" in text]
    assert "no clicked row had a negative, so that the contrast was 0" in note and "raise train.batch_size" in note
    assert len(rec.search("red mug", k=5)) == 5


def test_documents_without_any_content_are_left_out_of_the_contrast(tmp_path: Path) -> None:
    data = search(tmp_path / "d", titles=lambda i: "" if i < 10 else f"thing {i}")
    rec, line, _ = run(data, tmp_path / "run", train__batch_size=10_000, eval__topk=[30])
    clicked = (data.split() == 0) & (data.label("label") > 0) & (data.query_rows >= 0)
    assert line["sqdc/anchors"] == (clicked & (data.items >= 10)).sum() < clicked.sum()
    assert {item for item, _ in rec.search("red mug", k=99, by="content")} == {f"i{i}" for i in range(10, 30)}
    assert len(rec.search("red mug", k=99)) == 30


@pytest.mark.parametrize("negatives", ["positives", "batch"])
def test_a_bank_that_holds_less_than_a_batch(tmp_path: Path, negatives: str) -> None:
    """The contrast is of what the step makes, whatever the bank keeps of it: where all candidates are encoded, that of
    a bank for all. What is neither encoded nor kept has no term, which the count of terms shows."""
    data = search(tmp_path / "d")
    rec, line, told = run(data, tmp_path / "run", bank__capacity=3, model__sqdc_negatives=negatives)
    (note,) = [text for text in told if "bank.capacity" in text]
    assert "a step may show 30 items, of which the bank keeps the last 3 made" in note
    assert line["bank/coverage"] == pytest.approx(3 / 30)
    assert len(rec.search("red mug", k=99, by="content")) == 30, "a recommender makes all rows"
    found: list[tuple[float, int]] = []
    for capacity, rate in ((3, 100), (None, 100), (3, 20)):
        torch.manual_seed(0)
        given = {**TINY, "bank.capacity": capacity, "model.sqdc_negatives": negatives}
        given |= {"bank.forward_rate": rate, "bank.backward_rate": rate}
        task = ImpressionTask(resolve("lemur", given), data, tmp_path / "cache")
        task.begin()
        batch = task.batch(task.begin_epoch(0)[:64], 0, 0)
        live = task.go_live(batch, 0)
        parts = next(part for part in task.losses(batch, live, 0) if "sqdc" in part)
        found.append((float(parts["sqdc"].detach()), int(parts["count/sqdc/anchors"])))
    (small, terms), (whole, as_many), (_, fewer) = found
    assert small == pytest.approx(whole, rel=1e-5) and small > 0
    assert terms == as_many > fewer > 0


def test_scripts_without_spaces_are_counted_where_words_are_hashed(tmp_path: Path) -> None:
    queries, titles = ("红色的杯子", "帽子", "赤いマグカップ", "lamp"), "一只红色的杯子 {}".format
    data = search(tmp_path / "d", queries=queries, titles=titles)
    rec, _, told = run(data, tmp_path / "run")
    (note,) = [text for text in told if "without spaces" in text]
    assert "30 of content, 2 of queries." in note and "joint:NAME" in note
    media = json.loads((rec.run.path / "run.json").read_text())["media"]
    assert media["content"]["unspaced"] == 30 and media["queries"] == {"truncated": 0, "unspaced": 2}
    assert not any("without spaces" in text for text in run(search(tmp_path / "e"), tmp_path / "other")[2])


def test_queries_that_are_cut_are_counted(tmp_path: Path) -> None:
    data = search(tmp_path / "d", queries=("a red mug with dots", "hat", "lamp"))
    rec, _, _ = run(data, tmp_path / "run")
    assert json.loads((rec.run.path / "run.json").read_text())["media"]["queries"]["truncated"] == 1
