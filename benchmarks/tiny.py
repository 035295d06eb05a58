"""Tiny runs that end in a second: settings, and the generated data that they are of.

Read by identity.py and by the stored curves of `tests/curves`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rawrec.config import resolve
from rawrec.config.models import model_entry
from rawrec.config.ranking import PRESETS
from rawrec.errors import IdleSetting
from rawrec.sources.synthetic import import_synthetic

TINY: dict[str, Any] = {
    "content.image.encoder": "random:conv",
    "content.image.size": 32,
    "content.text.encoder": "random:bert",
    "content.text.max_length": 12,
    "train.epochs": 2,
    "train.precision": "fp32",
    "train.device": "cpu",
    "train.threads": 1,
    "eval.topk": [5, 20],
}
CONTENT = ("content.image.", "content.text.")
RANKER = TINY | {"model.dim": 8, "model.hidden": [16], "content.dim": 16, "data.history": 5, "train.warmup_steps": 5}
RETRIEVAL = TINY | {"train.batch_size": 500, "train.lr": 0.01, "train.metric": "recall@20"}


def shop_in(work: Path, name: str = "shop", **sizes: Any) -> Path:
    """A generated dataset in the folder `work`, made where it is not there yet. sizes: as of `import_synthetic`."""
    if not (work / name).is_dir():
        sizes = {"items": 150, "users": 100, "impressions": 6000, "size": 32} | sizes
        import_synthetic(work / name, **sizes, progress=False)
    return work / name


def settings_of(model: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Those of the settings that the model, or the preset, has and that do something there."""
    entry = model_entry(PRESETS[model][0] if model in PRESETS else model)
    assert entry is not None, model
    has = {
        key: value
        for key, value in wanted.items()
        if key.removeprefix("model.") in entry.record.model_fields or not key.startswith("model.")
    }
    try:
        resolve(model, has)
    except IdleSetting as idle:
        has = {key: value for key, value in has.items() if key not in idle.keys}
        resolve(model, has)
    return has


def kind_of(model: str) -> str:
    """`ranking` or `retrieval`."""
    entry = model_entry(PRESETS[model][0] if model in PRESETS else model)
    assert entry is not None, model
    return entry.record.kind
