"""What is known of the events of histories: codes by hand, and the same in training, evaluation, lists and serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rawrec.data.dataset import Dataset
from rawrec.data.splits import SplitSpec
from rawrec.errors import UserError
from rawrec.models.ranking.context import Moments
from rawrec.models.ranking.marks import GAPS, Marks
from rawrec.serving.recommender import Recommender
from rawrec.sources.synthetic import import_synthetic
from rawrec.training.evaluate import evaluate_part
from rawrec.training.job import train
from systems import settings, small_dataset, system

LEMUR = {"model__content": "lemur", "model__name": "dot_mlp", "paradigm": "hybrid", "data__history": 8} | {
    f"content__{kind}__train": "none" for kind in ("image", "text")
}


@pytest.fixture(scope="module")
def buys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated shop with two labels, label and buy."""
    out = tmp_path_factory.mktemp("data") / "buys"
    import_synthetic(out, items=60, users=40, impressions=2000, buy_rate=0.4, progress=False)
    return out


def test_codes_by_hand(buys: Path, tmp_path: Path) -> None:
    words = {**LEMUR, "data__labels": ["label", "buy"], "model__lemur": {"marks": ["action", "gap"]}}
    made = system(buys, tmp_path, **words)
    marks, data = made.marks, made.data
    assert marks is not None and marks.sizes == [3, GAPS]
    rows = made.samples.rows(0)[-20:]
    sample = made.samples.impressions(rows, 0, np.random.default_rng(0))
    history = made.samples.histories(sample, 0)
    found = made.marks_of(made._moments(sample, 0)).numpy()
    times, bought = data.timestamps, data.binary("buy")
    assert found.shape == (20, 8, 2) and (found[history < 0] == 0).all()
    for k in range(20):
        for j in np.flatnonzero(history[k] >= 0):
            events = np.flatnonzero((data.users == sample.users[k]) & (data.items == history[k, j]))
            events = events[made.samples.positive[events] & (times[events] < sample.times[k])]
            gaps = {1 + int(np.log2(1 + sample.times[k] - times[event])) for event in events}
            assert found[k, j, 0] in {1 + int(bought[event] > 0) for event in events}
            assert found[k, j, 1] in gaps
    assert {1, 2} <= set(found[..., 0].ravel().tolist())


def test_an_unknown_event_and_the_longest_gap() -> None:
    marks = Marks.__new__(Marks)
    marks.names, marks.sizes, marks._latest = ["gap"], [GAPS], 2**50
    marks._times = np.array([0, 2**50 - 1, 2**50])
    assert marks.read(np.array([[-1, 0, 1, 2]]), None)[0, :, 0].tolist() == [0, GAPS - 1, 2, 1]
    assert marks.read(np.array([[2]]), np.array([5])).item() == 1  # nothing is ahead of its own past


def test_what_the_data_must_have(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"marks=\[action\].*data.labels=\[click,buy\]"):
        system(shop, tmp_path, **LEMUR, model__lemur={"marks": ["action"]})
    rows = [(u, i, 0, float(i % 2)) for u in range(8) for i in range(8)]
    feature = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    timeless = small_dataset(
        tmp_path / "data", rows, 8, feature=feature, has_time=False, split=SplitSpec(kind="random_user")
    )
    words: dict[str, Any] = {k: v for k, v in LEMUR.items() if not k.startswith("content")}
    with pytest.raises(UserError, match=r"marks=\[gap\] reads what came before"):
        system(timeless, tmp_path / "cache", **words, model__lemur={"marks": ["gap"]})


def test_marks_reach_every_score(buys: Path, tmp_path: Path) -> None:
    """Two runs that differ in nothing else; lists, impressions and the recommender read the same of a user."""
    words = {**LEMUR, "data__labels": ["label", "buy"], "train__epochs": 2, "train__lr": 0.02}
    marked = settings(**words, model__lemur={"short": 3, "search": 4, "marks": ["gap", "action"]})
    run = train(marked, buys, tmp_path / "run")
    made = Recommender.load(run.path)
    task = made.system
    assert task.marks is not None
    _, _, frame = evaluate_part(task, 2, 0)
    row = task.samples.rows(2)[-5:]
    sample = task.samples.impressions(row, 2, np.random.default_rng(0))
    scores = task.score_impressions(sample, 2)
    written = dict(zip(frame["row"], frame["score"], strict=True))
    np.testing.assert_allclose(scores[:, 0, 0], [written[r] for r in row.tolist()], rtol=1e-5)

    users, history = sample.users, task.samples.histories(sample, 2)
    moments = task._moments(sample, 2)
    whole = torch.sigmoid(task.score_all(moments, history, task.table()))
    own = whole[torch.arange(5), torch.from_numpy(sample.items[:, 0])]
    np.testing.assert_allclose(own, scores[:, 0, 0], rtol=1e-4)
    without = task.score_all(Moments(users, sample.times, sample.rows), history, task.table())
    assert not torch.allclose(torch.sigmoid(without), whole, atol=1e-5)

    user = str(Dataset.open(buys).user_ids[0])
    best = made.recommend(user=user, k=5, exclude_seen=False)
    again = made.score(user=user, items=[item for item, _ in best])
    np.testing.assert_allclose([score for _, score in best], again, rtol=1e-4)
    past = [str(made._item_ids[i]) for i in made._histories(np.array([0]))[0] if i >= 0]
    assert not np.allclose(made.score(user=user, items=[i for i, _ in best], history=past), again, atol=1e-5)
