"""What a trained sample costs online, beside what it costs in training, on the same data and with the same step.

    python benchmarks/online_speed.py [--models id hybrid] [--impressions 200000] [--work DIR]

A generated shop; the run is trained on the training part (a split by time), what comes after it is read as a table
(`--events`), and as a log of requests of 1 and of 8 products (a `shown` event each, an `acted` one for each click).
Prints a JSON line per way: samples per second of CPU between the first and the last step, of which the prediction
before training, metrics, joining and checkpoints are a part, and its share of the training's. Asked: 0.7.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import cores, emit, folder, say
from online import Clock, table_of

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.sources.synthetic import import_synthetic
from rawrec.stream.events import Acted, Event, Shown
from rawrec.stream.log import open_log
from rawrec.stream.online import online

ASKED = 0.7
BATCH = 256
COMMON = {"train.batch_size": BATCH, "train.threads": 1, "train.epochs": 2, "eval.full_ranking": False}
MODELS: dict[str, dict[str, Any]] = {
    "id": {},
    "hybrid": {
        "paradigm": "hybrid",
        "content.image.use": False,
        "content.text.encoder": "random:bert",
        "content.text.max_length": 12,
        "content.text.train": "none",
        "content.dim": 32,
    },
}


def events_of(data: Dataset, each: int) -> Iterator[Event]:
    """What comes after training, as requests of `each` impressions of a user, and what was clicked, a second later."""
    rows = np.flatnonzero(data.split("default") > 0)
    assert data.timestamps is not None
    users, items, labels = data.users[rows], data.items[rows], data.binary("label")[rows]
    order = np.lexsort((data.timestamps[rows], users)) if each > 1 else np.argsort(data.timestamps[rows], kind="stable")
    lists: list[list[int]] = []
    for at in order.tolist():
        last = lists[-1] if lists else []
        same = last and users[last[0]] == users[at] and len(last) < each
        if same and items[at] not in items[last]:
            last.append(at)
        else:
            lists.append([at])
    when = data.timestamps[rows]
    lists.sort(key=lambda found: when[found[0]])
    number = 0
    for n, found in enumerate(lists):
        user, moment = str(data.user_ids[users[found[0]]]), float(when[found[0]])
        names = [str(data.item_ids[items[at]]) for at in found]
        yield Shown(producer="shop", sequence=number, time=moment, request=f"r{n}", user=user, items=names)
        number += 1
        for at, item in zip(found, names, strict=True):
            if labels[at]:
                yield Acted(producer="shop", sequence=number, time=moment + 1, request=f"r{n}", item=item)
                number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--work", type=Path, help="folder for data and runs, kept (default: a temporary one)")
    args = parser.parse_args()
    with folder(args.work) as place:
        shop = place / f"shop-{args.impressions}"
        if not shop.is_dir():
            sizes = {"items": args.items, "users": args.users, "impressions": args.impressions, "size": 32}
            import_synthetic(shop, **sizes, progress=False)
        data = Dataset.open(shop)
        table = place / "rest.parquet"
        table_of(data, "default", "label", table)
        urls = {}
        for each in (1, 8):
            path = place / f"requests-{each}.db"
            urls[each] = f"sqlite:{path}"
            if not path.exists():
                with open_log(urls[each]) as log:
                    log.append(list(events_of(data, each)))
        for model in args.models:
            run, clock = place / f"run-{model}", Clock()
            say(f"training {model}")
            settings = COMMON | MODELS[model]
            rawrec.train("id" if model == "id" else "em3", data, run, settings, overwrite=True, observer=clock)
            offline = clock.rate
            of = {"model": model, "batch": BATCH, "cores": cores()}
            emit(way="training", **of, samples_per_cpu_second=offline)
            ways: dict[str, dict[str, Any]] = {"table": {"events": table}}
            ways |= {f"log of {each}": {"log": url, "until": "end"} for each, url in urls.items()}
            for way, source in ways.items():
                shutil.rmtree(run / "online", ignore_errors=True)
                clock, began, cpu = Clock(), time.perf_counter(), time.process_time()
                found = online(run, **source, observer=clock, data=data)
                rate = clock.rate
                assert rate is not None and offline is not None
                emit(
                    way=way, **of, events=found["counts"]["taken"], samples=found["counts"]["trained"],
                    samples_per_cpu_second=rate, of_training=rate / offline, asked=ASKED,
                    cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - began,
                )  # fmt: skip


if __name__ == "__main__":
    main()
