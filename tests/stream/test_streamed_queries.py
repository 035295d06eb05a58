"""Streams of a run that reads queries, and contrasts documents with them: as offline, served, and refused nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.serving.published import Published
from rawrec.stream.events import Shown
from rawrec.stream.joiner import Sample
from rawrec.stream.trainer import Trainer
from rawrec.training import state as checkpoint
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.asked import numbered
from rawrec.training.tasks.base import COUNTED
from rawrec.training.tasks.impressions import ImpressionTask
from searches import SEARCH, written
from streams import SETTINGS, check_same, go_on, state_of, write

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return written(tmp_path_factory.mktemp("search") / "data", 600)


@pytest.fixture(scope="module")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    masked = {"model.content": "lemur", "model.sqdc_mask": ["query", "session"], "model.dropout": 0.0}
    return rawrec.train("em3", data, tmp_path_factory.mktemp("runs") / "lemur", SEARCH | masked).path


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def trainer_of(run: Path, **given: Any) -> Trainer:
    (run / "online").mkdir(exist_ok=True)
    return Trainer(RunFolder.open(run), run / "online", SETTINGS | given)


def samples_of(data: Dataset, rows: np.ndarray, history: np.ndarray, labels: np.ndarray) -> list[Sample]:
    times = data.timestamps
    assert times is not None
    sessions = data.session_rows[rows]
    return [
        Sample(
            str(data.user_ids[data.users[row]]),
            str(data.item_ids[data.items[row]]),
            [str(data.item_ids[i]) for i in own if i >= 0],
            float(times[row]),
            float(label),
            query=query,
            session=f"s{session}",
        )
        for row, own, label, query, session in zip(
            rows, history, labels, data.queries.take(data.query_rows[rows]), sessions, strict=True
        )
    ]


def test_a_step_is_that_of_training_on_the_same_impressions(copied: Path, data: Dataset) -> None:
    run = RunFolder.open(copied)
    made, offline = trainer_of(copied, batch_size=128).task, ImpressionTask(run.config(), data, run.cache_of(data))
    tensors, _ = checkpoint.load(copied / "model.safetensors")
    offline.load_state({name: values for name, values in tensors.items() if not name.startswith("bank.")})
    offline.refresh(None, 1)
    rows = offline.samples.rows(0)[-64:]
    expected = offline.batch(rows, 0, 0)
    samples = samples_of(data, rows, expected.history.numpy(), expected.labels[:, 0].numpy())
    found = made.batch(samples, 0, 0)
    assert expected.query is not None and found.query is not None and (found.query < 0).any()
    for name in ("query", "session"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert torch.equal(ours[:, None] == ours, theirs[:, None] == theirs), name
    at = offline.score_impressions(expected.sample, 0)[:, 0]
    np.testing.assert_allclose(made.predict(samples, [one.item for one in samples]), at, atol=2e-6)
    losses = []
    for task, batch in ((made, found), (offline, expected)):
        task.train()
        live = task.go_live(batch, 5)
        assert live is not None and live.queries is not None
        losses.append({name: float(v) for part in task.losses(batch, live, 5) for name, v in part.items()})
    assert losses[0]["sqdc"] > 0 and losses[0][f"{COUNTED}sqdc/anchors"] > 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_is_blank_is_none_and_sessions_are_of_one_user() -> None:
    asked: list[Any] = [
        Sample(user, "i", [], 0.0, 0.0, query=query, session=session)
        for user, query, session in [("a", "red", "1"), ("b", " red ", "1"), ("a", " ", "1"), ("a", None, "")]
    ]
    query, session, texts = numbered(asked)
    assert query.tolist() == [0, 0, -1, -1] and session.tolist() == [0, 1, 0, -1] and texts == ["red"]


def events_of(data: Dataset, count: int) -> list[Shown]:
    """Two items for something that was typed; also words that training has not seen."""
    draw, found = np.random.default_rng(1), []
    for n in range(count):
        items = [str(data.item_ids[i]) for i in draw.choice(data.n_items, 2, replace=False)]
        typed = (str(data.queries[n % len(data.queries)]), "a purple boat", None)[n % 3]
        found.append(
            Shown(
                producer="shop", sequence=n, time=1e9 + n, request=f"r{n}", items=items, user=f"u{n % 5}", query=typed,
                session=f"s{n // 4}", labels=[float(n % 2), 0.0],
            )
        )  # fmt: skip
    return found


def test_a_stream_in_pieces_is_the_stream_in_one_and_is_served(copied: Path, data: Dataset, tmp_path: Path) -> None:
    url, other = f"sqlite:{tmp_path / 'events.db'}", Path(shutil.copytree(copied, tmp_path / "other"))
    write(url, list(events_of(data, 90)), strange=False)
    for until in (31, 70, "end"):
        go_on(copied, url, until)
    go_on(other, url)
    check_same(copied, other)
    _, plain, lines = state_of(copied)
    assert plain["counts"]["trained"] == 176 and '"qauc"' in lines

    rawrec.online(other, log=url, until="end", settings=SETTINGS, publish=tmp_path / "published")
    rec, task = Published.of(tmp_path / "published"), trainer_of(other).task
    item = str(data.item_ids[3])
    typed = [Sample("u1", item, rec.history("u1"), 2e9, 0.0, query=query) for query in ("red mug", "blue sofa")]
    task.refresh(None, 10_000)
    expected = task.predict(typed, [item, item])
    assert expected[0] != expected[1]
    for query, one in zip(("red mug", "blue sofa"), expected, strict=True):
        assert rec.score("u1", [item], context={"query": query})[0] == pytest.approx(one, abs=1e-6)


def test_a_table_brings_queries_and_sessions(copied: Path, data: Dataset, tmp_path: Path) -> None:
    rows = 40
    table = pl.DataFrame(
        {
            "user_id": [f"u{n % 4}" for n in range(rows)],
            "item_id": [str(data.item_ids[n % 7]) for n in range(rows)],
            "timestamp": [1e9 + n for n in range(rows)],
            "label": [float(n % 2) for n in range(rows)],
            "query": [["red mug", None, "one of many words here"][n % 3] for n in range(rows)],
            "session": [n // 5 for n in range(rows)],
        }
    )
    table.write_parquet(tmp_path / "events.parquet")
    seen: list[Sample] = []
    trainer = trainer_of(copied)
    from rawrec.stream.online import table_of

    events = table_of(trainer.task, tmp_path / "events.parquet")
    batch = trainer.task.batch
    trainer.task.batch = lambda rows, *rest: (seen.extend(rows), batch(rows, *rest))[1]  # type: ignore[method-assign]
    trainer.follow(events, events.name, None)
    assert [one.query for one in seen] == table["query"].to_list()
    assert [one.session for one in seen] == [str(n // 5) for n in range(rows)]
    assert trainer.task.counts["query/truncated"] > 0
