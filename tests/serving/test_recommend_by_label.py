"""A recommender of several labels: by the main one, or by the one that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rawrec.errors import UserError
from rawrec.serving.recommender import Recommender
from rawrec.sources.synthetic import import_synthetic
from rawrec.training.job import train

SMALL: dict[str, Any] = {
    "model.dim": 8,
    "model.hidden": [8],
    "model.multi_label": "esmm",
    "data.history": 5,
    "data.labels": ["label", "buy"],
    "train.epochs": 1,
    "train.device": "cpu",
    "train.threads": 1,
    "eval.full_ranking": False,
}


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    folder = tmp_path_factory.mktemp("by_label")
    shop = import_synthetic(
        folder / "shop", items=40, users=30, impressions=2000, size=32, buy_rate=0.4, progress=False
    )
    return Recommender.load(train("id", shop, folder / "run", SMALL).path)


def test_scores_are_of_the_main_label_or_of_the_one_asked_for(recommender: Recommender) -> None:
    items = [str(item) for item in recommender.data.item_ids]
    click = recommender.score(user="u1", items=items)
    buy = recommender.score(user="u1", items=items, label="buy")
    assert recommender.score(user="u1", items=items, label="label") == click
    assert all(b < c for b, c in zip(buy, click, strict=True))  # a click that converts


def test_lists_are_by_the_label_asked_for(recommender: Recommender, tmp_path: Path) -> None:
    items = [str(item) for item in recommender.data.item_ids]
    scores = dict(zip(items, recommender.score(user="u1", items=items, label="buy"), strict=True))
    found = recommender.recommend(user="u1", k=5, exclude_seen=False, label="buy")
    best = sorted(items, key=lambda item: -scores[item])[:5]
    assert [item for item, _ in found] == best
    assert [score for _, score in found] == pytest.approx([scores[item] for item in best])
    file = recommender.recommend_all(tmp_path / "lists.parquet", k=5, exclude_seen=False, label="buy")
    lists = pl.read_parquet(file).filter(pl.col("user_id") == "u1")
    assert lists["items"].to_list() == [best]


def test_a_label_that_the_run_has_not_learned_is_refused(recommender: Recommender) -> None:
    with pytest.raises(UserError, match="label 'like': this run has learned label, buy"):
        recommender.recommend(user="u1", label="like")
