"""A published version of a run that goes on online, in use: it knows the users and items that have come since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rawrec.data.dataset import Dataset
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
    catalogue, those that went are hidden. A user that came with it has an id of their own, and no history here.

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
        return user in self._stream.users

    def history(self, user: str, met: bool = False) -> list[str]:
        return [] if self._known_user(user) >= self.people.n_users else super().history(user, met)

    def _known_user(self, user: str) -> int:
        row = self._stream.users.get(str(user))
        return super()._known_user(user) if row is None else row

    def _known_to_model(self, users: np.ndarray) -> np.ndarray:
        return users

    def _histories(self, users: np.ndarray) -> np.ndarray:
        found = np.full((len(users), self.system.samples.history), -1, np.int64)
        old = users < self.people.n_users
        found[old] = super()._histories(users[old])
        return found

    def _left_out(self, users: np.ndarray, exclude: Any) -> tuple[np.ndarray, np.ndarray]:
        if (users < self.people.n_users).all():
            return super()._left_out(users, exclude)
        return np.zeros(len(users) + 1, np.int64), np.zeros(0, np.int64)  # one user, who came with the stream

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
        return self.about.files["model.safetensors"]
