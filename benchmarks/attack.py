"""The attack: strangers' folders, damage, kills, full disks, odd environments, addresses, misuse, as counted tries.

    python benchmarks/attack.py --work DIR [--tries 10000] [--seed 0] [--kinds NAME ...] [--seconds LIMIT]

Prints a JSON line per fault (kind, number of the try, what was wrong) and, at the end, one per kind: tries, faults,
seconds. A try is a function of seed, kind and number: `--only KIND:NUMBER` does it again and keeps its folder. What was
done stands in DIR/tries.jsonl, and the same command goes on behind it.

A fault is a traceback that reaches the user, a hang, a file outside of what was named that is touched, other numbers
without a word, a half-written file, a left-over that the next command does not remove.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / "tests" / name) for name in ("", "training", "serving", "sources"))]
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

from common import emit, folder, say  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder to work in; kept")
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", metavar="NAME")
    parser.add_argument("--seconds", type=float, help="stop after so many")
    parser.add_argument("--only", metavar="KIND:NUMBER", help="one try again")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    os.fsync = lambda handle: None  # nobody cuts the power
    from attacks.engine import Attack, load
    from attacks.kinds import KINDS

    unknown = set(args.kinds or ()) - KINDS.keys()
    if unknown:
        parser.error(f"no kinds: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    load()
    with folder(args.work) as work:
        attack = Attack(work.resolve(), args.seed)
        if args.only:
            name, _, number = args.only.rpartition(":")
            return 1 if attack.again(KINDS[name], int(number)) else 0
        chosen = [KINDS[name] for name in args.kinds or KINDS]
        whole = sum(kind.share for kind in chosen)
        wanted = {kind.name: max(1, round(args.tries * kind.share / whole)) for kind in chosen}
        done, faults, spent = Counter[str](), Counter[str](), defaultdict[str, float](float)
        log = work / "tries.jsonl"
        for line in log.read_text().splitlines() if log.is_file() else ():
            one = json.loads(line)
            if one["seed"] == args.seed and one["kind"] in wanted and one["try"] < wanted[one["kind"]]:
                done[one["kind"]] += 1
                faults[one["kind"]] += one["fault"] is not None
                spent[one["kind"]] += one["seconds"]
        until = time.monotonic() + (args.seconds or 10**9)
        with log.open("a") as file:
            for kind, start, stop in turns(wanted, done):
                for number, fault, seconds in attack.tries(KINDS[kind], range(start, stop), until):
                    record = {"seed": args.seed, "kind": kind, "try": number, "fault": fault, "seconds": seconds}
                    file.write(json.dumps(record) + "\n")
                    file.flush()
                    done[kind] += 1
                    spent[kind] += seconds
                    if fault is not None:
                        faults[kind] += 1
                        emit(kind=kind, number=number, fault=fault)
                if time.monotonic() > until:
                    say("stopped: the time is over; the same command goes on")
                    break
        for kind in wanted:
            emit(kind=kind, tries=done[kind], faults=faults[kind], seconds=float(spent[kind]))
        emit(kind="all", tries=done.total(), faults=faults.total(), seconds=float(sum(spent.values())))
    return 1 if faults.total() else 0


def turns(wanted: dict[str, int], done: Counter[str]) -> list[tuple[str, int, int]]:
    """(kind, first, end) of tries that are left, kinds by turns, so that whenever it is stopped each had its share."""
    rounds = 10 if sum(wanted.values()) >= 1000 else 1
    parts = []
    for number in range(rounds):
        for kind, count in wanted.items():
            start, stop = count * number // rounds, count * (number + 1) // rounds
            parts.append((kind, max(start, done[kind]), stop))
    return [part for part in parts if part[1] < part[2]]


if __name__ == "__main__":
    sys.exit(main())
