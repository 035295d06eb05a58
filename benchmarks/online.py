"""A run that goes on with the last fifth of its data, in order of time, beside one that stays as it is.

    python benchmarks/online.py --data data/ml --work DIR [--model id] [--only frozen online ...] [KEY=VALUE ...]

The run is trained on the training part (a split by time); valid and test are read as a table, as by --events.
Prints a JSON line per way: prequential metrics, the means of windows of 1,000 impressions, what is gained over `frozen`
with 95 % intervals (windows drawn with replacement), and impressions per second of CPU beside the training's.
`frozen` learns nothing (a rate of 1e-9, no new ids); settings are of the training.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import emit

import rawrec
from rawrec.config import parse_overrides
from rawrec.data.dataset import Dataset
from rawrec.files import write_table
from rawrec.reading import read_json_lines
from rawrec.stream.online import online
from rawrec.training.runs import RunFolder

WAYS: dict[str, dict[str, Any]] = {
    "frozen": {"rate": 1e-9, "id_rate": 1e-9, "admit_after": 2**30},
    "online": {},
    "all at the rate of training": {"rate": 1.0},
    "a third": {"rate": 0.3},
    "a thirtieth": {"rate": 0.03},
    "ids at a third, too": {"id_rate": 0.3},
    "ids at three times": {"id_rate": 3.0},
    "64 at once": {"batch_size": 64},
}
SHOWN = ("auc", "gauc", "logloss", "pcoc")
WINDOW = 1000


class Clock:
    """Samples and seconds of CPU between the first and the last step that it is told of."""

    def __init__(self) -> None:
        self.at: list[tuple[float, int]] = []
        self.samples = 0

    def __call__(self, event: str, **values: Any) -> None:
        if event in ("step", "online"):
            self.samples = values["samples"] + (self.samples if event == "step" else 0)
            self.at.append((time.process_time(), self.samples))

    @property
    def rate(self) -> float | None:
        (first, n), (last, m) = self.at[0], self.at[-1]
        return (m - n) / (last - first) if last > first else None


def table_of(data: Dataset, split: str, label: str, out: Path) -> None:
    """The valid and test rows."""
    rows = np.flatnonzero(data.split(split) > 0)
    assert data.timestamps is not None
    columns = {
        "user_id": data.user_ids[data.users[rows]],
        "item_id": data.item_ids[data.items[rows]],
        "timestamp": data.timestamps[rows],
        label: data.binary(label)[rows],
    }
    write_table(pl.DataFrame(columns).to_arrow(), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the run; kept, and used again")
    parser.add_argument("--model", default="id")
    parser.add_argument("--only", nargs="*", choices=WAYS)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    data, run = Dataset.open(args.data), args.work / "run"
    args.work.mkdir(parents=True, exist_ok=True)
    if not (run / "model.safetensors").is_file():
        clock = Clock()
        rawrec.train(args.model, data, run, parse_overrides(args.settings), overwrite=True, observer=clock)
        emit(way="training", samples_per_cpu_second=clock.rate)
    cfg = RunFolder.open(run).config()
    table_of(data, cfg.data.split, cfg.data.label, args.work / "rest.parquet")
    found: dict[str, np.ndarray] = {}
    for way in args.only or WAYS:
        shutil.rmtree(run / "online", ignore_errors=True)
        clock = Clock()
        settings = WAYS[way] | {"window": WINDOW, "checkpoint_every": 2**30}
        online(run, events=args.work / "rest.parquet", settings=settings, observer=clock)
        lines = [line for line in read_json_lines(run / "online" / "metrics.jsonl") if line["impressions"] == WINDOW]
        found[way] = np.array([[line[name] for name in SHOWN] for line in lines])
        values = {name: round(float(x), 4) for name, x in zip(SHOWN, found[way].mean(0), strict=True)}
        emit(way=way, windows=len(lines), **values, **gain(found, way), samples_per_cpu_second=clock.rate)


def gain(found: dict[str, np.ndarray], way: str) -> dict[str, Any]:
    """Of AUC and logloss over `frozen`, the mean and its interval."""
    if "frozen" not in found or way == "frozen":
        return {}
    more = found[way] - found["frozen"]
    draws = np.random.default_rng(0).integers(len(more), size=(2000, len(more)))
    low, high = np.percentile(more[draws].mean(1), [2.5, 97.5], axis=0)
    rounded = {n: [round(float(x[i]), 4) for x in (more.mean(0), low, high)] for i, n in enumerate(SHOWN)}
    return {"over_frozen": {name: rounded[name] for name in ("auc", "logloss")}}


if __name__ == "__main__":
    main()
