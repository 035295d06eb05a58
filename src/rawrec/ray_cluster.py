"""Ray, as far as rawrec uses it: the cluster is joined or begun in bounded time, and whoever asks it for more than it
has is told so instead of waiting for ever."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rawrec.errors import UserError, in_a_line
from rawrec.extras import need
from rawrec.threads import count as cores

WAIT = 10.0
"""Seconds in which the machine of an address answers."""
ROOM = 120
"""Seconds in which Ray Train finds room for its workers and starts them; tried three times."""
PORTS = {"ray": 10001, "": 6379}


def load() -> Any:
    """The package. UserError, with the line that installs it, where it is not there."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(ROOM))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return need("ray", "--on ray computes with Ray")


@contextmanager
def cluster(address: str | None, wanted: int, what: str = "workers") -> Iterator[Any]:
    """Inside, Ray is connected, and is let go at the end unless the program around us had it already.

    address: HOST:PORT of a cluster's head, ray://HOST:PORT of its client server, `auto` for the one of this machine;
    None: RAY_ADDRESS of the environment, or else a Ray of this process's own on this machine. wanted: processors that
    are to compute. UserError where nobody answers there within `WAIT` seconds, and where the cluster has fewer.
    """
    ray = load()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address or os.environ.get("RAY_ADDRESS") or None)
    try:
        has = int(ray.cluster_resources().get("CPU", 0))
        if wanted > has:
            raise UserError(
                f"{wanted} {what} want a processor each, and Ray has {has}{_at(address)}: ask for at most {has} "
                "(--workers), or add machines to the cluster first"
            )
        yield ray
    finally:
        if ours:
            with suppress(Exception):
                ray.shutdown()


def _at(address: str | None) -> str:
    return f" at {address}" if address else " on this machine"


def _connect(ray: Any, address: str | None) -> None:
    how: dict[str, Any] = {"log_to_driver": False, "configure_logging": True, "logging_level": logging.ERROR}
    if address in (None, "local"):
        how |= {"num_cpus": cores(), "include_dashboard": False}
        address = "local"
    elif address != "auto":
        _reach(address)
    try:
        ray.init(address=address, **how)
    except Exception as error:  # of many kinds, down to bare ones
        raise UserError(
            f"--address {address}: no Ray cluster there ({in_a_line(error)}). `ray start --head` begins one; without "
            "--address rawrec begins its own on this machine"
        ) from None


def _reach(address: str) -> None:
    """UserError where nobody listens at an address: Ray itself would try for minutes, and end the process."""
    scheme, marks, rest = address.rpartition("://")
    host, colon, port = rest.rpartition(":")
    if not colon:
        host, port = rest, str(PORTS.get(scheme, 6379))
    if (marks and scheme != "ray") or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--address {address!r}: give HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), WAIT).close()
    except OSError as error:
        raise UserError(
            f"--address {address}: nobody answers there ({error.strerror or error}): is the cluster's head running, "
            "and may this machine reach it?"
        ) from None
