"""What a whole end-to-end training step costs beside the encoders that it cannot do without.

Measured, batch by batch in one process: the time of a whole optimiser step of em3 (samples, histories, bank, encoders'
trained layers forward and backward, fusion, ranker, losses, checks, AdamW, averaged weights), and that of the bare
encoders: forward and backward of the same layers on the same unique items, their inputs at hand. Medians.

Asked: bare seconds / step seconds of at least 0.8, so that all the rest costs at most a quarter more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import emit, folder, say, seconds
from steps import batches, live_rows, make_trainer

from rawrec.content.bank import Bank
from rawrec.content.item_model import ItemModel
from rawrec.data.dataset import Dataset
from rawrec.sources.synthetic import import_synthetic

ASKED = 0.8
EXAMPLE = "example: python benchmarks/throughput.py --steps 50 --train top:1 --data /tmp/benchmark"


def bare(item_model: ItemModel, bank: Bank, rows: torch.Tensor) -> float:
    """Seconds for forward and backward of every encoder's trained layers on the items `rows`."""
    columns = {name: bank.read(item_model.column(name), rows) for name, _ in item_model.raw_encoders()}
    item_model.zero_grad(set_to_none=True)

    def work() -> None:
        for name, encoder in item_model.raw_encoders():
            with item_model._casting(rows.device):
                feature = encoder.upper(columns[name])
            feature.float().sum().backward()

    return seconds(work)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50, help="steps timed")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them")
    parser.add_argument("--batch", type=int, default=256)
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
        overrides = {
            "data.history": args.history,
            "train.batch_size": args.batch,
            "content.image.train": args.train,
            "content.text.train": args.train,
        }
        say("encoding what is below the trained layers")
        trainer = make_trainer(Dataset.open(path), place / "run", overrides)
        item_model, bank = trainer.task.item_model, trainer.task.bank
        assert item_model is not None and bank is not None
        steps, bares, items = [], [], []
        for k, rows in enumerate(batches(trainer.task.samples.rows(0), args.batch, args.warmup + args.steps)):
            live = live_rows(trainer, rows)
            items.append(len(live))
            if k % 2:  # neither is always the first to meet the batch
                steps.append(seconds(lambda rows=rows: trainer._step(rows)))
                bares.append(bare(item_model, bank, live))
            else:
                bares.append(bare(item_model, bank, live))
                steps.append(seconds(lambda rows=rows: trainer._step(rows)))
        step, least = (float(np.median(times[args.warmup :])) for times in (steps, bares))
        count = min(args.batch, len(trainer.task.samples.rows(0)))
        emit(
            step_ms=1e3 * step,
            bare_ms=1e3 * least,
            samples_per_second=count / step,
            bare_samples_per_second=count / least,
            items_encoded=float(np.mean(items[args.warmup :])),
            batch=args.batch,
            history=args.history,
            train=args.train,
            threads=args.threads,
        )
        emit(figure="bare seconds / step seconds", value=least / step, asked=ASKED, met=least / step >= ASKED)


if __name__ == "__main__":
    main()
