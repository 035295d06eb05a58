"""What a server holds while it runs: the version that answers, the model's thread, the log, what is counted."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from rawrec.arguments import shown
from rawrec.errors import UserError, in_a_line
from rawrec.server import wire
from rawrec.server.answers import Listed
from rawrec.server.held import State, Version
from rawrec.server.recent import Answered, Recent
from rawrec.server.telling import Told
from rawrec.server.worker import Busy, Worker
from rawrec.server.written import Writer
from rawrec.stream.events import Acted, Event, Shown

MOST_HISTORY = 10_000
"""Items of a history that an event holds."""


@contextmanager
def told_as(what: str) -> Iterator[None]:
    """What the system or the log refuses becomes a UserError that says, too, what was done before."""
    try:
        yield
    except (OSError, UserError, Busy) as error:
        raise UserError(f"{what}: {in_a_line(error) if isinstance(error, OSError) else error}") from None


class Serving:
    """What a server holds: the version that answers, the thread of the model, what is kept and counted.

    Reads go through the model's thread; items are read and encoded in another one, so that lists do not wait for them.
    """

    def __init__(self, version: Version, worker: Worker, state: State, log: str | None = None) -> None:
        self._version, self.worker, self.state, self.told = version, worker, state, Told()
        self.recent, self.answered = Recent(version.rec.history_length), Answered()
        self.writer = None if log is None else Writer(log, self.told.events.inc)
        self.writing = ThreadPoolExecutor(1, "rawrec-items")
        self._hidden, self._added = {*version.rec.hidden}, dict[str, dict[str, Any]]()
        self.writing.submit(version.rec.make_encoders)  # whatever is wrong with them is told when an item comes
        worker.sizes = self.told.batches.observe
        self.told.version.labels(version.name).set(1)
        self.watcher: Any = None

    def now(self) -> Version:
        """The version that answers. A request asks once, and holds what it was given."""
        return self._version

    def add(self, item: dict[str, Any]) -> None:
        """Take in an item, in the thread that writes; the versions to come have it, too, until they bring it."""
        rec = self.now().rec
        rec.add_items([item])
        self._added[str(item["item_id"])] = item
        with told_as(f"item {shown(item['item_id'])} is taken in until the server ends, and could not be kept"):
            self.state.keep_added(rec)

    def hide(self, hide: Sequence[str], show: Sequence[str]) -> None:
        """In the thread that writes; versions to come do so, too."""
        rec = self.now().rec
        rec.hide(hide)
        rec.show(show)
        self._hidden = {*rec.hidden}
        with told_as("this holds until the server ends, and could not be kept"):
            self.state.keep_hidden(rec)

    def take(self, version: Version) -> None:
        """Put a version in the place of the one that answers, in the thread that writes: with what was added since and
        it does not bring, and what is hidden. Whoever was answered until now holds the old one."""
        rec = version.rec
        self._added = {name: item for name, item in self._added.items() if name not in rec}
        for item in self._added.values():
            rec.add_items([item])
        rec.hide([item for item in self._hidden if item in rec])
        old, self._version = self._version, version
        self.told.version.remove(old.name)
        self.told.version.labels(version.name).set(1)
        self.told.swaps.inc()

    def close(self) -> None:
        if self.watcher is not None:
            self.watcher.close()
        self.worker.close()
        self.writing.shutdown(wait=True, cancel_futures=True)
        if self.writer is not None:
            self.writer.close()

    def wrote(self, asked: wire.Lists, user: str | None, listed: Listed) -> str | None:
        """Write down what somebody was shown; the id of the request, None where there is no log or nothing was shown.
        Raises Busy where the log is behind."""
        answer, context = listed.answer, dict(asked.context or {})
        if self.writer is None or not answer.items:
            return None
        request, query = uuid.uuid4().hex, context.pop("query", None)
        history = None if listed.history is None else listed.history[-MOST_HISTORY:]
        plain = {name: value for name, value in context.items() if not isinstance(value, list | dict)}
        self.writer.shown(
            lambda producer, number, now: Shown(
                producer=producer, sequence=number, time=now, request=request, user=user, context=plain,
                items=[one.item for one in answer.items], history=history,
                scores=[one.score for one in answer.items] if answer.measure == "probability" else None,
                query=query if isinstance(query, str) else None, version=answer.served.version,
            )
        )  # fmt: skip
        if user is not None:
            self.answered.add(request, user)
        return request

    def heard(self, events: Sequence[Event]) -> None:
        """What was done counts for its user's history from the next request on."""
        for event in events:
            user = event.user or self.answered.user(event.request) if isinstance(event, Acted) else None
            if isinstance(event, Acted) and user is not None and event.value > 0:
                self.recent.add(user, [event.item])

    def metrics(self) -> bytes:
        version, told = self.now(), self.told
        told.waiting.set(len(self.worker))
        told.items.set(version.rec.n_items)
        told.hidden.set(len(version.rec.hidden))
        told.unwritten.set(0 if self.writer is None else len(self.writer))
        age = version.served().age
        if age is not None:
            told.age.set(age)
        return told.text()
