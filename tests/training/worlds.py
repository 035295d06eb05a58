"""Starts several processes that train together, as `torchrun` would, but without its seconds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import forked


class Ended(NamedTuple):
    """How a process ended: its exit code, and what it said."""

    code: int
    out: str
    err: str


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(
    size: int,
    words: Sequence[str],
    port: int | None = None,
    own: Mapping[int, Sequence[str]] | None = None,
    ranks: Sequence[int] | None = None,
) -> list[forked.Process]:
    """`python WORDS` so often, or of these `ranks` alone. own: words behind those, of one rank."""
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    env = {
        **os.environ,
        "PYTHONPATH": path,
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port or free_port()),
    }
    return [
        forked.Process(
            [sys.executable, *words, *(own or {}).get(rank, ())],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in ranks or range(size)
    ]


def ended(processes: Sequence[forked.Process]) -> list[Ended]:
    """Of all of them, within a minute."""
    try:
        found = [process.communicate(60) for process in processes]
        return [Ended(process.wait(), *said) for process, said in zip(processes, found, strict=True)]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
            process.__exit__()
        raise


def together(size: int, words: Sequence[str], **more: object) -> list[Ended]:
    return ended(start(size, words, **more))  # pyright: ignore[reportArgumentType]
