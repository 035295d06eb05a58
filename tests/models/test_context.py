"""The context of impressions: columns of the interactions, hour and weekday, as a ranker reads them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from rawrec.config import resolve
from rawrec.config.ranking import InputsConfig
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import Columns
from rawrec.data.sampling import Samples
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.models.ranking.columns import Buckets, Categories, TableColumns, hash_code, item_columns, user_columns
from rawrec.models.ranking.context import ContextReader, ImpressionContext, Moments, parse_context
from rawrec.serving.recommender import Recommender
from rawrec.training.job import train
from rawrec.training.runs import RunFolder

HOUR = 3600
FIRST = int(datetime(2024, 2, 28, 23, tzinfo=UTC).timestamp())  # a Wednesday


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """200 users and 5 items; a phone clicks, a tv does not, and only the test part knows watches."""
    rng = np.random.default_rng(0)
    n = 2000
    device = np.array(["phone", "tv"], object)[rng.integers(2, size=n)]
    clicked = (device == "phone").astype(np.float32)
    device[::50] = None
    part = np.repeat([0, 1, 2], [1400, 300, 300])
    device[-3:] = "watch"
    out = tmp_path_factory.mktemp("context") / "d"
    with DatasetWriter(
        out,
        fields=Fields(),
        source="made",
        labels=["label"],
        extra={"device": pa.string(), "position": pa.float64(), "part": pa.int64()},
        context=Columns(categorical=["device"], numeric=["position"]),
        has_time=True,
    ) as writer:
        position = np.arange(n) % 4 + 0.0
        position[7] = np.nan
        writer.add_interactions(
            {
                "user_id": [str(i % 200) for i in range(n)],
                "item_id": [str(i % 5) for i in range(n)],
                "timestamp": FIRST + HOUR * np.arange(n),
                "label": clicked,
                "device": device,
                "position": position,
                "part": part,
            }
        )
        return writer.finish(SplitSpec.model_validate({"kind": "column", "column": "part"}), ImportReport())


def reader(data: Dataset, **settings) -> ContextReader:
    samples = Samples(data, "default", "label", 5, "rolling", 0)
    cfg = InputsConfig(**settings)
    return ContextReader(data, samples, cfg, item_columns(data, samples, cfg), rolling=True)


def read(found: ContextReader, moments: Moments) -> ImpressionContext:
    columns = TableColumns({}, torch.zeros(6, 0))
    return found.read(moments, np.zeros((len(moments.users), 1), np.int64), columns)


def rows(*which: int) -> Moments:
    return Moments(np.zeros(len(which)), None, np.array(which))


def test_categories_are_those_of_training(data):
    found = reader(data, context=["device"])
    assert found.widths.codes == {"device": 4}  # unseen, phone, tv, missing
    words, codes = data.column("device")[[1999, 0]], read(found, rows(1999, 0, -1)).codes
    assert words[0] == "watch" and words[1] is None
    assert codes.tolist() == [[0], [3], [3]]
    where = [int(np.flatnonzero(data.column("device") == word)[0]) for word in ("phone", "tv")]
    assert read(found, rows(*where)).codes.tolist() == [[1], [2]]


def test_hour_and_weekday_are_of_the_time(data):
    found = reader(data, context=["hour", "weekday"])
    codes = read(found, rows(0, 1, 24, 25)).codes.numpy() - 1  # every hour and day is in training
    assert codes.tolist() == [[23, 2], [0, 3], [23, 3], [0, 4]]
    assert found.widths.codes == {"hour": 26, "weekday": 9}
    assert list(reader(data, context="all").readers) == ["device", "position", "hour", "weekday"]


def test_numbers_are_standardised_or_bucketed_by_training(data):
    found = reader(data, context=["position"])
    numbers = read(found, rows(0, 3, 7)).numbers.numpy()
    known = data.column("position")[:1400]
    known = known[np.isfinite(known)]
    np.testing.assert_allclose(numbers[:2, 0], (np.array([0, 3]) - known.mean()) / known.std(), rtol=1e-6)
    assert numbers[:, 1].tolist() == [0, 0, 1] and numbers[2, 0] == 0
    found = reader(data, context=["position"], numbers="buckets", buckets=4)
    assert read(found, rows(0, 1, 2, 3, 7, -1)).codes[:, 0].tolist() == [1, 2, 3, 4, 5, 5]
    assert found.widths.codes == {"position": 6}


def test_described_contexts_are_read_as_those_of_the_dataset(data):
    found = reader(data, context="all")
    row = int(np.flatnonzero(data.column("device") == "tv")[3])
    assert data.timestamps is not None
    given = {"device": " tv", "position": str(row % 4), "time": int(data.timestamps[row])}
    one, other = (read(found, Moments(np.zeros(1), None, np.array([row]), g)) for g in (given, None))
    assert one.codes.equal(other.codes) and one.numbers.equal(other.numbers)
    assert found.lacking(given) == [] and found.lacking({"hour": 3}) == ["device", "position", "weekday"]
    nothing, missing = read(found, Moments(np.zeros(1), None, np.array([0]), {})), read(found, rows(-1))
    assert nothing.codes.equal(missing.codes) and nothing.numbers.equal(missing.numbers)
    for wrong, why in (({"devise": "tv"}, "devise"), ({"position": "far"}, "number"), ({"device": ["a", "b"]}, "one"),
                       ({"time": "noon"}, "seconds"), ({"device": 1.5}, "category")):  # fmt: skip
        with pytest.raises(UserError, match=why):
            found.lacking(wrong)
            read(found, Moments(np.zeros(1), None, np.array([0]), wrong))
    with pytest.raises(UserError, match=r"model.context: .*'devise'"):
        reader(data, context=["devise"])


def test_large_categories_are_hashed():
    words = [f"w{i}" for i in range(50)]
    seen = np.arange(50) < 40
    assert Categories.of(words, seen, 40, missing=True).size == 42
    hashed = Categories.of(words, seen, 39, missing=True)
    assert hashed.size == 41 and hashed.missing == 40
    assert hashed.codes.min() >= 1 and hashed.codes.max() <= 39
    assert hashed.read("w45", "") == [hash_code("w45", 39)] == [hashed.codes[45]]
    assert hashed.read("never seen", "") == [hash_code("never seen", 39)] and hashed.read(None, "") == [40]
    assert hash_code("w1", 1000) == 273  # the same on every machine


def test_buckets_hold_equally_many():
    values = np.random.default_rng(0).lognormal(size=1000)
    buckets = Buckets.of(values, 8)
    assert np.bincount(buckets(values))[1:].tolist() == [125] * 8
    assert buckets(np.array([-1, np.inf, np.nan])).tolist() == [1, 8, 9]
    assert Buckets.of(np.zeros(0), 8)(np.array([3, np.nan])).tolist() == [1, 2]
    assert Buckets.of(np.array([2.0, 2, 2]), 8)(np.array([1.0, 2.0])).tolist() == [1, 2]  # equal edges are one


SETTINGS = {"model.dim": 8, "model.hidden": [16], "train.epochs": 3, "train.batch_size": 100, "train.lr": 0.02,
            "train.device": "cpu", "train.threads": 1, "train.warmup_steps": 0,
            "model.dropout": 0, "eval.topk": [2], "data.history": 3}  # fmt: skip


def auc_of(run: RunFolder) -> float:
    return json.loads((run.path / "metrics.json").read_text())["test"]["auc"]


def test_a_ranker_learns_from_context_and_serves_with_it(data, tmp_path: Path):
    run = train("id", data, tmp_path / "run", SETTINGS | {"model.context": ["device", "hour"]})
    assert auc_of(run) > 0.97  # nothing else tells clicks apart
    blind = train("id", data, tmp_path / "blind", SETTINGS)
    assert auc_of(blind) < 0.7
    rec = Recommender.load(run.path, device="cpu")
    phone, tv = (rec.score("3", ["1"], context={"device": d, "hour": 5})[0] for d in ("phone", "tv"))
    assert phone > 0.6 > 0.4 > tv
    [best] = rec.recommend("3", k=1, exclude_seen=False, context={"device": "phone", "hour": 5})
    assert best.score >= phone - 1e-6
    with pytest.warns(UserWarning, match="missing: device, hour"):
        between = rec.score("3", ["1"])[0]
    assert tv < between < phone
    assert rec.score("3", ["1"], context={})[0] == between  # told once
    with pytest.raises(UserError, match="reads no 'page'"):
        rec.recommend("3", context={"page": "1"})
    with pytest.raises(UserError, match="this run reads none"):
        Recommender.load(blind.path, device="cpu").recommend("3", context={"device": "tv"})


def test_settings_that_do_nothing_are_refused():
    resolve({"model": {"name": "id", "context": ["hour"], "numbers": "buckets", "buckets": 4}})
    for settings, why in (({"numbers": "buckets"}, "no column is read"), ({"columns": "all", "buckets": 3}, "standard"),
                          ({"hash_above": 3}, "no column"), ({"context": 5}, "device,hour")):  # fmt: skip
        with pytest.raises(UserError, match=why):
            resolve("id", {f"model.{key}": value for key, value in settings.items()})


def test_words_of_the_command_line():
    assert parse_context(["device=a=b", "hour=3"]) == {"device": "a=b", "hour": "3"}
    for words, why in ((["device"], "COLUMN=VALUE"), (["a=1", "a=2"], "twice")):
        with pytest.raises(UserError, match=why):
            parse_context(words)


def test_attributes_of_users_are_read_by_training_users(tmp_path: Path):
    with DatasetWriter(
        tmp_path / "d",
        fields=Fields(),
        source="made",
        labels=["label"],
        extra={"part": pa.int64()},
        users=Columns(categorical=["age"], numeric=["income"]),
        has_time=False,
    ) as writer:
        n = 300
        people = [str(i % 6) for i in range(n)]
        part = [0 if int(user) < 4 else 1 + i // 6 % 2 for i, user in enumerate(people)]
        label = [float(int(user) % 2) for user in people]
        rows = {"user_id": people, "item_id": [str(i % 7) for i in range(n)], "label": label, "part": part}
        writer.add_interactions(rows)
        ages = [["odd"] if i % 2 else ["even"] for i in range(5)]
        ages[2] = ["even", "grey"]
        people = {"user_id": [str(i) for i in range(5)], "age": [*ages[:4], ["new"]], "income": [1, 2, None, 3, 9.0]}
        writer.users.add(people)
        data = writer.finish(SplitSpec.model_validate({"kind": "column", "column": "part"}), ImportReport())
    samples = Samples(data, "default", "label", 3, "rolling", 0)
    found = user_columns(data, samples, InputsConfig(user_columns="all"))
    assert found is not None
    codes, ptr, size = found.bags["age"]
    # even, grey, odd are 1, 2, 3; new is unseen; who has none is 4, as is everybody outside
    assert size == 5 and [codes[a:b].tolist() for a, b in pairwise(ptr)] == [[1], [3], [1, 2], [3], [0], [4], [4]]
    mean, deviation = np.mean([1, 2, 3]), np.std([1, 2, 3])
    np.testing.assert_allclose(found.numbers[[0, 1, 3], 0], (np.array([1, 2, 3]) - mean) / deviation, rtol=1e-6)
    assert found.numbers[:, 1].tolist() == [0, 0, 1, 0, 0, 1, 1]
    assert user_columns(data, samples, InputsConfig()) is None
    with pytest.raises(UserError, match=r"model.user_columns: .*'agee'"):
        user_columns(data, samples, InputsConfig(user_columns=["agee"]))
    more = {"model.user_columns": ["age"], "model.user_id": False, "model.item_id": False}
    run = train("id", data, tmp_path / "run", SETTINGS | more | {"train.batch_size": 20})
    rec = Recommender.load(run.path, device="cpu")
    odd, even = (rec.score(user, ["1"], history=["1"])[0] for user in ("1", "0"))
    assert odd > 0.6 > 0.4 > even
    assert even < rec.score(history=["1"], items=["1"])[0] < odd  # who lacks all
