"""Sequence models under the one loop: what a step learns, and from what lists are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rawrec import Recommender, UserError
from rawrec.config import parse_overrides, resolve
from rawrec.data.dataset import Dataset
from rawrec.training.job import load_task, train
from rawrec.training.tasks.sequences import SequenceTask
from systems import small_dataset

SMALL: dict[str, Any] = {
    "model.embedding_size": 8,
    "model.max_length": 4,
    "train.threads": 1,
    "train.device": "cpu",
    "train.epochs": 2,
    "train.batch_size": 5,
    "eval.topk": [3],
    "train.metric": "recall@3",
}
USERS, ITEMS = 12, 15


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Every user goes round the items; rows are in no order, user 0 has one training positive, user 1 took 3 twice."""
    rows, parts = [], []
    for user in range(USERS):
        taken = [(user + k) % ITEMS for k in range(2 if user == 0 else 9)]
        taken[1] = 3 if user == 1 else taken[1]
        taken[4:5] = [3] if user == 1 else taken[4:5]
        last = len(taken)
        for k, item in enumerate(taken):
            rows.append((user, item, 10 * k, 1.0))
            parts.append("test" if k == last - 1 and user else "valid" if k == max(last - 2, 1) else "train")
    order = np.random.default_rng(0).permutation(len(rows))
    folder = tmp_path_factory.mktemp("data") / "round"
    return small_dataset(folder, [rows[k] for k in order], ITEMS, labelled=False, parts=[parts[k] for k in order])


def task_of(data: Dataset, folder: Path, **settings: Any) -> SequenceTask:
    cfg = resolve("sasrec", SMALL | {key.replace("__", "."): value for key, value in settings.items()})
    return SequenceTask(cfg, data, folder / "cache")


def in_order(data: Dataset, user: int, until: int) -> list[int]:
    """Item rows of a user's positives in the parts before `until`, by time."""
    rows = np.flatnonzero((data.users == user) & (data.split() < until))
    return data.items[rows[np.argsort(data.timestamps[rows])]].tolist()


def test_a_step_learns_every_place_of_the_last_items(data: Dataset, tmp_path: Path) -> None:
    task = task_of(data, tmp_path)
    assert any("one training positive: 1" in note for note in task.notes)
    order = task.begin_epoch(0)
    assert (
        sorted(order.tolist()) == [u for u in range(USERS) if len(in_order(data, u, 1)) > 1] and len(order) == USERS - 1
    )
    assert not task.begin_epoch(1).equal(order) and task.begin_epoch(0).equal(order)
    batch = task.batch(order, 0, 0)
    for row, user in enumerate(order.tolist()):
        whole = in_order(data, user, 1)[-5:]
        known = batch.inputs[row] >= 0
        assert batch.inputs[row][known].tolist() == whole[:-1] and batch.positives[row][known].tolist() == whole[1:]
        assert (batch.positives[row][~known] == -1).all() and (batch.negatives[row][~known] == -1).all()
        assert not set(batch.negatives[row][known].tolist()) & set(in_order(data, user, 1))
    assert set(batch.negatives[batch.inputs >= 0].tolist()) <= set(data.items[data.split() == 0].tolist())
    other = task.batch(order, 0, 1)
    assert other.inputs.equal(batch.inputs) and not other.negatives.equal(batch.negatives)


def test_accumulated_batches_are_one_batch(data: Dataset, tmp_path: Path) -> None:
    task = task_of(data, tmp_path, model__dropout=0.0)
    batch = task.batch(task.begin_epoch(0), 0, 0)
    parts = [losses["loss"] for losses in task.losses(batch, None, 0)]
    whole = task.sequence_model.sequence_loss(batch.inputs, batch.positives, batch.negatives, {})["loss"]
    assert len(parts) == 3 and torch.stack(parts).sum().item() == pytest.approx(whole.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "until"),
    [({}, {1: 1, 2: 2}), ({"data__history_mode": "train"}, {1: 1, 2: 1}), ({"eval__protocol": "mmrec"}, {1: 1, 2: 1})],
    ids=["rolling", "train", "mmrec"],
)
def test_lists_are_made_from_what_came_before(
    data: Dataset, tmp_path: Path, settings: dict[str, Any], until: dict[int, int]
) -> None:
    task = task_of(data, tmp_path, **settings)
    read: list[list[list[int]]] = []
    own = task.sequence_model.read
    task.sequence_model.read = lambda sequences: (read.append(sequences.tolist()), own(sequences))[1]  # type: ignore
    for part in (1, 2):
        task.evaluate(part)
        sequences = [[item for item in row if item >= 0] for row in read.pop()]
        assert sequences == [in_order(data, user, until[part])[-4:] for user in range(USERS)]
    task.embeddings()  # of the recommender
    assert [[i for i in row if i >= 0] for row in read.pop()] == [in_order(data, u, 3)[-4:] for u in range(USERS)]


def test_a_run_learns_to_go_round_and_serves_from_all_that_is_known(data: Dataset, tmp_path: Path) -> None:
    given = SMALL | {"train.epochs": 60, "train.lr": 0.01, "model.dropout": 0.0, "train.patience": 60}
    run = train("sasrec", data, tmp_path / "run", given)
    assert max(line["valid/recall@3"] for line in run.metrics_lines()) > 0.8
    assert any("loss/negative" in line for line in run.metrics_lines())
    rec, task = Recommender.load(run.path), load_task(run)
    user = 5
    following = data.item_ids[(in_order(data, user, 3)[-1] + 1) % ITEMS]
    assert str(following) in [item for item, _ in rec.recommend(user=str(data.user_ids[user]), k=3)]
    assert isinstance(task, SequenceTask) and rec.export_user_vectors(tmp_path / "users.npy").is_file()
    assert np.allclose(np.load(tmp_path / "users.npy"), task.embeddings()[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data.history=3", ["model sasrec reads model.max_length items"]),
        ("eval.protocol=mmrec data.history_mode=train", ["data.history_mode=train would do nothing"]),
        ("model.n_heads=3", ["embedding_size=8", "n_heads=3"]),
        ("train.optimizer=sparse_adam", ["in model sasrec every user and item has a gradient"]),
        ("train.epochs=0", ["train.epochs"]),
    ],
)
def test_mistakes_are_named(data: Dataset, tmp_path: Path, words: str, said: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        train("sasrec", data, tmp_path / "run", SMALL | parse_overrides(words.split()))
    for part in said:
        assert part in str(caught.value)


def test_nobody_with_two_positives(tmp_path: Path) -> None:
    rows = [(user, (user + part) % 5, part, 1.0) for user in range(6) for part in range(3)]
    data = small_dataset(tmp_path / "data", rows, 5, labelled=False, parts=["train", "valid", "test"] * 6)
    with pytest.raises(UserError, match="no user has two training positives"):
        task_of(data, tmp_path)
