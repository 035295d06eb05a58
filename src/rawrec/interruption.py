"""Signals that end a process: what they do to a command, and how training ends between two steps instead of anywhere.

This module imports next to nothing, so that an interruption meets `rawrec.cli.main` soon.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGHUP)
NUMBERS = (signal.SIGINT, *ENDING)
TWICE = 0.5
"""Seconds within which a second signal is the first one again: `timeout` sends it to the process and to its group."""


class Ended(KeyboardInterrupt):
    """A signal that ends the process, as an exception."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


seen: list[int] = []
"""The signals that `interrupt` has raised as exceptions: libraries that are half imported make other errors of them."""


def interrupt(number: int, _: object) -> None:
    """The handler of a command: what is half written is taken back as the exception passes.

    Only the first signal but SIGINT: the next does not disturb who puts things in order and leaves.
    """
    if number in ENDING:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
    seen.append(number)
    raise Ended(number)


def may_set_signals() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Inside, signals that end the process raise `Ended`. One that is ignored (SIGHUP under nohup) stays so."""
    usual = (signal.SIG_DFL, signal.default_int_handler)
    seen.clear()
    before = {number: signal.getsignal(number) for number in NUMBERS if may_set_signals()}
    taken = [number for number, handler in before.items() if handler in usual]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in taken:
            if signal.getsignal(number) is interrupt:
                signal.signal(number, before[number])


class Ending:
    """Whether the end was asked for, by which signal."""

    asked: int | None = None


@contextmanager
def at_a_step(tell: Callable[[], None]) -> Iterator[Ending]:
    """Inside, the first signal that would end the process is noted in what this yields; `tell` is called. The next one
    does at once what it always does.

    Signals that a program around us handles in its own way, or ignores, are left to it; in another thread than the
    main one there is nothing to handle.
    """
    ending, first = Ending(), 0.0
    ours: list[Any] = [interrupt, signal.default_int_handler, signal.SIG_DFL]
    before = {number: signal.getsignal(number) for number in NUMBERS if may_set_signals()}
    taken: dict[int, Any] = {number: handler for number, handler in before.items() if handler in ours}

    def note(number: int, frame: Any) -> None:
        nonlocal first
        if ending.asked is None:
            ending.asked, first = number, time.monotonic()
            with suppress(RuntimeError):  # the main thread was writing to the same stream
                tell()
        elif time.monotonic() - first > TWICE:
            usual = taken[signal.Signals(number)]
            if callable(usual):
                usual(number, frame)
            raise Ended(number)

    for number in taken:
        signal.signal(number, note)
    try:
        yield ending
    finally:
        for number, handler in taken.items():
            if signal.getsignal(number) is note:
                signal.signal(number, handler)
