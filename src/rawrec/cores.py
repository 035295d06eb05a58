"""How many cores there are for us, and how threads wait for each other. Without torch: it must come before it."""

from __future__ import annotations

import os
import sys

SPINS = "1000"
"""Turns of an idle loop that a thread makes at a barrier before it sleeps (GNU's OpenMP, which torch brings)."""
GIVEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Who sets one of these has chosen how threads wait."""
CGROUPS = "/sys/fs/cgroup"


def prepare() -> None:
    """Set up OpenMP for the machine as it is now, unless the environment says otherwise.

    By default its threads spin at every barrier. Where another process has the core of the thread that they wait for,
    they burn the time in which it could have run, and a step takes ten times as long: on a machine that others hold
    they sleep instead. On an idle one spinning is faster, by a tenth. A container's share of the cores, which OpenMP
    does not know of, becomes its number of threads.

    OpenMP reads the environment once, when torch is loaded: after that nothing is done.
    """
    if "torch" in sys.modules:
        return
    if not any(name in os.environ for name in GIVEN) and crowded():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # every OpenMP
        os.environ["GOMP_SPINCOUNT"] = SPINS
    cores = usable()
    if cores < _allowed():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))


def crowded(loadavg: str = "/proc/loadavg") -> bool:
    """Whether other processes that want to run leave fewer cores free than we would use. Unknown: no."""
    try:
        running = int(_read(loadavg).split()[3].partition("/")[0]) - 1  # of the whole machine, without ourselves
    except (IndexError, ValueError):
        return False
    return running > max(0, (os.cpu_count() or 1) - usable())


def usable() -> int:
    """Cores that this process may keep busy: those that it may run on, at most the quota of its control groups."""
    return max(1, min([_allowed(), *map(int, quotas())]))


def _allowed() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def quotas(root: str = CGROUPS, groups: str = "/proc/self/cgroup") -> list[float]:
    """Cores that each control group above this process grants, in both versions of control groups; none: no limit.

    root: where they are mounted. groups: the file that says in which of them this process is.
    """
    found = []
    for line in _read(groups).splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if not controllers:
            mounts, read = ("", "unified"), _version_2
        elif "cpu" in controllers.split(","):
            mounts, read = ("cpu", controllers), _version_1
        else:
            continue
        # Inside a container the path may be the host's and not be there: what is mounted is then its own group.
        parts = [part for part in path.split("/") if part]
        for mount in mounts:
            for depth in range(len(parts) + 1):
                cores = read(os.path.join(root, mount, *parts[:depth]))  # noqa: PTH118  pathlib is slow to import
                found += [] if cores is None else [cores]
    return found


def _version_2(folder: str) -> float | None:
    quota, _, period = _read(f"{folder}/cpu.max").partition(" ")
    return _cores(quota, period)


def _version_1(folder: str) -> float | None:
    return _cores(_read(f"{folder}/cpu.cfs_quota_us"), _read(f"{folder}/cpu.cfs_period_us"))


def _cores(quota: str, period: str) -> float | None:
    """Microseconds of all cores together per period of the clock; no number (max) or -1: no limit."""
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            return file.read()
    except (OSError, ValueError):
        return ""
