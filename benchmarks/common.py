"""What the benchmarks share: a folder to work in, a clock, and JSON lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def emit(**values: Any) -> None:
    """One JSON line on standard output, numbers to four digits."""
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}), flush=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def folder(given: Path | None) -> Iterator[Path]:
    """The folder given, made where it is not there and kept; else a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="rawrec-benchmark-") as name:
        yield Path(name)


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Inside, so many processes that never rest run on every core that this one may use."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops * cores())]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
