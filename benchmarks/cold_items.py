"""Items that training never saw, in lists of retrieval models: eval.untrained_ids and model.id_dropout.

    python benchmarks/cold_items.py --data data/ml --split new0 --model vbpr -- train.epochs=40

Trains one model per seed and judges its validation lists after every epoch with the same weights under each value of
eval.untrained_ids. Each is reported at its own best epoch by recall@20. The test part is never read. A JSON line each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from rawrec.config.resolution import parse_overrides
from rawrec.data.dataset import Dataset
from rawrec.threads import computing
from rawrec.training.configuring import configure
from rawrec.training.loop import Loop
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.base import Result
from rawrec.training.tasks.pairs import PairTask

FILLINGS = ("as_is", "zero", "mean")
K = 20


class Judged(PairTask):
    """A task whose validation is done under each value of eval.untrained_ids; that of the settings is followed."""

    def prepare(self) -> None:
        self.found: dict[str, list[dict[str, Any]]] = {filling: [] for filling in FILLINGS}

    def validate(self, step: int) -> Result:
        usual, result = self.cfg.untrained_ids, Result()
        untaught = self.model.untaught.cpu().numpy()
        for filling in FILLINGS:
            self.cfg.eval.untrained_ids = filling
            lists = self.lists(self.tasks[1], max(self.cfg.eval.topk))
            judged = self.judge(1, lists)
            top = lists.items[:, :K]
            share = float(np.isin(top[top >= 0], untaught).mean())
            names = (f"recall@{K}", f"cold/recall@{K}", f"warm/recall@{K}")
            self.found[filling].append({name: judged.metrics[name] for name in names} | {"untrained_in_lists": share})
            if filling == usual:
                result = self._result(judged)
        self.cfg.eval.untrained_ids = usual
        return result


def measure(data: Dataset, model: str, overrides: dict[str, Any], cache: Path) -> dict[str, Any]:
    cfg = configure(model, data, overrides)
    with tempfile.TemporaryDirectory() as folder, computing(cfg.train.threads):
        task = Judged(cfg, data, cache)
        task.prepare()
        Loop(task, RunFolder.create(Path(folder) / "run", cfg, data, overwrite=False)).train()
    best: dict[str, Any] = {}
    for filling, epochs in task.found.items():
        at = max(range(len(epochs)), key=lambda epoch: epochs[epoch][f"recall@{K}"])
        best[filling] = {"epoch": at + 1, **{name: value and round(value, 4) for name, value in epochs[at].items()}}
    return {"epochs": len(task.found["zero"]), "untrained_items": len(task.model.untaught), **best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="default")
    parser.add_argument("--model", default="vbpr")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    data, own = Dataset.open(args.data), parse_overrides(args.overrides)
    fixed = {"data.split": args.split, "train.patience": 10**6}
    found = measure(data, args.model, fixed | own, Path(args.data) / "cache")
    print(json.dumps({"model": args.model, "split": args.split, "overrides": args.overrides, **found}), flush=True)


if __name__ == "__main__":
    main()
