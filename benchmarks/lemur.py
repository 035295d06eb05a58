"""What histories cost LEMUR: time of a training step against their length, of the search of long ones, and the bank.

step: processor time of whole optimiser steps (preset lemur's content part beside the head dot_mlp, last layer of each
encoder trained, every candidate encoded, batches of 256, one thread), for histories that are read whole, and for longer
ones of which the most similar items are searched first. Histories are drawn at random from all items, so that their
length alone differs. All lengths take turns, so that a machine that others use as well troubles all of them alike; the
figure is the least of the rounds' medians. Asked: time(2000) / time(20) of at most 1.15.

search: the search alone, in a catalogue of `--catalogue` items, for a batch of 256.

bank: bytes of a million rows, and the time to write and to gather, for each of `bank.dtype`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import emit, folder, say
from history import SPLIT
from steps import batches, make_trainer
from torch import Tensor

from rawrec.content.store import STORED, Store
from rawrec.data.dataset import Dataset
from rawrec.data.splits import SplitSpec
from rawrec.models.ranking.search import LongHistory, Rows
from rawrec.sources.synthetic import import_synthetic
from rawrec.training.loop import Loop

ASKED = 1.15
EXAMPLE = "example: python benchmarks/lemur.py step --lengths 20 200 2000 --searched 10000 100000 --data /tmp/benchmark"
POOL = 64
"""Users whose histories are held; others have theirs again."""


class Drawn:
    """Histories of any length, of items drawn at random, in the place of a dataset's."""

    def __init__(self, items: int, length: int):
        self.rows = np.random.default_rng(0).integers(0, items, (POOL, length))

    def read(self, users: np.ndarray, targets: Any, times: Any, length: int) -> np.ndarray:
        return self.rows[users % POOL]


def shop(place: Path, items: int) -> Path:
    """The dataset, made where it is not there yet."""
    path = place / f"lemur-{items}"
    if not path.is_dir():
        say(f"generating {path}")
        made = import_synthetic(path, items=items, users=200, impressions=20 * items, progress=False)
        made.add_split(SPLIT, SplitSpec.model_validate({"kind": "time_global", "ratios": (0.98, 0.01, 0.01)}))
    return path


def trainer_of(data: Dataset, run: Path, length: int, search: int | None, args: argparse.Namespace) -> Loop:
    own = {"data.history": length, "data.split": SPLIT, "train.batch_size": args.batch, "bank.history_grad": "none"}
    own |= {"model.content": "lemur"} | ({} if search is None else {"model.lemur.search": search})
    own |= dict(word.split("=", 1) for word in args.settings)
    trainer = make_trainer(data, run / f"{length}", own)
    trainer.task.samples.train_histories = Drawn(data.n_items, length)  # type: ignore[assignment]
    return trainer


def step(args: argparse.Namespace) -> None:
    """Lines of the lengths, then their ratio."""
    torch.set_num_threads(args.threads)
    with folder(args.data) as place:
        for items in args.items:
            data = Dataset.open(shop(place, items))
            cases = [(length, None) for length in args.lengths] + [(length, args.keep) for length in args.searched]
            say(f"{items} items: preparing")
            trainers = {case: trainer_of(data, place / "run", *case, args) for case in cases}
            rows = next(iter(trainers.values())).task.samples.rows(0)
            taken: dict[tuple[int, int | None], list[float]] = {case: [] for case in cases}
            for turn in range(args.rounds):
                drawn = batches(rows, args.batch, args.warmup + args.steps, turn)
                for case, trainer in trainers.items():
                    times = [_processor_seconds(trainer._step, batch) for batch in drawn]
                    taken[case].append(1e3 * float(np.median(times[args.warmup :])))
                    emit(items=items, history=case[0], search=case[1], round=turn + 1, step_ms=taken[case][-1])
            if len(args.lengths) > 1:
                short, long = (min(taken[length, None]) for length in (min(args.lengths), max(args.lengths)))
                ratio = long / short
                figure = f"{items} items: time({max(args.lengths)}) / time({min(args.lengths)})"
                emit(figure=figure, value=ratio, asked=ASKED, met=ratio <= ASKED)
            for length in args.searched:
                emit(figure=f"{items} items: step with {length} searched", value=min(taken[length, args.keep]))


def _processor_seconds(work: Callable[..., Any], *given: Any) -> float:
    started = time.process_time()
    work(*given)
    return time.process_time() - started


def search(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    table = Rows(torch.randn(args.catalogue, args.dim, generator=generator))
    query = torch.randn(args.batch, 1, args.dim, generator=generator)
    for length in args.searched:
        items = torch.randint(0, args.catalogue, (args.batch, length), generator=generator)
        history = LongHistory(items, torch.ones_like(items, dtype=torch.bool), table)
        times = [_processor_seconds(history.search, query, args.keep) for _ in range(args.rounds + 1)]
        emit(catalogue=args.catalogue, history=length, batch=args.batch, search_ms=1e3 * min(times[1:]))


def bank(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    for kind in STORED:
        store = Store(1_000_000, args.dim, kind)
        rows = torch.randperm(len(store), generator=generator)[: args.batch * 1000]
        values = torch.randn(len(rows), args.dim, generator=generator)
        write = min(_processor_seconds(store.write, rows, values) for _ in range(3))
        read = min(_processor_seconds(store.rows, rows) for _ in range(3))
        error = _relative_error(store.rows(rows), values)
        emit(
            dtype=kind,
            width=args.dim,
            mb_per_million_rows=store.nbytes / 2**20,
            write_us_per_row=1e6 * write / len(rows),
            read_us_per_row=1e6 * read / len(rows),
            largest_error=error,
        )


def _relative_error(found: Tensor, values: Tensor) -> float:
    """Of a row's largest number."""
    return float(((found - values).abs().amax(1) / values.abs().amax(1)).max())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["step", "search", "bank"])
    parser.add_argument("--lengths", type=int, nargs="*", default=[20, 200, 2000], help="histories that are read whole")
    parser.add_argument("--searched", type=int, nargs="*", default=[10_000, 100_000], help="histories searched first")
    parser.add_argument("--keep", type=int, default=50, help="items that a search leaves")
    parser.add_argument("--items", type=int, nargs="*", default=[2000], help="catalogues of step, each a dataset")
    parser.add_argument("--catalogue", type=int, default=1_000_000, help="items of search")
    parser.add_argument("--dim", type=int, default=64, help="width of content, of search and bank")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10, help="steps timed per length and round")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder for the datasets, kept (default: a temporary one)")
    parser.add_argument("--settings", nargs="*", default=[], help="further settings of step, as key=value")
    args = parser.parse_args()
    {"step": step, "search": search, "bank": bank}[args.what](args)


if __name__ == "__main__":
    main()
