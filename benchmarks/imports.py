"""Importing tables: interactions a second, pictures a second, and the memory that this takes, at two sizes.

Generated: a table of interactions (CSV: user, item, time, click) and a table of items (Parquet: id, title, a JPEG of
some 10 kB). Each import has a process of its own, whose largest resident memory is given; pictures are read, decoded to
their end, and stored. The bare copy of the same bytes to the same disk stands beside it. --rows and --items are the
larger size; a tenth of it comes first, to show how memory grows.

Asked: at least a million interactions a second, less than 2 GB.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from common import emit, folder, say, seconds
from PIL import Image

from rawrec.sources.table import import_table

PIECE = 100_000
DISTINCT = 512


def write_interactions(path: Path, rows: int, items: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for at in range(0, rows, 10 * PIECE):
            count = min(10 * PIECE, rows - at)
            frame = pl.DataFrame(
                {
                    "user": rng.integers(0, max(1, rows // 10), count),
                    "item": np.minimum((rng.pareto(1.2, count) * items / 5000).astype(np.int64), items - 1),
                    "time": 1_600_000_000 + rng.integers(0, 10_000_000, count),
                    "click": (rng.random(count) < 0.3).astype(np.int8),
                }
            ).with_columns(pl.format("u{}", "user").alias("user"), pl.format("p{}", "item").alias("item"))
            frame.write_csv(file, include_header=at == 0)


def write_items(path: Path, items: int) -> int:
    """Bytes of a picture, on average."""
    rng, pictures = np.random.default_rng(0), []
    for _ in range(DISTINCT):
        body = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (110, 110, 3), np.uint8)).save(body, "JPEG", quality=82)
        pictures.append(body.getvalue())
    schema = pa.schema([("item", pa.string()), ("title", pa.string()), ("picture", pa.binary())])
    distinct = pa.array(pictures)
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for at in range(0, items, PIECE // 10):
            rows = np.arange(at, min(at + PIECE // 10, items))
            ids = pl.Series(rows)
            columns = [pl.select(pl.format(form, ids)).to_series().to_arrow() for form in ("p{}", "Product number {}")]
            columns = [column.cast(pa.string()) for column in columns]
            writer.write_table(pa.table([*columns, distinct.take(pa.array(rows % DISTINCT))], schema=schema))
    return sum(map(len, pictures)) // DISTINCT


def import_once(place: Path, what: str) -> None:
    """In a process of its own: one import, one JSON line."""
    given = (
        {"items": place / "items.parquet", "text": ["title"], "image_column": ["picture"]} if what == "items" else {}
    )
    rows = place / ("few.csv" if what == "items" else "rows.csv")
    taken = seconds(
        lambda: import_table(
            rows,
            "user",
            "item",
            time="time",
            labels=["click"],
            out=place / "data",
            **given,
            overwrite=True,
            progress=False,
        )
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": taken, "peak_mb": round(peak)}))


def measure(place: Path, what: str, count: int, **also: float) -> None:
    command = [sys.executable, __file__, "--once", what, "--folder", str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        say(done.stderr)
        raise SystemExit(1)
    found = json.loads(done.stdout)
    emit(what=what, count=count, per_second=count / found["seconds"], **found, **also)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=1_000_000, help="0: interactions alone")
    parser.add_argument("--folder", type=Path, help="to work in (default: a temporary one)")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        import_once(args.folder, args.once)
        return
    with folder(args.folder) as place:
        for part in (10, 1):
            rows, items = args.rows // part, args.items // part
            write_interactions(place / "rows.csv", rows, max(items, 1000))
            measure(place, "interactions", rows)
            if not items:
                continue
            write_interactions(place / "few.csv", 1000, items)
            size = write_items(place / "items.parquet", items)
            copied = seconds(lambda: shutil.copyfile(place / "items.parquet", place / "copy"))
            (place / "copy").unlink()
            measure(place, "items", items, picture_bytes=size, bare_copy_seconds=copied)


if __name__ == "__main__":
    main()
