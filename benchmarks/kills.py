"""Exact resume: every small run of `identity.py`, killed at random moments and resumed, ends as one that was not.

    python benchmarks/kills.py --work DIR [--kills 2] [--only NAME ...]

Prints a JSON line per run: how often it was killed and where it stood, and whether its hashes are the same.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml
from common import emit
from identity import RUNS, hashes, shop_in

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.training import state as checkpoint
from rawrec.training.configuring import configure
from rawrec.training.runs import RunFolder


def process(words: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rawrec.cli", *words]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=quiet, stderr=subprocess.PIPE)


def standing(run: Path) -> int:
    """The step of the last checkpoint; 0 before the first."""
    last = run / "checkpoint" / "last.safetensors"
    return checkpoint.load(last)[1]["progress"]["step"] if last.is_file() else 0


def killed(settings: Path, shop: Path, run: Path, kills: int, draw: random.Random) -> list[int]:
    """Train a run that is killed so often, and resume it to its end; the steps at which it stood."""
    words, steps = ["train", str(settings), "--data", str(shop), "--out", str(run)], []
    while len(steps) < kills:
        child, before = process(words), standing(run)
        while child.poll() is None and standing(run) == before:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        if child.wait() != -signal.SIGKILL:
            break  # it was faster
        steps.append(standing(run))
        words = ["resume", str(run)]
    child = process(words)
    _, said = child.communicate()
    assert child.returncode == 0, said.decode()
    return steps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the shop and the runs; kept")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=RUNS)
    args = parser.parse_args()
    shop, draw, wrong = shop_in(args.work), random.Random(args.seed), 0
    for name in args.only or RUNS:
        model, given = RUNS[name]
        overrides = given | {"train.checkpoint_every": 3, "train.checkpoint_share": 1, "train.batch_size": 200}
        cfg = configure(model, Dataset.open(shop), overrides)
        file = args.work / f"{name}.yaml"
        file.write_text(yaml.safe_dump(cfg.dump()))
        whole = rawrec.train(file, shop, args.work / "runs" / name, overwrite=True)
        run = args.work / "runs" / f"{name}-killed-{args.seed}"
        steps = killed(file, shop, run, args.kills, draw)
        same = hashes(whole) == hashes(RunFolder.open(run))
        wrong += not same
        emit(run=name, killed=len(steps), stood=steps, same=same)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
