"""Time and memory of one training step against the length of the history, end to end from pictures and words.

Measured: the median time of a whole optimiser step (em3, last layer of each encoder trained, batches of 256) and the
largest resident memory of its process, on the same samples at every length. With the bank only candidates are encoded
and histories are read from the bank; for comparison, at short lengths, every history item is encoded as well (each
once per step, in micro-batches with gradient caching). Each length has a process of its own, and all lengths take
turns, round after round, so that a machine that grows slower meanwhile shows; only samples whose history is full at the
longest length are taken.

With --hybrid the same of the hybrid paradigm, encoders frozen: histories live (made in the step, with gradient), and
from the bank (bank.history=bank).

Asked: time at 1,000 / time at 20 of at most 1.15 with the bank, the least of the rounds' medians each.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from common import emit, folder, say, seconds
from steps import batches, live_rows, make_trainer
from torch import Tensor

from rawrec.data.dataset import Dataset
from rawrec.data.splits import SplitSpec
from rawrec.sources.synthetic import import_synthetic
from rawrec.training.tasks.impressions import ImpressionTask

ASKED = 1.15
EXAMPLE = "example: python benchmarks/history.py --lengths 20 100 500 1000 --steps 50 --data /tmp/benchmark"
SPLIT = "late"  # nearly everything is for training, so that histories of 1,000 are full there


class WithoutBank(ImpressionTask):
    """Encodes the items of the histories with gradient too, as training without a bank must."""

    def live_rows(self, items: Tensor, history: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        assert self.bank is not None
        rows = torch.unique(torch.cat([items.flatten(), history.flatten()]))
        rows = rows[rows >= 0]
        rows = rows[self.bank.valid[rows]]
        return rows, rows


def shop(place: Path, args: argparse.Namespace) -> Path:
    """The dataset, made where it is not there yet."""
    path = place / f"shop-{args.users}-{args.items}-{args.events}"
    if not path.is_dir():
        say(f"generating {path}")
        made = import_synthetic(
            path,
            items=args.items,
            users=args.users,
            history_events=args.events,
            click_rate=0.9,
            progress=False,
        )
        made.add_split(SPLIT, SplitSpec.model_validate({"kind": "time_global", "ratios": (0.98, 0.01, 0.01)}))
    return path


CASES: dict[str, tuple[str, dict[str, str]]] = {
    "bank": ("candidates", {}),
    "none": ("candidates and histories", {}),
    "hybrid-live": ("nothing; histories live", {"paradigm": "hybrid"}),
    "hybrid-bank": ("nothing; histories from the bank", {"paradigm": "hybrid", "bank.history": "bank"}),
}
"""What is encoded in a step of each case, and its settings."""


def measure(data: Path, run: Path, length: int, case: str, args: argparse.Namespace) -> None:
    """In a process of its own: one line of JSON about one length."""
    torch.set_num_threads(args.threads)
    found = Dataset.open(data)
    encoded, own = CASES[case]
    overrides = {"data.history": length, "data.split": SPLIT, "train.batch_size": args.batch, **own}
    trainer = make_trainer(found, run, overrides, WithoutBank if case == "none" else ImpressionTask)
    samples = trainer.task.samples
    rows, histories = samples.rows(0), samples.train_histories
    users, times = found.users[rows], None if samples.times is None else samples.times[rows]
    rows = rows[histories.ends(users, times) - histories.ptr[users] >= max(args.lengths + args.hybrid)]
    if not len(rows):
        raise SystemExit(f"no sample has a history of {max(args.lengths + args.hybrid)}: give more --events")
    drawn = batches(rows, args.batch, args.warmup + args.steps)
    live = [len(live_rows(trainer, batch)) for batch in drawn]
    times_taken = [seconds(lambda batch=batch: trainer._step(batch)) for batch in drawn]
    emit(
        history=length,
        encoded=encoded,
        step_ms=1e3 * float(np.median(times_taken[args.warmup :])),
        step_ms_p90=1e3 * float(np.quantile(times_taken[args.warmup :], 0.9)),
        items_encoded=float(np.mean(live[args.warmup :])),
        batch=args.batch,
        full_samples=len(rows),
        memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        threads=args.threads,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="*", default=[20, 100, 500, 1000], help="with the bank")
    parser.add_argument("--without-bank", type=int, nargs="*", default=[20, 100], help="with every history encoded")
    parser.add_argument("--hybrid", type=int, nargs="*", default=[], help="hybrid, histories live and from the bank")
    parser.add_argument("--steps", type=int, default=50, help="steps timed per length")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them")
    parser.add_argument("--rounds", type=int, default=2, help="turns of all lengths")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--events", type=int, default=1200, help="impressions per user, 9 of 10 clicked")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder for the dataset, kept (default: a temporary one)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    with folder(args.data) as place:
        data = shop(place, args)
        if args.one is not None:
            name, length = args.one.split(":")
            measure(data, place / "run", int(length), name, args)
            return
        common = [sys.executable, __file__, *sys.argv[1:], "--data", str(place)]
        say("encoding what is below the trained layers")
        cases = {
            "bank": args.lengths,
            "none": args.without_bank,
            "hybrid-live": args.hybrid,
            "hybrid-bank": args.hybrid,
        }
        for name in dict.fromkeys(name.split("-")[0] for name, lengths in cases.items() if lengths):
            one = {"hybrid": "hybrid-live:20"}.get(name, "bank:20")
            subprocess.run([*common, "--steps", "1", "--warmup", "0", "--one", one], check=True, capture_output=True)
        found: dict[tuple[str, int], list[float]] = {}
        for turn in range(args.rounds):
            for name, lengths in cases.items():
                for length in lengths:
                    done = subprocess.run([*common, "--one", f"{name}:{length}"], check=True, stdout=subprocess.PIPE)
                    line = json.loads(done.stdout)
                    emit(round=turn + 1, case=name, **line)
                    found.setdefault((name, length), []).append(line["step_ms"])
        for name, lengths in cases.items():
            if name == "none" or not lengths:
                continue
            short, long = found[name, min(lengths)], found[name, max(lengths)]
            ratio = min(long) / min(short)
            asked = {} if name == "hybrid-live" else {"asked": ASKED, "met": ratio <= ASKED}
            emit(
                figure=f"{name}: time({max(lengths)}) / time({min(lengths)})",
                value=ratio,
                each_round=[round(b / a, 3) for a, b in zip(short, long, strict=True)],
                **asked,
            )


if __name__ == "__main__":
    main()
