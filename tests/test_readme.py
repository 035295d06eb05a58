"""The README's blocks that are marked `<!-- test -->` run as they stand, in order, beside a tiny shop."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"<!-- test -->\s*```(bash|python)\n(.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(README.read_text(encoding="utf-8")) if README.is_file() else []


def test_marked_blocks_are_found() -> None:
    text = "<!-- test -->\n```bash\nrawrec --help\n```\n\n```bash\nno\n```\n<!-- test -->\n\n```python\n1 + 1\n```\n"
    assert BLOCK.findall(text) == [("bash", "rawrec --help\n"), ("python", "1 + 1\n")]


def test_readme(shop: Path, tmp_path: Path) -> None:
    if not blocks():
        pytest.skip("README.md has no blocks marked <!-- test -->")
    shutil.copytree(shop, tmp_path / "data" / "shop")
    folder = Path(sys.executable).parent
    env = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    for kind, code in blocks():
        command = ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
