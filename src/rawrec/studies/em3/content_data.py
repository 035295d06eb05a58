"""A dataset whose items have the content that a run made of them in place of pictures and texts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa

from rawrec.data.dataset import Dataset
from rawrec.data.meta import ITEMS, write_meta
from rawrec.folders import copy_linked, placing
from rawrec.serving.recommender import Recommender
from rawrec.studies.em3.arms import CONTENT

OWN = (ITEMS, "cache", "dataset.yaml")
"""What is made anew; all else is shared: files of a dataset are replaced, never changed."""


def content_dataset(data: Dataset, run: Path, out: Path) -> Dataset:
    """The dataset in `out`, made unless it is there: items with their columns and the run's content as a ready-made
    feature, rows in the same order; interactions, users and splits are those of `data`."""
    if out.is_dir():
        return Dataset.open(out)
    recommender = Recommender.load(run, data, "cpu")
    values = recommender.embed([str(item) for item in data.item_ids])
    with placing(out.absolute()) as folder:
        table = _items(data, values)
        lance.write_dataset(table, str(folder / ITEMS), enable_stable_row_ids=True)
        for path in data.path.iterdir():
            if path.name not in OWN and not path.name.startswith("."):
                copy_linked(path, folder / path.name)
        meta = data.meta.model_copy(deep=True)
        meta.fields.image, meta.fields.text, meta.fields.feature = [], [], {CONTENT: values.shape[1]}
        meta.digest = hashlib.blake2b(meta.digest.encode() + values.tobytes(), digest_size=16).hexdigest()
        meta.sums = {}  # of other items
        for version in meta.versions:
            version.items_version = 1
        meta.sums = {}  # of other files
        write_meta(meta, folder)
    return Dataset.open(out)


def _items(data: Dataset, values: np.ndarray) -> pa.Table:
    """The item table without media, with the content; null where an item has none."""
    fields = data.fields
    left_out = {*fields.image, *fields.text, *fields.feature}
    source = lance.dataset(str(data.path / ITEMS), version=data.meta.versions[-1].items_version)
    table = source.to_table(columns=[name for name in source.schema.names if name.split("/")[-1] not in left_out])
    lists = [row.tolist() if row.any() else None for row in values]
    return table.append_column(CONTENT, pa.array(lists, pa.list_(pa.float32(), values.shape[1])))
