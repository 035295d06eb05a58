"""Options of a ranker's content in training: where histories are read, and which items are no negatives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rawrec.content.columns import equal_content
from rawrec.data.dataset import Dataset
from rawrec.training.job import train
from systems import digest, settings, small_dataset, system, trainer

OWN = {"paradigm": "hybrid"}
HYBRID = {"paradigm": "hybrid", "content__image__train": "none", "content__text__train": "none"}


def test_hybrid_histories_from_the_bank(shop: Path, tmp_path: Path) -> None:
    """Candidates alone are live, and written; what else stands in histories is the bank's."""
    loop = trainer(shop, tmp_path, **HYBRID, bank__history="bank")
    task, bank = loop.task, loop.task.bank
    assert bank is not None
    batch = task.batch(task.begin_epoch(0)[:64], 0, 0)
    live = task.go_live(batch, 0)
    items = batch.items.unique()
    assert live is not None and live.rows.equal(items[bank.valid[items]])
    history = batch.history.unique()
    only_past = history[(history >= 0) & ~torch.isin(history, batch.items)]
    only_past = only_past[bank.valid[only_past]]
    assert len(only_past)
    inputs = task.live.batch(batch.users, batch.items, batch.history, live)
    assert inputs.history_content is not None
    at, k = (batch.history == only_past[0]).nonzero()[0].tolist()
    assert inputs.history_content.valid[at, k]
    loop._step(task.begin_epoch(0)[:64])
    assert (bank.written[live.rows] == 0).all() and loop.progress.step == 1
    both = system(shop, tmp_path / "both", **HYBRID)
    both.refresh(None, 0)
    rows, _ = both.live.rows(batch.items, batch.history, torch.Generator().manual_seed(0))
    assert torch.isin(only_past, rows).all()


def test_a_run_that_reads_histories_from_the_bank(shop: Path, tmp_path: Path) -> None:
    trees = [settings(**HYBRID, bank__history=history, train__epochs=1) for history in ("live", "bank", "bank")]
    live, bank, again = (digest(train(tree, shop, tmp_path / str(k)).path) for k, tree in enumerate(trees))
    assert bank == again and bank["model.safetensors"] != live["model.safetensors"]


def test_items_of_equal_content_have_equal_numbers(tmp_path: Path) -> None:
    feature = np.arange(12, dtype=np.float32).reshape(6, 2)
    feature[4] = feature[1]
    valid = np.array([True, True, True, True, True, False])
    rows = [(u, i, 10 * u + i, float((u + i) % 2)) for u in range(8) for i in range(6)]
    data = small_dataset(tmp_path / "data", rows, 6, feature=feature, valid=valid)
    made = system(data, tmp_path / "cache", **OWN)
    assert made.item_model is not None and made.ranker.content is not None
    same = made.ranker.content.same
    assert same is not None and same[4] == same[1] and len(same.unique()) == 5
    different = small_dataset(tmp_path / "other", rows, 6, feature=np.arange(12, dtype=np.float32).reshape(6, 2))
    assert equal_content(system(different, tmp_path / "c", **OWN).item_model, different, tmp_path / "c") is None  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["em3", "vbpr"])
def test_what_encoders_do_not_read_is_told_whether_it_was_cached_or_not(shop: Path, tmp_path: Path, model: str) -> None:
    small = {"content.image.encoder": "random:conv", "content.text.encoder": "random:bert", "content.image.size": 32}
    small |= {"content.title.max_length": 4, "train.epochs": 1, "train.threads": 1, "paradigm": "frozen"}
    data = Dataset.open(shutil.copytree(shop, tmp_path / "shop"))
    run = train(model, data, tmp_path / "one", small)
    cut = json.loads((run.path / "run.json").read_text())["media"]["title"]["truncated"]
    told = f"texts longer than the encoder reads, cut (max_length): {cut} of title"
    assert cut > 50 and told in (run.path / "log.txt").read_text()
    again = train(model, data, tmp_path / "two", small)
    assert told in (again.path / "log.txt").read_text()
