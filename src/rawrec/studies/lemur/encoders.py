"""Encoders that runs of a first stage trained, for those of a second."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from rawrec.data.dataset import Dataset
from rawrec.serving.recommender import Recommender


def first_stage_encoders(data: Dataset, runs: Sequence[Path], out: Path) -> list[Path]:
    """The folders in `out` of what each run trained, made where they are missing."""
    made = []
    for run in runs:
        folder = out / run.name
        if not (folder / "config.json").is_file():  # which is written last
            shutil.rmtree(folder, ignore_errors=True)
            Recommender.load(run, data, "cpu").export_encoder(folder)
        made.append(folder)
    return made
