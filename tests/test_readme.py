"""The README's blocks that are marked `<!-- test -->` run as they stand, in order, beside a tiny shop."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import forked
from rawrec.sources.synthetic import import_synthetic

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"<!-- test -->\s*```(bash|python)\n(.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    return BLOCK.findall(README.read_text(encoding="utf-8")) if README.is_file() else []


def test_marked_blocks_are_found() -> None:
    text = "<!-- test -->\n```bash\nrawrec --help\n```\n\n```bash\nno\n```\n<!-- test -->\n\n```python\n1 + 1\n```\n"
    assert BLOCK.findall(text) == [("bash", "rawrec --help\n"), ("python", "1 + 1\n")]


def test_readme(tmp_path: Path) -> None:
    if not blocks():
        pytest.skip("README.md has no blocks marked <!-- test -->")
    import_synthetic(tmp_path / "data" / "shop", items=30, users=20, impressions=500, progress=False)
    (tmp_path / "bin").mkdir()
    forked.command(tmp_path / "bin", "rawrec", "-m", "rawrec.cli")
    env = os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for kind, code in blocks():
        bash, python = (subprocess.run, ["bash", "-euo", "pipefail"]), (forked.run, [sys.executable])
        run, start = bash if kind == "bash" else python
        done = run([*start, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    ignored = set(re.findall(r"^/(\w+)/$", (README.parent / ".gitignore").read_text(encoding="utf-8"), re.MULTILINE))
    left = {path.name for path in tmp_path.iterdir()} - {"bin"}
    assert left <= ignored, f"git would see {sorted(left - ignored)}: write to data/ or runs/"
