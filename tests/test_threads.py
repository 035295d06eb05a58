"""Numbers of threads, and whether others hold the cores."""

import itertools
import os
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import forked
from rawrec import cores, threads
from rawrec.threads import Crowding, computing, count, crowded, schedule


@pytest.fixture(autouse=True)
def as_before() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_no_more_than_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(4)
    monkeypatch.setattr(cores, "usable", lambda: 3)
    assert count() == 3
    with computing(None):
        assert torch.get_num_threads() == 3
    with computing(5):  # who says a number gets it
        assert torch.get_num_threads() == 5
    assert torch.get_num_threads() == 4
    torch.set_num_threads(2)
    with computing(None):
        assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), computing(1):
        raise KeyError
    assert torch.get_num_threads() == 2


def test_each_does_all_and_raises_the_first_error() -> None:
    torch.set_num_threads(2)
    for workers in (1, 3):
        done: list[int] = []
        threads.each(done.append, range(20), workers)
        assert sorted(done) == list(range(20)) and torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError):
            threads.each(lambda n: 1 // n, range(3), workers)


# ------------------------------------------------------------------------------------------------------------ crowding
@pytest.mark.parametrize(
    ("ran", "waited", "busy", "said"),
    [
        (10.0, 0.0, 1.0, False),  # alone
        (10.0, 20.0, 0.33, True),  # two others on every core
        (1.0, 0.1, 0.05, False),  # asleep, as in reading files
        (20.0, 60.0, 1.0, False),  # our own threads are too many: nobody else gets anything
        (0.0, 0.0, 0.0, False),  # the kernel keeps no account
    ],
)
def test_what_counts_as_crowded(ran: float, waited: float, busy: float, said: bool) -> None:
    assert crowded(ran, waited, busy) is said


def test_said_once_and_of_several_threads_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that ran 1 s and waited 3 s per reading; one of them is another one each time."""
    clock, readings = itertools.count(), itertools.count()

    def reading() -> dict[str, tuple[int, int]]:
        n = next(readings)
        return {"1": (n * 10**9, 3 * n * 10**9), f"new-{n}": (10**9, 3 * 10**9)}

    monkeypatch.setattr(threads, "schedule", reading)
    monkeypatch.setattr(time, "perf_counter", lambda: 10.0 * next(clock))
    torch.set_num_threads(2)
    crowding = Crowding()
    said = crowding.note()
    assert said is not None and "75% of the time" in said and "train.threads=1" in said
    assert crowding.note() is None
    torch.set_num_threads(1)
    assert Crowding().note() is None


def test_what_is_too_short_is_added_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    ran = iter([0, 10**9])
    monkeypatch.setattr(threads, "schedule", lambda: {"1": ((r := next(ran)), 9 * r)})
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    torch.set_num_threads(2)
    crowding = Crowding()
    for now[0] in (0.5, 1.0, 1.9):
        assert crowding.note() is None
    now[0] = 2.1
    assert "90% of the time" in str(crowding.note())


def test_the_kernel_s_account(tmp_path: Path) -> None:
    for name, text in {"1": "5 7 2\n", "2": "0 0 0\n", "3": "", "4": "no account\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text(text)
    (tmp_path / "5").mkdir()  # ended
    assert schedule(tmp_path) == {"1": (5, 7), "2": (0, 0)}
    assert schedule(tmp_path / "none") == {}


@pytest.mark.skipif(not schedule(), reason="this kernel keeps no account of waiting")
def test_threads_that_share_one_core_wait() -> None:
    """In a process that may use one core, which a busy loop wants too."""
    code = """
import os, subprocess, sys, time
def waited():
    return sum(waited for _, waited in schedule().values())
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from rawrec.threads import schedule
before = waited()
loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
try:
    while time.process_time() < 20 and waited() < before + 3e8:
        sum(range(100000))
finally:
    loop.kill(); loop.wait()
print(waited() >= before + 3e8)
"""
    done = forked.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_every_thread_is_in_the_account() -> None:
    if not schedule():
        pytest.skip("this kernel keeps no account of waiting")
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert {str(os.getpid()), str(thread.native_id)} <= schedule().keys()
    finally:
        stop.set()
        thread.join()
