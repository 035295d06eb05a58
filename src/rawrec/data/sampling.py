"""What a model sees of the interactions: histories without leaks, negatives, and the order of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rawrec.data.dataset import Dataset

Ints = np.ndarray
TIMELESS = ("random_user",)  # split kinds under which "earlier" says nothing: history = training rows minus the target


class Histories:
    """The positives of each user in order of time, and for any moment the ones strictly before it.

    users, items: int `[n]`, the positive interactions that may be read. times: int64 `[n]`, or None for data without
    time (or split at random): then a history is all of the user's positives but the target item.
    """

    def __init__(self, users: Ints, items: Ints, times: Ints | None, n_users: int):
        order = np.lexsort((times, users)) if times is not None else np.argsort(users, kind="stable")
        self.items = items[order].astype(np.int64)
        self.ptr = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=n_users))]).astype(np.int64)
        self.timeless = times is None
        if times is not None:
            self._ticks = np.unique(times)
            self._keys = users[order].astype(np.int64) * (len(self._ticks) + 1) + np.searchsorted(
                self._ticks, times[order]
            )

    def ends(self, users: Ints, times: Ints | None) -> Ints:
        """For each query the end of its history in `items`: positives with strictly smaller time, or all of them."""
        if self.timeless or times is None:
            return self.ptr[users + 1]
        keys = users.astype(np.int64) * (len(self._ticks) + 1) + np.searchsorted(self._ticks, times)
        return np.maximum(np.searchsorted(self._keys, keys), self.ptr[users])

    def read(self, users: Ints, targets: Ints | None, times: Ints | None, length: int) -> Ints:
        """The last `length` items of each history, `[n, length]` int64, oldest first, padded with -1 at the front.

        targets: `[n]` items left out of their own histories where the data have no time; None: nothing to leave out.
        """
        extra = int(self.timeless and targets is not None)
        ends = self.ends(users, times)
        index = ends[:, None] + np.arange(-length - extra, 0)
        inside = index >= self.ptr[users][:, None]
        rows = np.where(inside, self.items[np.where(inside, index, 0)] if len(self.items) else 0, -1)
        if extra and targets is not None:
            hit = rows == targets[:, None]
            rows[hit] = -1
            rows = np.take_along_axis(rows, np.argsort(rows >= 0, axis=1, kind="stable"), 1)[:, 1:]
        return rows


@dataclass
class Impressions:
    """Samples of one part: `rows` of the dataset's interactions, `[n]`, each with `1 + negatives` candidates."""

    rows: Ints
    users: Ints
    items: Ints  # [n, candidates]
    labels: Ints  # [n, candidates] float32
    times: Ints | None


class Negatives:
    """Uniform negatives among the items launched by the time of the positive, never a known positive of the user.

    An item is launched at its `launched` time, else at its first interaction. known: interactions to keep clear of.
    """

    def __init__(self, data: Dataset, known: Ints, times: Ints | None):
        self.n_items = data.n_items
        self._known = np.unique(data.users[known].astype(np.int64) * self.n_items + data.items[known])
        launched = data.launched
        if launched is None and times is not None:
            launched = np.full(self.n_items, np.iinfo(np.int64).max)
            np.minimum.at(launched, data.items, times)
        self._order = np.arange(self.n_items) if launched is None else np.argsort(launched, kind="stable")
        self._launched = None if launched is None or times is None else launched[self._order]

    def draw(self, users: Ints, times: Ints | None, n: int, rng: np.random.Generator) -> Ints:
        """`[len(users), n]` item rows. A draw that hits a known positive is repeated, at most ten times."""
        limit = np.full(len(users), self.n_items)
        if self._launched is not None and times is not None:
            limit = np.maximum(np.searchsorted(self._launched, times, side="right"), 1)
        drawn = self._order[rng.integers(0, limit[:, None], (len(users), n))]
        for _ in range(10):
            clash = self._is_known(users, drawn)
            if not clash.any():
                break
            owner, _ = np.nonzero(clash)
            drawn[clash] = self._order[rng.integers(0, limit[owner])]
        return drawn

    def _is_known(self, users: Ints, items: Ints) -> Ints:
        keys = users[:, None].astype(np.int64) * self.n_items + items
        at = np.searchsorted(self._known, keys)
        return (
            self._known[np.minimum(at, len(self._known) - 1)] == keys if len(self._known) else np.zeros_like(keys, bool)
        )


class Samples:
    """Training and evaluation samples of a dataset under one split and one label."""

    def __init__(self, data: Dataset, split: str, label: str, history: int, history_mode: str, negatives: int):
        self.data, self.history = data, history
        self.part = data.split(split)
        self.labels = data.label(label)
        self.positive_only = data.positive_only
        self.n_negatives = negatives if self.positive_only else 0
        kind = data.meta.splits[split].get("kind", "column")
        self.times = None if kind in TIMELESS else data.timestamps
        positive = self.labels > 0
        self.history_only = data.history_rows(split)
        train = self.part == 0
        self.train_counts = np.bincount(data.items[train], minlength=data.n_items)
        self.train_users = np.bincount(data.users[train], minlength=data.n_users)
        self.train_histories = self._histories(positive & (train | self.history_only))
        rolling = history_mode == "rolling" and self.times is not None
        self.eval_histories = self._histories(positive) if rolling else self.train_histories
        self._train_negatives = Negatives(data, np.flatnonzero(train), self.times) if self.positive_only else None
        self._eval_negatives = (
            Negatives(data, np.arange(data.n_interactions), self.times) if self.positive_only else None
        )

    def _histories(self, mask: Ints) -> Histories:
        times = None if self.times is None else self.times[mask]
        return Histories(self.data.users[mask], self.data.items[mask], times, self.data.n_users)

    def rows(self, part: int) -> Ints:
        """Rows of the interactions in a part (0 train, 1 valid, 2 test)."""
        return np.flatnonzero(self.part == part)

    def impressions(self, rows: Ints, part: int, rng: np.random.Generator) -> Impressions:
        """The samples of `rows`; negatives are drawn where the data hold positives only."""
        users, items, labels = self.data.users[rows], self.data.items[rows][:, None], self.labels[rows][:, None]
        times = None if self.times is None else self.times[rows]
        sampler = self._train_negatives if part == 0 else self._eval_negatives
        if sampler is not None:
            drawn = sampler.draw(users, times, self.n_negatives, rng)
            items = np.concatenate([items, drawn], 1)
            labels = np.concatenate([labels, np.zeros_like(drawn, np.float32)], 1)
        return Impressions(rows, users.astype(np.int64), items.astype(np.int64), labels, times)

    def histories(self, batch: Impressions, part: int) -> Ints:
        """`[n, history]` item rows of the users' earlier positives, -1 = padding."""
        source = self.train_histories if part == 0 else self.eval_histories
        return source.read(batch.users, batch.items[:, 0], batch.times, self.history)

    def order(self, seed: int, epoch: int) -> Ints:
        """The training rows in the order of an epoch: a function of seed and epoch alone."""
        return np.random.default_rng([seed, epoch]).permutation(self.rows(0))
