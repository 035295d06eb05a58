"""What users took, as the stream tells it: the histories that impressions are stored with."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from operator import itemgetter
from typing import Any

ROOM = 8
"""So many more events than a history is long are kept of a user, for impressions that come late."""
Taken = list[tuple[float, str]]
"""Times and items, in order of time."""
Line = tuple[list[float], list[str]]
"""The same, apart."""
NOTHING: Line = ([], [])


class Past:
    """The latest positives of each user that the stream has named, beside those of the dataset.

    length: of histories. own: all that a user had taken in the dataset, times and items in order of time. What stands
    in both (the dataset's own rows, read as a stream) counts once.
    """

    def __init__(
        self, length: int, own: Callable[[str], Line] = lambda user: NOTHING, state: dict[str, Any] | None = None
    ) -> None:
        self.length, self._own = length, own
        self._of: dict[str, Taken] = {
            user: [(float(time), item) for time, item in events] for user, events in (state or {}).items()
        }
        self._both: dict[str, Line] = {}  # of who was asked for: the dataset's and the stream's

    def add(self, user: str, item: str, time: float) -> None:
        """A positive. The same item at the same time counts once."""
        events = self._of.setdefault(user, [])
        if (time, item) in events:
            return
        insort(events, (time, item))
        both = self._both.get(user)
        if both is not None and both[0][-1] < time:
            both[0].append(time)
            both[1].append(item)
        else:
            self._both.pop(user, None)
        if len(events) > self.length + ROOM:
            self._drop(user, *events.pop(0))

    def _drop(self, user: str, time: float, item: str) -> None:
        """This is not kept any more of what the stream has said of a user."""
        if (both := self._both.get(user)) is None:
            return
        own, at = self._own(user), _place(both, time, item)
        if _place(own, time, item) is None and at is not None:
            del both[0][at], both[1][at]

    def at(self, user: str | None, time: float) -> list[str]:
        """What a user had taken before a moment, strictly: the latest `length` items, oldest first."""
        if user is None or not self.length:
            return []
        times, items = self._both.get(user) or self._line(user)
        end = bisect_left(times, time)
        return items[max(end - self.length, 0) : end]

    def _line(self, user: str) -> Line:
        """All that is known of a user, in order of time; where times are equal, the dataset's first."""
        times, items = self._own(user)
        if user not in self._of:
            return times, items
        events = dict.fromkeys([*zip(times, items, strict=True), *self._of[user]])
        found = sorted(events, key=itemgetter(0))
        self._both[user] = both = [time for time, _ in found], [item for _, item in found]
        return both

    def forget(self, before: float) -> None:
        """Users of whom nothing was heard since then have taken in the stream nothing."""
        for user in [user for user, events in self._of.items() if events[-1][0] < before]:
            del self._of[user]
            self._both.pop(user, None)

    def state(self) -> dict[str, Any]:
        """What `Past` is made of again: plain values."""
        return {user: [list(event) for event in events] for user, events in self._of.items()}


def _place(line: Line, time: float, item: str) -> int | None:
    """Where an event stands; None: nowhere."""
    times, items = line
    for at in range(bisect_left(times, time), len(times)):
        if times[at] != time:
            return None
        if items[at] == item:
            return at
    return None
