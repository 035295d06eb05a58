"""A small dataset of searches, and a run that learns by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter

COLOURS, KINDS = ("red", "blue", "green", "black"), ("mug", "hat", "lamp", "sofa", "coat")
SEARCH: dict[str, Any] = {
    "content.item.encoder": "joint:tiny", "content.text.max_length": 6, "content.query.max_length": 4,
    "content.dim": 16,
    "model.hidden": [16], "model.dim": 8, "model.sqdc_weight": 0.02, "data.history": 4, "train.batch_size": 128,
    "train.epochs": 1, "train.threads": 1, "train.precision": "fp32", "train.device": "cpu", "train.warmup_steps": 0,
    "train.checkpoint_share": 1, "train.encoder_lr": 3e-3, "eval.topk": [5],
}  # fmt: skip


def written(out: Path, rows: int = 1200, asked: float = 0.9) -> Dataset:
    """Users type a colour and a kind, are shown an item, and click it where it is both. asked: share with a query."""
    draw = np.random.default_rng(0)
    items = [(c, k) for c in COLOURS for k in KINDS for _ in range(2)]
    wanted, shown = draw.integers(0, len(items), rows), draw.integers(0, len(items), rows)
    shown = np.where(draw.random(rows) < 0.4, wanted, shown)
    queries = [" ".join(items[w]) if draw.random() < asked else None for w in wanted]
    fields = Fields(text=["title", "said"])
    writer = DatasetWriter(
        out, fields=fields, source="test", labels=["label"], has_time=True, asked=["query", "session"]
    )
    with writer:
        writer.add_items(
            {
                "item_id": [f"i{k}" for k in range(len(items))],
                "title": [[f"{colour} {kind}"] for colour, kind in items],
                "said": [[["nice", "new"][k % 2]] for k in range(len(items))],
            }
        )
        writer.add_interactions(
            {
                "user_id": [f"u{u}" for u in draw.integers(0, 30, rows)],
                "item_id": [f"i{k}" for k in shown],
                "timestamp": np.arange(rows).tolist(),
                "label": [float(items[w] == items[s]) for w, s in zip(wanted, shown, strict=True)],
                "query": queries,
                "session": [f"s{k // 6}" for k in range(rows)],
            }
        )
        return writer.finish(SplitSpec(kind="time_global"), ImportReport(source="test"))
