"""The model's thread: what waits is answered together, what is too much is refused, a wrong one spoils nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event
from typing import Any

import pytest

from rawrec.server.worker import Busy, Worker


def doubled(asked: Sequence[Any]) -> list[Any]:
    return [2 * one for one in asked]


def held(worker: Worker) -> Callable[[], None]:
    """Keep the thread busy until the returned function is called."""
    begun, go = Event(), Event()

    def wait(asked: Sequence[Any]) -> list[Any]:
        begun.set()
        assert go.wait(10)
        return list(asked)

    worker.ask(0, wait)
    assert begun.wait(10)
    return go.set


def test_what_waits_and_is_alike_is_answered_at_once() -> None:
    worker, sizes = Worker(batch=4), []
    worker.sizes = sizes.append
    go = held(worker)
    futures = [worker.ask(n, doubled, "x") for n in range(6)] + [worker.ask(9, doubled, "y"), worker.ask(7, doubled)]
    assert len(worker) == 8
    go()
    assert [future.result(10) for future in futures] == [0, 2, 4, 6, 8, 10, 18, 14]
    assert sizes == [1, 4, 2, 1, 1]
    worker.close()


def test_more_than_may_wait_is_refused() -> None:
    worker = Worker(waiting=2)
    go = held(worker)
    futures = [worker.ask(n, doubled) for n in range(2)]
    with pytest.raises(Busy) as refused:
        worker.ask(3, doubled)
    assert refused.value.after >= 1
    go()
    assert [future.result(10) for future in futures] == [0, 2]
    assert worker.ask(4, doubled).result(10) == 8
    worker.close()


def test_what_waited_too_long_is_not_answered() -> None:
    worker = Worker(deadline=0.01)
    go = held(worker)
    late = worker.ask(1, doubled)
    Event().wait(0.05)
    go()
    with pytest.raises(Busy):
        late.result(10)
    worker.deadline = 10.0
    assert worker.ask(2, doubled).result(10) == 4
    worker.close()


def test_one_that_is_wrong_spoils_nothing_else() -> None:
    def some(asked: Sequence[Any]) -> list[Any]:
        return [ValueError("one") if one == 1 else one for one in asked]

    def fails(_: Sequence[Any]) -> list[Any]:
        raise KeyError("all")

    worker = Worker()
    go = held(worker)
    futures = [worker.ask(n, some, "x") for n in range(3)]
    broken = [worker.ask(n, fails, "y") for n in range(2)]
    go()
    assert (futures[0].result(10), futures[2].result(10)) == (0, 2)
    with pytest.raises(ValueError, match="one"):
        futures[1].result(10)
    for future in broken:
        with pytest.raises(KeyError):
            future.result(10)
    assert worker.ask(5, doubled).result(10) == 10
    worker.close()


def test_who_no_longer_waits_is_not_answered() -> None:
    worker, seen = Worker(), []

    def note(asked: Sequence[Any]) -> list[Any]:
        seen.extend(asked)
        return list(asked)

    go = held(worker)
    gone, stays = worker.ask(1, note, "x"), worker.ask(2, note, "x")
    assert gone.cancel()
    go()
    assert stays.result(10) == 2 and seen == [2]
    worker.close()


def test_what_waits_at_the_end_is_answered_and_nothing_more_is_taken() -> None:
    worker = Worker()
    go = held(worker)
    last = worker.ask(3, doubled)
    go()
    worker.close()
    assert last.result(0) == 6
    with pytest.raises(Busy):
        worker.ask(4, doubled)
