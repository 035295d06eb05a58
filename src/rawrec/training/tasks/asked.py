"""What a stream asks of a model, and gives it to learn from."""

from __future__ import annotations

from typing import Any, Protocol


class Asked(Protocol):
    """Somebody who is shown an item: by ids, with the history (oldest first) and the context as they were then."""

    user: str | None
    history: list[str]
    time: float
    context: dict[str, Any]


class Candidate(Asked, Protocol):
    """With the item that is shown."""

    item: str


class Sample(Candidate, Protocol):
    """An impression to train. late: see `delayed_weights`."""

    label: float
    late: float
