"""What users took, as the stream tells it: the histories that impressions are stored with."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from typing import Any

ROOM = 8
"""So many more events than a history is long are kept of a user, for impressions that come late."""


class Past:
    """The latest positives of each user that the stream has named, in order of time, behind those of the dataset.

    length: of histories. before: what a user had taken before the stream, oldest first, with times.
    """

    def __init__(
        self,
        length: int,
        before: Callable[[str], list[tuple[float, str]]] = lambda user: [],
        state: dict[str, Any] | None = None,
    ) -> None:
        self.length, self._before = length, before
        self._of: dict[str, list[tuple[float, str]]] = {
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
        return list(self._read(user, time))[-self.length :]

    def _read(self, user: str, time: float) -> Iterator[str]:
        events = self._of.get(user, [])
        if len(events) < self.length or (events and events[0][0] >= time):
            yield from (item for then, item in self._before(user) if then < time)
        yield from (item for then, item in events if then < time)

    def state(self) -> dict[str, Any]:
        """What `Past` is made of again: plain values."""
        return {user: [list(event) for event in events] for user, events in self._of.items()}
