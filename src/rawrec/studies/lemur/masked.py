"""Runs that learned from pictures and texts, evaluated with one kind of field left out: see `training/masking.py`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.files import write_table
from rawrec.studies.lemur.arms import Arms
from rawrec.studies.running import Standing
from rawrec.training.evaluate import evaluate_part
from rawrec.training.loading import load_task
from rawrec.training.masking import KINDS, masked
from rawrec.training.runs import RunFolder
from rawrec.training.state import write_json
from rawrec.training.tasks.base import PARTS
from rawrec.training.tasks.impressions import ImpressionTask

FOLDER = "read"


def read_in_part(
    arms: Arms, standings: Mapping[str, Standing], observe: Callable[..., None]
) -> dict[str, list[Path] | str]:
    """Of every arm that is read in part, by key, a folder with metrics and scores for each seed; or why there are none.
    They are made where they are missing."""
    found: dict[str, list[Path] | str] = {}
    for arm in arms.arms():
        if arm.read is None or arm.key in found:
            continue
        standing = standings[arm.trained]
        if standing.state != "finished":
            found[arm.key] = standing.reason or f"the runs that it reads are {standing.state}"
            continue
        try:
            folders = []
            for run in standing.runs:
                folder = arms.out / FOLDER / f"{run.name}-{arm.read}"
                if not (folder / "metrics.json").is_file():  # which is written last
                    observe("note", text=f"{arm.label}: evaluating {run.name}")
                    shutil.rmtree(folder, ignore_errors=True)
                    folder.mkdir(parents=True)
                    evaluate_in_part(run, arms.data, arm.read, folder)
                folders.append(folder)
            found[arm.key] = folders
        except UserError as error:
            found[arm.key] = str(error)
    return found


def evaluate_in_part(run: Path, data: Dataset, kind: str, folder: Path) -> None:
    """Write `scores.parquet` and `metrics.json` of the test part into `folder`, fields of `kind` (text, image) alone
    being read. UserError for a run whose content is not made of both."""
    task = load_task(RunFolder.open(run), data)
    assert isinstance(task, ImpressionTask)
    with masked(task, [other for other in KINDS if other != kind]):
        metrics, _, scores = evaluate_part(task, PARTS["test"], task.cfg.seed)
    write_table(scores.to_arrow(), folder / "scores.parquet")
    write_json(folder / "metrics.json", metrics)
