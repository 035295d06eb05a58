"""`train.init`: a run begins with another one's weights, users and items by their ids."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.training.configuring import configure
from rawrec.training.job import load_task, resume, task_of, train
from rawrec.training.runs import RunFolder
from rawrec.training.warm_start import matched, warm_start
from systems import Stop, digest, settings, small_dataset, stopping_after

ID = settings(model__name="id", train__batch_size=128, train__epochs=1)
LATER = {"train": {"lr": 1e-9, "id_weight_decay": 0.0, "weight_decay": 0.0, "warmup_steps": 0, "ema": 0.0}}


def begun(preset: Any, data: Dataset | Path, run: Path, out: Path, **more: Any) -> Any:
    """A task that has begun with the weights of a run, without a step of its own."""
    data = data if isinstance(data, Dataset) else Dataset.open(data)
    cfg = configure(preset, data, {"train.init": str(run), **more})
    folder = RunFolder.create(out, cfg, data)
    task = task_of(cfg)(cfg, data, out.parent / "cache")
    warm_start(task, folder)
    return task


@pytest.mark.parametrize("changes", [{}, {"paradigm": "hybrid"}, {"paradigm": "frozen"}])
def test_the_same_data(shop: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """All that was learned is taken over; the optimiser and the bank begin anew."""
    tree = settings(train__epochs=1, train__batch_size=512, model__columns="all", model__context="none") | changes
    first = train(tree, shop, tmp_path / "first")
    task = begun(tree, shop, first.path, tmp_path / "second")
    saved = load_file(first.path / "model.safetensors")
    state = task.state()
    assert {name for name in saved if not name.startswith("bank.")} == set(state)
    assert all(torch.equal(state[name], saved[name]) for name in state)


def test_a_run_says_what_it_began_with_and_resumes(shop: Path, tmp_path: Path) -> None:
    first = train(ID, shop, tmp_path / "first")
    given = {"train.init": str(first.path), "train.checkpoint_every": 4}
    second = train(ID, shop, tmp_path / "second", given)
    told = second.info()["init"]
    assert told["run"] == str(first.path) and len(told["digest"]) == 64 and told["users"] == told["items"] - 20
    assert "begins with the weights of" in (second.path / "log.txt").read_text()
    assert second.metrics_lines()[0]["loss"] < first.metrics_lines()[0]["loss"]
    with pytest.raises(Stop):
        train(ID, shop, tmp_path / "third", given, observer=stopping_after(3))
    assert digest(resume(tmp_path / "third").path) == digest(second.path)
    with pytest.raises(Stop):
        train(ID, shop, tmp_path / "fourth", given, observer=stopping_after(3))
    train(ID, shop, first.path, {"seed": 1}, overwrite=True)
    with pytest.raises(UserError, match="its weights have changed since"):
        resume(tmp_path / "fourth")


def grown(tmp_path: Path, name: str, users: Sequence[int], items: int, first: int = 0) -> Dataset:
    """Users `u<k>` and items `i<k>`, in this order."""
    rng = np.random.default_rng(3)
    rows = [(user, int(item), 0, float(rng.random() < 0.5)) for user in users for item in rng.permutation(items)[:8]]
    rows += [(user, k, 0, float(k)) for user in users for k in (0, 1)]
    parts = [("train", "valid", "test", "train", "train")[k % 5] for k in range(len(rows))]
    kinds = [["red" if k % 2 else "blue"] if k < 10 else ["apple"] for k in range(items)]
    feature = rng.normal(size=(items, 4)).astype(np.float32)
    return small_dataset(tmp_path / name, rows, items, parts=parts, categorical=kinds, feature=feature)


@pytest.fixture
def older(tmp_path: Path) -> Dataset:
    return grown(tmp_path, "older", range(12), 10)


@pytest.fixture
def newer(tmp_path: Path) -> Dataset:
    """The same users in another order and two more; five more items, of a new category that comes first by name."""
    return grown(tmp_path, "newer", [13, *range(11, -1, -1), 12], 15)


def test_a_ranker_on_other_data_takes_ids_and_categories_by_name(
    older: Dataset, newer: Dataset, tmp_path: Path
) -> None:
    tree = {**ID, "model": {**ID["model"], "columns": "all"}}
    first = train(tree, older, tmp_path / "first")
    saved = load_file(first.path / "model.safetensors")
    task = begun(tree, newer, first.path, tmp_path / "second")
    state = task.state()
    users = state["ranker.inputs.ids.user.weight"]
    for row, name in enumerate(newer.user_ids):
        at = 1 + older.user_ids.tolist().index(name) if name in older.user_ids else 0
        assert torch.equal(users[1 + row], saved["ranker.inputs.ids.user.weight"][at])
    assert torch.equal(users[0], saved["ranker.inputs.ids.user.weight"][0])
    words = {"red": None, "blue": None}
    for name in words:
        mine, theirs = (one.ranker.inputs.columns.readers["kind"].read(name, "")[0] for one in (task, load_task(first)))
        key = "ranker.inputs.bags.kind.weight"
        assert torch.equal(state[key][mine], saved[key][theirs])
    assert len(state["ranker.inputs.bags.kind.weight"]) == 1 + len(saved["ranker.inputs.bags.kind.weight"])


@pytest.mark.parametrize("model", ["bpr", "freedom", "mmgcn", "lgmrec", "dragon"])
def test_a_retrieval_model_on_other_data(older: Dataset, newer: Dataset, tmp_path: Path, model: str) -> None:
    """New users and items keep what they begin with; graphs and features are of the new data."""
    tree = {"model": {"name": model}, "train": {"epochs": 1, "device": "cpu", "threads": 1}, "eval": {"topk": [3, 20]}}
    first = train(tree, older, tmp_path / "first")
    saved = load_file(first.path / "model.safetensors")
    cfg = configure(tree, newer, {})
    fresh = task_of(cfg)(cfg, newer, tmp_path / "cache").state()
    state = begun(tree, newer, first.path, tmp_path / "second").state()
    sizes = {newer.n_users: (newer.user_ids, older.user_ids), newer.n_items: (newer.item_ids, older.item_ids)}
    sizes[newer.n_users + newer.n_items] = tuple(
        np.concatenate([data.user_ids, data.item_ids]) for data in (newer, older)
    )
    of_rows = 0
    for name, value in state.items():
        if name.startswith(("user_neighbour", "gumbel_")):
            assert torch.equal(value, fresh[name])
            continue
        if value.shape == saved[name].shape:
            assert torch.equal(value, saved[name])
            continue
        of_rows += 1
        places = matched(*sizes[len(value)])
        assert (places >= 0).sum() == len(saved[name])
        assert torch.equal(value[places >= 0], saved[name][places[places >= 0]])
        assert torch.equal(value[places < 0], fresh[name][places < 0])
    assert of_rows >= 1


def test_where_users_and_items_are_equally_many_names_decide(tmp_path: Path) -> None:
    older, newer = grown(tmp_path, "older", range(10), 10), grown(tmp_path, "newer", range(11, -1, -1), 12)
    tree = {"model": {"name": "bpr"}, "train": {"epochs": 1, "device": "cpu"}, "eval": {"topk": [3, 20]}}
    first = train(tree, older, tmp_path / "first")
    saved = load_file(first.path / "model.safetensors")
    state = begun(tree, newer, first.path, tmp_path / "second").state()
    row, there = newer.user_ids.tolist().index("u3"), older.user_ids.tolist().index("u3")
    assert torch.equal(state["user_embedding.weight"][row], saved["user_embedding.weight"][there])
    assert torch.equal(state["item_embedding.weight"][:10], saved["item_embedding.weight"])


def test_encoders_that_the_other_run_did_not_train_begin_as_they_are(shop: Path, tmp_path: Path) -> None:
    hybrid = settings(train__epochs=1, train__batch_size=512, paradigm="hybrid")
    hybrid["content"] = {key: value for key, value in hybrid["content"].items() if key not in ("image", "text")}
    for field, encoder in (("image", "random:conv"), ("text", "random:bert")):
        hybrid["content"][field] = {"encoder": encoder}
    first = train(hybrid, shop, tmp_path / "first")
    top = {"paradigm": "end_to_end", "content.image.train": "top:1", "content.text.train": "top:1"}
    second = train(hybrid, shop, tmp_path / "second", {**top, "train.init": str(first.path)})
    assert (
        "trained no such layers of the encoders of description, image, title" in (second.path / "log.txt").read_text()
    )


def test_refused(shop: Path, tmp_path: Path, older: Dataset, newer: Dataset) -> None:
    first = train(ID, shop, tmp_path / "first")
    with pytest.raises(UserError, match=r"train.init: .*nowhere is no run folder"):
        train(ID, shop, tmp_path / "run", {"train.init": str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match="is a run of id, this one is of em3"):
        train(settings(), shop, tmp_path / "run", {"train.init": str(first.path)})
    with pytest.raises(UserError, match=r"first: ranker\.\S+ is \[.*\] there and \[.*\] here; give the same settings"):
        train(ID, shop, tmp_path / "run", {"train.init": str(first.path), "model.dim": 4})
    with pytest.raises(UserError, match=r"other parts than this run: it has no ranker.inputs.numbers"):
        train(ID, shop, tmp_path / "run", {"train.init": str(first.path), "model.popularity": True})
    with pytest.raises(Stop):
        train(ID, shop, tmp_path / "stopped", observer=stopping_after(5))
    with pytest.raises(UserError, match=r"train.init: .*stopped is not finished"):
        train(ID, shop, tmp_path / "run", {"train.init": str(tmp_path / "stopped")})
    assert not (tmp_path / "run").exists()
    moved = train(ID, older, tmp_path / "of_older")
    shutil.move(older.path, tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"the dataset of this run, .*older, is not there"):
        train(ID, newer, tmp_path / "run", {"train.init": str(moved.path)})
