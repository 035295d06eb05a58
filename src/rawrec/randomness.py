"""Random numbers as functions of seed and step, so that a resumed run needs no generator's state.

torch's own generators are of the whole process: where several threads draw from them, each would take the others'
numbers. So whatever draws from them does it inside `drawing`, from its own seed on: a step of training, the making of
a network. Between two of these it does not matter who draws.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_turn, _waiting = threading.RLock(), set[int]()
PAUSE = 1e-3  # seconds for which who was inside lets others go first


@contextmanager
def drawing() -> Iterator[None]:
    """Inside, no other thread draws from torch's own generators. Each takes its turn: who waits comes next."""
    if not _turn.acquire(blocking=False):
        _waiting.add(threading.get_ident())
        _turn.acquire()
        _waiting.discard(threading.get_ident())
    try:
        yield
    finally:
        _turn.release()
    if _waiting:
        time.sleep(PAUSE)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's generator of the CPU begins at `seed`; afterwards it is as it was."""
    with drawing(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _forked() -> None:
    """A forked process has none of the threads that could be inside."""
    global _turn
    _turn = threading.RLock()
    _waiting.clear()


os.register_at_fork(after_in_child=_forked)


def mixed(seed: int, step: int) -> int:
    """A seed per step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 2)


def generator_of(*key: int) -> torch.Generator:
    """A generator whose draws are a function of the key: seed, kind of draw, epoch or step."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator().manual_seed(seed)


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed torch's own generators of the CPU and of `device`.

    `torch.manual_seed` seeds those of all devices and, where a kind is not in use, notes down the stack of its caller,
    which takes longer than a layer.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
