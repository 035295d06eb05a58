"""From a fresh clone to the demo's last line, as somebody does who has just found the project.

Measured: `git clone` of what is committed into an empty folder, `make install` (set-up) and `make demo` there: wall
time of each, seconds of training (all runs, from the file run.json of each) and the largest resident memory of any
process of the demo.

Asked: all in under 6 minutes, training in under 2, memory under 3 GB.

`--busy 2` runs `make demo` once more in the same clone, with two busy loops on every core beside it. Asked then: at
most 4 times the time that it took alone, where its fair share of a core is a third.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from common import busy, cores, emit, folder, say, seconds

MINUTES, TRAINING_MINUTES, GIGABYTES, TIMES = 6.0, 2.0, 3.0, 4.0
EXAMPLE = "example: python benchmarks/demo.py --work /tmp/fresh"


def peak_gb() -> float:
    """Largest resident memory of any process that has ended and was waited for, so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repo", default=str(Path(__file__).resolve().parent.parent), help="what to clone")
    parser.add_argument("--work", type=Path, help="empty folder for the clone, kept (default: a temporary one)")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the new environment")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="once more beside N busy loops per core")
    args = parser.parse_args()
    with folder(args.work) as place:
        clone = place / "clone"
        if clone.exists():
            raise SystemExit(f"{clone} exists: give an empty folder with --work")
        set_here = ("PYTHONPATH", "VIRTUAL_ENV")
        environment = {
            k: v for k, v in os.environ.items() if k not in set_here and not k.startswith(("OMP_", "GOMP_", "KMP_"))
        }

        def run(*command: str, cwd: Path | None = None) -> float:
            say(" ".join(command))
            return seconds(lambda: subprocess.run(command, cwd=cwd, env=environment, stdout=sys.stderr, check=True))

        cloning = run("git", "clone", "--quiet", args.repo, str(clone))
        setting_up = run("make", "install", f"PYTHON={args.python}", cwd=clone)
        memory_before = peak_gb()
        demo = run("make", "demo", f"PYTHON={args.python}", cwd=clone)
        runs = sorted((clone / "runs").glob("*/run.json"))
        training = {path.parent.name: json.loads(path.read_text())["seconds"] for path in runs}
        memory, total = peak_gb(), cloning + setting_up + demo
        crowded = 0.0
        if args.busy:
            with busy(args.busy):
                crowded = run("make", "demo", f"PYTHON={args.python}", cwd=clone)
    emit(clone_s=cloning, set_up_s=setting_up, demo_s=demo, set_up_memory_gb=memory_before, cpus=cores())
    emit(training_s={name: round(value, 1) for name, value in training.items()})
    figures = [
        ("minutes in all", total / 60, MINUTES),
        ("minutes of training", sum(training.values()) / 60, TRAINING_MINUTES),
        ("GB of memory at most", memory, GIGABYTES),
    ]
    if args.busy:
        emit(busy_loops_per_core=args.busy, demo_alone_s=demo, demo_crowded_s=crowded)
        figures.append(("times as slow among busy loops", crowded / demo, TIMES))
    for name, value, asked in figures:
        emit(figure=name, value=value, asked=asked, met=value <= asked)


if __name__ == "__main__":
    main()
