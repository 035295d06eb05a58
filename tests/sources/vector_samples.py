"""Files of vectors of items, in every form that is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FORMS = ["parquet", "fixed.parquet", "npz", "packed.npz", "npy", "jsonl", "tsv"]


def written(folder: Path, form: str, ids: list[Any], values: Any) -> Path:
    """A file of vectors, in one of the forms that are read."""
    file, rows = folder / f"given.{form}", np.asarray(values, np.float64)
    if form == "parquet":
        pq.write_table(pa.table({"item_id": ids, "vector": [row.tolist() for row in rows]}), file)
    elif form == "fixed.parquet":
        flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
        pq.write_table(pa.table({"item_id": ids, "clip": flat, "more": ids}), file)
    elif form == "npz":
        np.savez(file, item_id=np.array(ids), clip=rows, other=np.zeros(3))
    elif form == "packed.npz":
        np.savez_compressed(file, item_id=np.array(ids, object).astype("S"), vectors=np.asfortranarray(rows))
    elif form == "npy":
        np.save(file, rows)
        lines = [json.dumps({"item_id": item}) + "\n" for item in ids]
        file.with_suffix(".ids.jsonl").write_text("".join(lines))
    elif form == "jsonl":
        lines = [json.dumps({"item_id": i, "clip": row.tolist()}) + "\n" for i, row in zip(ids, rows, strict=True)]
        file.write_text("".join(lines).replace("NaN", "null"))
    else:
        lines = [f"{i}\t{' '.join(map(str, row.tolist()))}\n" for i, row in zip(ids, rows, strict=True)]
        file.write_text("item_id\tclip\n" + "".join(lines))
    return file
