"""How much what is served loses by being published seldom: prequential quality by the interval between versions.

    python benchmarks/staleness.py [--rate 20] [--impressions 200000] [--work DIR]

A run of `id` goes on with what comes after its training part, a table whose rows come `--rate` a second (of event
time). Each row is predicted, before it is trained, by the model as it is then, and by one as it was at the last moment
at which a version was due: every 1 s, 10 s, 1 min, 10 min of event time, and never (the run as it was trained). All of
them see the same histories and the same rows. A published version answers as its trainer did then, which `rawrec
online` checks of each before it is served; so no version is written here, and loading one takes no time. Prints a JSON
line each.
"""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import emit, folder, say
from online import table_of
from online_speed import COMMON

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.evaluation.ctr import ctr_metrics
from rawrec.files import write_table
from rawrec.sources.synthetic import import_synthetic
from rawrec.stream.online import table_of as events_of
from rawrec.stream.trainer import Trainer
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.asked import Asked

EVERY = {"as trained": 0.0, "1 s": 1.0, "10 s": 10.0, "1 min": 60.0, "10 min": 600.0, "never": math.inf}


class Served:
    """Beside what a trainer predicts, what the versions that would be served then do."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.task = trainer, trainer.task
        self.models = {name: deepcopy(self.task.ranker) for name, every in EVERY.items() if every}
        self.published, self.begun, self.step = dict.fromkeys(self.models, 1), 0.0, trainer.steps.progress.step
        self.last = dict.fromkeys(self.models, 0.0)
        self.found: dict[str, list[float]] = {name: [] for name in EVERY}
        self._predict, self.task.predict = self.task.predict, self.predict  # type: ignore[method-assign]

    def predict(self, rows: Sequence[Asked], items: Sequence[str]) -> list[float]:
        """Of rows that came since the last step: the latest versions of before that."""
        own, found = self.task.ranker, self._predict(rows, items)
        self.found["as trained"] += found
        for name, model in self.models.items():
            self.task.ranker = model.eval()
            self.found[name] += self._predict(rows, items)
        self.task.ranker = own
        return found

    def trained(self, event: str, **values: Any) -> None:
        """A step was made: versions that are due."""
        now = self.trainer.joiner.watermark
        if event != "online" or now is None:
            return
        for name in self.models:
            if now - self.last[name] >= EVERY[name]:
                self.models[name], self.last[name] = deepcopy(self.task.ranker), now
                self.published[name] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=20.0, help="rows per second of event time")
    parser.add_argument("--batch", type=int, default=64, help="rows of a step")
    parser.add_argument("--share", type=float, help="of the run's learning rates, ids' too (default: online.rate ...)")
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--work", type=Path, help="folder for data and run, kept (default: a temporary one)")
    args = parser.parse_args()
    with folder(args.work) as place:
        shop, run = place / f"shop-{args.impressions}", place / "run-id"
        if not shop.is_dir():
            import_synthetic(shop, items=2000, users=2000, impressions=args.impressions, size=32, progress=False)
        data = Dataset.open(shop)
        if not (run / "model.safetensors").is_file():
            say("training")
            rawrec.train("id", data, run, COMMON, overwrite=True)
        rest = place / "quick.parquet"
        table_of(data, "default", "label", rest)
        table = pl.read_parquet(rest).sort("timestamp", maintain_order=True)
        begun = table["timestamp"].min()
        times = pl.Series("timestamp", np.arange(len(table)) / args.rate + float(str(begun)))
        write_table(table.with_columns(times).to_arrow(), rest)
        shutil.rmtree(run / "online", ignore_errors=True)
        (run / "online").mkdir()
        rates = {} if args.share is None else {"rate": args.share, "id_rate": args.share}
        settings = {"batch_size": args.batch, "checkpoint_every": 2**30} | rates
        trainer = Trainer(RunFolder.open(run), run / "online", settings, data)
        events = events_of(trainer.task, rest)
        served = Served(trainer)
        trainer.observe = served.trained
        served.last = dict.fromkeys(served.models, events.read(0, 1)[0].event.time)
        trainer.follow(events, events.name, None)
        labels = np.array([row.event.labels[0] for row in events.read(0, events.end())], np.float32)
        users = np.unique([row.event.user for row in events.read(0, events.end())], return_inverse=True)[1]
        for name, predicted in served.found.items():
            line, _ = ctr_metrics(labels, np.array(predicted), users)
            of = {"rate": args.rate, "batch": args.batch, "lr": f"{trainer.task.cfg.train.lr:g}", "rows": len(labels)}
            emit(every=name, versions=served.published.get(name), auc=line["auc"], gauc=line["gauc"],
                 logloss=line["logloss"], pcoc=line["pcoc"], **of)  # fmt: skip


if __name__ == "__main__":
    main()
