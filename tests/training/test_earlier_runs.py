"""Folders of runs that were finished before rankers had parts: they are used as they were."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from rawrec.config import DotMlpConfig
from rawrec.errors import UserError
from rawrec.serving.recommender import Recommender
from rawrec.training import state as checkpoint
from rawrec.training.job import train
from rawrec.training.runs import RunFolder
from systems import settings

TREE = settings(
    train__batch_size=128,
    model__columns="all",
    model__popularity=True,
    content__image__train="none",
    content__text__train="none",
    paradigm="hybrid",
)
ID = {"model": {"name": "id", "dim": 8, "hidden": [16]}, "train": {"epochs": 2, "threads": 1}}


def as_before(run: Path) -> Path:
    """A copy of a run folder as earlier versions wrote it: one name of head and content, flat names of weights."""
    out = run.with_name(f"{run.name}-before")
    shutil.copytree(run, out)
    tree = yaml.safe_load((out / "config.yaml").read_text())
    tree["model"]["name"] = {"none": "id", "em3": "em3"}[tree["model"].pop("content")]
    (out / "config.yaml").write_text(yaml.safe_dump(tree))
    tensors, state = checkpoint.load(out / "model.safetensors")
    flat = {re.sub(r"^ranker\.(inputs\.ids|inputs|content|head)\.", "ranker.", k): v for k, v in tensors.items()}
    assert flat.keys() != tensors.keys() and "ranker.user.weight" in flat
    checkpoint.save(out / "model.safetensors", flat, state)
    RunFolder(out).write_info(files={})
    return out


@pytest.mark.parametrize("name", ["em3", "id"])
def test_a_finished_run_scores_as_it_did(shop: Path, tmp_path: Path, name: str) -> None:
    run = train(TREE if name == "em3" else ID, shop, tmp_path / "run")
    now, before = Recommender.load(run.path), Recommender.load(as_before(run.path))
    config = before.run.config()
    assert isinstance(config.model, DotMlpConfig) and config.label == name == before.run.info()["model"]
    user, items = str(now.data.user_ids[1]), [str(item) for item in now.data.item_ids]
    assert before.score(user, items) == now.score(user, items)
    assert np.ptp(now.score(user, items)) > 0
    if name == "id":
        file = run.path / "model.safetensors"
        tensors, state = checkpoint.load(file)
        checkpoint.save(file, tensors, {**state, "format": 2})
        run.write_info(files={})
        with pytest.raises(UserError, match=r"model\.safetensors has format 2, and this version .* reads 1: .*update"):
            Recommender.load(run.path)
