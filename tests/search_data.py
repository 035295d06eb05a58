"""A small dataset of searches that tests share: users who ask, sessions of items shown, clicks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter

QUERIES = ("red mug", "杯子", "lamp", "vase with dots", "hat")


def search(
    out: Path,
    *,
    sessions: int = 120,
    users: int = 12,
    items: int = 30,
    shown: int = 5,
    asked: tuple[str, ...] = ("query", "session"),
    labels: tuple[str, ...] = ("label",),
    queries: tuple[str, ...] = QUERIES,
    titles: Callable[[int], str] = "thing {}".format,
    seed: int = 0,
) -> Dataset:
    """Sessions of `shown` items each, one a minute, of users by turns; every seventh session has no query, and every
    eleventh no id. labels: the first is of an item's parity and the query, the others by chance; without any all are
    positives. titles: of an item by its number, "": it has none."""
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(sessions), shown)
    query = rng.integers(len(queries), size=sessions)[session]
    item = np.concatenate([rng.permutation(items)[:shown] for _ in range(sessions)])
    rows: dict[str, Any] = {
        "user_id": [f"u{u}" for u in (session % users).tolist()],
        "item_id": [f"i{i}" for i in item.tolist()],
        "timestamp": 1000 + 60 * session,
    }
    chance = rng.random(len(item))
    for at, name in enumerate(labels):
        wanted = np.where((item + query) % 2 == 0, 0.7, 0.1) if at == 0 else 0.5
        rows[name] = ((chance if at == 0 else rng.random(len(item))) < wanted).astype(float)
    if "query" in asked:
        rows["query"] = [
            None if s % 7 == 0 else queries[q] for s, q in zip(session.tolist(), query.tolist(), strict=True)
        ]
    if "session" in asked:
        rows["session"] = [None if s % 11 == 0 else f"s{s}" for s in session.tolist()]
    with DatasetWriter(
        out, fields=Fields(text=["title"]), source="searches", labels=list(labels), has_time=True, asked=asked
    ) as writer:
        writer.add_items(
            {
                "item_id": [f"i{i}" for i in range(items)],
                "title": [[title] if (title := titles(i)) else [] for i in range(items)],
            }
        )
        writer.add_interactions(rows)
        return writer.finish(SplitSpec(kind="time_global"), ImportReport())
