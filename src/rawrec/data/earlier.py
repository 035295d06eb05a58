"""What came strictly before a moment: how often, with how many clicks, and which rows; vectorised over sorted rows."""

from __future__ import annotations

import numpy as np

Ints = np.ndarray


class Earlier:
    """Rows by key (an item, a user, a session ...) in order of time.

    keys: int `[n]`, 0 to `n_keys` - 1; times: int `[n]`; positive: bool `[n]`. `order`: the rows by key and time, which
    the spans below are of. Rows of one time do not count for each other.
    """

    def __init__(self, keys: Ints, times: Ints, positive: Ints, n_keys: int):
        self.n_keys = n_keys
        self._ticks, tick = np.unique(times, return_inverse=True)
        self.order = np.lexsort((tick, keys))
        self._first = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=n_keys))]).astype(np.int64)
        self._places = keys[self.order].astype(np.int64) * (len(self._ticks) + 1) + tick[self.order]
        self._clicks = np.concatenate([[0], np.cumsum(positive[self.order])]).astype(np.int64)

    def spans(self, keys: Ints, times: Ints | None) -> tuple[Ints, Ints]:
        """Where in `order` the rows of `keys` (-1: none) strictly before `times` (None: all) begin and end.

        keys and times are of one shape, or broadcast to one.
        """
        known, at = keys >= 0, np.maximum(keys, 0).astype(np.int64)
        if times is None:
            begin, end = self._first[at], self._first[at + 1]
        else:
            ticks = np.searchsorted(self._ticks, times)
            begin = np.broadcast_to(self._first[at], np.broadcast_shapes(keys.shape, times.shape))
            end = np.searchsorted(self._places, at * (len(self._ticks) + 1) + ticks)
        return np.where(known, begin, 0), np.where(known, end, 0)

    def counts(self, keys: Ints, times: Ints | None) -> tuple[Ints, Ints]:
        """How many rows `keys` had strictly before `times`, and how many of them were positive; see `spans`."""
        begin, end = self.spans(keys, times)
        return end - begin, self._clicks[end] - self._clicks[begin]


def sessions_by_gap(users: Ints, times: Ints, gap: int) -> Ints:
    """A number of the session of each row: a user's next one begins after more than `gap` seconds without a row."""
    order = np.lexsort((times, users))
    new = (np.diff(users[order]) != 0) | (np.diff(times[order]) > gap)
    numbers = np.empty(len(users), np.int64)
    numbers[order] = np.concatenate([[0], np.cumsum(new)])
    return numbers


def sessions_by_column(users: Ints, codes: Ints) -> Ints:
    """A number of the session of each row, -1 where the column has no value (code -1): sessions are of one user."""
    keys = users.astype(np.int64) * (int(codes.max(initial=0)) + 1) + codes
    return np.where(codes >= 0, np.unique(np.where(codes >= 0, keys, 0), return_inverse=True)[1], -1)
