"""Memory and time of training on more interactions than memory holds, on a generated log.

    python benchmarks/large.py --rows 10000000 --work DIR [--items 1000000] [--users N] [--steps 200] [--models id em3]

The log is in the order of time, its users and items by chance: the order in which reading is least local. It is made
some rows at a time, in DIR/data-ROWS, once. Each model is then set up, trained some steps and validated in a process of
its own, which prints a JSON line: seconds of each, and memory in MB at its largest, `anonymous` (the process's own)
and `resident` (with pages of files, which the system takes back when it needs memory); `pss` is at the end.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import emit, say

from rawrec.config import resolve
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import write_meta
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.randomness import drawing
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask

CHUNK = 1 << 20
WIDTH = 32
"""Numbers of an item's given vector, and so of a row of the frozen bank."""


def rows(count: int, users: int, items: int) -> Iterator[pa.Table]:
    """The log, a million rows at a time: the first 90 % train, then valid and test; a click in five."""
    for start in range(0, count, CHUNK):
        rng, size = np.random.default_rng([7, start]), min(CHUNK, count - start)
        row = np.arange(start, start + size)
        user = rng.integers(0, users, size, dtype=np.int32)
        item = (items * rng.random(size) ** 3).astype(np.int32)
        taste = ((user % 16) == (item % 16)) * 0.5 + 0.17
        label = (rng.random(size) < taste).astype(np.float32)
        part = np.searchsorted([0.9 * count, 0.95 * count], row, side="right").astype(np.int8)
        ids = [pa.array(one).cast(pa.string()) for one in (user, item)]
        columns = {"user": user, "item": item, "user_id": ids[0], "item_id": ids[1]}
        yield pa.table({**columns, "timestamp": 1_600_000_000 + row // 10, "label": label, "split": part})


def make(out: Path, count: int, users: int, items: int) -> None:
    """The dataset: items by the writer, with a vector each; the log in place of the one row that the writer was given.

    Raises UserError where there is something at `out`.
    """
    given = {"fields": Fields(feature={"vector": WIDTH}), "source": "benchmarks/large.py", "labels": ["label"]}
    with DatasetWriter(out, **given, has_time=True) as writer:
        for start in range(0, items, 1 << 17):
            size = min(1 << 17, items - start)
            rng = np.random.default_rng([8, start])
            vectors = rng.standard_normal((size, WIDTH), dtype=np.float32)
            vectors[np.arange(size), np.arange(start, start + size) % 16] += 2
            writer.add_items({"item_id": np.arange(start, start + size).astype(str), "vector": vectors})
        writer.add_interactions({"user_id": ["0"], "item_id": ["0"], "timestamp": [0], "label": [1.0]})
        writer.finish(SplitSpec(), ImportReport(source="generated"))
    data, counts = Dataset.open(out), np.zeros(3, int)
    with pq.ParquetWriter(out / "log.parquet", next(rows(1, 1, 1)).schema, compression="lz4") as file:
        for table in rows(count, users, items):
            counts += np.bincount(table.column("split").to_numpy(), minlength=3)
            file.write_table(table, row_group_size=CHUNK)
    (out / "log.parquet").replace(out / "interactions.parquet")
    meta = data.meta
    parts = dict(zip(("train", "valid", "test"), counts.tolist(), strict=True))
    split = {"kind": "time_global", "statement": "by time: 90 %, 5 %, 5 %", "counts": parts}
    known = {"users": users, "items": items, "interactions": count}
    first = meta.versions[0].model_copy(update={"counts": known})
    changed = {"counts": known, "splits": {"default": split}, "versions": [first], "sums": {}}
    (out / "dataset.yaml").unlink()
    write_meta(meta.model_copy(update=changed), out)


class Watched:
    """Memory of this process in MB while it works: sampled twenty times a second."""

    def __init__(self) -> None:
        self.anonymous = self.file = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self.anonymous = max(self.anonymous, _field("/proc/self/status", "RssAnon:"))
            self.file = max(self.file, _field("/proc/self/status", "RssFile:"))

    def close(self) -> dict[str, float]:
        self._done.set()
        self._thread.join()
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pss = _field("/proc/self/smaps_rollup", "Pss:")
        return {"anonymous": self.anonymous, "of_files": self.file, "resident": resident, "pss": pss}


def _field(path: str, name: str) -> float:
    lines = Path(path).read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), 0.0)


def measure(data: Path, model: str, steps: int, interactions: str) -> None:
    memory, started = Watched(), time.perf_counter()
    settings = {"train.device": "cpu", "train.threads": 1, "data.interactions": interactions}
    content = {"paradigm": "frozen", "content.dim": WIDTH}
    cfg = resolve(model, settings | (content if model == "em3" else {}) | {"eval.full_ranking": False})
    opened = Dataset.open(data)
    cfg.eval.exclude_seen = "positives"
    task = ImpressionTask(cfg, opened, data / "cache")
    run = RunFolder.create(data.parent / f"run-{model}", task.cfg, task.data, overwrite=True)
    loop = Loop(task, run)
    task.begin()
    done = {"setup_seconds": time.perf_counter() - started, "setup_anonymous": memory.anonymous}
    order, size = task.begin_epoch(0), cfg.train.batch_size
    times = []
    for step in range(steps):
        begun = time.perf_counter()
        with drawing():
            loop._step(order[step * size : (step + 1) * size])
        times.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    found = task.validate(steps).metrics
    done |= {"step_ms": 1000 * float(np.median(times)), "steps": steps, "batch": size}
    done |= {"validation_seconds": time.perf_counter() - begun, "judged": found["impressions"], "auc": found["auc"]}
    emit(model=model, rows=opened.n_interactions, interactions=interactions, **done, **memory.close())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--models", nargs="+", default=["id", "em3"])
    parser.add_argument("--interactions", choices=["mapped", "memory"], default="mapped")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    data = given.work / f"data-{given.rows}"
    if given.measure:
        measure(data, given.measure, given.steps, given.interactions)
        return
    if not data.is_dir():
        started = time.perf_counter()
        memory = Watched()
        make(data, given.rows, given.users or max(given.rows // 100, 1), given.items)
        emit(made=given.rows, seconds=time.perf_counter() - started, **memory.close())
    for model in given.models:
        say(f"{model} on {given.rows:,} rows")
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--measure", model], check=True)


if __name__ == "__main__":
    main()
