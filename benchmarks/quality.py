"""How well each way of using content ranks, on one dataset, over several seeds.

Arms: `id` (ids alone), and `em3` frozen, hybrid and end to end, or any other named with --arm. All share the settings
given as key=value, less those that do nothing in it; an arm adds its own. The best epoch is chosen by validation; test
is read once per run. With --runs, a finished run of the same settings is read, not trained again. Printed: a
JSON line per run, per arm the mean and deviation over seeds, and per pair of arms the difference of test AUC
it, all items and cold ones, with a 95 % interval of the users drawn with replacement (scores averaged over seeds); on
generated data also by the known chances of a click in place of the clicks drawn from them ("by": "chances").

With --splits, each arm is trained on each of these stored splits, such as the folds of held-out items, and differences
are means over them.

example: python benchmarks/quality.py --data data/ml --seeds 0 1 2 model.columns=all model.popularity=true train.lr=1e-3
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import rawrec
from rawrec import Dataset
from rawrec.config import parse_overrides
from rawrec.evaluation.significance import Metric, paired_bootstrap_of_folds
from rawrec.training.runs import RunFolder

ARMS = {
    "id": ("id", ""),
    "frozen": ("em3", "paradigm=frozen"),
    "hybrid": ("em3", "paradigm=hybrid"),
    "end_to_end": ("em3", "paradigm=end_to_end"),
}
SHOWN = ("auc", "gauc", "cold/auc", "rare/auc", "medium/auc", "warm/auc", "share", "cold/share")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="dataset folder")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--arm", action="append", default=[], metavar="NAME:PRESET:KEY=VALUE,...", help="a further arm")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--splits", nargs="+", help="stored splits, in place of data.split")
    parser.add_argument("--runs", help="folder for the runs, kept (default: a temporary one)")
    parser.add_argument("overrides", nargs="*", help="settings of all arms, key=value")
    args = parser.parse_args()
    arms = {name: (ARMS[name][0], ARMS[name][1].split()) for name in args.arms}
    for text in args.arm:
        name, preset, settings = text.split(":", 2)
        arms[name] = (preset, [part for part in settings.split(",") if part])
    dataset = rawrec.Dataset.open(args.data)
    splits = args.splits or [parse_overrides(args.overrides).get("data.split", "default")]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(args.runs or scratch)
        frames: dict[str, list[list[pl.DataFrame]]] = {}  # arm -> of each split, of each seed
        for name, arm in arms.items():
            frames[name], lines = [], []
            for split in splits:
                place = root / split if args.splits else root
                results = [_run(place, name, arm, split, seed, args) for seed in args.seeds]
                frames[name].append([frame for frame, _ in results])
                lines += [line for _, line in results]
            table = pl.DataFrame(lines)
            spread = {key: [_round(table[key].mean()), _round(table[key].std())] for key in table.columns}  # type: ignore
            settings = parse_overrides(args.overrides) | parse_overrides(arm[1])
            line = {"arm": name, "runs": len(lines), "settings": settings, "mean_and_deviation": spread}
            print(json.dumps(line), flush=True)
        for base, name in combinations(frames, 2):
            _compare(dataset, splits, name, frames[name], base, frames[base])


def _run(
    root: Path, name: str, arm: tuple[str, list[str]], split: str, seed: int, args: argparse.Namespace
) -> tuple[pl.DataFrame, dict]:
    preset, own = arm
    paradigm = next((word.partition("=")[2] for word in own if word.startswith("paradigm=")), "end_to_end")
    idle = () if paradigm == "end_to_end" else ("bank.live_budget", "train.encoder_lr")
    idle += ("content.fusion",) if paradigm == "frozen" else ()
    idle += ("content.", "bank.", "train.encoder_lr") if preset == "id" else ()
    shared = [word for word in args.overrides if not word.startswith(idle)]
    overrides: dict[str, Any] = {**parse_overrides(shared), **parse_overrides(own), "seed": seed}
    if args.splits:
        overrides["data.split"] = split
    path, asked = root / f"{name}-{seed}", {"preset": preset, "data": args.data, "overrides": overrides}
    note = root / f"{name}-{seed}.json"  # what the run beside it was asked for; written when it is finished
    if note.is_file() and json.loads(note.read_text()) == asked:
        run = RunFolder.open(path)
    else:
        run = rawrec.train(preset, args.data, path, overrides, overwrite=True)
        note.write_text(json.dumps(asked))
    metrics = json.loads((run.path / "metrics.json").read_text())
    line = {f"{part}/{key}": _round(metrics[part].get(key)) for part in ("valid", "test") for key in SHOWN}
    line = {key: value for key, value in line.items() if value is not None}
    info = run.info()
    print(
        json.dumps({"arm": name, "split": split, "seed": seed, "seconds": round(info["seconds"]), **line}), flush=True
    )
    return pl.read_parquet(run.path / "scores.parquet").filter(pl.col("split") == 2), line


def _compare(
    dataset: Dataset,
    splits: list[str],
    name: str,
    ours: list[list[pl.DataFrame]],
    base: str,
    theirs: list[list[pl.DataFrame]],
) -> None:
    """Print the differences of two arms; ours, theirs: the scores of every split and seed."""
    groups: dict[tuple[str, str, Metric], list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]] = {}
    for split, our, their in zip(splits, ours, theirs, strict=True):
        rows, items = our[0]["row"].to_numpy(), our[0]["item"].to_numpy()
        if not all(np.array_equal(rows, frame["row"].to_numpy()) for frame in [*our, *their]):
            print(json.dumps({"arm": name, "against": base, "difference": None, "why": "negatives differ by seed"}))
            return
        a, b = (np.mean([frame["score"].to_numpy() for frame in frames], 0) for frames in (our, their))
        counts = np.bincount(dataset.items[dataset.split(split) == 0], minlength=dataset.n_items)
        users, labels = our[0]["user"].to_numpy(), our[0]["label"].to_numpy()
        kinds: dict[str, tuple[Metric, np.ndarray]] = {"clicks": ("auc", labels)}
        if dataset.meta.generated:
            kinds["chances"] = ("expected_auc", dataset.column("probability")[rows])
        for part, mask in {"all": np.ones(len(rows), bool), "cold": counts[items] == 0}.items():
            for by, (metric, truth) in kinds.items() if len(np.unique(labels[mask])) == 2 else ():
                groups.setdefault((part, by, metric), []).append((users[mask], truth[mask], a[mask], b[mask]))
    for (part, by, metric), folds in groups.items():
        found = paired_bootstrap_of_folds(folds, metric)
        interval = [_round(found.low), _round(found.high)]
        line = {"arm": name, "against": base, "items": part, "by": by, "splits": len(folds)}
        print(json.dumps({**line, "auc_gain": _round(found.value), "interval": interval}), flush=True)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


if __name__ == "__main__":
    main()
