"""Memory of a process that allocates large tensors again and again, and how much of it there was at most."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from rawrec.cores import CGROUPS

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
KEEP = 2**30
LARGEST_OF_OLD_VERSIONS = 2**25


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory for the next allocation instead of giving it back to the system at once.

    Else every step of a training on a CPU gets its large tensors as fresh pages, which the system zeroes one by one:
    that can take several times as long as the mathematics. Blocks above 1 GiB are given back as before. True where it
    was done: not on other systems, nor where the environment sets thresholds of its own (MALLOC_TRIM_THRESHOLD_,
    MALLOC_MMAP_THRESHOLD_, GLIBC_TUNABLES).
    """
    if not sys.platform.startswith("linux") or any(
        name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ
    ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    # The second threshold must not be left at its default once the first is set, since it then stops adapting.
    if not (mallopt(M_MMAP_THRESHOLD, KEEP) or mallopt(M_MMAP_THRESHOLD, LARGEST_OF_OLD_VERSIONS)):
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEEP))


def begin_peak(device: torch.device) -> None:
    """From now on `peak_mb` counts anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # no Linux, or not allowed: then since the process began
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb(device: torch.device) -> float | None:
    """The largest memory since `begin_peak`, in MB: allocated on a GPU, else resident of the process; None where the
    system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def available(meminfo: str = "/proc/meminfo", root: str = CGROUPS, groups: str = "/proc/self/cgroup") -> int | None:
    """Bytes that a process may still take: what the system says is available, at most what every control group of this
    process leaves. None where the system does not say.

    root: where control groups are mounted. groups: the file that says in which of them this process is.
    """
    found = [int(line.split()[1]) * 1024 for line in _lines(Path(meminfo)) if line.startswith("MemAvailable:")]
    for line in _lines(Path(groups)):
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        limit, used, mount = _VERSIONS["memory" if controllers else ""]
        parts = [part for part in path.split("/") if part]
        # Inside a container the path may be the host's and not be there: what is mounted is then its own group.
        for depth in range(len(parts) + 1):
            folder = Path(root, mount, *parts[:depth])
            most, taken = _number(folder / limit), _number(folder / used)
            if most is not None and taken is not None:
                cache = [int(line.split()[1]) for line in _lines(folder / "memory.stat") if line.split()[0] in _CACHE]
                found.append(max(0, most - taken + max(cache, default=0)))
    return min(found, default=None)


_VERSIONS = {
    "": ("memory.max", "memory.current", ""),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory"),
}
"""Of control groups: the files of a limit and of what is used, and where they are."""
_CACHE = ("inactive_file", "total_inactive_file")
"""What of the memory in use is given back when it is asked for."""


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text().splitlines() if line.strip()]
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """None where the file is not there, or says `max`."""
    words = _lines(path)
    return int(words[0]) if words and words[0].isdigit() else None


@contextmanager
def staying() -> Iterator[None]:
    """Inside, what is there now is not looked through for cycles that nobody reaches (`gc.freeze`): modules, datasets
    and models are a million objects, which would be gone through each time that some ten thousand events have come."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
