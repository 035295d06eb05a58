"""What a stream asks of a model, and gives it to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Asked(Protocol):
    """Somebody who is shown an item: by ids, with the history (oldest first), the context, and what was typed as they
    were then; session: of the user."""

    user: str | None
    history: list[str]
    time: float
    context: dict[str, Any]
    query: str | None
    session: str | None


class Candidate(Asked, Protocol):
    """With the item that is shown."""

    item: str


class Sample(Candidate, Protocol):
    """An impression to train. late: see `delayed_weights`."""

    label: float
    late: float


def numbered(rows: Sequence[Asked]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Numbers of queries and of sessions, int64 `[n]` each, equal where these are, -1 = none; and the queries by those
    numbers. A blank one is none, and a session is of one user, as in datasets."""
    texts: dict[str, int] = {}
    sessions: dict[tuple[str | None, str], int] = {}
    query, session = np.full((2, len(rows)), -1, np.int64)
    for n, one in enumerate(rows):
        if typed := (one.query or "").strip():
            query[n] = texts.setdefault(typed, len(texts))
        if name := (one.session or "").strip():
            session[n] = sessions.setdefault((one.user, name), len(sessions))
    return query, session, list(texts)
