"""Pages that people read: links lead somewhere, and what they say of versions and formats is what the code says."""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import rawrec
from rawrec import cli
from rawrec.content.encoders import base
from rawrec.data import checked, meta
from rawrec.serving import added
from rawrec.training import loop
from rawrec.training.tasks import base as tasks

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Where links into a page may lead: its headings, as GitHub names them, and names of the reference (site alone)."""
    found: set[str] = set(re.findall(r"^::: (\S+)$", text, re.M))
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = base_name = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        number = 0
        while name in found:
            number += 1
            name = f"{base_name}-{number}"
        found.add(name)
    return found


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def lost(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for link in LINK.findall(CODE.sub("", text_of(page))):
        name, _, part = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        to = (page.parent / name).resolve() if name else page
        if not to.exists() or (part and part not in anchors(text_of(to))):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert not lost(page)


def test_lost_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`\n\n[a](#one-two) [b](#three) [c](none.md) [d](https://example.org) `[e](no.md)`\n")
    assert lost(page) == ["#three", "none.md"]


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = {ROOT / "README.md"}, [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        for link in LINK.findall(text_of(page)):
            to = (page.parent / link.partition("#")[0]).resolve()
            if to.suffix == ".md" and to.is_file() and to not in reached:
                reached.add(to)
                waiting.append(to)
    assert not set(PAGES) - reached


# ------------------------------------------------------------------------------------------------------------ commands
OWN = {"till"}
"""Sources that a page tells how to make."""


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every `rawrec` command in the page's blocks; what is written as `...` or [optional] is no word."""
    for block in re.findall(r"^```bash\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if "rawrec " in line and not line.lstrip().startswith("#"):
                words = shlex.split(line.partition("rawrec ")[2], comments=True)
                yield list(itertools.takewhile(lambda word: word not in ("|", "&&", ";", ">", "done"), words))


def unknown(words: list[str]) -> list[str]:
    """The command and the options of `words` that rawrec does not have."""
    command: Any = cli.app.group()
    while words and hasattr(command, "commands"):
        if words[0].startswith("-"):
            break
        if words[0] in OWN:
            return []
        if words[0] not in command.commands:
            return [words[0]]
        command, words = command.commands[words[0]], words[1:]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    return [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    assert not [(words[0], bad) for words in commands(page) if words and (bad := unknown(words))]


def test_commands_that_are_none_are_found() -> None:
    assert unknown(["trian", "em3"]) == ["trian"]
    assert unknown(["import", "tables", "--out", "x"]) == ["tables"]
    assert unknown(["import", "table", "--interaction", "x", "--out", "y"]) == ["--interaction"]
    assert unknown(["--version"]) == [] and unknown(["recommend", "runs/x", "-k", "5", "--user=u1"]) == []


DENIED = re.compile(r"(\w+)'s? [^.]*?\b(?:ha(?:s|ve) no|without an?) (?:importer|command)", re.I)


def test_no_page_denies_a_source_that_is_there() -> None:
    names = {path.stem for path in (ROOT / "docs" / "sources").glob("*.md")} - {"README"}
    found = [m[0] for page in PAGES for m in DENIED.finditer(text_of(page)) if m[1].lower() in names]
    assert not found
    assert DENIED.search("RecBole's atomic files have no importer of their own")


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    assert citation["version"] == rawrec.__version__
    titles = re.findall(r"^## (.*)$", text_of(ROOT / "CHANGELOG.md"), re.M)
    newest = titles[0].removeprefix("[Unreleased] ").split(",")[0]
    assert newest == rawrec.__version__
    for title in titles[1:]:
        version, day = title.split(", ")
        assert re.fullmatch(r"\d+\.\d+\.\d+", version) and date.fromisoformat(day)
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))
    assert project["project"]["dynamic"] == ["version"], "pyproject.toml has no version of its own"


def test_the_citation_is_whole() -> None:
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["type"] == "software"
    for work in (citation, *citation["references"]):
        assert work["title"] and work["authors"]
        for author in work["authors"]:
            assert set(author) == {"family-names", "given-names"} or set(author) == {"name"}
    assert len(citation["references"]) == 3
    assert {work["type"] for work in citation["references"]} <= {"article", "conference-paper"}


def test_formats_are_as_the_page_on_versions_says() -> None:
    rows = re.findall(r"^\| (.+?) \| (\d)", text_of(ROOT / "docs" / "versioning.md"), re.M)
    found = {name.split(" (")[0]: int(number) for name, number in rows}
    assert found["dataset"] == meta.SCHEMA_VERSION
    assert found["checkpoint"] == loop.FORMAT
    assert found["added items"] == added.FORMAT
    assert found["columns in `cache/`"] == base.VERSION
    assert found["pictures found whole"] == checked.VERSION
    assert found["weights of a finished run"] == tasks.FORMAT
