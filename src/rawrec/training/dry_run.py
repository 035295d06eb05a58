"""What a run would be, without making it: settings that differ, facts of the data, steps of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rawrec.arguments import checked
from rawrec.config import Config, resolve
from rawrec.config.resolution import flatten
from rawrec.content.units import Unit, content_units
from rawrec.data.dataset import Dataset
from rawrec.training.configuring import configure
from rawrec.training.device import choose_device
from rawrec.training.held import held_bytes
from rawrec.training.tasks.learnable import check_parts
from rawrec.training.tasks.step_impressions import samples_of


@dataclass(frozen=True)
class Plan:
    """changed: settings that are not what the model's preset says, key -> [preset, here]. samples: of the training part
    in an epoch (retrieval models: distinct pairs). encoders: field -> encoder and which of its layers learn.
    memory_mb: of each process, of what grows with users and items, see `held_bytes`.
    """

    model: str
    device: str
    changed: dict[str, list[Any]]
    data: dict[str, Any]
    samples: int
    steps_per_epoch: int
    steps: int
    encoders: dict[str, list[str]]
    memory_mb: dict[str, float]

    def dump(self) -> dict[str, Any]:
        """Plain values that fit into JSON."""
        return asdict(self)


@checked()
def plan(
    preset: str | Path | Mapping[str, Any] | Config,
    data: Dataset | str | Path,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Resolve everything that `train` would, and check what can be checked without encoding. Writes nothing.

    Raises UserError as `train` does.
    """
    data = data if isinstance(data, Dataset) else Dataset.open(data)
    cfg = configure(preset, data, overrides or {})
    base = preset if isinstance(preset, Config) else resolve(preset)
    before, now = (dict(flatten(one.dump())) for one in (base, cfg))
    changed = {key: [before.get(key), value] for key, value in now.items() if before.get(key) != value}
    device = choose_device(cfg.train.device)
    part = data.retrieval_split(cfg.data.split) if cfg.retrieval else data.split(cfg.data.split)
    facts: dict[str, Any] = {
        "path": str(data.path), "users": data.n_users, "items": data.n_items, "interactions": data.n_interactions,
        **{name: int((part == number).sum()) for name, number in (("train", 0), ("valid", 1), ("test", 2))},
        "fields": {kind: list(names) for kind, names in data.fields.model_dump().items() if names},
    }  # fmt: skip
    samples = _pairs(cfg, data, part) if cfg.retrieval else _impressions(cfg, data)
    per_step = cfg.train.batch_size * cfg.train.accumulate
    steps = -(-samples // per_step)
    units = _units(cfg, data)
    sizes = held_bytes(cfg, data.n_users, data.n_items, cfg.train.processes or 1)
    return Plan(
        model=cfg.label,
        device=str(device),
        changed=changed,
        data=facts,
        samples=samples,
        steps_per_epoch=steps,
        steps=steps * cfg.train.epochs,
        encoders={name: [str(unit.settings.encoder), str(unit.settings.train)] for name, unit in units.items()},
        memory_mb={name: round(size / 2**20, 1) for name, size in sizes.items()},
    )


def _units(cfg: Config, data: Dataset) -> dict[str, Unit]:
    """What is made of raw fields, where the model reads any."""
    if not (cfg.model.reads_features() if cfg.retrieval else cfg.reads_content):
        return {}
    raw = {name: field for name, field in cfg.content.fields.items() if name not in data.fields.feature}
    content = cfg.content.model_copy(update={"fields": raw})
    return content_units(cfg.model_copy(update={"content": content}), data.fields)


def _impressions(cfg: Config, data: Dataset) -> int:
    samples = samples_of(cfg, data)
    check_parts(cfg, data, samples)
    return len(samples.order(cfg.seed, 0))


def _pairs(cfg: Config, data: Dataset, part: np.ndarray) -> int:
    chosen = (part == 0) & data.positive(cfg.data.label)
    return len(np.unique(data.users[chosen].astype(np.int64) * data.n_items + data.items[chosen]))
