"""Runs whose layers are computed again in the backward pass end as those whose are not."""

from pathlib import Path
from typing import Any

import pytest
from colours import colours

from rawrec.errors import UserError
from rawrec.training.job import finetune, train
from systems import digest, settings


def test_a_run_is_the_same(shop: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"train__epochs": 1, "content__text__train": "all", "bank__micro_batch": 20}
    runs = [
        train(settings(**given, **more), shop, tmp_path / f"run{k}")
        for k, more in enumerate(({}, {"content__image__recompute": True, "content__text__recompute": True}))
    ]
    assert digest(runs[0].path) == digest(runs[1].path)


@pytest.mark.parametrize("encoder", ["pair:random:conv+random:bert", "random:vlmo"])
def test_finetune_is_the_same(encoder: str, tmp_path: Path) -> None:
    data = colours(tmp_path / "data")
    small: dict[str, Any] = {
        "size": 32, "max_length": 6, "batch_size": 32, "micro_batch": 20, "epochs": 1, "threads": 1,
        "precision": "fp32", "train": "top:2", "device": "cpu",
    }  # fmt: skip
    runs = [finetune(data, encoder, tmp_path / f"run{k}", small | {"recompute": bool(k)}) for k in (0, 1)]
    one, two = ((run.path / "model.safetensors").read_bytes() for run in runs)
    assert one == two
    with pytest.raises(UserError, match="recompute=true would do nothing"):
        finetune(data, "pair:random:conv+random:bert", tmp_path / "x", {"train": "none", "recompute": True})
