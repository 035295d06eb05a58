"""Runs a benchmark and keeps what it prints in `results/<benchmark>.json`, with all that it depends on.

    python benchmarks/keep.py TABLE BENCHMARK [WORDS ...]
    python benchmarks/keep.py retrieval-speed retrieval.py --threads 2

Each JSON line becomes a row of that table, in the place of the one that it is a newer measurement of, which the table's
key says (`pages.TABLES`; of a table that is on no page: all texts in the line). Lines of other things are shown, not
kept. What stands in a row beside the measurement (`told`) stays. `python benchmarks/pages.py` then writes the pages.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pages
from common import cores

PACKAGES = ("rawrec", "torch", "transformers", "numpy", "scipy", "polars", "pyarrow", "pylance", "pillow")
HERE = Path(__file__).parent


def made(words: list[str], seeds: list[int] | None) -> dict[str, Any]:
    """Where the numbers come from: commit, day, machine, versions, seeds and command."""
    return {
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": _machine(),
        "versions": {"python": platform.python_version()} | {n: v for n in PACKAGES if (v := _version(n))},
        "seeds": seeds,
        "command": shlex.join(["python", *words]),
    }


def _commit() -> str | None:
    """Of the checkout, with a + where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=HERE).stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    return (
        commit + ("+" if git("status", "--porcelain", "--untracked-files=no", ":/src", ":/benchmarks/*.py") else "")
        or None
    )


def _machine() -> dict[str, Any]:
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": cores(),
        "memory_gb": round(memory / 1e9),
        "gpu": gpu,
        "load": round(os.getloadavg()[0], 1),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def seeds_in(words: list[str]) -> list[int] | None:
    """What follows `--seeds`, or `--seed`; None where the benchmark chooses."""
    for at, word in enumerate(words):
        if word in ("--seeds", "--seed"):
            found = []
            for after in words[at + 1 :]:
                if not after.isdigit():
                    break
                found.append(int(after))
            return found
    return None


def kept(rows: list[pages.Row], line: pages.Row, table: pages.Table | None, how: dict[str, Any]) -> bool:
    """Enter a line among a table's rows; whether it is one of them."""
    key = table.key if table else [name for name, value in line.items() if isinstance(value, str)]
    if not any(name in line for name in key) or (table and table.needs and table.needs not in line):
        return False
    for at, other in enumerate(rows):
        if all(other.get(name) == line.get(name) for name in key):
            rows[at] = {**line, **({"told": other["told"]} if "told" in other else {}), "made": how}
            return True
    rows.append({**line, "made": how})
    return True


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__)
        return 2
    name, benchmark, *words = sys.argv[1:]
    file = HERE / Path(benchmark).name
    if not file.is_file():
        print(f"no benchmark {file.name} in {HERE}", file=sys.stderr)
        return 2
    spec = pages.TABLES.get(name)
    if spec is not None and file.stem not in spec.benchmarks:
        print(f"the table {name} is of {', '.join(spec.benchmarks)}, not of {file.stem}", file=sys.stderr)
        return 2
    how = made([f"benchmarks/{file.name}", *words], seeds_in(words))
    found = pages.read(file.stem)
    rows = found["tables"].setdefault(name, [])
    count = 0
    with subprocess.Popen([sys.executable, str(file), *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            print(text, end="", flush=True)
            if text.startswith("{"):
                count += kept(rows, json.loads(text), spec, how)
    if process.returncode:
        print(f"nothing is kept: {file.name} ended with {process.returncode}", file=sys.stderr)
        return process.returncode
    pages.write(file.stem, found)
    print(f"{count} rows of {name} in {pages.RESULTS / file.stem}.json", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
