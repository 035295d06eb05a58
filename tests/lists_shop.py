"""A shop of 40 items with every kind of column, small enough that a run of it takes no time, and runs of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import rawrec
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter

ITEMS, USERS = 40, 12
KINDS = ["lamp", "chair", "mug"]
PRICES = [None if k % 13 == 12 else float(k) for k in range(ITEMS)]
TAGS = [["new", "sale"][: k % 3] for k in range(ITEMS)]
QUICK = {"train.epochs": 2, "train.threads": 1, "eval.topk": [20]}
MODELS: dict[str, dict[str, Any]] = {
    "em3": {"paradigm": "hybrid", "model.columns": ["kind", "price"], "content.dim": 8, "model.dim": 8},
    "id": {"model.dim": 8},
    "vbpr": {},
}


def make_shop(out: Path) -> Dataset:
    """Items i0, i1 ... have kind, brand (four, or none), tags (none, one or two), in_stock, price = their number and a
    feature `look`, which every seventh lacks; users u0, u1 ... have clicked on some."""
    rng = np.random.default_rng(0)
    look = rng.normal(size=(ITEMS, 6)).astype(np.float32)
    fields = Fields(feature={"look": 6}, categorical=["kind", "brand", "tags", "in_stock"], numeric=["price"])
    writer = DatasetWriter(out, fields=fields, source="test", labels=["label"], has_time=True)
    with writer:
        writer.add_items(
            {
                "item_id": [f"i{k}" for k in range(ITEMS)],
                "kind": [[KINDS[k % 3]] for k in range(ITEMS)],
                "brand": [[f"b{k % 4}"] if k % 5 else [] for k in range(ITEMS)],
                "tags": TAGS,
                "in_stock": [["true" if k % 2 else "false"] for k in range(ITEMS)],
                "price": PRICES,
                "look": [None if k % 7 == 6 else row.tolist() for k, row in enumerate(look)],
            }
        )
        rows = [(u, int(i), t) for u in range(USERS) for t, i in enumerate(rng.permutation(ITEMS)[:20])]
        writer.add_interactions(
            {
                "user_id": [f"u{u}" for u, _, _ in rows],
                "item_id": [f"i{i}" for _, i, _ in rows],
                "timestamp": [t for _, _, t in rows],
                "label": [float(rng.random() < 0.5) for _ in rows],
            }
        )
        return writer.finish(SplitSpec(kind="time_user"), ImportReport(source="test"))


def make_runs(data: Dataset, folder: Path) -> dict[str, Path]:
    """A finished run of each of MODELS."""
    return {name: rawrec.train(name, data, folder / name, QUICK | own).path for name, own in MODELS.items()}
