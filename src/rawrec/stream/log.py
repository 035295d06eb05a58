"""The log that events go through: append, read from a position, follow, trim. Whoever reads keeps its own position.

A position is a whole number: that of the last event that was read, 0 before all of them. There are no consumer groups:
what has been done with an event, its reader knows, who writes the position down together with what came of it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import TracebackType
from typing import ClassVar, NamedTuple, Self

from rawrec.arguments import shown
from rawrec.errors import UserError
from rawrec.stream.events import Event, write_event

POLL = 0.02
"""Seconds between two looks for new events where a log cannot wake who waits."""
AT_ONCE = 1000
"""Events that are read at once by who follows."""


class Entry(NamedTuple):
    """An event as a log holds it: its id, and its bytes, which may be no event at all."""

    producer: str
    sequence: int
    data: bytes


class Record(NamedTuple):
    """An entry at its position."""

    position: int
    producer: str
    sequence: int
    data: bytes


class Appended(NamedTuple):
    """What came of an append: the position of the last event (of a duplicate that is the one that was there, 0 where it
    is not known any more), how many were taken, and how many were there already."""

    position: int
    taken: int
    duplicates: int


class Letter(NamedTuple):
    """A dead letter: an entry that no reader could read, where it stood and why."""

    position: int
    reason: str


class Log(ABC):
    """A log, open in this thread; a context manager, which closes it."""

    keeps_ids: ClassVar[bool] = True
    """Whether an event whose id is in the log is refused by it, however late it comes; else who reads must know."""

    def append(self, events: Sequence[Event]) -> Appended:
        """Take events in this order: all are on the disk when it returns. Those whose id is there are left out."""
        return self.append_raw([Entry(event.producer, event.sequence, write_event(event)) for event in events])

    @abstractmethod
    def append_raw(self, entries: Sequence[Entry]) -> Appended:
        """The same of bytes, which are not looked at."""

    @abstractmethod
    def read(self, after: int, count: int = AT_ONCE) -> list[Record]:
        """At most `count` entries behind the position `after`, in their order; fewer, or none, at the end.

        Raises UserError where entries behind `after` have been trimmed.
        """

    @abstractmethod
    def trim(self, position: int) -> None:
        """Forget all entries up to this position."""

    @abstractmethod
    def end(self) -> int:
        """The position of the last entry."""

    @abstractmethod
    def bury(self, letter: Letter) -> None:
        """Write down that what stands at a position cannot be read; the same letter again changes nothing."""

    @abstractmethod
    def dead(self) -> list[Letter]:
        """The letters that were buried, in order of position."""

    @abstractmethod
    def close(self) -> None: ...

    def wait(self, after: int, seconds: float) -> bool:
        """Wait for an entry behind `after`, at most so long; whether there is one."""
        until = time.monotonic() + seconds
        while self.end() <= after:
            if (left := until - time.monotonic()) <= 0:
                return False
            time.sleep(min(POLL, left))
        return True

    def follow(self, after: int, idle: float | None = None, count: int = AT_ONCE) -> Iterator[list[Record]]:
        """Entries behind `after` as they come, some at once; idle: ends when for so many seconds none has come."""
        while True:
            if records := self.read(after, count):
                yield records
                after = records[-1].position
            elif not self.wait(after, 1.0 if idle is None else idle) and idle is not None:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


KINDS = {"sqlite": "SqliteLog", "redis": "RedisLog", "kafka": "KafkaLog", "nats": "NatsLog"}
"""Scheme of an address -> the class in the module `rawrec.stream.<scheme>`."""


def open_log(url: str, create: bool = True) -> Log:
    """The log at an address, as `sqlite:/var/lib/shop/events.db`. create: made where there is none.

    Raises UserError for an address that no log has, or where it cannot be reached.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in KINDS or not rest.strip("/"):
        known = ", ".join(f"{name}:..." for name in KINDS)
        raise UserError(f"--log {shown(url)}: give the address of a log, {known}, as sqlite:events.db (docs/online.md)")
    kind: type[Log] = getattr(import_module(f"rawrec.stream.{scheme}"), KINDS[scheme])
    return kind(url, create)  # type: ignore[call-arg]


def trimmed(url: str, after: int, first: int) -> UserError:
    """What is said where a reader comes too late. first: up to where the log was trimmed."""
    return UserError(
        f"{url} was trimmed up to position {first:,}, and is to be read from {after:,} on: the events between are "
        "gone. Begin anew at a later position, or bring back a copy of the log"
    )
