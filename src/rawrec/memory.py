"""Memory of a process that allocates large tensors again and again, and how much of it there was at most."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

import torch

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
