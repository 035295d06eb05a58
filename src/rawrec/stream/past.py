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


class Past:
    """The latest positives of each user that the stream has named, beside those of the dataset.

    length: of histories. before: the latest that a user had taken in the dataset before a moment, strictly. What stands
    in both (the dataset's own rows, read as a stream) counts once.
    """

    def __init__(
        self,
        length: int,
        before: Callable[[str, float], Taken] = lambda user, time: [],
        state: dict[str, Any] | None = None,
    ) -> None:
        self.length, self._before = length, before
        self._of: dict[str, Taken] = {
            user: [(float(time), item) for time, item in events] for user, events in (state or {}).items()
        }

    def add(self, user: str, item: str, time: float) -> None:
        """A positive. The same item at the same time counts once."""
        events = self._of.setdefault(user, [])
        if (time, item) not in events:
            insort(events, (time, item))
            del events[: -self.length - ROOM]

    def at(self, user: str | None, time: float) -> list[str]:
        """What a user had taken before a moment, strictly: the latest `length` items, oldest first."""
        if user is None or not self.length:
            return []
        own, events = self._of.get(user), self._before(user, time)
        if own and (recent := own[: bisect_left(own, (time, ""))]):
            events = sorted({**dict.fromkeys(events), **dict.fromkeys(recent)}, key=itemgetter(0)) if events else recent
        return [item for _, item in events[-self.length :]]

    def forget(self, before: float) -> None:
        """Users of whom nothing was heard since then have taken in the stream nothing."""
        for user in [user for user, events in self._of.items() if events[-1][0] < before]:
            del self._of[user]

    def state(self) -> dict[str, Any]:
        """What `Past` is made of again: plain values."""
        return {user: [list(event) for event in events] for user, events in self._of.items()}
