"""eval.untrained_ids and model.id_dropout in runs: evaluation, recommender, exports and resuming agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from small_retrieval import settings

from rawrec import Recommender, UserError
from rawrec.config import parse_overrides, resolve
from rawrec.data.dataset import Dataset
from rawrec.data.splits import SplitSpec
from rawrec.evaluation.topk import rank_all
from rawrec.training.job import evaluate, load_task, resume, train
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.pairs import PairTask, product
from systems import Stop, digest, small_dataset, stopping_after

USERS, ITEMS, KINDS = 60, 80, 4


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users take items of their kind, which the feature tells; two fifths of the items have no training row."""
    rng = np.random.default_rng(0)
    kind = np.arange(ITEMS) % KINDS
    feature = (3 * np.eye(KINDS)[kind] + 0.3 * rng.normal(size=(ITEMS, KINDS))).astype(np.float32)
    rows = [
        (user, int(item), time, 1.0)
        for user in range(USERS)
        for time, item in enumerate(rng.permutation(np.flatnonzero(kind == user % KINDS))[:12])
    ]
    split = SplitSpec.model_validate({"kind": "new_items", "share": 0.4, "folds": 2})
    folder = tmp_path_factory.mktemp("held") / "data"
    return small_dataset(folder, rows, ITEMS, feature=feature, labelled=False, has_time=False, split=split)


def run_of(data: Dataset, folder: Path, model: str = "vbpr", **more: Any) -> Path:
    return train(model, data, folder / "run", given(model, **more)).path


def given(model: str, **more: Any) -> dict[str, Any]:
    return settings(model, **{"train__epochs": 8, "eval__topk": [5, 20], "train__patience": 8} | more)


def test_a_run_says_the_same_of_new_items_wherever_it_is_asked(held_out: Dataset, tmp_path: Path) -> None:
    """By default untrained ids are zero: in validation, in lists, in scores and in vectors; the weights stay."""
    path = run_of(held_out, tmp_path)
    stored = json.loads((path / "metrics.json").read_text())
    assert evaluate(path, "valid") == stored["valid"] and stored["valid"]["cold/recall@20"] > 0.5
    task = load_task(Recommender.load(path).run)
    assert isinstance(task, PairTask)
    cold = np.flatnonzero(~task.known_items)
    assert len(cold) > 20 and task.model.get_parameter("i_embedding")[cold].any()
    _, items = task.embeddings()
    assert not items[cold, :8].any() and items[task.model.taught, :8].all(1).any()

    rec = Recommender.load(path)
    table = pl.read_parquet(rec.export_vectors(tmp_path / "v.parquet"))
    assert np.array_equal(np.stack(table["vector"].to_list()).astype(np.float32), items.numpy())
    ids = [str(item) for item in held_out.item_ids]
    lists = task.lists(task.tasks[2], 20)
    user = str(held_out.user_ids[task.tasks[2].users[0]])
    scores = dict(zip(ids, rec.score(user, ids), strict=True))
    assert {ids[row] for row in cold} & {found.item for found in rec.recommend(user, k=20)}
    best = [ids[row] for row in lists.items[0]]
    torch.testing.assert_close(torch.tensor([scores[item] for item in best]), torch.tensor(lists.scores[0]))


def test_the_published_protocol_leaves_untrained_ids_as_they_are(held_out: Dataset, tmp_path: Path) -> None:
    """The same weights either way: what evaluation reads is no part of training. Here one epoch is the best alone."""
    paths = {}
    for name, more in {
        "mmrec": {"eval__protocol": "mmrec"},
        "as_is": {"eval__untrained_ids": "as_is"},
        "zero": {},
        "mean": {"eval__untrained_ids": "mean"},
    }.items():
        paths[name] = run_of(held_out, tmp_path / name, train__epochs=1, **more)
    tasks = {name: load_task(Recommender.load(path).run) for name, path in paths.items()}
    items = {}
    for name, task in tasks.items():
        assert isinstance(task, PairTask)
        items[name] = task.embeddings()[1]
        assert task.model.get_parameter("i_embedding").equal(tasks["zero"].model.get_parameter("i_embedding"))  # type: ignore[union-attr]
        cold, taught = task.model.untaught, task.model.taught
    assert items["mmrec"].equal(items["as_is"]) and not items["as_is"].equal(items["zero"])
    for name in items:
        assert items[name][taught].equal(items["as_is"][taught])
    torch.testing.assert_close(items["mean"][cold, :8], items["as_is"][taught, :8].mean(0).expand(len(cold), -1))


@pytest.mark.parametrize("model", ["bpr", "lightgcn", "bm3"])
@pytest.mark.parametrize("filling", ["zero", "mean"])
def test_without_content_new_items_are_equal_and_stand_in_the_order_of_ties(
    held_out: Dataset, tmp_path: Path, model: str, filling: str
) -> None:
    path = run_of(held_out, tmp_path, model, eval__untrained_ids=filling, train__epochs=3)
    task, rec = load_task(Recommender.load(path).run), Recommender.load(path)
    assert isinstance(task, PairTask)
    cold = task.model.untaught.numpy()
    ids = [str(item) for item in held_out.item_ids]
    order = rank_all(lambda users: torch.zeros(1, ITEMS), np.zeros(1, int), np.zeros(2, int), cold[:0], ITEMS).items[0]
    expected = [ids[row] for row in order if row in set(cold)]
    for user in map(str, held_out.user_ids[:5]):
        scores = np.array(rec.score(user, ids))[cold]
        assert (scores == scores[0]).all() and (filling == "mean" or model == "bm3" or scores[0] == 0)
        found = [one.item for one in rec.recommend(user, k=ITEMS, exclude_seen=False)]
        assert [item for item in found if item in set(expected)] == expected
    lists = task.lists(task.tasks[1], ITEMS)
    for row in lists.items:
        assert [ids[item] for item in row if item in set(cold)] == expected
    with pytest.raises(UserError, match="so there is nothing to compare"):
        rec.similar(ids[cold[0]], 3)


def test_vectors_that_only_rounding_tells_apart_have_equal_scores_to_the_bit(held_out: Dataset, tmp_path: Path) -> None:
    """A product of matrices may round equal rows differently; here the rows themselves are rounded."""
    task = load_task(Recommender.load(run_of(held_out, tmp_path, "bpr", train__epochs=1)).run)
    assert isinstance(task, PairTask)
    cold, generator = task.model.untaught, torch.Generator().manual_seed(0)
    items, users = torch.randn(ITEMS, 33, generator=generator), torch.randn(7, 33, generator=generator)
    items[cold] = items[0] * (1 + 1e-6 * torch.rand(len(cold), 33, generator=generator))
    assert task.alike(items).equal(cold)
    scores, plain = product(users, items, cold), users @ items.T
    assert (scores[:, cold] == scores[:, cold[:1]]).all() and not (plain[:, cold] == plain[:, cold[:1]]).all()
    torch.testing.assert_close(scores, plain, rtol=1e-4, atol=1e-4)
    items[cold[-1]] += 0.01
    assert not len(task.alike(items))
    task.cfg.eval.untrained_ids = "as_is"
    items[cold[-1]] -= 0.01
    assert not len(task.alike(items))


@pytest.mark.parametrize("optimizer", ["adam", "sparse_adam"])
def test_a_run_with_dropped_ids_resumes_exactly(held_out: Dataset, tmp_path: Path, optimizer: str) -> None:
    more: dict[str, Any] = {"train__checkpoint_every": 1, "train__checkpoint_share": 1, "train__epochs": 3}
    more |= {"model__id_dropout": 0.5, "train__optimizer": optimizer}
    whole = run_of(held_out, tmp_path / "whole", **more)
    with pytest.raises(Stop):
        train("vbpr", held_out, tmp_path / "run", given("vbpr", **more), observer=stopping_after(5))
    assert digest(resume(tmp_path / "run").path) == digest(whole)
    none = run_of(held_out, tmp_path / "none", **more | {"model__id_dropout": 0})
    assert digest(none) != digest(whole)


def test_runs_from_before_the_setting_stay_as_they_were(held_out: Dataset, tmp_path: Path) -> None:
    path = run_of(held_out, tmp_path, eval__untrained_ids="as_is", train__epochs=2)
    stored = json.loads((path / "metrics.json").read_text())
    tree = yaml.safe_load((path / "config.yaml").read_text())
    assert tree["eval"].pop("untrained_ids") == "as_is" and tree["model"].pop("id_dropout") == 0
    (path / "config.yaml").write_text(yaml.safe_dump(tree))
    RunFolder(path).write_info(files={})
    assert evaluate(path, "valid") == stored["valid"]
    tree["eval"]["untrained_ids"] = None
    (path / "config.yaml").write_text(yaml.safe_dump(tree))
    assert evaluate(path, "valid") != stored["valid"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("vbpr model.id_dropout=0.1 eval.protocol=mmrec", "use eval.untrained_ids=zero or mean"),
        ("vbpr model.id_dropout=0.1 eval.untrained_ids=as_is", "a random row of their own"),
        ("vbpr model.id_dropout=0.1 eval.untrained_ids=mean train.optimizer=sparse_adam", "reads the whole id table"),
        ("dragon eval.untrained_ids=zero", "model dragon has no ids of items"),
        ("em3 eval.untrained_ids=zero", "it is a setting of retrieval models"),
        ("lightgcn model.id_dropout=0.1", "model.id_dropout"),
        ("vbpr model.id_dropout=1", "model.id_dropout"),
        ("vbpr eval.untrained_ids=none", "eval.untrained_ids"),
    ],
)
def test_what_makes_no_sense_is_refused(words: str, reason: str) -> None:
    name, *rest = words.split()
    with pytest.raises(UserError) as caught:
        resolve(name, parse_overrides(rest))
    assert reason in str(caught.value)


def test_defaults_follow_the_protocol() -> None:
    assert resolve("vbpr").untrained_ids == "zero"
    assert resolve("vbpr", {"eval.protocol": "mmrec"}).untrained_ids == "as_is"
    assert resolve("vbpr", {"eval.protocol": "mmrec", "eval.untrained_ids": "mean"}).untrained_ids == "mean"
    settled = resolve("vbpr", {"model.id_dropout": 0.1, "train.optimizer": "sparse_adam"})
    assert resolve(settled.dump(), {"model.id_dropout": 0, "eval.protocol": "mmrec"}).untrained_ids == "as_is"


@pytest.mark.parametrize("filling", ["zero", "mean"])
def test_the_share_of_a_batch_that_has_no_ids(held_out: Dataset, tmp_path: Path, filling: str) -> None:
    """Drawn anew in each step, of the distinct items of the batch, and over with the loss."""
    cfg = resolve("vbpr", given("vbpr", model__id_dropout=0.3, eval__untrained_ids=filling))
    task, dropped, shown = PairTask(cfg, held_out, tmp_path / "cache"), [], 0
    original = task.model.loss

    def watched(*inputs: Any) -> dict[str, torch.Tensor]:
        assert task.model._without_ids is not None and task.model._without_ids[1] == filling
        dropped.append(task.model._without_ids[0])
        return original(*inputs)

    task.model.loss = watched  # type: ignore[method-assign]
    order = task.begin_epoch(0)
    for step in range(40):
        batch = task.batch(order[:50], 0, step)
        assert [losses["loss"].isfinite() for losses in task.losses(batch, None, step)] == [True]
        assert torch.isin(dropped[-1], batch.items).all() and len(dropped[-1].unique()) == len(dropped[-1])
        assert task.model._without_ids is None
        shown += len(batch.items.unique())
    assert 0.25 < sum(map(len, dropped)) / shown < 0.35
    assert len({tuple(rows.tolist()) for rows in dropped}) > 35
