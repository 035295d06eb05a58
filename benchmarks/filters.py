"""Time of lists with filters against the same lists without, of a ranking model (id) and a retrieval model (bpr).

A catalogue of random clicks without pictures and texts is made, each model trained for one epoch, and `recommend` asked
for one user and for MANY at once: without filters, with `where` by a category and a range of numbers and `exclude` of
100 items, which leave 90 % or 10 % of the catalogue, with 100 `items` alone, and with `max_per` and `diversity`. All
cases take turns, round after round, on one thread, IN_ROW calls of other users a turn; a case's time is the least CPU
time of its turns, in which other processes do not count, and of a turn the mean of its calls.

Asked: time with filters / time without of at most 1.1. A `where` that was asked for before is not worked out anew, as
in a shop that asks the same again and again; how long that takes the first time is a line of its own.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import emit, folder, say, seconds

import rawrec
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter

ASKED = 1.1
EXAMPLE = "example: python benchmarks/filters.py --items 100000 --rounds 20"
KINDS, MANY, IN_ROW = 10, 16, 5
MODELS: dict[str, dict[str, Any]] = {
    "id": {"model.dim": 16, "model.hidden": [32], "data.history": 10, "eval.full_ranking": False},
    "bpr": {"model.embedding_size": 64},
}


def catalogue(out: Path, items: int, users: int) -> Dataset:
    """Items of ten kinds with a price and a brand; of 20 clicks each user."""
    if out.is_dir():
        return Dataset.open(out)
    say(f"making {out}")
    rng = np.random.default_rng(0)
    writer = DatasetWriter(
        out,
        fields=Fields(categorical=["kind", "brand"], numeric=["price"]),
        source="benchmark",
        labels=["label"],
        has_time=True,
    )
    with writer:
        for at in range(0, items, 50_000):
            rows = range(at, min(at + 50_000, items))
            writer.add_items(
                {
                    "item_id": [f"i{k}" for k in rows],
                    "kind": [[f"k{k % KINDS}"] for k in rows],
                    "brand": [[f"b{k % 997}"] for k in rows],
                    "price": [float(k % 1000) for k in rows],
                }
            )
        taken = rng.integers(items, size=(users, 20))
        writer.add_interactions(
            {
                "user_id": [f"u{u}" for u in range(users) for _ in range(20)],
                "item_id": [f"i{i}" for i in taken.ravel().tolist()],
                "timestamp": list(range(20)) * users,
                "label": (rng.random(users * 20) < 0.5).astype(float).tolist(),
            }
        )
        return writer.finish(SplitSpec(kind="time_user"), ImportReport(source="benchmark"))


def cases(items: int) -> dict[str, dict[str, Any]]:
    """Arguments of `recommend`, by name; those of filters first."""
    exclude = [f"i{k}" for k in range(0, items, max(items // 100, 1))]
    return {
        "none": {},
        "90 %": {"where": {"kind": [f"k{k}" for k in range(KINDS - 1)], "price": (0, None)}, "exclude": exclude},
        "10 %": {"where": {"kind": "k0", "price": (None, 2000.0)}, "exclude": exclude},
        "items": {"items": exclude},
        "max_per": {"max_per": {"brand": 1}},
        "diversity": {"diversity": 0.3},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--data", type=Path, help="folder for the dataset, kept (default: a temporary one)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with folder(args.data) as place:
        data = catalogue(place / f"catalogue-{args.items}-{args.users}", args.items, args.users)
        for model in args.models:
            quick = {"train.epochs": 1, "train.threads": 1, "train.device": "cpu", **MODELS[model]}
            run = rawrec.train(model, data, place / "runs" / model, quick, overwrite=True).path
            rec = rawrec.Recommender.load(run, device="cpu")
            for many in (1, MANY):
                times = measured(rec, many, args)
                emit(figure="where, worked out", model=model, items=args.items, ms=1e3 * worked_out(rec, args))
                for name, taken in times.items():
                    asked = {"asked": ASKED, "met": taken / times["none"] <= ASKED} if name != "none" else {}
                    emit(
                        figure=f"time with {name} / without filters",
                        value=taken / times["none"],
                        model=model,
                        users=many,
                        items=args.items,
                        ms=1e3 * taken,
                        lists_per_second=many / taken,
                        **asked,
                    )


def measured(rec: rawrec.Recommender, many: int, args: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of a call of each case for so many users: the least of the rounds; the first, which reads columns, is
    not timed."""
    times: dict[str, float] = {}
    asked = cases(args.items)
    users = [[f"u{(at * many + u) % args.users}" for u in range(many)] for at in range(IN_ROW)]
    callers: list[dict[str, Any]] = [{"user": some[0]} if many == 1 else {"users": some} for some in users]
    for turn in range(args.rounds + 1):
        for name, more in asked.items():
            began = time.process_time()
            for who in callers:
                rec.recommend(**who, k=args.k, **more)  # type: ignore[call-overload]
            taken = (time.process_time() - began) / IN_ROW
            if turn:
                times[name] = min(taken, times.get(name, taken))
    return times


def worked_out(rec: rawrec.Recommender, args: argparse.Namespace) -> float:
    """Seconds of one `where` that was not asked for before, its columns being read."""
    times = []
    for turn in range(args.rounds):
        where = {"kind": [f"k{k}" for k in range(KINDS - 1)], "price": (-1.0 - turn, None)}
        times.append(seconds(partial(rec._columns.where, where)))
    return min(times)


if __name__ == "__main__":
    main()
