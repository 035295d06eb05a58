"""The pages on importing your own data and on results: every command in them runs, beside files made for it.

A page marks a block of commands by `<!-- test: NAME -->` in the line above it; `source_samples.NAME(folder)` makes the
files that it needs. Each block starts in a fresh folder. A block with a `rawrec` command that cannot be run (it needs
the network, say) is marked `<!-- not tested: why -->` instead.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import source_samples
from rawrec import Dataset, cli

DOCS = Path(__file__).resolve().parent.parent / "docs"
INDEX = DOCS / "sources" / "README.md"
PAGES = sorted(path for path in (DOCS / "sources").glob("*.md") if path != INDEX)
BLOCK = re.compile(r"(?:<!-- (test|not tested): *(.+?) *-->\s*)?^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A block of commands: what its mark says, the name or reason that the mark gives, and its text."""

    mark: str
    name: str
    text: str

    def commands(self) -> list[list[str]]:
        """The words of every command, `rawrec` being the first."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(text: str) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(text)]


def marked(page: Path) -> list[Block]:
    return [block for block in blocks(page.read_text(encoding="utf-8")) if block.mark == "test"]


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command in this process, which imports the heavy libraries once for all pages."""
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert (stop.value.code or 0) == 0, f"{shlex.join(words)}\n{out}\n{err}"


CASES = [
    pytest.param(block, id=f"{page.stem}-{number}-{block.name}")
    for page in [*PAGES, DOCS / "outputs.md"]
    for number, block in enumerate(marked(page), 1)
]


@pytest.mark.parametrize("block", CASES)
def test_commands_run(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    getattr(source_samples, block.name)(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for words in block.commands():
        assert words[0] == "rawrec", f"{shlex.join(words)}: a tested block holds rawrec commands only"
        run(words, monkeypatch, capsys)
        out = Path(words[words.index("--out") + 1]) if "--out" in words else None
        if words[1] == "import" and out is not None:
            data = Dataset.open(out)
            alone = words[2] == "openclipart"  # a catalogue without interactions
            assert data.n_items and (alone or (len(data.users) and set(data.split()) >= {0}))
            run(["rawrec", "validate", str(out)], monkeypatch, capsys)
        elif out is not None:
            assert out.exists(), f"{shlex.join(words)} wrote nothing"


@pytest.mark.parametrize("page", [*PAGES, DOCS / "outputs.md"], ids=lambda page: page.stem)
def test_every_command_of_a_page_is_tested(page: Path) -> None:
    assert marked(page), f"{page.name} has no block marked <!-- test: NAME -->"
    for mark, _, text in blocks(page.read_text(encoding="utf-8")):
        assert mark or "rawrec " not in text, f"{page.name}: mark this block, see tests/test_sources.py:\n{text}"


def test_every_page_is_in_the_index() -> None:
    links = set(re.findall(r"\]\(([\w-]+\.md)\)", INDEX.read_text(encoding="utf-8")))
    assert links == {page.name for page in PAGES}


def test_blocks_are_read() -> None:
    text = "<!-- test: shop -->\n\n```bash\nrawrec a \\\n  --b 'c d'  # note\n\nrawrec e\n```\n```bash\npip\n```\n"
    text += "<!-- not tested: needs the hub -->\n```bash\nrawrec f\n```\n"
    first, second, third = blocks(text)
    assert first.mark == "test" and first.name == "shop"
    assert first.commands() == [["rawrec", "a", "--b", "c d"], ["rawrec", "e"]]
    assert second == Block("", "", "pip\n")
    assert third.mark == "not tested" and third.name == "needs the hub"
