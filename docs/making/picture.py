"""The pictures of pages in the documentation, after `make demo`: `python docs/making/picture.py` photographs a report
(docs/images/report.png), `python docs/making/picture.py runs/shop-em3` the page of a run (docs/images/browse.png).

It photographs with Chromium (Debian's `chromium`). Another report: `python docs/making/picture.py REPORT.html`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = ROOT / "docs" / "images"
RUN = ROOT / "runs" / "shop-em3"
WIDTH, HEIGHT = 1200, 1250
MOST = 200_000  # bytes


def photograph(page: Path, out: Path, place: str = "", height: int = HEIGHT) -> None:
    """The top of a page, at an address within it, as a picture."""
    browser = shutil.which("chromium") or sys.exit("there is no chromium here: apt-get install chromium")
    if not page.is_file():
        sys.exit(f"{page} does not exist: make demo")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        given = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WIDTH},{height}"]
        given.append("--virtual-time-budget=5000")
        words = [browser, *given, f"--screenshot={shot}", page.resolve().as_uri() + place]
        subprocess.run(words, check=True, capture_output=True)
        picture = Image.open(shot).convert("RGB")
    for colours in (256, 128, 64, 32):
        picture.quantize(colours, dither=Image.Dither.NONE).save(out, optimize=True)
        if out.stat().st_size < MOST:
            break
    print(f"{out}: {out.stat().st_size:,} bytes")


def browse(run: Path) -> None:
    """The first user of the page of a run, with the reasons of the first item."""
    from rawrec.browse.export import export_page
    from rawrec.browse.opening import name_of, opened
    from rawrec.browse.view import View, Wish

    rec = opened(run)
    view = View([(name_of(rec), rec)])
    with tempfile.TemporaryDirectory() as folder:
        done = export_page(view, Path(folder) / "page", users=1, items=20)
        user = view.users(k=1)["users"][0][0]
        first = view.list(Wish(user, k=1))["items"][0]["item"]
        photograph(done.path, IMAGES / "browse.png", f"#/user/{quote(user)}?why={quote(first)}", HEIGHT + 310)


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else RUN / "report.html"
    browse(given) if given.is_dir() else photograph(given, IMAGES / "report.png")
