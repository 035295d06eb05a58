"""What a model sees of the interactions: labels, histories without leaks, samples, and the order of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from rawrec.data.dataset import Dataset
from rawrec.data.flat import spans
from rawrec.data.labels import conversions
from rawrec.data.negatives import Negatives
from rawrec.data.order import WindowOrder
from rawrec.data.splits import PARTS

Ints = np.ndarray
Order = np.ndarray | WindowOrder
TIMELESS = ("random_user",)  # split kinds under which "earlier" says nothing: history = training rows minus the target


class Histories:
    """The positives of each user in order of time, and for any moment the ones strictly before it.

    users, items: int `[n]`, the positive interactions that may be read. times: int64 `[n]`, or None for data without
    time, which stand in the order given. timeless: "earlier" says nothing, as without times or under a random split:
    then a history is all of the user's positives but the target item, the latest of them where there are times.
    rows: `[n]`, of which interactions of a dataset they are, for `events`.
    """

    def __init__(
        self,
        users: Ints,
        items: Ints,
        times: Ints | None,
        n_users: int,
        timeless: bool = False,
        rows: Ints | None = None,
    ):
        order = np.lexsort((times, users)) if times is not None else np.argsort(users, kind="stable")
        self.items = items[order].astype(np.int64)
        self._rows = None if rows is None else rows[order]
        self.ptr = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=n_users))]).astype(np.int64)
        self.timeless = timeless or times is None
        if times is not None and not self.timeless:
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
        return _at(self.items, self._places(users, targets, times, length))

    def events(self, users: Ints, targets: Ints | None, times: Ints | None, length: int) -> Ints:
        """The same as rows of the interactions."""
        assert self._rows is not None
        return _at(self._rows, self._places(users, targets, times, length))

    def _places(self, users: Ints, targets: Ints | None, times: Ints | None, length: int) -> Ints:
        """The same as places in `items`."""
        extra = int(self.timeless and targets is not None)
        ends = self.ends(users, times)
        places = ends[:, None] + np.arange(-length - extra, 0)
        places = np.where(places >= self.ptr[users][:, None], places, -1)
        if extra and targets is not None:
            places[_at(self.items, places) == targets[:, None]] = -1
            places = np.take_along_axis(places, np.argsort(places >= 0, axis=1, kind="stable"), 1)[:, 1:]
        return places


@dataclass
class Impressions:
    """Samples of one part: `rows` of the dataset's interactions, `[n]`, each with `1 + negatives` candidates."""

    rows: Ints
    users: Ints
    items: Ints  # [n, candidates]
    labels: Ints  # [n, candidates] float32, 0 or 1; nan where a sample has another label alone
    times: Ints | None
    further: dict[str, Ints] = field(default_factory=dict)  # the same of each label beside the main one
    query: Ints | None = None  # [n] rows of the dataset's queries, -1 = none; None where the dataset has no queries
    session: Ints | None = None  # [n] likewise


class Samples:
    """Training and evaluation samples of a dataset under one split and one label, or several.

    further: labels beside the main one, `label`; esmm: they are of what follows it, so that a row without it has not
    them either (`labels.conversions`). A row for which all of them are unknown is no sample, and those for which one is
    are counted in `unlabelled`. nested: labels without a positive that the main one has not.

    Of positive-only data a sample is a positive with `negatives` drawn items. In training they are drawn from the items
    with a training row, so that nothing is learnt of items that are held out; in evaluation from all, else cold ones
    would never be judged. Both were launched by the time of the positive (at their `launched` time, else their first
    interaction), and neither is a known positive of the user: in training one that training reads, in evaluation any.
    A positive whose user had nothing else to take is no sample: `undrawn` says how many those are, by part.
    """

    def __init__(
        self,
        data: Dataset,
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
        self.part = data.split(split)
        self.labels = data.binary(label)
        self.positive = self.labels > 0
        self.further = {name: data.binary(name) for name in further}
        self.alone = {name: int(((values == 1) & (self.labels == 0)).sum()) for name, values in self.further.items()}
        if esmm:
            self.further = {name: conversions(self.labels, values) for name, values in self.further.items()}
        self.nested = [name for name in self.further if esmm or not self.alone[name]]
        every = {label: self.labels, **self.further}
        unknown = {name: np.isnan(values) for name, values in every.items()}
        self.unlabelled = {name: int((rows & (self.part >= 0)).sum()) for name, rows in unknown.items()}
        labelled = ~np.logical_and.reduce(list(unknown.values()))
        self.positive_only = data.positive_only
        self.n_negatives = negatives if self.positive_only else 0
        kind = data.meta.splits[split].get("kind", "column")
        self.timeless = kind in TIMELESS or data.timestamps is None
        self.times = None if self.timeless else data.timestamps
        self.history_only = data.history_rows(split)
        train = (self.part == 0) & labelled
        self.train_counts = np.bincount(data.items[train], minlength=data.n_items)
        self.train_users = np.bincount(data.users[train], minlength=data.n_users)
        read = train | self.history_only
        self.train_histories = self._histories(self.positive & read)
        rolling = history_mode == "rolling" and not self.timeless
        self.eval_histories = self._histories(self.positive) if rolling else self.train_histories
        self._rows = [np.flatnonzero((self.part == part) & labelled) for part in range(3)]
        self._negatives: dict[bool, Negatives] = {}
        self.undrawn = [0, 0, 0]
        if self.n_negatives:
            everything = np.ones(data.n_interactions, bool)
            self._negatives = {
                True: self._drawn_from(np.flatnonzero(self.train_counts), read),
                False: self._drawn_from(np.arange(data.n_items), everything),
            }
            for part, rows in enumerate(self._rows):
                users, times = (None if a is None else torch.from_numpy(a[rows]) for a in (data.users, self.times))
                assert users is not None
                free = self._negatives[part == 0].free_by(users.long(), times).numpy() > 0
                self._rows[part], self.undrawn[part] = rows[free], int((~free).sum())

    def _histories(self, mask: Ints) -> Histories:
        data, rows = self.data, self.data.in_order(mask)
        times = None if data.timestamps is None else data.timestamps[rows]
        events = rows if self._events else None
        return Histories(data.users[rows], data.items[rows], times, data.n_users, self.timeless, events)

    def _drawn_from(self, pool: Ints, known: Ints) -> Negatives:
        """Negatives among the items `pool`, clear of the interactions `known` (bool)."""
        data, launched = self.data, self.data.launched
        if launched is None and self.times is not None:
            launched = np.full(data.n_items, np.iinfo(np.int64).max)
            np.minimum.at(launched, data.items, self.times)
        users, items = (torch.from_numpy(rows[known].astype(np.int64)) for rows in (data.users, data.items))
        there = None if launched is None or self.times is None else torch.from_numpy(launched.astype(np.int64))
        return Negatives(users, items, data.n_users, data.n_items, torch.from_numpy(pool), there)

    def rows(self, part: int) -> Ints:
        """Rows of the interactions that are samples of a part (0 train, 1 valid, 2 test)."""
        return self._rows[part]

    def emptiness(self, part: int) -> str:
        """Why a part has no samples, in words."""
        if not self.undrawn[part]:
            return "no interactions"
        return f"no samples: none of its {self.undrawn[part]:,} positives has an item left to draw as a negative"

    def undrawn_note(self) -> str:
        """In words, how many positives are no samples; empty where all are."""
        counts = {name: count for name, count in zip(PARTS, self.undrawn, strict=True) if count}
        if not counts:
            return ""
        several = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
        return (
            f"positives without a negative, left out: {several}. Their users had taken every item that was there by "
            "then (in training, that training knows)"
        )

    def label_notes(self) -> list[str]:
        """In words, what the user should know of the labels: rows without one, and positives without the main one."""
        notes = [
            f"label {name}: {count:,} rows have none, which are left out of its loss and its metrics"
            for name, count in self.unlabelled.items()
            if count
        ]
        for name, count in self.alone.items():
            taken = "taken for 0, since model.multi_label=esmm is of what follows a positive of it"
            apart = f"so {name}|{self.label} is not measured"
            if count:
                what = f"label {name}: {count:,} rows are positive where {self.label} is not, "
                notes.append(what + (taken if name in self.nested else apart))
        return notes

    def impressions(self, rows: Ints, part: int, rng: np.random.Generator) -> Impressions:
        """The samples of `rows`, which are some of those of the part; negatives are drawn where data are positive-only.

        Each has as many candidates as the others, the interaction's own item first.
        """
        users, items, labels = self.data.users[rows], self.data.items[rows][:, None], self.labels[rows][:, None]
        times = None if self.times is None else self.times[rows]
        if self.n_negatives:
            drawn = self._negatives[part == 0].draw_by(users, times, self.n_negatives, rng)
            items = np.concatenate([items, drawn], 1)
            labels = np.concatenate([labels, np.zeros_like(drawn, np.float32)], 1)
        further = {name: values[rows][:, None] for name, values in self.further.items()}
        users, items = users.astype(np.int64), items.astype(np.int64)
        return Impressions(rows, users, items, labels, times, further, *self.asked(rows))

    def asked(self, rows: Ints) -> tuple[Ints | None, Ints | None]:
        """Query and session of the interactions `rows` (-1: of none), `[n]` int64 each; None where the dataset has
        none."""
        data = self.data
        query = _at(data.query_rows, rows) if data.has_queries else None
        return query, _at(data.session_rows, rows) if data.has_sessions else None

    def histories(self, batch: Impressions, part: int) -> Ints:
        """`[n, history]` item rows of the users' earlier positives, -1 = padding."""
        return self.source(part).read(batch.users, batch.items[:, 0], batch.times, self.history)

    def source(self, part: int) -> Histories:
        """What the impressions of a part have before them."""
        return self.train_histories if part == 0 else self.eval_histories

    def order(self, seed: int, epoch: int, window: int | None = None) -> Order:
        """The training rows in the order of an epoch: a function of seed and epoch alone. window: see `WindowOrder`;
        None: a permutation of all."""
        if window is not None:
            return WindowOrder(self.rows(0), seed, epoch, window)
        return np.random.default_rng([seed, epoch]).permutation(self.rows(0))

    def limit(self, most: int, seed: int) -> str:
        """From here on at most `most` samples of valid and of test: those of users who are drawn by the seed, all of
        each. In words, what that leaves; empty where it leaves all."""
        told = []
        for part in (1, 2):
            rows, users = self._rows[part], self.data.users
            if len(rows) <= most:
                continue
            counts = np.zeros(self.data.n_users, np.int64)
            for at in spans(len(rows)):
                counts += np.bincount(users[rows[at]], minlength=len(counts))
            drawn = np.argsort(np.random.default_rng([seed, 104_729]).random(len(counts)), kind="stable")
            drawn = drawn[counts[drawn] > 0]
            inside = drawn[: max(1, int(np.searchsorted(np.cumsum(counts[drawn]), most, side="right")))]
            chosen = np.zeros(len(counts), bool)
            chosen[inside] = True
            self._rows[part] = np.concatenate([rows[at][chosen[users[rows[at]]]] for at in spans(len(rows))])
            told.append(f"{PARTS[part]} by {len(self._rows[part]):,} of {len(rows):,} impressions")
        return f"judged: {', '.join(told)}, of users drawn once for the split (eval.impressions)" if told else ""


def _at(values: Ints, rows: Ints) -> Ints:
    """The values of rows, -1 for row -1, int64."""
    return np.where(rows >= 0, values[rows] if len(values) else -1, -1).astype(np.int64, copy=False)
