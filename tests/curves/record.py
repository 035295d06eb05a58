"""The loss curve of a tiny seeded run of every model and preset, stored beside this file as `<name>.json`.

    python tests/curves/record.py                 # all of them anew
    python tests/curves/record.py freedom em3     # these
    python tests/curves/record.py --check         # compare, write nothing

`test_curves.py` compares what the code computes now. Who changes numbers on purpose records anew, and the difference of
these files says what changed.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "benchmarks"))

import tiny  # noqa: E402
import torch  # noqa: E402

import rawrec  # noqa: E402
from rawrec.config import presets  # noqa: E402
from rawrec.config.models import model_names  # noqa: E402

LOSSES = 1e-3
"""Relative tolerance of losses and of the log loss. Measured: torch without AVX and with AVX2 alone are within 3e-5."""
METRICS = 0.02
"""Absolute tolerance of all other metrics; within 0.004, there."""
LOOSER = {"lattice": (5e-3, 0.1)}
"""Both, where rounding decides what is near: LATTICE searches neighbours anew in each epoch, among pictures that random
encoders make nearly the same (8e-4 and 0.056, there)."""
SIZES = {"items": 60, "users": 40, "impressions": 2000}
METRICS_KEPT = ("auc", "gauc", "logloss", "recall@5", "recall@20", "ndcg@20", "coverage@5")
SHARED = {"train.epochs": 3, "train.lr": 0.01, "seed": 1}
WANTED = {
    "ranking": tiny.RANKER | SHARED | {"model.width": 16},
    "retrieval": tiny.RETRIEVAL | SHARED | {"train.batch_size": 100},
}
ASKS = {"lemur": {"content.item.encoder": "joint:tiny"}}
"""Models that read what users ask, with what stands there in the place of encoders of single fields."""


def names() -> list[str]:
    """Every preset and every model."""
    return sorted({*presets(), *model_names()})


def curve(name: str, work: Path) -> dict[str, Any]:
    """Losses and metrics of each epoch, and metrics of the test part. work: a folder for data and runs."""
    wanted = WANTED[tiny.kind_of(name)]
    if name in ASKS:
        wanted = {key: value for key, value in wanted.items() if not key.startswith(tiny.CONTENT)} | ASKS[name]
    data = tiny.shop_in(work, "searches" if name in ASKS else "shop", **SIZES, queries=name in ASKS)
    run = rawrec.train(name, data, work / "runs" / name, tiny.settings_of(name, wanted), overwrite=True)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {"epochs": [kept(line) for line in lines]}
    return found | {"test": kept(json.loads((run.path / "metrics.json").read_text())["test"])}


def kept(line: dict[str, Any]) -> dict[str, float]:
    """Losses and their parts, and metrics of all items."""
    parts = {key: value for key, value in line.items() if key.split("/")[0] == "loss"}
    metrics = {key: value for key, value in line.items() if key.removeprefix("valid/") in METRICS_KEPT}
    return {key: float(f"{value:.6g}") for key, value in (parts | metrics).items()}


def differences(name: str, stored: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """A line for each number that is not the stored one: `freedom, epoch 3: loss 0.6931, stored 0.7012`."""
    told = []
    pairs = [(f"epoch {at + 1}", *both) for at, both in enumerate(zip(stored["epochs"], found["epochs"], strict=False))]
    if len(stored["epochs"]) != len(found["epochs"]):
        told.append(f"{name}: {len(found['epochs'])} epochs, stored {len(stored['epochs'])}")
    for where, before, after in [*pairs, ("test", stored["test"], found["test"])]:
        for key in dict.fromkeys((*before, *after)):
            old, new = before.get(key), after.get(key)
            if old is None or new is None or not close(name, key, old, new):
                told.append(f"{name}, {where}: {key} {shown(new)}, stored {shown(old)}")
    return told


def close(name: str, key: str, old: float, new: float) -> bool:
    losses, metrics = LOOSER.get(name, (LOSSES, METRICS))
    if "loss" in key:
        return math.isclose(old, new, rel_tol=losses)
    return abs(old - new) <= metrics


def shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def read(name: str) -> dict[str, Any]:
    return json.loads((HERE / f"{name}.json").read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="presets or models; all where none is given")
    parser.add_argument("--check", action="store_true", help="compare with what is stored")
    args = parser.parse_args()
    if unknown := sorted({*args.names} - {*names()}):
        parser.error(f"no preset or model: {', '.join(unknown)}. There are {', '.join(names())}")
    torch.set_num_threads(1)
    told = []
    with tempfile.TemporaryDirectory(prefix="rawrec-curves-") as work:
        for name in args.names or names():
            found = curve(name, Path(work))
            if args.check:
                told += differences(name, read(name), found)
            else:
                (HERE / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(told) if told else "no difference" if args.check else "recorded")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
