"""`llms.txt` (llmstxt.org): what the site has, for language models; and the Markdown of every page beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(out: Path, config: Any, pages: Mapping[str, tuple[Any, str]]) -> None:
    """pages: by source, the page and its Markdown."""
    for place, (_, text) in pages.items():
        (out / place).write_text(plain(text), encoding="utf-8")
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    lines += [first(pages["index.md"][1]), "", "Every page is there as Markdown, too."]
    for section in config.nav:
        ((title, below),) = section.items()
        lines += ["", f"## {title}", ""]
        for place in places(below):
            page, text = pages[place]
            lines.append(f"- [{page.title}]({place}): {first(text)}")
    (out / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def places(entries: Any) -> list[str]:
    """The pages of a part of the navigation, in its order."""
    if isinstance(entries, str):
        return [entries]
    below = entries.values() if isinstance(entries, dict) else entries
    return [place for entry in below for place in places(entry)]


def plain(text: str) -> str:
    """A page without the marks of tests."""
    return re.sub(r"^<!--.*?-->\n", "", text, flags=re.MULTILINE)


def first(text: str) -> str:
    """The first sentence below the title, without markup."""
    body = re.sub(r"^```.*?^```", "", plain(text), flags=re.DOTALL | re.MULTILINE)
    for block in re.split(r"\n\s*\n", body):
        block = block.strip()
        if block and not block.startswith(("#", "|", "!", ":::", "-", ">")):
            words = " ".join(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", block).replace("**", "").split())
            return re.split(r"(?<=\.)\s", words)[0].rstrip(":")
    return ""
