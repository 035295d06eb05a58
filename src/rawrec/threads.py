"""Work in threads: how many, each on one core; and whether other processes want the cores too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TypeVar

import torch

from rawrec import cores

Part = TypeVar("Part")
TASKS = Path("/proc/self/task")


def count() -> int:
    """Threads to compute with: torch's number, at most the cores that there are for us."""
    return max(1, min(torch.get_num_threads(), cores.usable()))


@contextmanager
def computing(threads: int | None) -> Iterator[None]:
    """Inside, torch has so many threads (None: `count`); afterwards as many as before."""
    before = torch.get_num_threads()
    if threads or count() < before:
        torch.set_num_threads(threads or count())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def each(work: Callable[[Part], object], parts: Iterable[Part], workers: int) -> None:
    """Do `work` on every part, `workers` of them at a time; the first error is raised.

    Inside, torch takes one thread: what one part of the work needs is too little to be divided further, and threads
    that wait for each other cost more than they bring, most of all where other processes want the cores too.
    """
    if workers == 1:
        for part in parts:
            work(part)
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(work, parts):
                pass
    finally:
        torch.set_num_threads(threads)  # some of its libraries keep one number for all threads


class Mutex:
    """One thread at a time is inside. Copies, also pickled ones, and forked processes have one of their own, free."""

    def __init__(self) -> None:
        self._lock, self._process = Lock(), os.getpid()

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self._lock, self._process = Lock(), os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():  # what a thread held that is not here can never be freed
            self._lock, self._process = Lock(), os.getpid()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Crowding:
    """Watches whether other processes hold the cores that this one computes on.

    A thread that sleeps until the others are done, or that reads a file, wants no core; so CPU time far below wall time
    says nothing. What tells is the time that threads were ready to run and waited for a core (the kernel's schedstat).
    Where our own threads are too many they wait as well, but then the process keeps all its cores busy.

    >>> crowding = Crowding()
    >>> crowding.note()  # after each epoch: a sentence for the user, once, or None
    """

    SECONDS = 2.0  # less is not judged
    WAITING = 0.3  # of the time that threads wanted a core
    BUSY = 0.75  # of our cores' time: who has that much is not kept from working

    def __init__(self) -> None:
        self._said = False
        self._begin()

    def _begin(self) -> None:
        self._started, self._cpu, self._tasks = time.perf_counter(), time.process_time(), schedule()

    def note(self) -> str | None:
        """Judges the time since the last call; what is too short to be judged is added to the next."""
        seconds = time.perf_counter() - self._started
        if self._said or seconds < self.SECONDS:
            return None
        before, cpu = self._tasks, time.process_time() - self._cpu
        self._begin()
        ran, waited = (
            sum(max(0, now[k] - before.get(task, (0, 0))[k]) for task, now in self._tasks.items()) for k in (0, 1)
        )
        if torch.get_num_threads() == 1 or not crowded(ran, waited, cpu / (seconds * cores.usable())):
            return None
        self._said = True
        return (
            f"other processes hold this machine: threads waited for a core {waited / (ran + waited):.0%} of the time; "
            "train.threads=1, or OMP_WAIT_POLICY=PASSIVE in the environment, may be faster"
        )


def crowded(ran: float, waited: float, busy: float) -> bool:
    """Whether others hold the machine. ran, waited: of all threads, in one unit; busy: share of our cores' time."""
    return waited > Crowding.WAITING * (ran + waited) and busy < Crowding.BUSY


def schedule(tasks: Path = TASKS) -> dict[str, tuple[int, int]]:
    """Thread -> nanoseconds that it ran and that it waited for a core; empty where the kernel does not tell."""
    found = {}
    for file in tasks.glob("*/schedstat"):
        try:
            ran, waited, _ = map(int, file.read_text().split())
        except (OSError, ValueError):  # the thread has just ended, or the kernel keeps no account
            continue
        found[file.parent.name] = (ran, waited)
    return found
