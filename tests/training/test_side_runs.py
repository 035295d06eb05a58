"""Runs with a network beside frozen encoders: the encoders never run in a step, and all else is as of any run."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from colours import colours
from small_retrieval import settings as small

from rawrec import Recommender, UserError
from rawrec.config import FieldConfig, resolve
from rawrec.content.encoders import make_encoder
from rawrec.content.encoders.base import Kind, SideStack
from rawrec.data.dataset import Dataset
from rawrec.training import state as checkpoint
from rawrec.training.job import finetune, resume, train
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.base import Task
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.pairs import PairTask
from systems import FAST, Stop, digest, stopping_after

SIDE: dict[str, Any] = {"content.image.train": "side:3", "content.text.train": "side:2", "paradigm": "end_to_end"}
RAW = {key: value for key, value in FAST.items() if key.startswith(("content.image.", "content.text."))}
GIVEN: dict[str, dict[str, Any]] = {
    "em3": {key: value for key, value in FAST.items() if key != "model.name"} | SIDE | {"train.encoder_lr": 0.01},
    "vbpr": small("vbpr", train__encoder_lr=0.01) | RAW | SIDE | {"train.precision": "fp32"},
}
WHOLE: dict[str, Any] = {"content.item.encoder": "random:vlmo", "content.item.train": "side:2"}


def made(model: str, shop: Path, folder: Path, **overrides: Any) -> Loop:
    torch.set_num_threads(1)
    task = {"em3": ImpressionTask, "vbpr": PairTask}[model](
        resolve(model, GIVEN[model] | {k.replace("__", "."): v for k, v in overrides.items()}),
        Dataset.open(shop),
        folder / "cache",
    )
    return Loop(task, RunFolder.create(folder / "run", task.cfg, task.data, overwrite=True))


def count_calls(task: Task) -> list[str]:
    """Every pass through a part of a frozen network from here on."""
    calls: list[str] = []
    assert task.item_model is not None
    for name, encoder in task.item_model.raw_encoders():
        assert isinstance(encoder.stack, SideStack)
        for part in encoder.stack.inner.modules():
            part.register_forward_hook(lambda *args, name=name: calls.append(name))
    return calls


@pytest.mark.parametrize("model", GIVEN)
def test_encoders_are_run_once_and_never_in_training(shop: Path, tmp_path: Path, model: str) -> None:
    loop = made(model, shop, tmp_path, train__epochs=1)
    task = loop.task
    assert task.item_model is not None and task.bank is not None
    for name, encoder in task.item_model.raw_encoders():
        rows = task.bank.static[f"hidden/{name}"]
        assert rows.values.shape[1] == encoder.stack.width and int(rows.lengths.max()) == 1
    calls = count_calls(task)
    before = {name: p.detach().clone() for name, p in task.item_model.named_parameters() if ".inner." in name}
    weights = {name: p.detach().clone() for name, p in task.item_model.trained_parameters().items()}
    loop.train()
    loop.finish()
    assert not calls
    assert all(torch.equal(p, before[name]) for name, p in task.item_model.named_parameters() if name in before)
    assert before and all(not torch.equal(p, weights[n]) for n, p in task.item_model.trained_parameters().items())
    made(model, shop, tmp_path, train__epochs=1)  # of what is cached


@pytest.mark.parametrize("model", GIVEN)
def test_a_step_begins_from_the_frozen_features(shop: Path, tmp_path: Path, model: str) -> None:
    """Before the first step the features are those of `paradigm=hybrid`."""
    loop = made(model, shop, tmp_path)
    rows = torch.arange(loop.task.data.n_items)
    assert loop.task.item_model is not None and loop.task.bank is not None
    features = loop.task.item_model.encode(loop.task.bank, rows)
    frozen = {key: value for key, value in GIVEN[model].items() if not key.endswith((".train", "encoder_lr"))}
    cfg, data = resolve(model, frozen | {"paradigm": "hybrid"}), Dataset.open(shop)
    if model == "vbpr":
        task = PairTask(cfg, data, tmp_path / "cache")
        expected = {name: task.model.feature(name) for name in features}
    else:
        still = ImpressionTask(cfg, data, tmp_path / "cache")
        assert still.item_model is not None and still.bank is not None
        expected = {name: still.item_model.feature(still.bank, name, rows) for name in features}
    for name, values in features.items():
        assert torch.equal(values, expected[name].detach()), name


@pytest.mark.parametrize("model", GIVEN)
def test_stopped_and_resumed(shop: Path, tmp_path: Path, model: str) -> None:
    whole = train(model, shop, tmp_path / "whole", GIVEN[model] | {"bank.live_budget": 25})
    with pytest.raises(Stop):
        train(model, shop, tmp_path / "run", GIVEN[model] | {"bank.live_budget": 25}, observer=stopping_after(9))
    assert digest(resume(tmp_path / "run").path) == digest(whole.path)
    tensors, _ = checkpoint.load(whole.path / "model.safetensors")
    assert "encoder.title.side.out.weight" in tensors
    assert not any(".inner." in name for name in tensors), "what does not learn is no part of a run"


@pytest.mark.parametrize("model", GIVEN)
def test_whole_items(shop: Path, tmp_path: Path, model: str) -> None:
    given = {k: v for k, v in GIVEN[model].items() if not k.startswith(("content.image", "content.text"))}
    run = train(model, shop, tmp_path / "run", given | WHOLE | {"train.epochs": 1})
    tensors, _ = checkpoint.load(run.path / "model.safetensors")
    for name in ("image", "text", "image_text"):
        assert tensors[f"encoder.{name}.side.out.weight"].any()
    served = Recommender.load(run.path)
    assert len(served.recommend(str(served.data.user_ids[0]), k=3)) == 3


@pytest.fixture(scope="module")
def served(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    run = train("em3", shop, tmp_path_factory.mktemp("served") / "run", GIVEN["em3"] | {"train.epochs": 1})
    return Recommender.load(run.path)


def test_a_new_item_by_its_raw_fields_is_the_item(served: Recommender) -> None:
    fields, row = served.data.fields, 7
    item: dict[str, Any] = {}
    for field in (*fields.image, *fields.text):
        (item[field],) = (served.data.images if field in fields.image else served.data.texts)(field, [row])
    known = str(served.data.item_ids[row])
    np.testing.assert_allclose(served.embed([item]), served.embed([known]), rtol=2e-3, atol=2e-4)
    assert served.similar(item, 1)[0].item == known


def test_features_are_exported(served: Recommender, tmp_path: Path) -> None:
    table = pl.read_parquet(served.export_features(tmp_path / "title.parquet", "title"))
    vectors, valid = table["vector"].to_numpy(), table["valid"].to_numpy()
    item_model, bank = served.system.item_model, served.system.bank
    assert item_model is not None and bank is not None
    rows = torch.arange(len(vectors))
    frozen = bank.read("hidden/title", rows).values[:, -32:].float().numpy()
    assert not np.allclose(vectors[valid], frozen, atol=1e-4)
    made = item_model.feature(bank, "title", rows).detach().numpy()
    np.testing.assert_allclose(vectors, made, rtol=1e-4, atol=1e-5)


def test_training_on_one_text_alone_needs_a_layer(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"content\.title: train=side:9|content\.title\.train=side:9"):
        train("em3", shop, tmp_path / "run", GIVEN["em3"] | {"content.title.train": "side:9"})


def test_beside_a_tuned_pair(tmp_path: Path) -> None:
    """Its feature is behind a map to the space of both; layers are read below it."""
    data = colours(tmp_path / "data")
    given = {"size": 16, "max_length": 6, "batch_size": 32, "dim": 12, "epochs": 1, "threads": 1, "precision": "fp32"}
    folder = str(finetune(data, "pair:random:conv+random:bert", tmp_path / "pair", given).path)
    cases: list[tuple[Kind, Any]] = [
        ("image", data.images("front", range(9))),
        ("text", data.texts("title", range(9))),
    ]
    for kind, items in cases:
        frozen, beside = (
            make_encoder(kind, FieldConfig(encoder=folder, train=train), 0, torch.float32)
            for train in ("none", "side:2")
        )
        assert isinstance(beside.stack, SideStack)
        assert beside.stack.side.widths == [32, 12]
        assert torch.equal(beside.encode(items), frozen.encode(items))
