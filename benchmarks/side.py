"""A network beside frozen encoders against encoders that are trained: time, memory and score, on one dataset.

An arm is a value of `content.image.train` and `content.text.train`, with `+recompute` after it where layers are
computed again in the backward pass. Each of its runs is a process of its own, in which all that lies below what learns
is in the cache already (the seconds for that are printed as `encode`). Every arm is trained with every rate of
`--rates`, and speaks by the one with the best validation score. Printed: a line per run with seconds per epoch
(training alone), the best score and the seconds of training `after` which it was there, the peak of memory, of it what
came on top of the loaded model (`over`), and on a GPU the peak of what was allocated there; then a line with the ratios
of the first arm to every other, and both scores (validation, `train.metric`: AUC of rankers).

With `--seeds n` the chosen rate of every arm is trained with n seeds. `score` and `score_against` are the means then,
`score_noise` is twice the standard error of their difference, and `equal` says whether the arm is no worse than that.

Asked: side at least 20 times as fast and with a tenth of the memory, as was published of another such network, at equal
score within noise.

example: python benchmarks/side.py --arms all side:4 --epochs 8 30 --items 300 --impressions 4000 --rates 1e-4 1e-3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from common import emit, folder, say, seconds

import rawrec
from rawrec.config import parse_overrides, resolve
from rawrec.data.dataset import Dataset
from rawrec.sources.synthetic import import_synthetic
from rawrec.training.job import task_of

FASTER, SMALLER = 20, 10
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["all", "side:4"], help="the first one is held against the others")
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-4, 1e-3], help="values of train.encoder_lr")
    parser.add_argument(
        "--seeds", type=int, default=1, help="of the chosen rate; from 2 on the noise of scores is known"
    )
    parser.add_argument("--model", default="em3")
    parser.add_argument("--epochs", nargs="+", type=int, default=[2], help="of all arms, or of each")
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--impressions", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder for the dataset, kept (default: a temporary one)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", help="settings of all runs, key=value")
    args = parser.parse_args()
    if args.child:
        child(json.loads(args.child))
        return
    with folder(args.data) as place:
        data = place / f"shop-{args.items}-{args.impressions}"
        if not data.is_dir():
            say(f"generating {data}")
            import_synthetic(data, items=args.items, users=100, impressions=args.impressions, progress=False)
        epochs = args.epochs * (len(args.arms) if len(args.epochs) == 1 else 1)
        best = {arm: best_of(arm, n, args, data, place) for arm, n in zip(args.arms, epochs, strict=True)}
    first, *others = args.arms
    for arm in others:
        emit(**compared(first, best[first], arm, best[arm]))


def best_of(arm: str, epochs: int, args: argparse.Namespace, data: Path, place: Path) -> dict[str, Any]:
    """The run of an arm whose rate validates best, and the scores of all its seeds."""
    train, _, more = arm.partition("+")
    own = {f"content.{kind}.train": train for kind in ("image", "text")}
    if more:
        own |= {f"content.{kind}.{more}": True for kind in ("image", "text")}
    fixed = {"paradigm": "end_to_end", "train.threads": args.threads, "train.epochs": epochs}
    fixed |= {"train.patience": epochs, "eval.bootstrap": 0} | own | parse_overrides(args.settings)
    asked = {"model": args.model, "data": str(data), "settings": fixed}
    encode = run_child(asked | {"out": None})["encode"]

    def trained(rate: float, seed: int) -> dict[str, Any]:
        out = place / f"run-{arm.replace(':', '-')}-{rate:g}-{seed}"
        own = {"train.encoder_lr": rate, "seed": seed}
        found = run_child(asked | {"out": str(out), "settings": fixed | own})
        run = {"arm": arm, "rate": rate, "seed": seed, "encode": encode, **found}
        emit(**run)
        return run

    best = max((trained(rate, 0) for rate in args.rates), key=lambda run: run["score"])
    others = [trained(best["rate"], seed) for seed in range(1, args.seeds)]
    return best | {"scores": [run["score"] for run in (best, *others)]}


def compared(name: str, base: dict[str, Any], arm: str, run: dict[str, Any]) -> dict[str, Any]:
    memory = "cuda_mib" if "cuda_mib" in base else "over_mib"
    faster, smaller = base["epoch"] / run["epoch"], base[memory] / run[memory]
    line = {"arm": arm, "against": name, "faster": faster, "smaller": smaller, "memory": memory}
    score, against = statistics.fmean(run["scores"]), statistics.fmean(base["scores"])
    noise = noise_of(run["scores"], base["scores"])
    equal = None if noise is None else score - against >= -noise
    line |= {"score": score, "score_against": against, "score_gain": score - against}
    line |= {"score_noise": noise, "equal": equal, "seeds": len(run["scores"])}
    if arm.startswith("side:"):
        met = faster >= FASTER and smaller >= SMALLER and equal is not False
        line |= {"asked_faster": FASTER, "asked_smaller": SMALLER, "met": met}
    return line


def noise_of(*scores: list[float]) -> float | None:
    """Twice the standard error of the difference of two means; None of single runs."""
    if min(map(len, scores)) < 2:
        return None
    return 2 * sum(statistics.variance(each) / len(each) for each in scores) ** 0.5


def run_child(asked: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", json.dumps(asked)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# -------------------------------------------------------------------------------------------------------------- a child
def child(asked: dict[str, Any]) -> None:
    """Fill the cache, or train; what was measured goes to standard output."""
    cfg, data = resolve(asked["model"], asked["settings"]), Dataset.open(asked["data"])
    torch.set_num_threads(cfg.train.threads or 1)
    if asked["out"] is None:
        print(json.dumps({"encode": seconds(lambda: task_of(cfg)(cfg, data, data.path / "cache"))}))
        return
    memory: dict[str, float] = {}

    def observe(event: str, **values: Any) -> None:
        """The peak of the first epoch's steps, before anything is validated or written."""
        if "over" in memory:
            return
        if event == "epoch":
            memory["loaded"] = resident()
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
        elif event == "step":
            memory["peak"] = resident("VmHWM")
            if torch.cuda.is_available():
                memory["cuda"] = torch.cuda.max_memory_allocated() / MIB
        elif event == "validated":
            memory["over"] = memory["peak"] - memory["loaded"]

    run = rawrec.train(asked["model"], data, asked["out"], asked["settings"], observer=observe, overwrite=True)
    lines = run.metrics_lines()
    scores, times = [line[f"valid/{cfg.train.metric}"] for line in lines], [line["seconds"] for line in lines]
    found = {
        "epoch": min(times),
        "score": max(scores),
        "after": sum(times[: scores.index(max(scores)) + 1]),
        "peak_mib": memory["peak"],
        "over_mib": memory["over"],
    }
    if "cuda" in memory:
        found["cuda_mib"] = memory["cuda"]
    print(json.dumps(found))


def resident(which: str = "VmRSS") -> float:
    """Memory of this process in MiB, as the kernel counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


if __name__ == "__main__":
    main()
