"""Freed memory is kept: in a process of its own, since it cannot be undone. Python's arrays come
from malloc as torch's tensors do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rawrec.memory import available

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


def test_available_memory_is_what_system_and_control_groups_leave(tmp_path: Path) -> None:
    meminfo, groups, root = tmp_path / "meminfo", tmp_path / "cgroup", tmp_path / "fs"
    assert available(str(meminfo), str(root), str(groups)) is None
    meminfo.write_text("MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable:     500 kB\n")
    assert available(str(meminfo), str(root), str(groups)) == 500 * 1024
    groups.write_text("3:cpu,cpuacct:/else\n0::/a/b\n")

    def write(folder: Path, **values: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (folder / name.replace("__", ".")).write_text(f"{value}\n")

    write(root / "a" / "b", memory__max="max", memory__current=7)
    assert available(str(meminfo), str(root), str(groups)) == 500 * 1024
    write(root / "a", memory__max=300_000, memory__current=100_000, memory__stat="anon 5\ninactive_file 40000")
    assert available(str(meminfo), str(root), str(groups)) == 240_000
    write(root / "a", memory__max=300_000, memory__current=400_000, memory__stat="anon 5")
    assert available(str(meminfo), str(root), str(groups)) == 0
    groups.write_text("5:memory:/docker/x\n4:cpu:/docker/x\n")  # the first version, from inside a container
    old = {"memory__limit_in_bytes": 9_000, "memory__usage_in_bytes": 4_000, "memory__stat": "total_inactive_file 500"}
    write(root / "memory", **old)
    assert available(str(meminfo), str(root), str(groups)) == 5_500
