"""The README, the tutorial, the page about pages and the how-to pages run as they stand, block after block, each page
in a fresh folder.

A block is marked by `<!-- test -->` in the line above it, or by `<!-- test: NAME -->`, which first makes the files of
`story_samples.NAME`; a block of commands or Python that is not run says why: `<!-- not tested: why -->`. Commands of
rawrec run in this process, which has the heavy libraries loaded, and so do the blocks of Python of a page, which know
what those before them have named.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import story_samples
from rawrec import cli
from registries import registries

__all__ = ["registries"]
ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", DOCS / "tutorial.md", DOCS / "report.md", *sorted((DOCS / "how-to").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- (test|not tested)(?:: *(.+?))? *-->\s*)?^```(bash|python)\n(.*?)^```", re.DOTALL | re.MULTILINE
)


class Block(NamedTuple):
    mark: str
    name: str
    """Of the files to be made before it, or why it is not run."""
    kind: str
    text: str

    def commands(self) -> list[list[str]]:
        """The words of every command, or nothing where they are more than commands."""
        lines = [shlex.split(line, comments=True) for line in self.text.replace("\\\n", " ").splitlines()]
        return [words for words in lines if words]


def blocks(text: str) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(text)]


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert (stop.value.code or 0) == 0, f"{shlex.join(words)}\n{out}\n{err}"


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    known: dict[str, Any] = {"__name__": "__main__"}
    tested = [block for block in blocks(page.read_text(encoding="utf-8")) if block.mark == "test"]
    made: set[str] = set()
    for block in tested:
        if block.name:
            getattr(story_samples, block.name)(tmp_path)
            made |= {path.name for path in tmp_path.iterdir()}
        if block.kind == "python":
            exec(compile(block.text, f"{page.name}: {block.text.splitlines()[0]}", "exec"), known)
        elif all(words[0] == "rawrec" for words in block.commands()):
            for words in block.commands():
                run(words, monkeypatch, capsys)
        else:
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], capture_output=True, text=True)
            assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
    capsys.readouterr()
    assert tested, f"{page.name} has no block marked <!-- test -->"
    ignored = set(re.findall(r"^/(\w+)/$", (ROOT / ".gitignore").read_text(encoding="utf-8"), re.MULTILINE))
    left = {path.name for path in tmp_path.iterdir()} - made
    assert left <= ignored, f"git would see {sorted(left - ignored)}: write to data/ or runs/"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_says_why(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        assert block.mark == "test" or (block.mark and block.name), f"{page.name}: mark this block:\n{block.text}"


def test_blocks_are_read() -> None:
    text = "<!-- test: shop -->\n```bash\nrawrec a \\\n  --b 'c d'  # note\n\n```\n```bash\npip\n```\n"
    text += "<!-- not tested: needs the hub -->\n```bash\nrawrec f\n```\n<!-- test -->\n\n```python\n1 + 1\n```\n"
    first, second, third, last = blocks(text)
    assert (first.mark, first.name, first.kind) == ("test", "shop", "bash")
    assert first.commands() == [["rawrec", "a", "--b", "c d"]]
    assert second == Block("", "", "bash", "pip\n")
    assert third.mark == "not tested" and third.name == "needs the hub"
    assert last == Block("test", "", "python", "1 + 1\n")
