"""Which events a reader has had: by producer the numbers of its events, as far as they are not all below one."""

from __future__ import annotations

from typing import Any

APART = 10_000
"""Numbers that are kept of a producer apart from those below which all were had."""


class Seen:
    """Numbers of events by producer. Of one that numbers without gaps one number is kept, however many came; where gaps
    stay open, the older half of more than `APART` is given up: what fills those gaps later counts as had."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        state = state or {}
        self._below: dict[str, int] = {name: int(found[0]) for name, found in state.items()}
        self._apart: dict[str, set[int]] = {name: set(map(int, found[1])) for name, found in state.items() if found[1]}

    def take(self, producer: str, sequence: int) -> bool:
        """Whether this event had not been taken; from now on it has."""
        below = self._below.setdefault(producer, -1)
        apart = self._apart.get(producer)
        if sequence <= below or (apart and sequence in apart):
            return False
        if sequence > below + 1:
            apart = self._apart.setdefault(producer, set())
            apart.add(sequence)
            if len(apart) > APART:
                below = sorted(apart)[APART // 2]  # half of them at once, so that this is seldom
                apart.intersection_update({number for number in apart if number > below})
        else:
            below = sequence
        while apart and below + 1 in apart:
            below += 1
            apart.remove(below)
        self._below[producer] = below
        if apart is not None and not apart:
            self._apart.pop(producer, None)
        return True

    def state(self) -> dict[str, Any]:
        """What `Seen` is made of again: plain values."""
        return {name: [below, sorted(self._apart.get(name, ()))] for name, below in sorted(self._below.items())}
