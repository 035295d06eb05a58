"""What users took since the version that answers was made, as the server hears of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from rawrec.serving.published import Published
from rawrec.serving.recommender import Recommender

MOST_USERS, MOST_REQUESTS = 100_000, 200_000


class Answered:
    """Who was answered by which request, of the latest MOST_REQUESTS: an action may name the request alone."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, str] = OrderedDict()

    def add(self, request: str, user: str) -> None:
        self._of[request] = user
        if len(self._of) > MOST_REQUESTS:
            self._of.popitem(last=False)

    def user(self, request: str | None) -> str | None:
        return None if request is None else self._of.get(request)


class Recent:
    """The latest items of each user, oldest first; of more than MOST_USERS users those are forgotten who were heard of
    longest ago. length: items of one user."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._of: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def add(self, user: str, items: Iterable[str]) -> None:
        """Whoever reads meanwhile sees all of these items, or none."""
        if not self.length:
            return
        self._of[user] = (*self._of.get(user, ()), *items)[-self.length :]
        self._of.move_to_end(user)
        while len(self._of) > MOST_USERS:
            self._of.popitem(last=False)

    def of(self, user: str, rec: Recommender) -> list[str]:
        """The latest items of a user that are in the catalogue, and that a version does not know them to have taken,
        where the model can read them; else nothing."""
        if not rec.reads_histories or not (own := self._of.get(user, ())):
            return []
        known = set(rec.heard(user)) if isinstance(rec, Published) else ()
        return [item for item in own if item in rec and item not in known]
