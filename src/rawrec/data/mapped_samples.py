"""What a model sees of interactions that are memory-mapped: the samples of `sampling.py`, made some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from rawrec.data.flat import Array, spans
from rawrec.data.labels import conversions
from rawrec.data.mapped import MappedDataset
from rawrec.data.negatives import Negatives
from rawrec.data.sampling import TIMELESS, Histories, Samples

Chosen = Callable[[slice], Array]


class MappedHistories(Histories):
    """Histories whose items and times are mapped; the end of one is looked for among its user's rows alone.

    chosen: bool of a span of rows, which of them histories are made of; key: everything that this depends on.
    """

    def __init__(self, data: MappedDataset, key: str, chosen: Chosen, timeless: bool, events: bool):
        times = data.timestamps is not None
        kinds: dict[str, Any] = {"items": np.int32}
        kinds |= {"times": np.int64} if times and not timeless else {}
        kinds |= {"rows": np.int64} if events else {}

        def made() -> Iterator[dict[str, Array]]:
            for found in data.by_user(chosen):
                parts = [found["part"]] if "part" in (found.dtype.names or ()) else []
                order = np.lexsort((*parts, found["time"], found["user"])) if times else slice(None)
                found = found[order]
                yield {"items": found["item"], "times": found["time"] if times else found["row"], "rows": found["row"]}

        arrays = data.store.arrays(f"{key}|histories", kinds, made)
        counts = np.zeros(data.n_users, np.int64)
        for at in spans(data.n_interactions):
            counts += np.bincount(data.users[at][chosen(at)], minlength=data.n_users)
        self.ptr = np.concatenate([[0], np.cumsum(counts)])
        self.items, self._rows, self._times = arrays["items"], arrays.get("rows"), arrays.get("times")
        self.timeless = timeless or not times

    def ends(self, users: Array, times: Array | None) -> Array:
        if self.timeless or times is None or self._times is None:
            return self.ptr[users + 1]
        low, high = self.ptr[users], self.ptr[users + 1]
        while (open_ := low < high).any():
            middle = (low + high) // 2
            before = open_ & (self._times[np.minimum(middle, len(self._times) - 1)] < times)
            low, high = np.where(before, middle + 1, low), np.where(open_ & ~before, middle, high)
        return low


class MappedNegatives(Negatives):
    """Negatives whose table of what users took is mapped."""

    def __init__(self, data: MappedDataset, key: str, pool: Array, known: Chosen, launched: Array | None):
        nothing = torch.zeros(0, dtype=torch.int64)
        there = None if launched is None else torch.from_numpy(launched.astype(np.int64))
        super().__init__(nothing, nothing, data.n_users, data.n_items, torch.from_numpy(pool), there)
        width, rank = max(self._width, 1), np.full(data.n_items, -1)
        rank[self.pool.numpy()] = np.arange(self._width)

        def made() -> Iterator[dict[str, Array]]:
            for found in data.by_user(known):
                ranks = rank[found["item"]]
                keys = np.unique((found["user"].astype(np.int64) * width + ranks)[ranks >= 0])
                owners = keys // width
                places = np.arange(len(keys)) - np.searchsorted(owners, owners)
                yield {"taken": keys, "before": keys - places}

        kinds = {"taken": np.int64, "before": np.int64}
        arrays = data.store.arrays(f"{key}|negatives", kinds, made, writable=True)
        degree = np.zeros(data.n_users, np.int64)
        for at in spans(len(arrays["taken"])):
            degree += np.bincount(arrays["taken"][at] // width, minlength=data.n_users)
        degree = torch.from_numpy(degree)
        self._ptr, self.free = degree.cumsum(0) - degree, self._width - degree
        self._before = torch.from_numpy(arrays["before"])
        self._taken = None if self._launched is None else torch.from_numpy(arrays["taken"])


class MappedSamples(Samples):
    """The samples of a mapped dataset: to the last bit those of `Samples`.

    Memory: a few numbers for each user and item, and a span of rows. What is made of the interactions are flat files.
    """

    def __init__(
        self,
        data: MappedDataset,
        split: str,
        label: str,
        history: int,
        history_mode: str,
        negatives: int,
        further: Sequence[str] = (),
        esmm: bool = False,
        events: bool = False,
    ):
        self.data, self.history, self.label, self._events = data, history, label, events
        self.part, self.labels, self.positive = data.split(split), data.binary(label), data.positive(label)
        self.further = {name: data.binary(name) for name in further}
        count = data.n_interactions
        self.alone = {
            name: sum(int(((values[at] == 1) & (self.labels[at] == 0)).sum()) for at in spans(count))
            for name, values in self.further.items()
        }
        key = f"{data.key_of(split)}|{label}|{list(further)}|{esmm}"
        if esmm:
            self.further = {
                name: data.made(
                    f"conversions|{label}|{name}",
                    np.float32,
                    lambda at, v=values: conversions(self.labels[at], v[at]),
                )
                for name, values in self.further.items()
            }
        self.nested = [name for name in self.further if esmm or not self.alone[name]]
        self.positive_only = data.positive_only
        self.n_negatives = negatives if self.positive_only else 0
        kind = data.meta.splits[split].get("kind", "column")
        self.timeless = kind in TIMELESS or data.timestamps is None
        self.times = None if self.timeless else data.timestamps
        self.history_only = data.history_rows(split)
        found = self._count()
        self.train_histories = MappedHistories(
            data, f"{key}|train", lambda at: self.positive[at] & self._read(at), self.timeless, events
        )
        self.eval_histories = self.train_histories
        if history_mode == "rolling" and not self.timeless:
            self.eval_histories = MappedHistories(
                data, f"{data.key}|{label}|all", lambda at: self.positive[at], self.timeless, events
            )
        self._negatives = {}
        if self.n_negatives:
            launched = data.launched
            if launched is None and self.times is not None:
                launched = data.first_times()
            launched = None if self.times is None else launched
            timed = self.times is not None
            for training, pool, chosen in (
                (True, np.flatnonzero(self.train_counts), self._read),
                (False, np.arange(data.n_items), lambda at: np.ones(at.stop - at.start, bool)),
            ):
                name = f"{key}|{training}|{timed}"
                self._negatives[training] = MappedNegatives(data, name, pool, chosen, launched)
        self._rows = [self._rows_of(part, f"{key}|{bool(self.n_negatives)}") for part in range(3)]
        self.undrawn = [every - len(rows) for every, rows in zip(found, self._rows, strict=True)]

    def _labelled(self, at: slice) -> Array:
        values = [self.labels[at], *(other[at] for other in self.further.values())]
        return ~np.logical_and.reduce([np.isnan(one) for one in values])

    def _read(self, at: slice) -> Array:
        """Of a span of rows, which training reads."""
        return ((self.part[at] == 0) & self._labelled(at)) | self.history_only[at]

    def _count(self) -> list[int]:
        """Count training rows by item and user, and what has no label; the labelled rows of each part."""
        data, found = self.data, [0, 0, 0]
        self.train_counts, self.train_users = np.zeros(data.n_items, np.int64), np.zeros(data.n_users, np.int64)
        every = {self.label: self.labels, **self.further}
        self.unlabelled = dict.fromkeys(every, 0)
        for at in spans(data.n_interactions):
            part, labelled = self.part[at], self._labelled(at)
            for name, values in every.items():
                self.unlabelled[name] += int((np.isnan(values[at]) & (part >= 0)).sum())
            found = [count + int(((part == k) & labelled).sum()) for k, count in enumerate(found)]
            train = (part == 0) & labelled
            self.train_counts += np.bincount(data.items[at][train], minlength=data.n_items)
            self.train_users += np.bincount(data.users[at][train], minlength=data.n_users)
        return found

    def _rows_of(self, part: int, key: str) -> Array:
        data = self.data
        assert isinstance(data, MappedDataset)

        def made() -> Iterator[Array]:
            for at in spans(data.n_interactions):
                rows = np.flatnonzero((self.part[at] == part) & self._labelled(at)) + at.start
                if self.n_negatives:
                    users = torch.from_numpy(data.users[rows].astype(np.int64))
                    times = None if self.times is None else torch.from_numpy(self.times[rows])
                    rows = rows[self._negatives[part == 0].free_by(users, times).numpy() > 0]
                yield rows

        return data.store.array(f"{key}|rows|{part}", np.int64, made, name=("train", "valid", "test")[part])
