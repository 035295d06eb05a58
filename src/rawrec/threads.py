"""Work in threads, each of which computes on one core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")


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
