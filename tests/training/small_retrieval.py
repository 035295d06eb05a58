"""What tests of retrieval models share: settings that fit a small graph, and a trainer of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rawrec.config import RETRIEVAL, resolve
from rawrec.data.dataset import Dataset
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.pairs import PairTask

USERS, ITEMS = 40, 30
SMALL: dict[str, Any] = {
    "train.threads": 1,
    "train.device": "cpu",
    "train.epochs": 3,
    "train.batch_size": 100,
    "train.lr": 0.01,
    "eval.topk": [5, 20],
}


def settings(model: str, **overrides: Any) -> dict[str, Any]:
    """Overrides of the preset `model` that fit the small graph; `__` stands for the dot."""
    fields = RETRIEVAL[model].model_fields
    narrow = {"embedding_size": 8, "knn_k": 3, "image_knn_k": 3, "text_knn_k": 3, "feat_embed_dim": 8}
    narrow |= {"recdim": 8, "latent_dim": 8, "weight_size": [8, 8], "latent_sizes": [6], "user_neighbours": 5}
    own = {f"model.{name}": value for name, value in narrow.items() if name in fields}
    return SMALL | own | {key.replace("__", "."): value for key, value in overrides.items()}


def make(data: Dataset, folder: Path, model: str = "lightgcn", **overrides: Any) -> Loop:
    """A trainer before its first step."""
    cfg = resolve(model, settings(model, **overrides))
    system = PairTask(cfg, data, folder / "cache")
    return Loop(system, RunFolder.create(folder / "run", system.cfg, data, overwrite=True))
