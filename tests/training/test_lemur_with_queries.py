"""LEMUR's content part beside its encoders: what is asked for is read in training, evaluation and lists alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rawrec.config import resolve
from rawrec.data.dataset import Dataset
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.context import Moments
from rawrec.training.tasks.impressions import ImpressionTask
from search_data import search

JOINT: dict[str, Any] = {
    "model.dim": 8, "data.history": 5,
    "content.item.encoder": "joint:tiny", "content.item.train": "all", "content.text.max_length": 8, "content.dim": 16,
    "train.batch_size": 32, "train.precision": "fp32", "train.device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return search(tmp_path_factory.mktemp("search") / "d")


@pytest.fixture
def task(data: Dataset, tmp_path: Path) -> ImpressionTask:
    torch.manual_seed(0)
    return ImpressionTask(resolve("lemur", JOINT), data, tmp_path / "cache")


def asked(task: ImpressionTask, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The queries' content of the batches that the ranker is given from here on."""
    seen: list[Tensor] = []
    tokens = task.ranker.tokens

    def watch(batch: RankingBatch) -> Any:
        assert batch.query_content is not None
        seen.append(batch.query_content)
        return tokens(batch)

    monkeypatch.setattr(task.ranker, "tokens", watch)
    return seen


def test_training_and_evaluation_read_the_same_queries(task: ImpressionTask, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = asked(task, monkeypatch)
    rows = task.begin_epoch(0)[:20]
    batch = task.batch(rows, 0, 0)
    live = task.go_live(batch, 0)
    list(task.losses(batch, live, 0))
    task.refresh(None, 0)
    task.score_impressions(batch.sample, 0)
    torch.testing.assert_close(seen[0], seen[1])
    none = torch.from_numpy(task.data.query_rows[rows] < 0)
    assert none.any() and not seen[0][none].any() and seen[0][~none].any(2).all()


def test_the_loss_of_clicks_teaches_the_queries_encoder(task: ImpressionTask) -> None:
    batch = task.batch(task.begin_epoch(0)[:20], 0, 0)
    live = task.go_live(batch, 0)
    assert live is not None and task.item_model is not None and task.item_model.query is not None
    for parts in task.losses(batch, live, 0):
        parts["loss"].backward()
    live.backward()
    assert any(p.grad is not None and p.grad.any() for p in task.item_model.query.parameters())


def test_scores_and_lists_depend_on_what_is_asked(task: ImpressionTask) -> None:
    task.refresh(None, 0)
    with_query = np.flatnonzero(task.data.query_rows >= 0)[:1]
    without = np.flatnonzero(task.data.query_rows < 0)[:1]
    users, times = task.data.users[with_query], np.array([10**6])
    history = np.full((1, 5), -1)
    table = task.table()
    scores = [
        task.score_all(Moments(users, times, rows, training=False), history, table) for rows in (with_query, without)
    ]
    assert not torch.allclose(*scores)
