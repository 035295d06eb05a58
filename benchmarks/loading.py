"""Processor time of `Recommender.load` in a fresh Python, with all that it imports, and of the first list.

A generated shop of `--items` items, a run of each model for one epoch; each is loaded by processes of its own, by
turns, and the least of their times counts, in which other processes of the machine do not. `again`: a second load in
the same process. `torch`: to load that alone. Asked: 2 s for 400 items.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import emit, folder, say

ASKED = 2.0
EXAMPLE = "example: python benchmarks/loading.py --items 400 --rounds 3"
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "bpr": ("bpr", {}),
    "id": ("id", {}),
    "freedom": ("freedom", {}),
    "em3, frozen": ("em3", {"paradigm": "frozen"}),
    "em3, end to end": ("em3", {}),
}
LOAD = """
import json, sys, time
import rawrec
begun = time.process_time()
rec = rawrec.Recommender.load(sys.argv[1], device="cpu")
loaded = time.process_time()
rec.recommend(user="u1", k=10)
listed = time.process_time()
rawrec.Recommender.load(sys.argv[1], device="cpu")
heavy = [name for name in ("transformers", "peft", "pandas", "scipy", "polars") if name in sys.modules]
print(json.dumps({"load_s": loaded, "first_list_s": listed - loaded, "again_s": time.process_time() - listed,
                  "heavy": heavy}))
"""
TORCH = "import time, torch; print(time.process_time())"


def fresh(code: str, *words: str) -> str:
    return subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=RUNS, default=list(RUNS), help="some of the runs")
    parser.add_argument("--data", type=Path, help="folder for the shop and the runs, kept (default: a temporary one)")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of all runs that read content")
    args = parser.parse_args()
    with folder(args.data) as place:
        runs = {name: made(place, name, args) for name in args.only}
        torch = min(float(fresh(TORCH)) for _ in range(args.rounds))
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
        for _ in range(args.rounds):
            for name, run in runs.items():
                found[name].append(json.loads(fresh(LOAD, str(run))))
        for name, rounds in found.items():
            least = {key: min(one[key] for one in rounds) for key in ("load_s", "first_list_s", "again_s")}
            least["torch_s"] = torch
            met = least["load_s"] <= ASKED
            emit(model=name, items=args.items, **least, heavy=rounds[0]["heavy"], asked=ASKED, met=met)


def made(place: Path, name: str, args: argparse.Namespace) -> Path:
    """A run, trained where it is not there yet."""
    import rawrec
    from rawrec.config import parse_overrides
    from rawrec.sources.synthetic import import_synthetic

    run = place / f"{args.items}-{name.replace(', ', '-').replace(' ', '-')}"
    if not (run / "run.json").is_file():
        shop = place / f"shop-{args.items}"
        if not shop.is_dir():
            import_synthetic(shop, items=args.items, users=300, impressions=20 * args.items, progress=False)
        say(f"training {name}")
        model, own = RUNS[name]
        content = parse_overrides(args.settings) if model not in ("bpr", "id") else {}
        quick = {"train.epochs": 1, "train.threads": 1, "eval.full_ranking": False} if model in ("id", "em3") else {}
        rawrec.train(model, shop, run, {"train.epochs": 1, "train.threads": 1} | quick | own | content)
    return run


if __name__ == "__main__":
    main()
