"""Time and size of the page of a run on a large catalogue: `rawrec report`, a process of its own.

A catalogue with titles, categories, prices and pictures (500 different ones of noise, which JPEG hardly shrinks) is
made with random clicks, and a ranker on ids (`id`) and a retrieval model (`bpr`) are trained on it for one epoch.
Asked: less than 20 seconds and 3 MB. On a machine that others use, too, CPU time is what counts. The page of the
dataset itself (`rawrec inspect --html`) is a line of its own.
"""

from __future__ import annotations

import argparse
import io
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import emit, folder, say, seconds
from PIL import Image

import rawrec
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter

ASKED_SECONDS, ASKED_BYTES = 20.0, 3_000_000
EXAMPLE = "example: python benchmarks/report.py --items 100000 --folder /tmp/report"
MODELS: dict[str, dict[str, Any]] = {
    "id": {"model.dim": 8, "model.hidden": [16], "data.history": 5, "eval.topk_users": 200},
    "bpr": {"model.embedding_size": 16},
}
CLICKS = 20
WORDS = ("red", "blue", "old", "new", "small", "large", "lamp", "chair", "mug", "hat", "bag", "vase")


def catalogue(out: Path, items: int, users: int) -> Dataset:
    """Items of 40 kinds with a title, a price and a picture (one in ten without); CLICKS clicks of each user."""
    if out.is_dir():
        return Dataset.open(out)
    say(f"making {out}")
    rng = np.random.default_rng(0)
    pictures = [picture(rng) for _ in range(500)]
    fields = Fields(image=["image"], text=["title"], categorical=["kind"], numeric=["price"])
    writer = DatasetWriter(out, fields=fields, source="benchmark", labels=["label"], has_time=True)
    with writer:
        for at in range(0, items, 10_000):
            rows = range(at, min(at + 10_000, items))
            named = rng.integers(0, len(WORDS), (len(rows), 3)).tolist()
            writer.add_items(
                {
                    "item_id": [f"i{k}" for k in rows],
                    "image": [[pictures[k % 500]] if k % 10 else [] for k in rows],
                    "title": [
                        [" ".join(WORDS[w] for w in words) + f" {k}"] for k, words in zip(rows, named, strict=True)
                    ],
                    "kind": [[f"kind {k % 40}"] for k in rows],
                    "price": [float(k % 997) for k in rows],
                }
            )
        taken = (items * rng.power(0.4, users * CLICKS)).astype(np.int64)
        writer.add_interactions(
            {
                "user_id": [f"u{k}" for k in np.repeat(np.arange(users), CLICKS).tolist()],
                "item_id": [f"i{k}" for k in taken.tolist()],
                "timestamp": (1_700_000_000 + rng.integers(0, 9_000_000, users * CLICKS)).tolist(),
                "label": (rng.random(users * CLICKS) < 0.4).astype(np.float32).tolist(),
            }
        )
        writer.finish(SplitSpec(kind="time_global"), ImportReport())
    return Dataset.open(out)


def picture(rng: np.random.Generator) -> bytes:
    """Noise of 96 x 96 pixels over a colour, as a JPEG."""
    pixels = (rng.integers(0, 256, 3) * 0.6 + rng.integers(0, 100, (96, 96, 3))).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def measured(*words: str) -> dict[str, float]:
    """Wall and CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = seconds(lambda: subprocess.run([sys.executable, "-m", "rawrec", *words], check=True, stdout=sys.stderr))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"wall_seconds": wall, "cpu_seconds": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="data, runs and pages are kept here, and used again")
    given = parser.parse_args()
    with folder(given.folder) as at:
        data = catalogue(at / f"data-{given.items}", given.items, given.users)
        page = at / "data.html"
        found = measured("inspect", str(data.path), "--html", str(page))
        emit(page="data", items=given.items, interactions=data.n_interactions, bytes=page.stat().st_size, **found)
        for model, settings in MODELS.items():
            run = at / f"{model}-{given.items}"
            if not (run / "metrics.json").is_file():
                rawrec.train(model, data, run, {"train.epochs": 1, **settings}, overwrite=True)
            page = at / f"{model}.html"
            found = measured("report", str(run), "--out", str(page))
            size = page.stat().st_size
            asked = found["cpu_seconds"] < ASKED_SECONDS and size < ASKED_BYTES
            emit(page="run", model=model, items=given.items, interactions=data.n_interactions, bytes=size,
                 asked=asked, **found)  # fmt: skip


if __name__ == "__main__":
    main()
