"""Counts, click rates and sessions before an impression, against slow loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from rawrec.config.ranking import InputsConfig
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.earlier import sessions_by_column, sessions_by_gap
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import Columns
from rawrec.data.sampling import Samples
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.models.ranking.columns import ItemColumns, item_columns
from rawrec.models.ranking.counts import Counts, Sessions
from rawrec.serving.recommender import Recommender
from rawrec.training.job import train

ITEMS, USERS, N, GAP = 12, 6, 400, 40
KINDS = [["a"], ["b"], ["a", "c"], [], ["b", "c"], ["a"], ["d"], ["d"], ["a", "b"], ["c"], ["a"], []]


def made(out: Path, kind: str = "time_user", labels: bool = True) -> Dataset:
    """Rows in random order, many at one time, of which a session has about six."""
    rng = np.random.default_rng(1)
    user, item, time = rng.integers(USERS, size=N), rng.integers(ITEMS, size=N), rng.integers(300, size=N)
    with DatasetWriter(
        out,
        fields=Fields(categorical=["kind"]),
        source="made",
        labels=["label"] if labels else [],
        extra={"visit": pa.string()},
        context=Columns(categorical=["visit"]),
        has_time=True,
    ) as writer:
        writer.add_items({"item_id": [str(i) for i in range(ITEMS)], "kind": KINDS})
        visit = [None if i % 9 == 0 else str(t // 30) for i, t in enumerate(time)]
        rows = {"user_id": [f"u{u}" for u in user], "item_id": [str(i) for i in item], "timestamp": time}
        label = {"label": (rng.random(N) < 0.3 + 0.3 * (item % 2)).astype(np.float32)} if labels else {}
        writer.add_interactions({**rows, **label, "visit": visit})
        return writer.finish(SplitSpec.model_validate({"kind": kind}), ImportReport())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made(tmp_path_factory.mktemp("counts") / "d")


def parts(data: Dataset, **settings) -> tuple[Samples, ItemColumns, InputsConfig]:
    samples, cfg = Samples(data, "default", "label", 5, "rolling", 2), InputsConfig(columns=["kind"], **settings)
    return samples, item_columns(data, samples, cfg), cfg


def slow(data: Dataset, samples: Samples, name: str, user: int, item: int, time: float) -> tuple[int, int]:
    """Rows and clicks of training before a time, by a loop."""
    assert data.timestamps is not None
    shown = clicked = 0
    for row in range(data.n_interactions):
        if samples.part[row] != 0 or data.timestamps[row] >= time:
            continue
        mine = set(KINDS[int(data.item_ids[item])]) if item >= 0 else set()
        times = {
            "user": int(data.users[row] == user),
            "item": int(data.items[row] == item),
            "kind": len(mine & set(KINDS[int(data.item_ids[data.items[row]])])),
        }[name]
        shown, clicked = shown + times, clicked + times * int(samples.positive[row])
    return shown, clicked


def test_counts_are_those_of_a_loop_over_earlier_training_rows(data):
    samples, columns, cfg = parts(data, counts=["item", "user", "kind"], counts_smoothing=4)
    counts = Counts(data, samples, cfg, columns)
    assert counts.width == 9 and data.timestamps is not None
    train = samples.part == 0
    rate = samples.positive[train].mean()

    def raw(name: str, user: int, item: int, time: float) -> list[float]:
        shown, clicked = slow(data, samples, name, user, item, time)
        return [np.log1p(shown), np.log1p(clicked), (clicked + 4 * rate) / (shown + 4)]

    def row_of(user: int, item: int, time: float) -> list[float]:
        return [number for name in ("item", "user", "kind") for number in raw(name, user, item, time)]

    at_training = np.array(
        [row_of(data.users[r], data.items[r], data.timestamps[r]) for r in np.flatnonzero(train)]
    )  # what standardises
    mean, deviation = at_training.mean(0), at_training.std(0)
    rows = np.concatenate([np.flatnonzero(samples.part == part)[:12] for part in range(3)])
    users, times = data.users[rows].astype(np.int64), data.timestamps[rows]
    items = np.stack([data.items[rows], (data.items[rows] + 5) % ITEMS, np.full(len(rows), -1)], 1).astype(np.int64)
    found = counts.read(columns, users, items, times)
    assert found.shape == (36, 3, 9) and found.dtype == np.float32
    for i, row in enumerate(rows):
        for j in range(3):
            wanted = (np.array(row_of(users[i], items[i, j], data.timestamps[row])) - mean) / deviation
            np.testing.assert_allclose(found[i, j], wanted.clip(-5, 5), rtol=1e-4, atol=1e-4)
    nobody = counts.read(columns, np.array([-1]), np.array([[-1]]), None)[0, 0]
    never = {name: (at, np.float32(values)) for name, (at, values) in counts.never().items()}
    assert {name: at for name, (at, _) in never.items()} == {"item": 0, "user": 3}
    for at, values in never.values():
        np.testing.assert_array_equal(values, nobody[at : at + 3])
    after = counts.read(columns, np.array([2, -1]), np.arange(ITEMS)[None], None)  # in use: all of training
    for user, values in ((2, after[0]), (-1, after[1])):
        wanted = (np.array([row_of(user, item, np.inf) for item in range(ITEMS)]) - mean) / deviation
        np.testing.assert_allclose(values, wanted.clip(-5, 5), rtol=1e-4, atol=1e-4)


def test_a_row_does_not_know_its_own_label(data):
    """The label of a row, and those of its time, may be anything: what it reads of counts is the same."""
    samples, columns, cfg = parts(data, counts=["item", "user", "kind"])
    assert data.timestamps is not None
    row = np.flatnonzero(samples.part == 0)[50]
    ask = data.users[[row]].astype(np.int64), data.items[[row]][:, None].astype(np.int64), data.timestamps[[row]]
    before = Counts(data, samples, cfg, columns)
    later = (data.timestamps >= data.timestamps[row]) & (samples.part == 0)
    flipped = samples.positive ^ later
    raw = before._raw(columns, *ask)  # not standardised
    samples.positive = flipped
    after = Counts(data, samples, cfg, columns)
    after._mean = before._mean
    np.testing.assert_array_equal(after._raw(columns, *ask), raw)


def test_counts_of_positives_alone_have_no_rate(tmp_path):
    samples, columns, cfg = parts(made(tmp_path / "d", labels=False), counts=["item", "user"])
    assert Counts(samples.data, samples, cfg, columns).width == 2


def test_what_cannot_be_counted_is_refused(data, tmp_path):
    samples, columns, cfg = parts(data, counts=["item", "visit"])
    with pytest.raises(UserError, match="'visit' is neither item nor user"):
        Counts(data, samples, cfg, columns)
    samples, columns, cfg = parts(made(tmp_path / "d", "random_user"), counts=["item"], session="gap")
    with pytest.raises(UserError, match=r"model.counts .* by chance"):
        Counts(samples.data, samples, cfg, columns)
    with pytest.raises(UserError, match=r"model.session .* by chance"):
        Sessions(samples.data, samples, cfg, True)
    with pytest.raises(UserError, match=r"model\.session=kind"):
        Sessions(data, parts(data)[0], InputsConfig(session="kind"), True)


def test_sessions_end_with_a_pause():
    users, times = np.array([1, 0, 1, 0, 1, 0]), np.array([0, 100, 50, 130, 20, 161])
    found = sessions_by_gap(users, times, 30)
    same = [[found[i] == found[j] for j in range(6)] for i in range(6)]
    assert same[0] == [True, False, True, False, True, False]  # 0, 20, 50
    assert same[1] == [False, True, False, True, False, False]  # 100, 130; then 31 s later
    found = sessions_by_column(np.array([0, 0, 1, 1]), np.array([2, 2, 2, -1]))
    assert found[0] == found[1] != found[2] and found[3] == -1


@pytest.mark.parametrize("session", ["gap", "visit"])
def test_sessions_are_those_of_a_loop(data, session):
    samples, _, cfg = parts(data, session=session, session_gap=GAP, id_history=3)
    found, times = Sessions(data, samples, cfg, rolling=True), data.timestamps
    visits, _ = data.row_categories("visit")
    by_gap = sessions_by_gap(data.users, times, GAP)
    for training in (True, False):
        rows = np.flatnonzero(samples.part == (0 if training else 2))
        items, numbers = found.read(rows, training)
        for i, row in enumerate(rows):
            same = data.users == data.users[row]
            same &= by_gap == by_gap[row] if session == "gap" else (visits == visits[row]) & (visits[row] >= 0)
            same &= times < times[row]
            if training:
                same &= samples.part == 0
            assert numbers[i].tolist() == pytest.approx(
                np.log1p([same.sum(), (same & samples.positive).sum()]).tolist(), rel=1e-6
            )
            at = np.flatnonzero(same)
            at = at[np.argsort(times[at], kind="stable")][-3:]
            assert times[at].tolist() == sorted(times[at].tolist())
            if len(set(times[np.flatnonzero(same)])) == same.sum():  # without ties the order is the only one
                assert items[i].tolist() == [-1] * (3 - len(at)) + data.items[at].tolist()
            else:
                assert (items[i] >= 0).sum() == len(at)
    assert not found.read(np.array([-1]), False)[1].any()


def test_a_ranker_with_everything_trains_and_serves(data, tmp_path: Path):
    settings = {"model.dim": 8, "model.hidden": [16], "train.epochs": 2, "train.batch_size": 50, "train.device": "cpu",
                "train.threads": 1, "eval.topk": [2], "model.columns": ["kind"], "data.history": 3,
                "model.counts": ["item", "user", "kind"], "model.session": "visit", "model.context": ["visit", "hour"],
                "model.numbers": "buckets"}  # fmt: skip
    run = train("id", data, tmp_path / "run", settings)
    assert json.loads((run.path / "metrics.json").read_text())["test"]["auc"] is not None
    rec = Recommender.load(run.path, device="cpu")
    given = {"visit": "3", "hour": 1}
    one = rec.score("u1", ["3", "4"], context={**given, "seen": ["5"]})
    clicked = rec.score("u1", ["3", "4"], context={**given, "seen": {"5": True}})
    other = rec.score("u1", ["3", "4"], context={**given, "seen": "6, 5"})
    assert len({one[0], clicked[0], other[0]}) == 3
    ranked = dict(rec.recommend("u1", k=12, exclude_seen=False, context={**given, "seen": {"5": True}}))
    np.testing.assert_allclose([ranked["3"], ranked["4"]], clicked, rtol=1e-5)
    with pytest.warns(UserWarning, match="missing: visit, hour, seen"):
        rec.recommend("u1")
    with pytest.raises(UserError, match="'99'"):
        rec.score("u1", ["3"], context={**given, "seen": ["99"]})
    inputs = rec.system.ranker.inputs
    assert inputs.names[-3:] == ["context", "counts", "session"]
    numbers, some = torch.rand(2, 3, 9), torch.tensor([[0, 1, 2], [3, 0, 0]])
    read = inputs._counted(numbers, torch.tensor([1, 0]), some)  # an unknown id, as one that is dropped, has no counts
    kept = torch.ones(2, 3, 9, dtype=torch.bool)
    kept[..., :3][some == 0], kept[1, :, 3:6] = False, False
    assert torch.equal(read[kept], numbers[kept]) and not (read[~kept] == numbers[~kept]).any()
    assert torch.equal(read[0, 0, :3], inputs.never_item) and torch.equal(read[1, 2, 3:6], inputs.never_user)
    rec.recommend_all(tmp_path / "lists.csv", k=2, exclude_seen=False, context={**given, "seen": ["5"]})
    assert len((tmp_path / "lists.csv").read_text().splitlines()) == 1 + 2 * USERS
