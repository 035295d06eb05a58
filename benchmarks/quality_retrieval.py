"""How well retrieval models rank on one dataset: mean and deviation over seeds.

Each arm is a preset, or NAME=PRESET:KEY=VALUE,... with settings of its own; all share those given after `--`. The best
epoch is chosen by validation; test is read once per run. Printed: a JSON line per run, and one per arm.

example: python benchmarks/quality_retrieval.py --data data/baby bpr lightgcn \\
             "freedom=freedom:model.item_graph=graph.npz,model.reg_weight=0" -- eval.protocol=mmrec
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from common import emit

import rawrec
from rawrec.config import parse_overrides

SHOWN = ("recall@10", "recall@20", "ndcg@10", "ndcg@20", "cold/recall@20")


def main() -> None:
    arguments, shared = _parted(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="+", metavar="PRESET or NAME=PRESET:KEY=VALUE,...")
    parser.add_argument("--data", required=True, help="dataset folder")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", help="folder for the runs, kept (default: a temporary one)")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(args.runs or scratch)
        for arm in args.arms:
            head, _, options = arm.partition(":")
            name, _, preset = head.rpartition("=")
            words = [*shared, *(word for word in options.split(",") if word)]
            runs = [_run(root, name or preset, preset, words, seed, args.data) for seed in args.seeds]
            spread = {
                key: [round(statistics.mean(values), 4), round(statistics.stdev(values), 4) if values[1:] else None]
                for key in runs[0]
                if (values := [run[key] for run in runs])
            }
            emit(arm=name or preset, seeds=len(runs), settings=words, mean_and_deviation=spread)


def _parted(words: list[str]) -> tuple[list[str], list[str]]:
    """What stands before `--` and what after it."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def _run(root: Path, name: str, preset: str, words: list[str], seed: int, data: str) -> dict[str, float]:
    run = rawrec.train(preset, data, root / f"{name}-{seed}", {**parse_overrides(words), "seed": seed}, overwrite=True)
    metrics, info = json.loads((run.path / "metrics.json").read_text()), run.info()
    result = {
        f"{part}/{key}": round(metrics[part][key], 4)
        for part in ("valid", "test")
        for key in SHOWN
        if metrics[part].get(key) is not None
    }
    epochs = len(run.metrics_lines())
    emit(arm=name, seed=seed, best_epoch=info["best_epoch"], epochs=epochs, seconds=round(info["seconds"]), **result)
    return {**result, "best_epoch": info["best_epoch"], "seconds": info["seconds"]}


if __name__ == "__main__":
    main()
