"""The small graph that tests of retrieval models train on."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from small_retrieval import ITEMS, USERS

from rawrec.data.dataset import Dataset
from rawrec.sources.mmrec import import_mmrec


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users like items of their parity. User 0 has taken every item, user 1 is unseen in training, as is item 1."""
    folder = tmp_path_factory.mktemp("mmrec") / "graph"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = [(0, item, 0) for item in range(ITEMS) if item != 1] + [(1, 3, 1), (1, 5, 2)]
    for user in range(2, USERS):
        liked = rng.permutation(np.arange(user % 2, ITEMS, 2))[:9]
        lines += [(user, item, 0 if item != 1 and place < 6 else 1 + place % 2) for place, item in enumerate(liked)]
    table = pl.DataFrame(lines, schema=["userID", "itemID", "x_label"], orient="row")
    table.write_csv(folder / "graph.inter", separator="\t")
    for name, width in (("image", 6), ("text", 5)):
        features = rng.normal(size=(ITEMS, width)).astype(np.float32)
        features[:, 0] += 3 * (np.arange(ITEMS) % 2)
        features[7] = np.nan if name == "image" else features[7]
        np.save(folder / f"{name}_feat.npy", features)
    return import_mmrec(folder, out=folder.parent / "data", progress=False)
