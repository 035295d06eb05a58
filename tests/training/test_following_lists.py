"""Rankers whose early stopping follows metrics of lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.training.job import evaluate, train
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.sweeps.sweep import sweep
from systems import settings, small_dataset, system


@pytest.mark.parametrize("paradigm", ["end_to_end", "frozen"])
def test_epochs_are_chosen_by_lists_of_validation(shop: Path, tmp_path: Path, paradigm: str) -> None:
    """Of the same users as any other run's, from content of all items made anew; also stored of the best epoch."""
    events: list[tuple[str, dict[str, Any]]] = []
    given = settings(train__metric="ndcg@5", train__epochs=3, train__lr=0.01, eval__topk_users=12, paradigm=paradigm)
    if paradigm == "frozen":
        given["content"]["image"].pop("train")
        given["content"]["text"].pop("train")
    run = train(given, shop, tmp_path / "run", observer=lambda event, **values: events.append((event, values)))
    notes = [values["text"] for event, values in events if event == "note"]
    n_items = Dataset.open(shop).n_items
    assert any(
        f"after every epoch 12 users of the validation part get lists, which takes {12 * n_items:,}" in n for n in notes
    )
    lines, stored = run.metrics_lines(), json.loads((run.path / "metrics.json").read_text())
    followed = [line["valid/ndcg@5"] for line in lines]
    assert len(set(followed)) > 1 and run.info()["best_epoch"] == 1 + int(np.argmax(followed))
    best = lines[run.info()["best_epoch"] - 1]
    assert {"valid/auc", "valid/coverage@5", "valid/cold/recall@5"} <= best.keys() and "valid/diversity@5" not in best
    for name in ("ndcg@5", "recall@5", "coverage@5", "cold/recall@5", "topk_users"):
        assert stored["valid"][name] == pytest.approx(best[f"valid/{name}"], rel=1e-6), name
    assert (stored["valid"]["topk_users"], stored["test"]["topk_users"]) == (12, 12)
    again = evaluate(run.path, "valid")
    assert {name: again[name] for name in stored["valid"] if "@" in name} == pytest.approx(
        {name: value for name, value in stored["valid"].items() if "@" in name}
    )


def test_following_lists_changes_no_weight(shop: Path, tmp_path: Path) -> None:
    weights = []
    for metric in ("auc", "hit@5"):
        made = system(shop, tmp_path / "cache", train__metric=metric, train__epochs=2, eval__topk_users=5)
        made.refresh(None, 0)
        loop = Loop(made, RunFolder.create(tmp_path / metric, made.cfg, made.data))
        loop.train()
        weights.append({name: value.clone() for name, value in made.state().items()})
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_lists_that_nobody_gets_are_named(tmp_path: Path) -> None:
    """All that was taken in the validation part had been taken before: there is nothing to find."""
    rows = [(user, (user + k) % 6, part, 1.0) for user in range(6) for k in range(3) for part in range(3)]
    data = small_dataset(tmp_path / "data", rows, 6, labelled=False, parts=["train", "valid", "test"] * 18)
    with pytest.raises(UserError, match=r"train\.metric=recall@5 is undefined on the validation part: no user has a"):
        train("id", data, tmp_path / "run", {"train.metric": "recall@5", "eval.topk": [5], "train.threads": 1})


def test_a_sweep_by_lists_must_follow_lists(shop: Path, tmp_path: Path) -> None:
    """Else the validation part has none, and every trial would fail at its end."""
    asked = {"model": "id", "data": str(shop), "out": str(tmp_path / "sweep"), "search": {"train.lr": [0.001, 0.01]}}
    fixed = {"eval.topk": [5], "train.epochs": 1}
    with pytest.raises(UserError, match=r"add train\.metric: recall@5 to fixed"):
        sweep({**asked, "metric": "recall@5", "fixed": fixed})
