"""One thread asks the model. Requests wait in a queue of bounded length, and those that ask alike are answered at once.

A model computes with all cores, so that two requests side by side take as long as one after the other, and delay each
other. What comes while the thread is busy waits; when it is free it takes, beside the oldest request, all waiting ones
that may be answered with it. So batches grow with the load, and a lone request waits for nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

Work = Callable[[Sequence[Any]], Sequence[Any]]
"""What is asked, of several requests alike -> an answer, or an exception, for each."""


class Busy(Exception):
    """Too many wait, or a request waited too long. after: seconds until it is worth asking again."""

    def __init__(self, after: int) -> None:
        super().__init__(f"too many requests: ask again in {after} s")
        self.after = after


@dataclass
class Job:
    """A request. alike: jobs of one key are answered together by the `work` of the first; None: alone."""

    asked: Any
    work: Work
    alike: Hashable | None
    until: float
    answer: Future[Any] = field(default_factory=Future)


class Worker:
    """A thread with its queue. waiting: how many requests may wait; deadline: how long, in seconds; batch: how many are
    answered at once; inside: a context within which the thread works."""

    def __init__(
        self, waiting: int = 64, deadline: float = 2.0, batch: int = 16, inside: Callable[[], Any] | None = None
    ) -> None:
        self.waiting, self.deadline, self.batch = waiting, deadline, batch
        self._queue: deque[Job] = deque()
        self._more, self._open = Condition(), True
        self._inside = inside
        self.sizes: Callable[[int], None] = lambda size: None
        """Told of the number of requests that were answered at once."""
        self._thread = Thread(target=self._run, name="rawrec-model", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def ask(self, asked: Any, work: Work, alike: Hashable | None = None) -> Future[Any]:
        """The answer to come. Raises Busy where too many wait already; the future does where it waited too long."""
        job = Job(asked, work, alike, time.monotonic() + self.deadline)
        with self._more:
            if not self._open or len(self._queue) >= self.waiting:
                raise Busy(1)
            self._queue.append(job)
            self._more.notify()
        return job.answer

    def close(self, seconds: float = 5.0) -> None:
        """Take nothing more; what waits is answered, then the thread ends."""
        with self._more:
            self._open = False
            self._more.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        if self._inside is None:
            return self._work()
        with self._inside():
            self._work()

    def _work(self) -> None:
        while (jobs := self._next()) is not None:
            now = time.monotonic()
            late = [job for job in jobs if job.until < now]
            jobs = [job for job in jobs if job.until >= now and job.answer.set_running_or_notify_cancel()]
            for job in late:
                if job.answer.set_running_or_notify_cancel():
                    job.answer.set_exception(Busy(max(1, round(self.deadline))))
            if jobs:
                self.sizes(len(jobs))
                self._answer(jobs)

    def _next(self) -> list[Job] | None:
        """The oldest request, and those that may be answered with it; None at the end."""
        with self._more:
            while not self._queue:
                if not self._open:
                    return None
                self._more.wait()
            first = self._queue.popleft()
            jobs = [first]
            if first.alike is not None:
                others = [job for job in self._queue if job.alike == first.alike][: self.batch - 1]
                taken = {id(job) for job in others}
                self._queue = deque(job for job in self._queue if id(job) not in taken)
                jobs += others
            return jobs

    @staticmethod
    def _answer(jobs: Sequence[Job]) -> None:
        try:
            found = jobs[0].work([job.asked for job in jobs])
        except BaseException as error:  # whatever it is, somebody waits for an answer
            found = [error] * len(jobs)
        for job, answer in zip(jobs, found, strict=True):
            if isinstance(answer, BaseException):
                job.answer.set_exception(answer)
            else:
                job.answer.set_result(answer)
