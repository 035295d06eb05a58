"""Counts and click rates of training rows before an impression, and what came earlier in its session."""

from __future__ import annotations

import numpy as np

from rawrec.config.ranking import InputsConfig
from rawrec.data.dataset import Dataset
from rawrec.data.earlier import Earlier, sessions_by_column, sessions_by_gap
from rawrec.data.sampling import Samples
from rawrec.errors import UserError
from rawrec.models.ranking.columns import Scale, TableColumns
from rawrec.shown import listed


def times_for(setting: str, samples: Samples) -> np.ndarray:
    """The times of all interactions. UserError where "before" says nothing."""
    if samples.times is None:
        raise UserError(
            f"{setting} reads what came before an impression, and the data have no times or the split goes by chance: "
            "split by time (rawrec split), or leave it out"
        )
    return samples.times


class Counts:
    """How often the item, the user, and the values of categorical columns of the item were shown before, how often
    clicked, and at which rate (`model.counts`), all of it in training rows.

    Of each three numbers: log(1 + rows), log(1 + clicks) and (clicks + s r) / (rows + s), r being the rate of all
    training rows and s `model.counts_smoothing`; of positive-only data the first alone. Each is standardised by its
    values at the training rows. Of an item with several values of a column their rows are added.
    """

    def __init__(self, data: Dataset, samples: Samples, cfg: InputsConfig, columns: TableColumns):
        self.names, self._smoothing = list(dict.fromkeys(cfg.counts)), cfg.counts_smoothing
        times = times_for("model.counts", samples)
        rows = np.flatnonzero(samples.part == 0)
        positive, self._rates = samples.positive[rows], not samples.positive_only
        self._mean = float(positive.mean())
        self._earlier: dict[str, Earlier] = {}
        users, items, times = data.users[rows], data.items[rows], times[rows]
        for name in self.names:
            if name in ("user", "item"):
                keys, count = (users, data.n_users) if name == "user" else (items, data.n_items)
                self._earlier[name] = Earlier(keys, times, positive, count)
                continue
            if name not in data.fields.categorical or name not in columns.bags:
                raise UserError(
                    f"model.counts: {name!r} is neither item nor user nor a categorical column of the items that "
                    "model.columns names"
                )
            keys, owners = _values(columns, name, items)
            self._earlier[name] = Earlier(keys, times[owners], positive[owners], columns.bags[name][2])
        self._scales = [Scale(0.0, 1.0)] * self.width
        at_rows = [self._raw(columns, users[part], items[part, None], times[part]) for part in _parts(len(rows))]
        self._scales = [Scale.of(np.concatenate([part[:, 0, i] for part in at_rows])) for i in range(self.width)]

    @property
    def width(self) -> int:
        """How many numbers an impression has."""
        return len(self.names) * (3 if self._rates else 1)

    def read(self, columns: TableColumns, users: np.ndarray, items: np.ndarray, times: np.ndarray | None) -> np.ndarray:
        """`[n, candidates, width]` float32 of users `[n]` (-1: unknown) and items `[n or 1, candidates]` (not in the
        dataset: none) at times `[n]` (None: after all). columns: those of the items."""
        raw = self._raw(columns, users, items, times)
        return np.stack([scale(raw[..., i]) for i, scale in enumerate(self._scales)], 2).astype(np.float32)

    def _raw(self, columns: TableColumns, users: np.ndarray, items: np.ndarray, times: np.ndarray | None) -> np.ndarray:
        at = None if times is None else times[:, None]
        shape, numbers = (len(users), items.shape[1]), []
        for name, earlier in self._earlier.items():
            if name == "user":
                shown, clicked = earlier.counts(users[:, None], at)
            elif name == "item":
                shown, clicked = earlier.counts(np.where(items < earlier.n_keys, items, -1), at)
            else:
                keys, owners = _values(columns, name, np.broadcast_to(items, shape).ravel())
                when = None if times is None else np.repeat(times, shape[1])[owners]
                shown, clicked = (
                    np.bincount(owners, counts, shape[0] * shape[1]).reshape(shape)
                    for counts in earlier.counts(keys, when)
                )
            numbers += self._numbers(shown, clicked)
        return np.stack([np.broadcast_to(values, shape) for values in numbers], 2)

    def _numbers(self, shown: np.ndarray, clicked: np.ndarray) -> list[np.ndarray]:
        if not self._rates:
            return [np.log1p(shown)]
        rate = (clicked + self._smoothing * self._mean) / np.maximum(shown + self._smoothing, 1e-9)
        return [np.log1p(shown), np.log1p(clicked), rate]

    def never(self) -> dict[str, tuple[int, list[float]]]:
        """Of user and item, where they are counted: the place of their numbers among all, and those of one that was
        never shown."""
        nothing = self._numbers(np.zeros(1), np.zeros(1))
        found = {}
        for i, name in enumerate(self.names):
            if name in ("user", "item"):
                at = i * len(nothing)
                scales = self._scales[at : at + len(nothing)]
                found[name] = at, [float(scale(raw)[0]) for scale, raw in zip(scales, nothing, strict=True)]
        return found


def _parts(n: int, size: int = 1 << 20) -> list[slice]:
    return [slice(at, at + size) for at in range(0, n, size)]


def _values(columns: TableColumns, name: str, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the values of a categorical column of items `[n]` (-1: none), and the place of the item of each."""
    codes, ptr = (values.cpu().numpy() for values in columns.bags[name][:2])
    at = np.maximum(items, 0)
    lengths = np.where(items >= 0, ptr[at + 1] - ptr[at], 0)
    owners = np.repeat(np.arange(len(items)), lengths)
    inside = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return codes[ptr[at][owners] + inside], owners


class Sessions:
    """What users met earlier in the session of an interaction (`model.session`): training reads training rows, and
    evaluation what `data.history_mode` says, as for histories."""

    def __init__(self, data: Dataset, samples: Samples, cfg: InputsConfig, rolling: bool):
        times = times_for("model.session", samples)
        if cfg.session == "gap":
            self._session = sessions_by_gap(data.users, times, cfg.session_gap)
        else:
            self._session = sessions_by_column(data.users, _codes(data, cfg.session))
        self._times, self._length = times, max(cfg.id_history, 1)
        train = ((samples.part == 0) | samples.history_only) & (self._session >= 0)
        self._read = {True: self._of(data, samples, train)}
        self._read[False] = self._of(data, samples, self._session >= 0) if rolling else self._read[True]
        self.width = 1 if samples.positive_only else 2

    def _of(self, data: Dataset, samples: Samples, rows: np.ndarray) -> tuple[Earlier, np.ndarray]:
        count = int(self._session.max(initial=0)) + 1
        earlier = Earlier(self._session[rows], self._times[rows], samples.positive[rows], count)
        return earlier, data.items[rows][earlier.order].astype(np.int64)

    def read(self, rows: np.ndarray, training: bool) -> tuple[np.ndarray, np.ndarray]:
        """Of interactions `rows` `[n]` (-1: none) the last items met earlier in their sessions, `[n, id_history]`, -1 =
        padding; and log(1 + items) and log(1 + clicks) of all of them, `[n, width]` float32."""
        earlier, items = self._read[training]
        keys = np.where(rows >= 0, self._session[rows], -1)
        begin, end = earlier.spans(keys, self._times[rows])
        index = end[:, None] + np.arange(-self._length, 0)
        inside = index >= begin[:, None]
        last = np.where(inside, items[np.where(inside, index, 0)] if len(items) else -1, -1)
        return last, self.numbers(*earlier.counts(keys, self._times[rows]))

    def given(self, items: np.ndarray, clicks: int) -> tuple[np.ndarray, np.ndarray]:
        """The same of a session that is described: items `[n]`, oldest first, of which so many were clicked."""
        last = np.full((1, self._length), -1, np.int64)
        recent = items[-self._length :]
        last[0, self._length - len(recent) :] = recent
        return last, self.numbers(np.array([len(items)]), np.array([clicks]))

    def numbers(self, shown: np.ndarray, clicked: np.ndarray) -> np.ndarray:
        return np.log1p(np.stack([shown, clicked][: self.width], 1)).astype(np.float32)


def _codes(data: Dataset, name: str) -> np.ndarray:
    if name in data.meta.context.categorical:
        return data.row_categories(name)[0]
    known = listed(["none", "gap", *data.meta.context.categorical], name)
    raise UserError(
        f"model.session={name}: the dataset has no categorical column of the context of this name; use {known}, or "
        f"import it with --context-category {name}"
    )
