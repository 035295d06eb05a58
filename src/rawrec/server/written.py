"""What the server writes into a log of events: what it showed, and what clients say was done about it.

One thread appends, since a log belongs to the thread that opened it; what waits is appended, and synced to the disk, in
one go. Lists do not wait for the disk; who hands in events is answered when they are on it.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from threading import Condition, Thread
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from rawrec import faults
from rawrec.data.dataset import Fields
from rawrec.errors import UserError
from rawrec.reading import first_problem
from rawrec.server.worker import Busy
from rawrec.shown import say
from rawrec.stream.events import Event, Item, Picture, Shown, write_event
from rawrec.stream.log import Appended, Entry, Log, open_log

MOST_WAITING = 20_000
AT_ONCE = 2000
AGAIN = 1.0
"""Seconds until what could not be appended is tried again."""


Part = tuple[Sequence[Entry], "Future[Appended] | None"]
"""Entries that are appended together, and who waits for it."""


class Writer:
    """Appends to the log at `url`. producer: the name under which the server's own events stand; new with each start,
    since it begins to count anew. told: called with the number of events that were appended."""

    def __init__(self, url: str, told: Callable[[int], None] = lambda count: None) -> None:
        self.url, self.producer, self.told = url, f"rawrec-serve-{os.getpid()}-{uuid.uuid4().hex[:12]}", told
        self._sequence = 0
        self._waiting: deque[Part] = deque()
        self._count, self._more, self._open = 0, Condition(), True
        self._begun: Future[None] = Future()
        self._thread = Thread(target=self._run, name="rawrec-log", daemon=True)
        self._thread.start()
        self._begun.result()  # UserError where there is no such log

    def __len__(self) -> int:
        """How many events wait."""
        return self._count

    def shown(self, make: Callable[[str, int, float], Shown]) -> None:
        """What a request was shown, made of the producer, its number and the time. Raises Busy where too much waits."""
        with self._more:
            self._check(1)
            event = make(self.producer, self._next(), time.time())
            self._put([event], None)

    def hand_in(self, make: Callable[[Callable[[], int], float], Sequence[Event]]) -> Future[Appended]:
        """Events of a client, made with a function that numbers those without an id of their own, and the time; the
        future is done when they are on the disk. Raises Busy where too much waits."""
        answer: Future[Appended] = Future()
        with self._more:
            events = make(self._next, time.time())
            self._check(len(events))
            self._put(events, answer)
        return answer

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence - 1

    def _check(self, count: int) -> None:
        if not self._open or self._count + count > MOST_WAITING:
            raise Busy(1)

    def _put(self, events: Sequence[Event], answer: Future[Appended] | None) -> None:
        """UserError where an event is too large."""
        entries = [Entry(event.producer, event.sequence, write_event(event)) for event in events]
        self._waiting.append((entries, answer))
        self._count += len(entries)
        self._more.notify()

    def close(self, seconds: float = 10.0) -> None:
        """Take nothing more, and append what waits."""
        with self._more:
            self._open = False
            self._more.notify()
        self._thread.join(seconds)
        if self._count:
            say(f"rawrec: {self._count:,} events could not be written to {self.url} and are lost", error=True)

    # ------------------------------------------------------------------------------------------------------ the thread
    def _run(self) -> None:
        try:
            log = open_log(self.url)
        except BaseException as error:
            self._begun.set_exception(error)
            return
        self._begun.set_result(None)
        with log:
            self._append_all(log)

    def _append_all(self, log: Log) -> None:
        failed = False
        while (parts := self._take()) is not None:
            try:
                done = log.append_raw([entry for entries, _ in parts for entry in entries])
            except Exception as error:  # a full disk, a log that was removed: tried again while the server lives
                if not failed:
                    say(f"rawrec: the log {self.url} takes no events, trying again: {error}", error=True)
                failed = True
                if not self._put_back(parts, error):
                    return
                continue
            if failed:
                say(f"rawrec: the log {self.url} takes events again", error=True)
            failed = False
            with self._more:
                self._count -= sum(len(entries) for entries, _ in parts)
            self.told(done.taken)
            with faults.around("acknowledge", self.url):
                for _, answer in parts:
                    if answer is not None and not answer.done():
                        answer.set_result(done)

    def _take(self) -> list[Part] | None:
        """What waits, some thousand events at most; None at the end."""
        with self._more:
            while not self._waiting:
                if not self._open:
                    return None
                self._more.wait()
            parts, count = [], 0
            while self._waiting and (not parts or count + len(self._waiting[0][0]) <= AT_ONCE):
                parts.append(self._waiting.popleft())
                count += len(parts[-1][0])
            return parts

    def _put_back(self, parts: list[Part], error: Exception) -> bool:
        """What could not be appended waits again, in its place, but for what a client hands in, who is told; whether
        the server still lives."""
        told = UserError(f"the events could not be written: {type(error).__name__}")
        with self._more:
            for entries, answer in reversed(parts):
                if answer is None:
                    self._waiting.appendleft((entries, None))
                else:
                    self._count -= len(entries)
                    answer.set_exception(told)
            if self._open:
                self._more.wait(AGAIN)
            return self._open


def check_event(item: Mapping[str, Any], pictures: Mapping[str, list[bytes]], fields: Fields) -> None:
    """UserError where a log cannot hold what is given of an item."""
    try:
        write_event(item_event(item, pictures, fields, {"producer": "p", "sequence": 0, "time": 0.0}))
    except (ValidationError, PydanticSerializationError) as error:
        raise UserError(f"new item: {first_problem(error)}; the log of events takes no such item") from None


def item_event(
    item: Mapping[str, Any], pictures: Mapping[str, list[bytes]], fields: Fields, event: Mapping[str, Any]
) -> Item:
    """The event of an item that was taken in, with its raw content. event: its id and time."""
    named = {"image": fields.image[0]} if len(fields.image) == 1 else {}
    made = {named.get(name, name): [Picture(data=data) for data in files] for name, files in pictures.items()}
    raw = {name: value for name, value in item.items() if name != "item_id" and value is not None}
    return Item(item=str(item["item_id"]), fields=raw, pictures=made, **event)
