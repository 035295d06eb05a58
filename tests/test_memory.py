"""Freed memory is kept: in a process of its own, since it cannot be undone. Python's arrays come
from malloc as torch's tensors do."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
sys.modules["torch"] = sys  # which takes long to load
from rawrec.memory import keep_freed_memory
print(int(keep_freed_memory()))
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        parts = [bytearray(b"1") * 4_000_000 for _ in range(10)]
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def outcome(**environment: str) -> tuple[int, int]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**inherited, **environment}, capture_output=True, text=True, check=True
    )
    kept, faults = map(int, done.stdout.split())
    return kept, faults


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a matter of glibc")
def test_memory_is_kept_unless_the_environment_decides() -> None:
    kept, faults = outcome()
    decided, otherwise = outcome(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")
    assert not decided
    if kept:
        assert faults * 10 < otherwise
