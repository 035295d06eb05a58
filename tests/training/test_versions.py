"""A run and a dataset that was added to since."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.sources.append import append


def test_a_run_stays_with_the_version_that_it_was_trained_on(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop, tmp_path / "shop")
    settings = {"train.epochs": 1, "train.threads": 1}
    run = rawrec.train("id", tmp_path / "shop", tmp_path / "run", settings)
    auc = rawrec.evaluate(run.path)["auc"]
    lists = rawrec.Recommender.load(run.path).recommend(user="u1", k=3)
    old = Dataset.open(tmp_path / "shop")
    log = {"user_id": ["somebody"], "item_id": ["something"], "timestamp": [1_700_000_000], old.meta.labels[0]: [1.0]}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    new = append(old.path, tmp_path / "log.parquet", part="test", progress=False)
    assert rawrec.evaluate(run.path)["auc"] == auc and rawrec.evaluate(run.path, data=new)["auc"] == auc
    recommender = rawrec.Recommender.load(run.path)
    assert recommender.recommend(user="u1", k=3) == lists
    with pytest.raises(UserError, match=r"user 'somebody' is not in version 1 of .* \(the newest is 2\)"):
        recommender.recommend(user="somebody")
    with pytest.raises(UserError, match="item 'something' is not in version 1"):
        recommender.score(history=[lists[0].item], items=["something"])
    assert rawrec.train("id", new, tmp_path / "again", settings).info()["dataset_version"] == 2
