"""Two checkouts of the project against each other, by turns: which of them makes a step in less time.

Each has a process of its own that trains the same model on the same data with its `rawrec.train`, and stops before
every step until it is asked for it. They are asked in turn, one step each, so that whatever else the machine does
falls on both alike, and every turn gives one ratio of the second's time to the first's. Printed of each case: the
median of the ratios of wall time and of processor time (of all threads), each with its 95 % interval by bootstrap over
turns, and the median times of both.

What a turn asks for, --what: `step`, one optimiser step; `epoch`, the beginning of an epoch, where a retrieval model
draws or makes something, and the step after it; `evaluation`, the validation part as the model stands, content as the
bank has it. Validation and checkpoints between epochs are not timed, and nothing is while the other process has them.

Cases are as in `retrieval.py`, MODEL[:KEY=VALUE,...]; --first and --second are settings that one of the two needs.
The data must be such as both can read: written by the older one.

example: git worktree add /tmp/before d8e0c24
         python benchmarks/revisions.py /tmp/before . id em3:paradigm=frozen em3:paradigm=hybrid --data /tmp/shop
         python benchmarks/revisions.py /tmp/before . bpr lattice --data /tmp/baby --what step epoch evaluation
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import emit, say

ALWAYS = {"train.device": "cpu", "train.epochs": 10**6, "train.patience": 10**6}  # as long as it is asked
WHAT = ("step", "epoch", "evaluation")
PAUSE = 0.002  # seconds in which the threads of the process that was asked last fall asleep


# --------------------------------------------------------------------------------------------- one of the two processes
def loops() -> list[tuple[Any, str]]:
    """The classes that have a method `_step`, and what they call that which they train, of the revision at hand."""
    try:
        from rawrec.training.loop import Loop
    except ModuleNotFoundError:  # when rankers and retrieval models had a loop each
        from rawrec.training.retrieval_trainer import RetrievalTrainer  # pyright: ignore[reportMissingImports]
        from rawrec.training.trainer import Trainer  # pyright: ignore[reportMissingImports]

        return [(Trainer, "system"), (RetrievalTrainer, "system")]
    return [(Loop, "task")]


def evaluate(task: Any) -> None:
    from rawrec.training.evaluate import evaluate_part

    if hasattr(task, "model"):  # a retrieval model
        task.evaluate(1, buckets=False)
    else:
        evaluate_part(task, 1, 0)


def begin_epoch(task: Any, number: int) -> None:
    import torch

    if hasattr(task, "model"):
        task.model.begin_epoch(task.model.draw_epoch(torch.Generator().manual_seed(number)))


def work(checkout: str, model: str, data: str, run: str, settings: dict[str, Any]) -> None:
    """Train, one step whenever a line on standard input asks for it; each answer says what the one before it took."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    import rawrec

    if Path(checkout).resolve() not in Path(rawrec.__file__).resolve().parents:
        raise SystemExit(f"{rawrec.__file__} was imported instead of the rawrec of {checkout}")
    taken: dict[str, float] = {}

    def asked() -> str:
        print(json.dumps(taken), file=answers, flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            raise SystemExit  # the other end is through
        return line

    def timed(jobs: list[Callable[[], None]]) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        for job in jobs:
            job()
        taken.update(wall=time.perf_counter() - wall, cpu=time.process_time() - processor)

    for kind, held in loops():

        def hooked(loop: Any, rows: Any, step: Callable[..., None] = kind._step, held: str = held) -> None:
            task = getattr(loop, held)
            while (what := asked()) == "evaluation":
                timed([lambda: evaluate(task)])
            begun = [lambda: begin_epoch(task, loop.progress.step)] if what == "epoch" else []
            timed([*begun, lambda: step(loop, rows)])

        kind._step = hooked
    rawrec.train(model, data, run, settings, overwrite=True)


# ------------------------------------------------------------------------------------------------------- who asks them
class Revision:
    """A process of one checkout."""

    def __init__(self, checkout: Path, model: str, data: str, run: Path, settings: dict[str, Any]):
        self.checkout = checkout.resolve()
        values = json.dumps([str(self.checkout), model, data, str(run), settings])
        environment = os.environ | {"PYTHONPATH": str(self.checkout / "src")}
        words = [sys.executable, __file__, "--work", values]
        self.process = subprocess.Popen(
            words, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.checkout} stopped, see above")
        return json.loads(line)

    def ask(self, what: str) -> dict[str, float]:
        """Wall and processor seconds of what is asked for."""
        assert self.process.stdin is not None
        time.sleep(PAUSE)
        print(what, file=self.process.stdin, flush=True)
        return self.answer()

    def end(self) -> None:
        """Let it go: it stops where it finds no further question."""
        self.process.communicate()


def median(values: np.ndarray, seed: int = 0, draws: int = 2000) -> list[float]:
    """The median `[turns]` -> itself, and the ends of its 95 % interval by bootstrap."""
    rows = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(np.median(values[rows], 1), [0.025, 0.975])
    return [round(float(value), 4) for value in (np.median(values), low, high)]


def settings_of(words: list[str]) -> dict[str, Any]:
    return {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}


def compare(case: str, args: argparse.Namespace, place: Path) -> None:
    name, _, options = case.partition(":")
    both = ALWAYS | {"train.threads": args.threads} | settings_of([word for word in options.split(",") if word])
    sides: list[Revision] = []
    for number, (checkout, own) in enumerate(((args.before, args.first), (args.after, args.second))):
        sides.append(Revision(checkout, name, args.data, place / str(number), both | settings_of(own)))
        sides[-1].answer()  # one at a time: the second finds the features that the first has made
    found: dict[str, list[list[dict[str, float]]]] = {what: [] for what in args.what}
    for turn in range(args.warmup + args.turns):
        for what in args.what:
            order = (0, 1) if turn % 2 else (1, 0)
            taken = {side: sides[side].ask(what) for side in order}
            found[what].append([taken[0], taken[1]])
    for side in sides:
        side.end()
    for what, turns in found.items():
        values = {key: np.array([[side[key] for side in turn] for turn in turns[args.warmup :]]) for key in turns[0][0]}
        ratios = {f"{key}_ratio": median(pair[:, 1] / pair[:, 0]) for key, pair in values.items()}
        times = {f"{key}_ms": [float(f"{v:.4g}") for v in 1e3 * np.median(p, 0)] for key, p in values.items()}
        emit(case=case, what=what, turns=args.turns, threads=args.threads, **ratios, **times)


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        work(*json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the first checkout, by whose time the other's is divided")
    parser.add_argument("after", type=Path, help="the second")
    parser.add_argument("cases", nargs="+", metavar="MODEL[:KEY=VALUE,...]")
    parser.add_argument("--data", required=True, help="dataset folder that both can read")
    parser.add_argument("--what", nargs="+", choices=WHAT, default=["step"])
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=10, help="turns before them, not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--first", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the first alone")
    parser.add_argument("--second", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the second alone")
    args = parser.parse_args()
    for case in args.cases:
        say(case)
        with tempfile.TemporaryDirectory(prefix="rawrec-revisions-") as place:
            compare(case, args, Path(place))


if __name__ == "__main__":
    main()
