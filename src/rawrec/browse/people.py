"""The users of a run's dataset: what they took before the model was judged, and what came next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rawrec.data.splits import PARTS
from rawrec.errors import UserError
from rawrec.serving.recommender import Recommender

LATEST = 100
"""Items of a history that are shown, the latest."""
LATER = 60


class Taken(NamedTuple):
    """Rows of the interactions by user, those of user u at `ptr[u]:ptr[u + 1]`, in order of time."""

    ptr: NDArray[np.int64]
    rows: NDArray[np.int64]

    def of(self, user: int) -> NDArray[np.int64]:
        return self.rows[self.ptr[user] : self.ptr[user + 1]]


class People:
    """Of the users of `rec`. What is before is the training part of the run's split, with rows that make histories
    only; what came next are the positives of its other parts."""

    def __init__(self, rec: Recommender) -> None:
        self.rec, self.data = rec, rec.people
        cfg = rec.run.config()
        self.split, self.label = cfg.data.split, cfg.data.label

    @cached_property
    def _parts(self) -> NDArray[np.int8]:
        return self.data.retrieval_split(self.split)

    @cached_property
    def _before(self) -> Taken:
        return self._taken(self.data.positive(self.label) & (self._parts == 0))

    @cached_property
    def _met(self) -> Taken:
        return self._taken(self._parts == 0)

    @cached_property
    def _later(self) -> Taken:
        return self._taken(self.data.positive(self.label) & (self._parts > 0))

    def prepare(self) -> None:
        """Read what is then held: a few numbers for each interaction."""
        _ = self._before, self._later
        if self.rec.excluded(None) == "interactions":
            _ = self._met

    def _taken(self, chosen: NDArray[np.bool_]) -> Taken:
        rows = self.data.in_order(chosen & (self.data.items < self.rec.n_items))
        users = self.data.users[rows]
        times = self.data.timestamps
        order = np.argsort(users, kind="stable") if times is None else np.lexsort((times[rows], users))
        ptr = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=self.data.n_users))])
        return Taken(ptr, rows[order])

    def before(self, user: str) -> list[str]:
        """What a user took before the model was judged, oldest first."""
        return self._ids(self._before.of(self._row(user)))

    def met(self, user: str) -> list[str]:
        """The same, whatever the label."""
        return self._ids(self._met.of(self._row(user)))

    def later(self, user: str) -> list[str]:
        """What they took next, once each."""
        return list(dict.fromkeys(self._ids(self._later.of(self._row(user)))))

    def user(self, user: str) -> dict[str, Any]:
        """History and what came next, for the page. UserError for an unknown user."""
        row = self._row(user)
        before, later = self._before.of(row), self._later.of(row)
        return {
            "user": user,
            "history": self._told(before[-LATEST:]),
            "history_count": len(before),
            "later": self._told(later[:LATER], parts=True),
            "later_count": len(later),
        }

    def find(self, find: str, k: int) -> dict[str, Any]:
        """Users whose id has `find` in it, the exact one first; of nothing, some drawn once, those first of whom it is
        known what came next."""
        ids, wanted = self.data.user_ids, find.casefold()
        rows: list[int] = []
        count = len(ids)
        if not find:
            rows = self.drawn(k).tolist()
        else:
            if self.data.has_user(find):
                rows.append(self._row(find))
            hits = [row for row, user in enumerate(ids) if wanted in str(user).casefold()]
            count = len(hits)
            rows += [row for row in hits[: k + 1] if row not in rows]
        return {"users": self.counts([str(ids[row]) for row in rows[:k]]), "count": count}

    def counts(self, users: Sequence[str]) -> list[list[Any]]:
        """Of each user the id, how much they took before, and how much next."""
        rows = self.data.user_rows(users)
        before, later = np.diff(self._before.ptr)[rows].tolist(), np.diff(self._later.ptr)[rows].tolist()
        return [list(one) for one in zip(users, before, later, strict=True)]

    def drawn(self, k: int) -> NDArray[np.int64]:
        """Rows of some users, drawn once: those with a history and something next first."""
        before, later = np.diff(self._before.ptr) > 0, np.diff(self._later.ptr) > 0
        order = np.random.default_rng(0).permutation(self.data.n_users)
        rank = 2 * (before & later)[order] + before[order]
        return order[np.argsort(-rank.astype(np.int64), kind="stable")][:k]

    def _row(self, user: str) -> int:
        if not self.data.has_user(user):
            if self.rec.knows_user(user):
                raise UserError("this user came with the stream: what they took is not in the dataset")
            raise UserError("there is no such user in the dataset")
        return int(self.data.user_rows([user])[0])

    def _ids(self, rows: NDArray[np.int64]) -> list[str]:
        names = self.rec.item_ids
        return [names[item] for item in self.data.items[rows].tolist()]

    def _told(self, rows: NDArray[np.int64], parts: bool = False) -> list[list[Any]]:
        """Item, seconds since 1970 (None: the data have no times), and the part."""
        times = self.data.timestamps
        when = [None] * len(rows) if times is None else times[rows].tolist()
        told = zip(self._ids(rows), when, strict=True)
        if not parts:
            return [[item, time] for item, time in told]
        return [[item, time, PARTS[part]] for (item, time), part in zip(told, self._parts[rows].tolist(), strict=True)]
