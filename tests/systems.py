"""Systems, runs and small datasets that tests of content, models and training share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from rawrec.config import Config, resolve
from rawrec.content.live import LiveContent
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.sums import SEALED
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask

FAST: dict[str, Any] = {
    "model.name": "em3",
    "model.dim": 8,
    "model.hidden": [16],
    "content.dim": 16,
    "content.image.encoder": "random:conv",
    "content.image.size": 32,
    "content.image.train": "top:1",
    "content.text.encoder": "random:bert",
    "content.text.max_length": 12,
    "content.text.train": "top:1",
    "data.history": 5,
    "train.batch_size": 256,
    "train.epochs": 2,
    "train.warmup_steps": 0,
    "train.precision": "fp32",
    "train.device": "cpu",
    "train.threads": 1,
    "train.checkpoint_share": 1,
    "eval.topk": [5],
}
"""Settings of a small em3 on the generated shop, by dotted key."""

STILL = {"model.dropout": 0.0, "model.id_dropout": 0.0, "content.fusion.dropout": 0.0}
"""Nothing random inside the networks."""


TIMES = ("seconds", "samples_per_second", "validation_seconds")
"""What differs in the metrics of two equal runs."""


def config(**overrides: Any) -> Config:
    """FAST with changes; `__` in a keyword stands for the dot: `train__epochs=1`."""
    return resolve(settings(**overrides))


def settings(**overrides: Any) -> dict[str, Any]:
    """The same as nested plain values, as a preset holds them."""
    tree: dict[str, Any] = {}
    for key, value in (FAST | {key.replace("__", "."): value for key, value in overrides.items()}).items():
        *parents, last = key.split(".")
        inner = tree
        for part in parents:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return tree


def unsealed(path: Path) -> str:
    """A text with check sums, as who means to change it has it: without its own."""
    return SEALED.sub("\n", path.read_text())


def system(data: Path | Dataset, cache: Path, **overrides: Any) -> ImpressionTask:
    """A fresh system on one thread."""
    torch.set_num_threads(1)
    data = data if isinstance(data, Dataset) else Dataset.open(data)
    return ImpressionTask(config(**overrides), data, cache)


def trainer(data: Path | Dataset, folder: Path, **overrides: Any) -> Loop:
    """A trainer that has made no step yet, in the run folder `folder/run`, its bank filled."""
    made = system(data, folder / "cache", **overrides)
    made.refresh(None, 0)
    return Loop(made, RunFolder.create(folder / "run", made.cfg, made.data, overwrite=True))


def content_of(made: ImpressionTask, rows: torch.Tensor) -> torch.Tensor:
    """Content of item rows, encoded now, with gradient."""
    item_model, bank = made.item_model, made.bank
    assert item_model is not None and bank is not None
    return item_model.content(bank, rows, rows, item_model.encode(bank, rows))


def live_of(made: ImpressionTask, rows: torch.Tensor, micro_batch: int = 1000, seed: int = 0) -> LiveContent:
    """`rows` live, each of them encoded."""
    made.cfg.bank.micro_batch = micro_batch
    return made.live.content_of(rows, rows, seed)


def weights(made: ImpressionTask) -> dict[str, torch.Tensor]:
    """A copy of every parameter and buffer, by name."""
    return {name: value.clone() for name, value in made.state_dict().items()}


class Stop(BaseException):
    """An interruption, as Ctrl-C is one: no error of the run, which can be gone on with."""


def stopping_after(events: int) -> Any:
    """An observer that raises at the given event."""
    seen = []

    def observe(event: str, **values: Any) -> None:
        seen.append(event)
        if len(seen) == events:
            raise Stop

    return observe


def digest(run: Path) -> dict[str, str]:
    """Of all that a finished run holds, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
    result = {"metrics.jsonl": hashlib.sha256(json.dumps(lines).encode()).hexdigest()}
    for name in ("model.safetensors", "metrics.json", "topk.parquet", "scores.parquet"):
        if name != "scores.parquet" or (run / name).is_file():  # ranking models alone have scores
            result[name] = hashlib.sha256((run / name).read_bytes()).hexdigest()
    return result


def changed(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    """Names of what differs."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def small_dataset(
    out: Path,
    rows: Sequence[tuple[int, int, int, float]],
    n_items: int,
    *,
    feature: np.ndarray | None = None,
    valid: np.ndarray | None = None,
    categorical: Sequence[Sequence[str]] | None = None,
    launched: Sequence[int] | None = None,
    labelled: bool = True,
    has_time: bool = True,
    parts: Sequence[str] | None = None,
    split: SplitSpec | None = None,
) -> Dataset:
    """A dataset of rows (user, item, time, label), users `u<k>` and items `i<k>`, all items in the catalogue.

    feature: `[n_items, width]`, a ready-made feature column `feature`; valid: which items have it. parts: the part of
    each row, `train`, `valid` or `test`, or give a `split`.
    """
    fields = Fields(
        feature={} if feature is None else {"feature": feature.shape[1]},
        categorical=[] if categorical is None else ["kind"],
    )
    writer = DatasetWriter(
        out,
        fields=fields,
        source="test",
        labels=["label"] if labelled else [],
        extra={} if parts is None else {"part": pa.string()},
        has_time=has_time,
        has_launched=launched is not None,
    )
    with writer:
        items: dict[str, list[Any]] = {"item_id": [f"i{k}" for k in range(n_items)]}
        if feature is not None:
            keep = np.ones(n_items, bool) if valid is None else valid
            items["feature"] = [row.tolist() if ok else None for row, ok in zip(feature, keep, strict=True)]
        if categorical is not None:
            items["kind"] = [list(values) for values in categorical]
        if launched is not None:
            items["launched"] = list(launched)
        writer.add_items(items)
        users, shown, times, labels = zip(*rows, strict=True)
        batch: dict[str, Any] = {"user_id": [f"u{u}" for u in users], "item_id": [f"i{i}" for i in shown]}
        if has_time:
            batch["timestamp"] = list(times)
        if labelled:
            batch["label"] = list(labels)
        if parts is not None:
            batch["part"] = list(parts)
        writer.add_interactions(batch)
        spec = split or (
            SplitSpec(kind="column", column="part") if parts is not None else SplitSpec(kind="time_global")
        )
        return writer.finish(spec, ImportReport(source="test"))
