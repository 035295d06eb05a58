"""What the site has beside the pages of docs/: events of MkDocs, in their order.

Made here: the start page and others from files of the repository's root, a page for each model (models.py) and each
notebook (notebooks.py), the help of all commands (commands.py), `llms.txt` and the Markdown of every page (llms.py).
Formulas become MathML (formulas.py), and what is built is looked through (checks.py).
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

import checks
import commands
import formulas
import llms
import models
import notebooks

ROOT = Path(__file__).resolve().parent.parent.parent
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CITATION.cff": "CITATION.cff",
    "LICENSE": "LICENSE.txt",
}
"""Files of the root, and where the site has them."""
SHIM = "https://unpkg.com/iframe-worker/shim"
"""What the theme fetches so that the search works from files; we have our own."""
WORKER = "assets/worker.js"
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
OPTION = re.compile(r"(<code>|(?<=\w|\]|') )(--[\w-]+)(?=[^<>]*</code>)")
"""In commands within the text: no line ends within an option."""
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")

_pages: dict[str, tuple[Any, str]] = {}
"""Every page by its source, with its Markdown as the site has it."""


def on_config(config: Any) -> Any:
    """The navigation has the pages that are made; headings have the anchors that GitHub gives them."""
    made = {**models.navigation(), "Notebooks": [notebooks.INDEX, *(one.place for one in notebooks.all_of(ROOT))]}

    def fill(entries: list[Any]) -> None:
        for entry in entries:
            for title, below in entry.items() if isinstance(entry, dict) else ():
                if not below:
                    entry[title] = made[title]
                elif isinstance(below, list):
                    fill(below)

    fill(config.nav)
    config.mdx_configs["toc"]["slugify"] = lambda text, _: models.slug(text)
    return config


def on_files(files: Any, config: Any) -> Any:
    for name, place in ELSEWHERE.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8")))
    files.append(File.generated(config, commands.PLACE, content=commands.page()))
    files.append(File.generated(config, notebooks.INDEX, content=notebooks.index(ROOT)))
    for one in notebooks.all_of(ROOT):
        files.append(File.generated(config, one.place, content=one.page()))
    anchors = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in models.EXPLAINED}
    for place, text in models.pages(anchors).items():
        files.append(File.generated(config, place, content=text))
    _pages.clear()
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links lead to where the site has the file."""
    place = page.file.src_uri
    written = {there: name for name, there in ELSEWHERE.items()}.get(place, f"docs/{place}")

    def moved(found: re.Match[str]) -> str:
        to = os.path.normpath(PurePosixPath(written).parent / found[2])
        there = ELSEWHERE.get(to) or notebooks.place_of(to) or (to.startswith("docs/") and to.removeprefix("docs/"))
        if not there:
            return found[0]
        return found[1] + os.path.relpath(there, PurePosixPath(place).parent) + found[3]

    parts = CODE.split(markdown)
    text = "".join(part if at % 2 else LINK.sub(moved, part) for at, part in enumerate(parts))
    text = re.sub(
        r"^\|.*$", lambda row: CODE.sub(lambda found: found[0].replace("\\|", "|"), row[0]), text, flags=re.MULTILINE
    )
    _pages[place] = (page, text)
    return text


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    return OPTION.sub(r'\1<span class="whole">\2</span>', formulas.as_mathml(html))


def on_post_build(config: Any) -> None:
    out = Path(config.site_dir)
    for path in out.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(SHIM, os.path.relpath(out / WORKER, path.parent)), encoding="utf-8")
    llms.write(out, config, _pages)
    if faults := checks.faults(out):
        raise PluginError("the site is not as it should be:\n" + "\n".join(faults))
