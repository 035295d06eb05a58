"""Whole runs under the options of the bank: exact to resume, whatever it keeps, and served as they were evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rawrec.serving.recommender import Recommender
from rawrec.training.job import evaluate, resume, train
from systems import Stop, digest, settings, stopping_after

CASES: dict[str, dict[str, Any]] = {
    "rates": {"bank__forward_rate": 40, "bank__backward_rate": 20, "bank__sampling": "popularity"},
    "refresher": {"bank__refresh_share": 0.3, "bank__momentum": 0.5, "bank__warm_start": False},
    "small": {"bank__capacity": 25, "bank__dtype": "int8", "bank__refresh_share": 0.2},
    "hybrid": {"paradigm": "hybrid", "bank__history": "bank", "bank__capacity": 40, "bank__momentum": 0.9},
    "frozen": {"paradigm": "frozen", "bank__dtype": "int8"},
    "searched": {
        "model__content": "lemur",
        "model__name": "dot_mlp",
        "data__history": 12,
        "model__lemur": {"short": 3, "search": 4, "similarity": ["sorted", "sata"]},
        "bank__dtype": "bf16",
        "bank__history_grad": "none",
    },
}


SMALL: dict[str, Any] = {"content__description__use": False}


def tree_of(case: str) -> dict[str, Any]:
    words = CASES[case] | SMALL
    if "paradigm" in words:
        words = {**words, "content__image__train": "none", "content__text__train": "none"}
    return settings(train__checkpoint_every=3, train__lr=0.01, **words)


@pytest.mark.parametrize("case", CASES)
def test_stopped_and_resumed(shop: Path, tmp_path: Path, case: str) -> None:
    tree = tree_of(case)
    whole = train(tree, shop, tmp_path / "whole")
    with pytest.raises(Stop):
        train(tree, shop, tmp_path / "run", observer=stopping_after(8))
    assert (tmp_path / "run" / "checkpoint" / "last.safetensors").is_file()
    with pytest.raises(Stop):
        resume(tmp_path / "run", stopping_after(6))
    assert digest(resume(tmp_path / "run").path) == digest(whole.path)

    lines = whole.metrics_lines()
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert {"bank/coverage/cold", "bank/age_p95/warm", "bank/drift/warm", "bank/cosine"} <= lines[-1].keys()
    assert case == "frozen" or 0.2 < lines[-1]["bank/cosine"] <= 1
    if "bank__capacity" in CASES[case]:
        assert lines[-1]["bank/coverage"] <= CASES[case]["bank__capacity"] / 55
    if case == "rates":
        assert lines[-1]["live_share/warm"] < 0.6

    # what was published is what was evaluated, with a row of every item
    written = json.loads((whole.path / "metrics.json").read_text())["test"]
    again = evaluate(whole.path)
    assert again["auc"] == pytest.approx(written["auc"], abs=1e-6)
    known = pl.read_parquet(whole.path / "topk.parquet")
    assert len(Recommender.load(whole.path).recommend(user="u1", k=5)) == 5 and len(known)


def test_a_share_of_the_rows_changes_what_is_learned(shop: Path, tmp_path: Path) -> None:
    """Each option does something: the weights are others than without it."""
    small = {"train__epochs": 1, "train__batch_size": 512, **SMALL}
    base = digest(train(settings(**small), shop, tmp_path / "base").path)["model.safetensors"]
    words: list[dict[str, Any]] = [
        {"bank__forward_rate": 40},
        {"bank__backward_rate": 40},
        {"bank__momentum": 0.5},
        {"bank__dtype": "int8"},
        {"bank__capacity": 20},
        {"bank__refresh_share": 0.5},
    ]
    for k, word in enumerate(words):
        run = train(settings(**small, **word), shop, tmp_path / f"run{k}")
        assert digest(run.path)["model.safetensors"] != base, word
