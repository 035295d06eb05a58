"""What users took in the dataset, as a stream asks for it: histories begin with it, drawn negatives leave it out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from rawrec.data.dataset import Dataset
from rawrec.data.sampling import Samples


class Taken:
    """users, items: the rows of ids, those of the dataset and others."""

    def __init__(
        self, data: Dataset, samples: Samples, seed: int, users: Mapping[str, int], items: Mapping[str, int]
    ) -> None:
        self._data, self._samples, self._seed, self._users, self._items = data, samples, seed, users, items
        self._own: dict[str, tuple[list[float], list[str]]] = {}

    def before(self, user: str, time: float) -> list[tuple[float, str]]:
        """The latest positives of a user in the dataset with a smaller time (all, where it has none), oldest first."""
        times, items = self.of(user)
        end = bisect_left(times, time)
        part = slice(max(end - self._samples.history, 0), end)
        return list(zip(times[part], items[part], strict=True))

    def of(self, user: str) -> tuple[list[float], list[str]]:
        """Times and items of a user's positives in the dataset, in order of time; kept once they were asked for."""
        found = self._own.get(user)
        if found is None:
            row, names, times = self._users.get(user), self._data.item_ids, self._data.timestamps
            own = np.zeros(0, np.int64)
            if row is not None and row < self._data.n_users:
                rows, ptr = self._rows
                own = rows[ptr[row] : ptr[row + 1]]
            when = [0.0] * len(own) if times is None else [float(time) for time in times[own].tolist()]
            found = self._own[user] = when, [str(names[item]) for item in self._data.items[own].tolist()]
        return found

    def pairs(self, user: str) -> set[tuple[float, str]]:
        """Times and items of all positives of a user in the dataset."""
        return set(zip(*self.of(user), strict=True))

    def drawn(self, user: str, item: str, number: int) -> list[str]:
        """Negatives beside a positive of data that have no labels: items with a training row that the user has not
        taken in the dataset, drawn by the seed and the number of the row; fewer where there are not enough."""
        wanted, row = self._samples.n_negatives, self._users.get(user, -1)
        taken = {self._items.get(item, -1)}
        if 0 <= row < self._data.n_users:
            rows, ptr = self._rows
            taken |= set(self._data.items[rows[ptr[row] : ptr[row + 1]]].tolist())
        rng = np.random.default_rng([self._seed, 6007, number])
        found = rng.choice(len(self._pool), min(wanted + len(taken), len(self._pool)), replace=False)
        return [str(self._data.item_ids[at]) for at in self._pool[found] if at not in taken][:wanted]

    @cached_property
    def _pool(self) -> np.ndarray:
        return np.flatnonzero(self._samples.train_counts)

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the dataset's positives by user, in order of time, and where each user's begin."""
        rows = np.flatnonzero(self._samples.positive & (self._samples.part >= 0) | self._samples.history_only)
        of, times = self._data.users[rows], self._data.timestamps
        rows = rows[np.lexsort((times[rows], of)) if times is not None else np.argsort(of, kind="stable")]
        ptr = np.concatenate([[0], np.cumsum(np.bincount(self._data.users[rows], minlength=self._data.n_users))])
        return rows, ptr
