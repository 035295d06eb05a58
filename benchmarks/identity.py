"""What training computes, to the bit: `metrics.jsonl` and weights of one small run per model and paradigm, as hashes.

A refactoring changes none of them, or its author says which fault it mended. Record before, compare after:

    python benchmarks/identity.py --work DIR > before.jsonl
    python benchmarks/identity.py --work DIR --against before.jsonl > after.jsonl

Hashes hold on one machine alone: other processors multiply in another order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tiny import RANKER, RETRIEVAL, shop_in

import rawrec
from rawrec.training.runs import RunFolder

TIMES = ("seconds", "samples_per_second", "validation_seconds")
FIELDS = ("image", "text")
PART = re.compile(r"^ranker\.(inputs\.ids|inputs|content|head)\.")
WITH_FEATURES = [
    "vbpr",
    "freedom",
    "em3_freedom",
    "bm3",
    "lattice",
    "mgcn",
    "mmgcl",
    "mmgcn",
    "slmrec",
    "smore",
    "lgmrec",
    "dragon",
]


def trained(how: str) -> dict[str, str]:
    return {f"content.{field}.train": how for field in FIELDS}


def without_content(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if not key.startswith(("content.", "train.precision"))}


RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "id": ("id", without_content(RANKER)),
    "em3-frozen": ("em3", RANKER | {"paradigm": "frozen"}),
    "em3-hybrid": ("em3", RANKER | {"paradigm": "hybrid"}),
    "em3-lora": ("em3", RANKER | trained("lora")),
    "em3-top": ("em3", RANKER | trained("top:1") | {"bank.live_budget": 40}),
    "em3-all": ("em3", RANKER | trained("all") | {"bank.micro_batch": 64}),
    "em3-inputs": ("em3", RANKER | {"paradigm": "hybrid", "model.columns": "all", "model.popularity": True}),
    "em3-accumulated": ("em3", RANKER | trained("top:1") | {"train.accumulate": 3, "bank.history_grad": "none"}),
    "bpr": ("bpr", without_content(RETRIEVAL)),
    "lightgcn": ("lightgcn", without_content(RETRIEVAL)),
    **{name: (name, RETRIEVAL) for name in WITH_FEATURES},
    "vbpr-top": ("vbpr", RETRIEVAL | trained("top:1") | {"paradigm": "end_to_end"}),
    "lattice-lora": ("lattice", RETRIEVAL | trained("lora") | {"paradigm": "end_to_end", "bank.live_budget": 64}),
}


def sha(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def weights_of(file: Path) -> str:
    """Of the tensors in order of their names, so that other metadata in the file's head changes nothing.

    A ranker's names are taken without its parts, as they were before it had any.
    """
    digest = hashlib.sha256()
    named = {PART.sub("ranker.", name): value for name, value in load_file(file).items()}
    for name, value in sorted(named.items()):
        digest.update(f"{name} {list(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def hashes(run: RunFolder) -> dict[str, Any]:
    """Of a finished run, without times."""
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
    return {
        "metrics.jsonl": sha(json.dumps(kept, sort_keys=True).encode()),
        "metrics.json": sha((run.path / "metrics.json").read_bytes()),
        "model": weights_of(run.path / "model.safetensors"),
        "model.safetensors": sha((run.path / "model.safetensors").read_bytes()),
        "loss": [line["loss"] for line in lines],
    }


def record(name: str, shop: Path, work: Path, epochs: int) -> dict[str, Any]:
    """Train one run and hash what came of it."""
    model, settings = RUNS[name]
    run = rawrec.train(model, shop, work / "runs" / name, settings | {"train.epochs": epochs}, overwrite=True)
    return {"run": name, **hashes(run)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the shop and the runs; kept")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=RUNS, help="some of the runs")
    parser.add_argument("--against", type=Path, help="what another revision printed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = {}
    if args.against:
        before = {line["run"]: line for line in map(json.loads, args.against.read_text().splitlines())}
    shop = shop_in(args.work)
    differing = 0
    for name in args.only or RUNS:
        found = record(name, shop, args.work, args.epochs)
        print(json.dumps(found), flush=True)
        if name in before:
            other = [key for key, value in before[name].items() if found.get(key) != value]
            differing += bool(other)
            print(f"{name}: {'differs in ' + ', '.join(other) if other else 'the same'}", file=sys.stderr, flush=True)
    shutil.rmtree(args.work / "runs", ignore_errors=True)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
