"""What training and extraction cost beside the encoders that they cannot do without.

Three measurements, on the generated shop, each batch by batch in one process against the bare encoders on the same
items, their inputs at hand, by medians:

- `step`: a whole optimiser step of em3 end to end (samples, histories, bank, encoders' trained layers forward and
  backward, fusion, ranker, losses, checks, AdamW, averaged weights) against forward and backward of the same layers on
  the unique items of the step;
- `itc`: a whole step of `rawrec finetune` on a pair of encoders (reading of the pairs, maps, contrast, checks, AdamW)
  against forward and backward of the two towers;
- `encode`: what `rawrec encode` does (reading, decoding, forward, writing) against the forward passes of the same
  batches.

Asked: bare seconds / whole seconds of at least 0.85, 0.85 and 0.95.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import emit, folder, say, seconds
from steps import batches, live_rows, make_trainer

from rawrec.config import resolve
from rawrec.config.finetune import finetune_config
from rawrec.content.bank import Bank
from rawrec.content.building import build_item_model
from rawrec.content.columns import _raw, static_columns
from rawrec.content.item_model import CHUNK, ItemModel
from rawrec.content.units import content_units
from rawrec.data.dataset import Dataset
from rawrec.sources.synthetic import import_synthetic
from rawrec.training.device import choose_precision
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.catalogue import CatalogueTask

ASKED = {"step": 0.85, "itc": 0.85, "encode": 0.95}
EXAMPLE = "example: python benchmarks/throughput.py step itc --steps 50 --train top:1 --data /tmp/benchmark"


def turns(count: int, warmup: int, pair: Callable[[int], tuple[Callable[[], Any], Callable[[], Any]]]) -> list[float]:
    """Median seconds of both functions that `pair` gives for each number up to `count`; they take turns in going first.

    The first `warmup` are left out.
    """
    times: list[list[float]] = []
    for k in range(count):
        both = pair(k)
        order = (0, 1) if k % 2 else (1, 0)  # neither is always the first to meet the batch
        found = {which: seconds(both[which]) for which in order}
        times.append([found[0], found[1]])
    return [float(value) for value in np.median(times[warmup:], 0)]


def bare(item_model: ItemModel, bank: Bank, rows: torch.Tensor) -> Callable[[], None]:
    """Forward and backward of every encoder's trained layers on the items `rows`."""
    columns = {name: bank.read(item_model.column(name), rows) for name, _ in item_model.raw_encoders()}
    item_model.zero_grad(set_to_none=True)

    def work() -> None:
        for name, encoder in item_model.raw_encoders():
            with item_model._casting(rows.device):
                feature = encoder.upper(columns[name])
            feature.float().sum().backward()

    return work


def measure_step(data: Dataset, place: Path, args: argparse.Namespace) -> dict[str, Any]:
    overrides = {
        "data.history": args.history,
        "train.batch_size": args.batch,
        "content.image.train": args.train,
        "content.text.train": args.train,
    }
    say("encoding what is below the trained layers")
    trainer = make_trainer(data, place / "run", overrides)
    item_model, bank = trainer.task.item_model, trainer.task.bank
    assert item_model is not None and bank is not None
    order, items = trainer.task.samples.rows(0), []
    parts = batches(order, args.batch, args.warmup + args.steps)

    def pair(k: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
        live = live_rows(trainer, parts[k])
        items.append(len(live))
        return lambda: trainer._step(parts[k]), bare(item_model, bank, live)

    whole, least = turns(len(parts), args.warmup, pair)
    samples = {"samples_per_second": len(parts[0]) / whole, "bare_samples_per_second": len(parts[0]) / least}
    more = {"batch": args.batch, "history": args.history, "items_encoded": float(np.mean(items[args.warmup :]))}
    return {"whole": whole, "bare": least, **samples, **more}


def measure_itc(data: Dataset, place: Path, args: argparse.Namespace) -> dict[str, Any]:
    tree = {"encoder": "pair:efficientnet_lite0+minilm", "train": args.train, "batch_size": args.pairs}
    settings = finetune_config(tree | {"micro_batch": args.pairs, "device": "cpu"})
    task = CatalogueTask(settings, data, data.path / "cache")
    loop = Loop(task, RunFolder.create(place / "tuned", settings, data, overwrite=True))
    epochs = (task.begin_epoch(epoch).split(args.pairs) for epoch in range(args.warmup + args.steps))
    parts = [rows for epoch in epochs for rows in epoch if len(rows) == args.pairs][: args.warmup + args.steps]

    def pair(k: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
        columns = task._read(parts[k], torch.zeros_like(parts[k]))

        def work() -> None:
            task.model.zero_grad(set_to_none=True)
            with task._casting():
                features = task.model.encode(columns)
            torch.cat([values.sum()[None] for values in features.values()]).sum().backward()

        return lambda: loop._step(parts[k]), work

    whole, least = turns(len(parts), args.warmup, pair)
    return {"whole": whole, "bare": least, "pairs": args.pairs, "pairs_per_second": args.pairs / whole}


def measure_encode(data: Dataset, place: Path, args: argparse.Namespace) -> dict[str, Any]:
    cfg = resolve("em3", {"paradigm": "frozen", "train.device": "cpu"})
    item_model = build_item_model(cfg, data.fields, content_units(cfg, data.fields))
    item_model.autocast = choose_precision("auto", torch.device("cpu"))
    starts = range(0, data.n_items, CHUNK)
    prepared = []
    for name in item_model.reads:
        for start in starts:
            rows = range(start, min(start + CHUNK, data.n_items))
            prepared.append((name, item_model.prepare(name, _raw(item_model, data, name, rows))[0]))

    def whole() -> None:
        with tempfile.TemporaryDirectory() as cache:
            static_columns(item_model, data, Path(cache))

    def forward() -> None:
        for name, one in prepared:
            item_model.lower_prepared(name, one)

    whole_s, least = turns(args.rounds + 1, 1, lambda k: (whole, forward))
    return {"whole": whole_s, "bare": least, "items": data.n_items, "items_per_second": data.n_items / whole_s}


MEASURES = {"step": measure_step, "itc": measure_itc, "encode": measure_encode}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=list(MEASURES), default=["step"])
    parser.add_argument("--steps", type=int, default=50, help="steps timed")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them")
    parser.add_argument("--rounds", type=int, default=3, help="encode: times that all items are encoded")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=64, help="itc: pairs of a step")
    parser.add_argument("--history", type=int, default=20)
    parser.add_argument("--train", default="top:1", help="layers trained of both kinds of encoders")
    parser.add_argument("--items", type=int, default=800)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder for the dataset, kept (default: a temporary one)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with folder(args.data) as place:
        path = place / f"shop-{args.items}"
        if not path.is_dir():
            say(f"generating {path}")
            import_synthetic(path, items=args.items, progress=False)
        for what in args.what:
            found = MEASURES[what](Dataset.open(path), place, args)
            whole, least = found.pop("whole"), found.pop("bare")
            train = {} if what == "encode" else {"train": args.train}
            emit(what=what, whole_ms=1e3 * whole, bare_ms=1e3 * least, **found, **train, threads=args.threads)
            figure = f"{what}: bare seconds / whole seconds"
            emit(figure=figure, value=least / whole, asked=ASKED[what], met=least / whole >= ASKED[what])


if __name__ == "__main__":
    main()
