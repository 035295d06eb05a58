"""A published version of a run that goes on online, in use: it knows the users and items that have come since."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rawrec.arguments import IDS
from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Histories
from rawrec.errors import UserError
from rawrec.models.ranking.context import Moments
from rawrec.serving.filters import Columns
from rawrec.serving.recommender import Recommender
from rawrec.serving.served import Catalogue
from rawrec.stream.online import load_version
from rawrec.stream.versions import FOLDER, Version
from rawrec.training.runs import RunFolder
from rawrec.training.tasks.step_impressions import ContentTable
from rawrec.training.tasks.stream import StreamTask


def holds_versions(path: Path) -> bool:
    """Whether a folder is one of published versions, and no run."""
    return (path / FOLDER).is_dir() and not (path / "run.json").exists()


class Published(Recommender):
    """The `Recommender` of a version (`rawrec online RUN --publish DIR`). Items that came with the stream are in its
    catalogue, those that went are hidden. Users are asked for with what they took in the dataset and in the stream, as
    far as the version holds it; those who came with the stream have an id of their own once they were admitted.

    Pictures and words of items that came are not in a version, only what the model makes of them: `similar` by image or
    text does not know them.

    >>> rec = Published.of("published")
    >>> rec.recommend("u1", k=10)
    """

    about: Version

    @classmethod
    def of(cls, out: str | Path, version: str | None = None, data: Dataset | str | Path | None = None) -> Published:
        """The version that is served, or one by its name. data: where the dataset is now, if it has moved. Raises
        UserError where it, or the run that it goes on from, is not there, damaged, or another one."""
        about, task = load_version(out, version, data)
        made = cls(task, RunFolder.open(about.folder))
        made.about = about
        return made

    def __init__(self, system: StreamTask, run: RunFolder):
        self._stream = system
        self._users = dict(system.users)  # with those that have a history and no id
        first = system.data.n_users + len(system.newcomers)
        self._users |= {user: first + n for n, user in enumerate(u for u in system.heard if u not in system.users)}
        self._names = {row: user for user, row in self._users.items()}
        super().__init__(system, run)
        ids = list(system.items)
        columns = Columns(self.data).extended(self._values_of(ids[self.data.n_items :]))
        table = self._table
        self._catalogue = Catalogue(
            ids, system.items, None if table is None else self._fitting(table, len(ids)), columns
        )
        self.hide([item for item in sorted(system.gone) if item in self])

    def _values_of(self, ids: list[str]) -> list[dict[str, Any]]:
        """Categories and numbers of items that came, by which lists are filtered; what cannot be one is left out."""
        columns, found = Columns(self.data), list[dict[str, Any]]()
        for item in ids:
            good: dict[str, Any] = {}
            for name, value in self._stream.facts.get(item, {}).items():
                try:
                    good |= columns.values_of({name: value}, item)
                except UserError:
                    continue
            found.append(good)
        return found

    def _fitting(self, table: ContentTable, count: int) -> ContentTable:
        """The rows of items: tables of a stream have room for more. No features of items that came are known."""
        item_model, more = self.system.item_model, count - self.data.n_items
        widths = {} if item_model is None else item_model.widths
        none = {name: (torch.zeros(more, width), torch.zeros(more, dtype=torch.bool)) for name, width in widths.items()}
        return ContentTable(table.values[:count], table.valid[:count], self._stream.ranker.inputs.columns, none)

    # ----------------------------------------------------------------------------------------------------- who is asked
    def knows_user(self, user: str) -> bool:
        return user in self._users

    def heard(self, user: str) -> list[str]:
        """What a user took in the stream, as far as the version holds it, oldest first."""
        return [item for _, item in self._stream.heard.get(user, ())]

    def _read_people(self, data: Dataset, positive: np.ndarray) -> None:
        super()._read_people(data, positive)
        users, items, times, taken = self._heard(data)
        chosen = data.in_order(positive & self._met_rows)
        before = None if data.timestamps is None else data.timestamps[chosen].astype(np.float64)
        when = None if before is None else np.concatenate([before, times[taken]])
        self._past = self._joined(data.users[chosen], data.items[chosen], users[taken], items[taken], when)
        self._made["met"] = self._joined(data.users[self._met_rows], data.items[self._met_rows], users, items, None)

    def _joined(
        self, users: np.ndarray, items: np.ndarray, more: np.ndarray, their: np.ndarray, times: np.ndarray | None
    ) -> Histories:
        return Histories(np.concatenate([users, more]), np.concatenate([items, their]), times, self._n_users)

    @property
    def _n_users(self) -> int:
        return max(self._users.values(), default=-1) + 1

    def _heard(self, data: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Users, items and times of what was taken in the stream, and which of that the dataset does not hold, too."""
        rows = [
            (self._users[user], row, time, (time, item) not in self._stream.taken.pairs(user))
            for user, events in self._stream.heard.items()
            for time, item in events
            if (row := self._stream.items.get(item)) is not None
        ]
        users, items, times, new = zip(*rows, strict=True) if rows else ((), (), (), ())
        return np.array(users, np.int64), np.array(items, np.int64), np.array(times, np.float64), np.array(new, bool)

    def _user_rows(self, users: Sequence[str]) -> np.ndarray:
        IDS.check("users", users)
        return np.array([self._known_user(user) for user in users], np.int64)

    def _known_user(self, user: str) -> int:
        row = self._users.get(str(user))
        return super()._known_user(user) if row is None else row

    def _user_names(self, users: np.ndarray) -> Sequence[str]:
        return [self._names[row] for row in users.tolist()]

    def _known_to_model(self, users: np.ndarray) -> np.ndarray:
        return np.where(users < self.data.n_users + len(self._stream.newcomers), users, -1)

    # ----------------------------------------------------------------------------------------------------------- scores
    def _score_all(
        self,
        moments: Moments,
        past: np.ndarray,
        label: int = 0,
        only: Tensor | None = None,
        table: ContentTable | None = None,
    ) -> Tensor:
        if only is None and self._table is None:  # a model on ids alone, of which some came later
            only = torch.arange(self.n_items)
        return super()._score_all(moments, past, label, only, table)

    def save(self, out: str | Path) -> Path:
        raise UserError(
            "a version never changes, and the next one holds what was added: append `item` events to the log"
        )

    def restore(self, kept: str | Path) -> None:
        raise UserError(f"{kept} is good for the weights of its run alone, not for a version that went on from them")

    def fingerprint(self) -> str:
        return f"{self.about.name}-{self.about.sum}"
