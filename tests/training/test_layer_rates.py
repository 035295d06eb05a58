"""Learning rates by layer, in runs of models and of `rawrec finetune`."""

import re
from pathlib import Path
from typing import Any

import pytest
from colours import colours

from rawrec.config.finetune import finetune_config
from rawrec.errors import UserError
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.catalogue import CatalogueTask
from systems import trainer

LAYER = re.compile(r"(?:layers?|blocks)\.(\d+)\.")
BELOW = ("embeddings", "words", "segments", "patches", "image_cls", "kinds", "text_norm")


def expected(name: str, depth: int) -> int:
    """How many layers lie above."""
    if (match := LAYER.search(name)) is not None:
        return depth - 1 - int(match[1])
    return depth if any(part in name for part in BELOW) else 0


def rates(made: Loop) -> dict[str, float]:
    names = {id(p): name for group in made.task.parameter_groups().values() for name, p in group}
    assert made.optimiser.torch is not None
    return {names[id(p)]: group["lr"] for group in made.optimiser.torch.param_groups for p in group["params"]}


def test_a_run_has_the_rates(shop: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"content__image__train": "top:2", "content__text__train": "all", "train__encoder_lr": 0.02}
    found = rates(trainer(shop, tmp_path, train__encoder_lr_decay=0.5, **given))
    plain = rates(trainer(shop, tmp_path / "plain", **given))
    assert found.keys() == plain.keys()
    for name, rate in found.items():
        level = 0
        if ".encoders." in name:
            level = expected(name, 4 if ".image." in name else 2)
            assert plain[name] == 0.02
        assert rate == pytest.approx(plain[name] * 0.5**level), name
    assert {round(0.02 / r) for n, r in found.items() if ".encoders." in n} == {1, 2, 4}


def test_finetune_has_the_rates(tmp_path: Path) -> None:
    data = colours(tmp_path / "data")
    small = {"batch_size": 32, "threads": 1, "device": "cpu", "lr": 0.01, "encoder_lr_decay": 0.5}
    for encoder, train in (("random:vlmo", "all"), ("random:vlmo", "lora"), ("pair:random:conv+random:bert", "all")):
        cfg = finetune_config({**small, "encoder": encoder, "train": train, "size": 32})
        task = CatalogueTask(cfg, data, tmp_path / "cache")
        loop = Loop(task, RunFolder.create(tmp_path / "run", cfg, data, overwrite=True))
        found = {name: rates(loop)[name] for name, _ in task.parameter_groups()["encoder"]}
        for name, rate in found.items():
            depth = 3 if encoder == "random:vlmo" else 4 if name.startswith("image.") else 2
            assert rate == pytest.approx(0.01 * 0.5 ** expected(name, depth)), name
    for train in ("top:1", "none"):
        given = {"encoder": "pair:random:conv+random:bert", "train": train, "encoder_lr_decay": 0.5}
        with pytest.raises(UserError, match=rf"encoder_lr_decay=0.5 would do nothing: train={train}"):
            finetune_config(given, given)
