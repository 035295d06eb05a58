"""All weights against LoRA (EM3 eq. 9) on projections and fusion: trained parameters, memory, time of a step.

The hybrid em3 on two ready-made features of random items, so that nothing but projections, fusion and ranker is
computed and histories are live; batches of samples whose history is full at the longest length, the same for all. Every
case has a process of its own, and all take turns, round after round; a step's time is the least of the rounds' medians
of processor seconds. Memory is the largest resident one during the steps, less what was there before the first of them.

example: python benchmarks/lora.py --histories 20 50 --dim 256 --rank 8 --steps 20
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from common import emit
from scale import Shop
from steps import batches

from rawrec.config import resolve
from rawrec.data.dataset import Dataset, Fields
from rawrec.memory import begin_peak, peak_mb
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.impressions import ImpressionTask


def trainer(case: str, history: int, args: argparse.Namespace, folder: Path) -> Loop[ImpressionTask]:
    """A trainer in the phase `case`, full or lora, before its first step."""
    shop = Shop(args.items, positive_only=False, width=args.width)
    shop.fields = Fields(feature={"image": args.width, "text": args.width})
    settings: dict[str, Any] = {
        "paradigm": "hybrid",
        "content.dim": args.dim,
        "content.lora.handover": "epoch:1",
        "content.lora.rank": args.rank,
        "content.lora.stop_gradient": args.stop_gradient,
        "data.history": history,
        "train.batch_size": args.batch,
        "train.device": args.device,
    }
    cfg = resolve("em3", settings)
    run = RunFolder(folder / "run")
    run.path.mkdir()
    loop = Loop(ImpressionTask(cfg, cast(Dataset, shop), folder), run)
    loop.task.begin()
    if case == "lora":
        loop._hand_over()
    return loop


def measure(case: str, history: int, args: argparse.Namespace) -> dict[str, Any]:
    """One case: a step's median seconds, its memory, and how many parameters of projections and fusion it trains."""
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        loop = trainer(case, history, args, Path(folder))
        samples = loop.task.samples
        rows = samples.rows(0)
        users, times = loop.task.data.users[rows], None if samples.times is None else samples.times[rows]
        past = samples.train_histories.ends(users, times) - samples.train_histories.ptr[users]
        rows = rows[past >= max(args.histories)]
        taken = []
        device = loop.task.device
        begin_peak(device)
        before = peak_mb(device) or 0.0
        for batch in batches(rows, args.batch, args.warmup + args.steps):
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = time.process_time() if device.type == "cpu" else time.perf_counter()
            loop._step(batch)
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append((time.process_time() if device.type == "cpu" else time.perf_counter()) - started)
        return {
            "case": case,
            "history": history,
            "parameters": loop.task.phase()["lora/parameters"],
            "memory_mb": (peak_mb(device) or 0.0) - before,
            "step_ms": 1e3 * float(np.median(taken[args.warmup :])),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--dim", type=int, default=256, help="width of content")
    parser.add_argument("--width", type=int, default=384, help="of each ready-made feature")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--stop-gradient", type=lambda word: word == "true", default=True, help="true or false")
    parser.add_argument("--items", type=int, default=30000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="steps timed per case")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    parser.add_argument("--rounds", type=int, default=2, help="turns of all cases")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        case, history = args.one.split(":")
        emit(**measure(case, int(history), args))
        return
    cases = [(case, history) for case in ("full", "lora") for history in args.histories]
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for turn in range(args.rounds):
        for case, history in cases:
            words = [sys.executable, __file__, *sys.argv[1:], "--one", f"{case}:{history}"]
            line = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
            emit(round=turn + 1, dim=args.dim, rank=args.rank, batch=args.batch, **line)
            best = found.setdefault((case, history), line)
            found[case, history] = {
                key: min(best[key], value) if key != "case" else case for key, value in line.items()
            }
    begun = found["full", args.histories[0]]
    for case, history in cases:
        own = found[case, history]
        ratios = {key: own[key] / begun[key] if begun[key] else None for key in ("parameters", "memory_mb", "step_ms")}
        emit(figure=f"{case} at {history} / full at {args.histories[0]}", **ratios)


if __name__ == "__main__":
    main()
