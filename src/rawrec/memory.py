"""Memory of a process that allocates large tensors again and again."""

from __future__ import annotations

import ctypes
import os
import sys

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
