"""`train.init`: a new run begins with the weights of another one, of the same model.

What is of one user or item goes by original ids, what is of one category by its word. Of what the other run did not
know, a ranker reads the row of unknown ids, and everything else stays as it begins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rawrec.config import Config
from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.models.ranking.columns import Buckets, Categories, Reader, item_columns, user_columns
from rawrec.models.ranking.context import ContextReader
from rawrec.models.ranking.ranker import present_name
from rawrec.training import state as checkpoint
from rawrec.training.runs import RunFolder, not_finished
from rawrec.training.tasks.impressions import ImpressionTask
from rawrec.training.tasks.pairs import PairTask
from rawrec.training.tasks.step_impressions import samples_of

IDS = {"user": "users", "item": "items", "user_bias": "users", "item_bias": "items"}
"""Of `ranker.inputs.ids.<name>.weight`: whose rows it has, after that of unknown ids."""


def warm_start(task: ImpressionTask | PairTask, run: RunFolder) -> str:
    """Give a task that has made no step the weights of the run `train.init`; `run.json` says which (`init`).

    Returns what the user is told. Raises UserError where that run is of another model or of other sizes, is not
    finished, or is not what it was when this run began.
    """
    cfg = task.cfg
    assert cfg.train.init is not None
    other = _opened(cfg.train.init)
    theirs = other.config()
    tensors, _ = checkpoint.load(other.path / "model.safetensors")  # also: is its end where its head says?
    digest = _digest(other.path / "model.safetensors")
    begun = run.info().get("init")
    if begun is not None and begun["digest"] != digest:
        raise UserError(
            f"train.init={other.path}: its weights have changed since {run.path} was begun with them: train again"
        )
    if theirs.label != cfg.label:
        raise UserError(f"train.init={other.path} is a run of {theirs.label}, this one is of {cfg.label}")
    same = other.info()["dataset_fingerprint"] == task.data.fingerprint()
    data = task.data if same else other.dataset()
    renamed = present_name if isinstance(task, ImpressionTask) else str
    saved = {renamed(name): value for name, value in tensors.items() if not name.startswith("bank.")}
    own = {name: value.clone() for name, value in task.state().items()}
    begin = _names_that_begin(own, saved, other.path)
    rows = _Rows(task.data, data)
    places = _of_ranker(task, theirs, data, rows) if isinstance(task, ImpressionTask) else {}
    for name in sorted(own.keys() & saved.keys()):
        if isinstance(task, PairTask) and (
            name.startswith(task.model.of_the_epoch) or not own[name].is_floating_point()
        ):
            continue
        source = places.get(name)
        if source is None and isinstance(task, PairTask) and not name.startswith("encoder."):
            source = rows.guess(name, own[name], saved[name])
        own[name] = _filled(name, own[name], saved[name], source, other.path)
    task.load_state(own)
    task.begun_with_other_weights()
    known = {of: rows.known(of) for of in ("users", "items")}
    run.write_info(init={"run": str(other.path), "digest": digest, **known})
    return _told(other, task, rows, begin)


def _opened(path: str | Path) -> RunFolder:
    try:
        other = RunFolder.open(path)
    except UserError as error:
        raise UserError(f"train.init: {error}") from None
    if not other.info()["finished"]:
        raise UserError(f"train.init: {other.path} {not_finished(other.path)}")
    return other


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names_that_begin(own: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> list[str]:
    """Names of what stays as it begins, as the other run did not train it: layers of encoders. UserError for others."""
    only = sorted(name for name in own.keys() - saved.keys() if not name.startswith("encoder."))
    more = sorted(saved.keys() - own.keys())
    if only or more:
        what = f"it has no {only[0]}" if only else f"it has {more[0]}, and this run has no such part"
        raise UserError(
            f"train.init={path} has other parts than this run: {what}; give the same model and content settings"
        )
    return sorted(own.keys() - saved.keys())


def _filled(name: str, own: Tensor, saved: Tensor, source: np.ndarray | None, path: Path) -> Tensor:
    """`saved`, or where rows are of something the rows that `source` names, -1 = as it begins."""
    if source is None:
        if own.shape != saved.shape:
            raise UserError(
                f"train.init={path}: {name} is {list(saved.shape)} there and {list(own.shape)} here; give the same "
                "settings"
            )
        return saved.to(own)
    if own.shape[1:] != saved.shape[1:]:
        raise UserError(
            f"train.init={path}: {name} has rows of {list(saved.shape[1:])} there and of {list(own.shape[1:])} here; "
            "give the same settings"
        )
    at = torch.from_numpy(source)
    there = at >= 0
    own[there.to(own.device)] = saved[at[there]].to(own)
    return own


class _Rows:
    """Of the users and items of a dataset, their rows in another one, -1 = not there."""

    def __init__(self, data: Dataset, other: Dataset):
        same = data is other
        self.sizes = {"users": (data.n_users, other.n_users), "items": (data.n_items, other.n_items)}
        self.of = {
            "users": np.arange(data.n_users) if same else matched(data.user_ids, other.user_ids),
            "items": np.arange(data.n_items) if same else matched(data.item_ids, other.item_ids),
        }
        self.of["both"] = np.concatenate(
            [self.of["users"], np.where(self.of["items"] >= 0, self.of["items"] + other.n_users, -1)]
        )
        self.sizes["both"] = (data.n_users + data.n_items, other.n_users + other.n_items)

    def known(self, what: str) -> int:
        """How many of ours the other one has."""
        return int((self.of[what] >= 0).sum())

    def guess(self, name: str, own: Tensor, saved: Tensor) -> np.ndarray | None:
        """Where the rows of a retrieval model's tensor are those of users, items, or both one after the other: by their
        number in both datasets, and where that could be either by the name."""
        if not own.ndim or not saved.ndim:
            return None
        fitting = [what for what, sizes in self.sizes.items() if sizes == (len(own), len(saved))]
        if len(fitting) > 1:
            named = [what for what in fitting if what[:-1] in name or f"{what[0]}_" in name]
            fitting = named if len(named) == 1 else fitting
        sources = [self.of[what] for what in fitting]
        if len(sources) > 1 and any((source != sources[0]).any() for source in sources):
            raise UserError(
                f"train.init: whether {name} is of users or of items cannot be told: there are equally many of both"
            )
        return sources[0] if sources else None


def matched(ids: Sequence[Any] | np.ndarray, others: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Of each of `ids` its place among `others`, -1 = it is not there."""
    place = {one: row for row, one in enumerate(others)}
    return np.fromiter((place.get(one, -1) for one in ids), np.int64, len(ids))


def _of_ranker(task: ImpressionTask, cfg: Config, data: Dataset, rows: _Rows) -> dict[str, np.ndarray]:
    """Of tables by ids, and by categories, the rows of the other run's that ours begin with."""
    found = {
        f"ranker.inputs.ids.{name}.weight": np.concatenate([[0], np.where(rows.of[of] >= 0, rows.of[of] + 1, 0)])
        for name, of in IDS.items()
    }
    mine = _readers(task.cfg, task.data)
    theirs = mine if data is task.data and cfg.data == task.cfg.data else _readers(cfg, data)
    for name, reader in mine.items():
        if (other := theirs.get(name)) is not None and type(other) is type(reader):
            found[name] = _codes(reader, other)
    return found


def _readers(cfg: Config, data: Dataset) -> dict[str, Reader]:
    """What gives the rows of a ranker's tables of categories their meaning, by the names of the tables."""
    model, samples = cfg.model, samples_of(cfg, data)
    columns = item_columns(data, samples, model)
    users = user_columns(data, samples, model)
    context = ContextReader(data, samples, model, columns, cfg.data.history_mode == "rolling")
    found = {f"ranker.inputs.bags.{name}.weight": reader for name, reader in columns.readers.items()}
    of_users = users.readers if users is not None else {}
    found |= {f"ranker.inputs.user_columns.bags.{name}.weight": reader for name, reader in of_users.items()}
    return found | {f"ranker.inputs.context.tables.{name}.weight": reader for name, reader in context.readers.items()}


def _codes(reader: Reader, other: Reader) -> np.ndarray:
    """Of each code of a reader that of another one, -1 = none."""
    if isinstance(reader, Buckets) and isinstance(other, Buckets):
        lowest = np.append(reader.edges[:1] - 1, reader.edges) if len(reader.edges) else np.zeros(1)
        return np.concatenate([[0], other(lowest), [other.missing]])
    if not isinstance(reader, Categories) or not isinstance(other, Categories):
        return np.zeros(0, np.int64)
    if reader.hashed or other.hashed:
        same = reader.hashed == other.hashed and reader.missing == other.missing
        return np.arange(reader.size) if same else np.full(reader.size, -1)
    found = np.full(reader.size, -1)
    there = dict(zip(other.words, other.codes.tolist(), strict=True))
    for word, code in zip(reader.words, reader.codes.tolist(), strict=True):
        if code and there.get(word):
            found[code] = there[word]
    found[0] = 0
    if reader.missing is not None and other.missing is not None:
        found[reader.missing] = other.missing
    return found


def _told(other: RunFolder, task: ImpressionTask | PairTask, rows: _Rows, begin: Sequence[str]) -> str:
    counts = [f"{rows.known(of):,} of {rows.sizes[of][0]:,} {of} are known there" for of in ("users", "items")]
    text = f"begins with the weights of {other.path}: {', '.join(counts)}"
    if begin:
        fields = dict.fromkeys(name.split(".")[1] for name in begin)
        text += f"; it trained no such layers of the encoders of {', '.join(fields)}, which begin as they are"
    return text
