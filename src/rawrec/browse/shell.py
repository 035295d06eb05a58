"""The page's own files: what stands in the package, and the page that names them, or holds them."""

from __future__ import annotations

from importlib import resources

SCRIPTS = (
    "browse-base.js", "browse-tiles.js", "browse-users.js", "browse-items.js", "browse-try.js", "browse-map.js",
    "browse-live.js", "browse-main.js",
)  # fmt: skip
STYLES, ICON = ("report.css", "browse.css"), "browse.svg"
FILES = dict.fromkeys(SCRIPTS, "text/javascript") | dict.fromkeys(STYLES, "text/css") | {ICON: "image/svg+xml"}
"""Name -> media type."""
PLACE = "page/files"
"""Where the server has them."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def text_of(name: str) -> str:
    """One of FILES, or `browse.html`."""
    package = "rawrec.report" if name == "report.css" else "rawrec.browse"
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def shell() -> str:
    """The page as the server gives it: it names its files, and asks for all else."""
    styles = "\n".join(f'<link rel="stylesheet" href="{PLACE}/{name}">' for name in STYLES)
    icon = f'<link rel="icon" href="{PLACE}/{ICON}">'
    scripts = "\n".join(f'<script src="{PLACE}/{name}" defer></script>' for name in SCRIPTS)
    return text_of("browse.html").replace("<!-- head -->", f"{icon}\n{styles}\n{scripts}").replace("<!-- data -->", "")
