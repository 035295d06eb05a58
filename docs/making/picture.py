"""The picture of a report in the README, docs/images/report.png: `python docs/making/picture.py`, after `make demo`.

It photographs the page with Chromium (Debian's `chromium`). Another page: `python docs/making/picture.py REPORT.html`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "docs" / "images" / "report.png"
WIDTH, HEIGHT = 1200, 1250
MOST = 200_000  # bytes


def main(page: Path) -> None:
    browser = shutil.which("chromium") or sys.exit("there is no chromium here: apt-get install chromium")
    if not page.is_file():
        sys.exit(f"{page} does not exist: make demo")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        given = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]
        words = [browser, *given, f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(words, check=True, capture_output=True)
        picture = Image.open(shot).convert("RGB")
    for colours in (256, 128, 64, 32):
        picture.quantize(colours, dither=Image.Dither.NONE).save(OUT, optimize=True)
        if OUT.stat().st_size < MOST:
            break
    print(f"{OUT}: {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs" / "shop-em3" / "report.html")
