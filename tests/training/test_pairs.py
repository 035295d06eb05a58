"""What a retrieval model reads of a dataset, and how its lists are judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_retrieval import ITEMS, USERS, make, settings

from rawrec import UserError
from rawrec.config import resolve
from rawrec.data.dataset import Dataset
from rawrec.data.splits import SplitSpec
from rawrec.training.evaluate import make_lists
from rawrec.training.job import load_task, train
from rawrec.training.tasks.pairs import PairTask
from systems import small_dataset


def test_what_lists_are_like(graph: Dataset, tmp_path: Path) -> None:
    """By the distinct training positives and the features that the model reads; diversity at the end alone."""
    events: list[tuple[str, dict]] = []
    given = settings("vbpr", train__epochs=1)
    run = train("vbpr", graph, tmp_path / "run", given, observer=lambda e, **v: events.append((e, v)))
    task, stored = load_task(run), json.loads((run.path / "metrics.json").read_text())["test"]
    assert isinstance(task, PairTask)
    found = task.evaluate(2)
    assert {name: stored[name] for name in found.metrics} == found.metrics
    popularity = np.array(
        [len(np.unique(graph.users[(graph.split() == 0) & (graph.items == i)])) for i in range(ITEMS)]
    )
    lists = found.lists.items[:, :5]
    assert (lists >= 0).all() and stored["popularity@5"] == pytest.approx(popularity[lists].mean())
    vectors = []
    for name in ("image", "text"):
        table = task.model.feature(name).double().numpy()
        length = np.linalg.norm(table, axis=1, keepdims=True)
        vectors.append(np.divide(table, length, out=np.zeros_like(table), where=length > 0))
    unit = np.concatenate(vectors, 1)
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True))[lists]
    cosines = np.einsum("uid,ujd->u", unit, unit) - 5
    assert stored["diversity@5"] == pytest.approx((1 - cosines / 20).mean(), abs=1e-5)
    line = run.metrics_lines()[0]
    assert {"valid/coverage@5", "valid/gini@20", "valid/tail@5"} <= line.keys() and "valid/diversity@5" not in line


@pytest.mark.parametrize("protocol", ["default", "mmrec"])
@pytest.mark.parametrize("part", [1, 2])
def test_protocols_against_a_plain_computation(graph: Dataset, tmp_path: Path, protocol: str, part: int) -> None:
    trainer = make(graph, tmp_path, eval__protocol=protocol)
    trainer._epoch()
    result = trainer.task.evaluate(part)
    split, users, items = graph.split(), graph.users, graph.items
    user_vectors, item_vectors = (vectors.numpy() for vectors in trainer.task.embeddings())
    recalls, judged = [], []
    for user in range(graph.n_users):
        mine = users == user
        train_items, wanted = items[mine & (split == 0)], items[mine & (split == part)]
        if not len(wanted) or (protocol == "mmrec" and not len(train_items)):
            continue
        hidden = items[mine & (split == 0)] if protocol == "mmrec" else items[mine & (split < part)]
        scores = item_vectors @ user_vectors[user]
        scores[hidden] = -np.inf
        best = np.argsort(-scores)[:5]
        recalls.append(len(np.intersect1d(best, wanted)) / len(wanted))
        judged.append(user)
        row = result.users.tolist().index(user)
        assert not np.isin(result.lists.items[row], hidden).any()
    assert result.users.tolist() == judged
    assert (1 in [int(graph.user_ids[u]) for u in judged]) == (protocol == "default")
    assert result.metrics["recall@5"] == pytest.approx(np.mean(recalls), abs=1e-9)


def test_some_users_get_lists(graph: Dataset, tmp_path: Path) -> None:
    """The same of validation and test, whatever the model, its protocol and the run's seed."""
    everyone = make(graph, tmp_path).task
    found = [make(graph, tmp_path, eval__topk_users=6, **given).task for given in ({}, {"seed": 3})]
    for part in (1, 2):
        all_users, some = everyone.evaluate(part), [task.evaluate(part) for task in found]
        assert some[0].users.tolist() == some[1].users.tolist() and len(some[0].users) == 6
        assert set(some[0].users.tolist()) < set(all_users.users.tolist())
        assert some[0].metrics["topk_users_of"] == len(all_users.users) and "topk_users_of" not in all_users.metrics
        at = np.isin(all_users.users, some[0].users)
        assert some[0].lists.items.tolist() == all_users.lists.items[at].tolist()
    assert "lists of 6 of" in found[0].notes[-1] and not any("lists of" in note for note in everyone.notes)


def test_missing_rows_and_fields_left_out(graph: Dataset, tmp_path: Path) -> None:
    model = make(graph, tmp_path, "vbpr").task.model
    assert model.modalities == ("image", "text")
    assert not model.present("image")[7] and model.present("image").sum() == ITEMS - 1 and model.present("text").all()
    trainer = make(graph, tmp_path, "vbpr", content__image__use=False)
    assert trainer.task.model.modalities == ("text",)
    assert not trainer.task.cfg.content.fields["image"].use  # in config.yaml, for whoever loads the run


def test_features_of_raw_fields(shop: Path, tmp_path: Path) -> None:
    """Frozen encoders make them once; labels decide which interactions are positives."""
    tiny = {"content.image.encoder": "random:conv", "content.image.size": 32, "content.text.encoder": "random:bert"}
    data = Dataset.open(shop)
    run = train("vbpr", data, tmp_path / "run", settings("vbpr") | tiny | {"train.precision": "fp32"})
    system = load_task(run)
    assert isinstance(system, PairTask)
    assert set(system.model.modalities) == {*data.fields.image, *data.fields.text}
    assert all(system.model.present(name).any() for name in system.model.modalities)
    liked = (data.split() == 0) & (data.label() > 0)
    pairs = set(zip(data.users[liked].tolist(), data.items[liked].tolist(), strict=True))
    found = zip(system.known.users.tolist(), system.known.items.tolist(), strict=True)
    assert sorted(pairs) == sorted(found)


def test_rows_that_make_histories_only_are_positives_of_training(graph: Dataset, tmp_path: Path) -> None:
    graph.add_split("later", SplitSpec(kind="random_user", history="x_label"))
    system = make(graph, tmp_path, data__split="later").task
    before, parts = graph.column("x_label") > 0, graph.split("later")
    assert before.any() and (parts[before] == -1).all()
    trained = set(zip(system.known.users.tolist(), system.known.items.tolist(), strict=True))
    rows = before | (parts == 0)
    assert trained == set(zip(graph.users[rows].tolist(), graph.items[rows].tolist(), strict=True))
    task = system.tasks[1]
    left_out = set(zip(np.repeat(task.users, np.diff(task.mask_ptr)).tolist(), task.mask_items.tolist(), strict=True))
    assert left_out == {pair for pair in trained if pair[0] in set(task.users.tolist())}


def test_a_ready_item_graph_needs_no_features(graph: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the folder that a run was started in, when it is loaded again."""
    rows, columns = np.arange(ITEMS), (np.arange(ITEMS) + 2) % ITEMS
    np.savez(tmp_path / "graph.npz", row=rows, col=columns, value=np.ones(ITEMS, np.float32))
    monkeypatch.chdir(tmp_path)
    given = settings("freedom", model__item_graph="graph.npz", model__reg_weight=0)
    del given["model.knn_k"]
    run = train("freedom", graph, tmp_path / "run", given)
    assert run.info()["paradigm"] is None
    monkeypatch.chdir(tmp_path.parent)
    system = load_task(run)
    assert isinstance(system, PairTask) and not system.reads_features and not system.model.modalities
    with pytest.raises(UserError, match="reads no features"):
        train("freedom", graph, tmp_path / "again", given | {"content.image.use": False})


def test_the_order_of_modalities(graph: Dataset, tmp_path: Path) -> None:
    """It is the dataset's unless given, and a run that is loaded again has it."""
    assert make(graph, tmp_path / "a", "freedom").task.model.modalities == ("image", "text")
    first = make(graph, tmp_path / "b", "freedom", content__order=["text", "image"]).task.model
    assert first.modalities == ("text", "image") and first.width("text") == 5
    run = train("freedom", graph, tmp_path / "run", settings("freedom", content__order=["text", "image"]))
    loaded = load_task(run)
    assert isinstance(loaded, PairTask) and loaded.model.modalities == ("text", "image")
    alone = make(graph, tmp_path / "c", "freedom", content__order=["text"], content__image__use=False)
    assert alone.task.model.modalities == ("text",)


@pytest.mark.parametrize("order", [[], ["text"], ["text", "image", "text"], ["text", "audio"]])
def test_an_order_that_is_not_of_all_modalities(graph: Dataset, tmp_path: Path, order: list[str]) -> None:
    with pytest.raises(UserError, match=r"content\.order=\[image,text\]") as caught:
        make(graph, tmp_path, "freedom", content__order=order)
    assert str(caught.value).startswith(f"content.order=[{','.join(order)}]")


@pytest.mark.parametrize(
    ("exclude", "protocol"), [("positives", "default"), ("none", "default"), ("positives", "mmrec")]
)
def test_what_was_taken_before_is_not_asked_for_again(tmp_path: Path, exclude: str, protocol: str) -> None:
    """Repeat purchases; a perfect scorer finds all that is asked for. MMRec asks for what it leaves out, and misses."""
    rows = [(user, (user + k) % ITEMS, 10 * part, 1.0) for user in range(USERS) for part in range(3) for k in range(4)]
    rows += [(user, (user + 9) % ITEMS, 20, 1.0) for user in range(5)]
    parts = ["train"] * 4 + ["valid"] * 4 + ["test"] * 4
    data = small_dataset(tmp_path / "data", rows, ITEMS, labelled=False, parts=parts * USERS + ["test"] * 5)
    more = {"eval__protocol": "mmrec"} if protocol == "mmrec" else {"eval__exclude_seen": exclude}
    system = PairTask(resolve("bpr", settings("bpr", **more)), data, tmp_path / "cache")
    task = system.tasks[2]
    scores = torch.zeros(USERS, ITEMS)
    wanted = data.split() == 2
    scores[data.users[wanted], data.items[wanted]] = 1.0
    lists = make_lists(lambda users: scores[torch.from_numpy(users)].clone(), task, 20, 16)
    metrics = system.judge(2, lists).metrics
    repeated = 0 if exclude == "none" else 4 * USERS
    assert metrics.get("topk_repeated", 0) == repeated
    if protocol == "mmrec":
        assert metrics["topk_users"] == USERS and metrics["recall2@20"] == pytest.approx(5 / (4 * USERS + 5))
    else:
        assert metrics["topk_users"] == (5 if repeated else USERS) and metrics["recall@20"] == 1.0
