"""Batches of rankers carry the query and the session of their impressions, where a dataset has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rawrec.data.dataset import Dataset
from rawrec.models.ranking.batch import RankingBatch
from rawrec.models.ranking.context import Moments
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.step_impressions import row_codes, slice_impressions
from search_data import search
from systems import system

IDS: dict[str, Any] = {"model__name": "id", "model__content": "none", "train__batch_size": 32}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return search(tmp_path_factory.mktemp("search") / "d")


def watched(task: ImpressionTask, monkeypatch: pytest.MonkeyPatch) -> list[RankingBatch]:
    """The batches that the task's ranker is given from here on."""
    batches: list[RankingBatch] = []
    tokens = task.ranker.tokens

    def watch(batch: RankingBatch) -> Any:
        batches.append(batch)
        return tokens(batch)

    monkeypatch.setattr(task.ranker, "tokens", watch)
    return batches


def small(data: Dataset, folder: Path, **settings: Any) -> ImpressionTask:
    return system(data, folder / "cache", **(IDS | settings))


def joined(batches: list[RankingBatch], name: str) -> np.ndarray:
    return torch.cat([getattr(batch, name) for batch in batches]).numpy()


def test_a_step_in_parts(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small(data, tmp_path)
    seen = watched(task, monkeypatch)
    rows = task.begin_epoch(0)[:100]
    batch = task.batch(rows, 0, 0)
    assert batch.query is not None and batch.session is not None and batch.query.dtype == torch.int64
    np.testing.assert_array_equal(batch.query.numpy(), data.query_rows[rows])
    np.testing.assert_array_equal(batch.session.numpy(), data.session_rows[rows])
    assert (batch.query == -1).any() and (batch.session == -1).any()
    list(task.losses(batch, None, 0))
    assert [len(part.users) for part in seen] == [32, 32, 32, 4]
    np.testing.assert_array_equal(joined(seen, "query"), data.query_rows[rows])
    np.testing.assert_array_equal(joined(seen, "session"), data.session_rows[rows])


def test_evaluation_and_lists(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small(data, tmp_path, eval__batch_size=50)
    seen = watched(task, monkeypatch)
    sample = task.evaluation_sample(1)
    task.score_impressions(sample, 1)
    np.testing.assert_array_equal(joined(seen, "query"), data.query_rows[sample.rows])
    np.testing.assert_array_equal(joined(seen, "session"), data.session_rows[sample.rows])
    seen.clear()
    rows = np.array([3, -1, 40])
    task.score_all(Moments(data.users[np.maximum(rows, 0)].astype(np.int64), None, rows), np.full((3, 2), -1), None)
    for batch in seen:
        assert batch.query is not None and batch.session is not None
        assert batch.query.tolist() == [data.query_rows[3], -1, data.query_rows[40]]
        assert batch.session.tolist() == [data.session_rows[3], -1, data.session_rows[40]]


def test_positives_with_drawn_items(tmp_path: Path) -> None:
    data = search(tmp_path / "d", labels=())
    sample = small(data, tmp_path).evaluation_sample(1)
    assert sample.items.shape[1] == 5 and sample.query is not None
    np.testing.assert_array_equal(sample.query, data.query_rows[sample.rows])
    part = slice_impressions(sample, slice(3, 7))
    assert part.query is not None and part.session is not None and sample.session is not None
    assert part.query.tolist() == sample.query[3:7].tolist() and part.session.tolist() == sample.session[3:7].tolist()


@pytest.mark.parametrize("asked", [(), ("query",), ("session",)])
def test_only_what_there_is(tmp_path: Path, asked: tuple[str, ...]) -> None:
    task = small(search(tmp_path / "d", sessions=40, asked=asked), tmp_path)
    batch = task.batch(task.begin_epoch(0)[:8], 0, 0)
    assert (batch.query is not None, batch.session is not None) == ("query" in asked, "session" in asked)
    sample = task.evaluation_sample(1)
    assert (sample.query is not None, sample.session is not None) == ("query" in asked, "session" in asked)


def test_a_loss_may_read_them_as_columns(data: Dataset, tmp_path: Path) -> None:
    for name, rows in (("query", data.query_rows), ("session", data.session_rows)):
        codes, words = row_codes(data, name), data.column(name)
        assert codes.dtype == np.int64 and ((codes == -1) == (words == None)).all()  # noqa: E711
        np.testing.assert_array_equal(codes, rows)
