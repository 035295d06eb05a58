"""What must hold of the built site beside what MkDocs checks: nothing comes from elsewhere when a page is opened, every
link leads somewhere, no picture is without words."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {
    "script": ("src",), "img": ("src", "srcset"), "link": ("href",), "iframe": ("src",), "source": ("src", "srcset"),
    "video": ("src", "poster"), "audio": ("src",), "object": ("data",), "embed": ("src",),
}  # fmt: skip
"""What a browser fetches without being asked."""
NOT_LOADED = {"canonical", "prev", "next", "alternate", "edit"}


class Page(HTMLParser):
    """What a page fetches, where its links lead, and what is in it to lead to."""

    def __init__(self, text: str):
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.silent: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "img" and not given.get("alt"):
            self.silent.append(given.get("src", "?"))
        if tag == "link" and NOT_LOADED & set(given.get("rel", "").split()):
            return
        self.fetched += [given[name] for name in LOADS.get(tag, ()) if name in given]


def faults(out: Path) -> list[str]:
    """A line for each fault of the site in a folder."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(out.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(out)
        found += [f"{name}: fetches {address}" for address in page.fetched if outside(address)]
        found += [f"{name}: the picture {source} has no words" for source in page.silent]
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            base = out if parts.path.startswith("/") else path.parent
            to = (base / unquote(parts.path.lstrip("/"))).resolve() if parts.path else path
            to = to / "index.html" if to.is_dir() else to
            if not to.is_file():
                found.append(f"{name}: {link} leads nowhere")
            elif parts.fragment and to in pages and not _there(unquote(parts.fragment), pages[to].ids):
                found.append(f"{name}: {link} leads to a page without that part")
    for path in sorted(out.rglob("*.css")):
        loads = re.findall(r"(?:@import\s+(?:url\()?|url\()\s*[\"']?([^\"')]+)", path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(out)}: fetches {address}" for address in loads if outside(address)]
    return found


def outside(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https")


def _there(part: str, ids: set[str]) -> bool:
    return part in ids or part.startswith((":", "__"))  # of texts, and of the theme's own parts
