"""Which ids of a stream have been inactive for so long that their rows are given up."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

LOOKS = 8
"""So often, while the time goes by after which a row is given up, rows are looked through: what that costs is shared
by all steps between."""


class Activity:
    """When the impressions of each user and item were last trained, by the stream's time; rows that the stream has not
    named count from its beginning.

    last: float64 `[rows]` of items and of users (False, True), -inf = never.
    """

    def __init__(self) -> None:
        self.last = {user: np.zeros(0) for user in (False, True)}
        self.begun: float | None = None
        self.looked = -math.inf

    def grow(self, users: int, items: int) -> None:
        """There are so many rows now."""
        for user, count in ((True, users), (False, items)):
            have = self.last[user]
            self.last[user] = np.concatenate([have, np.full(count - len(have), -math.inf)])

    def note(self, user: bool, rows: np.ndarray, times: np.ndarray) -> None:
        """Rows `[n]` of which an impression was trained, and the stream's times of these."""
        np.maximum.at(self.last[user], rows, times)

    def is_due(self, now: float | None, after: float | None) -> bool:
        """Whether rows are to be looked through; the next time that much later."""
        if now is None or after is None:
            return False
        if self.begun is None:
            self.begun = self.looked = now
        if now - self.looked < after / LOOKS:
            return False
        self.looked = now
        return True

    def overdue(self, user: bool, known: Tensor, before: float) -> list[int]:
        """Rows of their own (`known`, bool `[rows]`) that were not active since then, ascending."""
        last = np.maximum(self.last[user], -math.inf if self.begun is None else self.begun)
        return np.flatnonzero(known.cpu().numpy() & (last < before)).tolist()

    def state(self) -> dict[str, Tensor]:
        return {"active.user": torch.from_numpy(self.last[True]), "active.item": torch.from_numpy(self.last[False])}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.last = {True: state["active.user"].numpy().copy(), False: state["active.item"].numpy().copy()}

    def plain_state(self) -> list[float | None]:
        return [self.begun, None if self.looked == -math.inf else self.looked]

    def load_plain_state(self, state: list[float | None]) -> None:
        self.begun, looked = state
        self.looked = -math.inf if looked is None else looked
