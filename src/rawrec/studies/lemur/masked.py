"""Runs that learned from pictures and texts, evaluated with one kind of field left out.

Weights, ranker and impressions are the run's own; what its transformer is given of an item, candidate or in a history,
lacks the tokens of the other kind. An item that has nothing else has no content then.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from rawrec.content.bank import Bank
from rawrec.content.encoders import JointEncoder
from rawrec.content.encoders.joint_rows import Item, pack, unpack
from rawrec.data.dataset import Dataset
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError
from rawrec.files import write_table
from rawrec.studies.lemur.arms import Arms
from rawrec.studies.running import Standing
from rawrec.training.evaluate import evaluate_part
from rawrec.training.job import load_task
from rawrec.training.runs import RunFolder
from rawrec.training.state import write_json
from rawrec.training.tasks.base import PARTS
from rawrec.training.tasks.impressions import ImpressionTask

AT_ONCE = 4096  # items
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
    being read. UserError for a run whose content is not made by a joint transformer of both."""
    task = load_task(RunFolder.open(run), data)
    assert isinstance(task, ImpressionTask)
    model, bank = task.item_model, task.bank
    encoders = {} if model is None else dict(model.raw_encoders())
    if model is None or bank is None or len(encoders) != 1:
        raise UserError(f"{run.name}: its content is not of one encoder")
    ((name, encoder),) = encoders.items()
    if not isinstance(encoder, JointEncoder) or not encoder.lower_is_identity:
        raise UserError(f"{run.name}: only a joint transformer that learned as a whole is read in part")
    column = model.column(name)
    stored = bank.static[column]
    assert isinstance(stored, Ragged)
    kept = {column: only(stored, encoder, kind)}
    task.bank = Bank(data.n_items, model.dim, kept, {one: model.widths[one] for one in model.trained}, task.device)
    task.refresh(None, 1)
    metrics, _, scores = evaluate_part(task, PARTS["test"], task.cfg.seed)
    write_table(scores.to_arrow(), folder / "scores.parquet")
    write_json(folder / "metrics.json", metrics)


def only(column: Ragged, encoder: JointEncoder, kind: str) -> Ragged:
    """A static column with the tokens of fields of `kind` alone; no rows for an item without any."""
    parts = [
        _only(column.select(rows), 1 if encoder.pieces is None else encoder.pieces.count, kind)
        for rows in torch.arange(len(column)).split(AT_ONCE)
    ]
    return Ragged.cat(parts)


def _only(rows: Ragged, count: int, kind: str) -> Ragged:
    words, kinds, pieces = unpack(rows, count)
    is_word = words.values[:, 1] > 0  # [cls] is of no field
    owners = words.owners()
    if kind == "text":
        there = torch.zeros(len(rows), dtype=torch.bool).index_fill(0, owners[is_word], True)
        kinds, pieces = Ragged(kinds.values[:0], torch.zeros_like(kinds.ptr)), pieces[:0]
        keep = there[owners]
    else:
        there = kinds.lengths > 0
        keep = ~is_word & there[owners]
    lengths = torch.zeros(len(rows), dtype=torch.int64).index_add(0, owners[keep], torch.ones_like(owners[keep]))
    return pack(Item(Ragged.from_lengths(words.values[keep], lengths), kinds, pieces))
