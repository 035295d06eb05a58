"""`rawrec import openclipart`: Debian's packages of clip art, pictures with titles and keywords that nobody clicked."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rawrec.arguments import checked
from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.images import check
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.sources.media.pictures import WORKERS

PLACE = "/usr/share/openclipart"
AT_ONCE = 256
HEAD = 256 << 10
"""Bytes of a drawing in which its metadata are looked for."""
NONE = ("unsorted", "")
"""Keywords that say nothing."""


class Piece(NamedTuple):
    """key: path below `png/` without its ending."""

    key: str
    picture: Path
    title: str
    keywords: list[str]
    description: str


@checked()
def import_openclipart(
    folder: str | Path = PLACE,
    *,
    out: str | Path,
    title_uses: int = 5,
    keywords: int = 2,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import the pictures below `folder/png` whose drawing below `folder/svg` has a title: a catalogue alone.

    folder: as the packages openclipart-png and openclipart-svg install it, or a folder that they were unpacked to.
    title_uses: titles of more pictures than this are names of collections, and left out. keywords: at least so many.
    Items have `image`, the texts `title`, `keywords` and `description`, and the category `folder`. Links, which repeat
    pictures of other folders, are counted. UserError where there is no such folder, or nothing is left.
    """
    root = _root(Path(folder))
    report = ImportReport(source="Open Clip Art Library, as Debian packages it")
    pieces = _clean(list(_pieces(root, report)), title_uses, keywords, report)
    fields = Fields(image=["image"], text=["title", "keywords", "description"], categorical=["folder"])
    with (
        DatasetWriter(
            out, fields=fields, source=report.source, labels=[], label_rule="", has_time=False, overwrite=overwrite
        ) as writer,
        Bar(progress),
        ThreadPoolExecutor(WORKERS) as pool,
    ):
        for start in range(0, len(pieces), AT_ONCE):
            some = pieces[start : start + AT_ONCE]
            data = [piece.picture.read_bytes() for piece in some]
            good = []
            for piece, picture, wrong in zip(some, data, pool.map(check, data), strict=True):
                if wrong is None:
                    good.append((piece, picture))
                else:
                    report.skip(f"picture: {wrong}", piece.key)
            if good:
                writer.add_items(
                    {
                        "item_id": [piece.key for piece, _ in good],
                        "image": [[picture] for _, picture in good],
                        "title": [[piece.title] for piece, _ in good],
                        "keywords": [[", ".join(piece.keywords)] if piece.keywords else [] for piece, _ in good],
                        "description": [[piece.description] if piece.description else [] for piece, _ in good],
                        "folder": [piece.key.split("/")[:-1] for piece, _ in good],
                    }
                )
        return writer.finish(SplitSpec.model_validate({"kind": "random_user"}), report, catalogue_alone=True)


def _root(folder: Path) -> Path:
    """The folder that has `png` and `svg`: itself, or the place of the packages below it."""
    for root in (folder, folder / PLACE.lstrip("/")):
        if (root / "png").is_dir() and (root / "svg").is_dir():
            return root
    raise UserError(
        f"{folder} has no folders png and svg, as Debian's packages openclipart-png and openclipart-svg install them "
        f"in {PLACE}: apt-get install both, or apt-get download both and dpkg-deb -x each into one folder"
    )


def _pieces(root: Path, report: ImportReport) -> Iterator[Piece]:
    """Every picture whose drawing has a title, by path."""
    for picture in sorted((root / "png").rglob("*.png")):
        key = picture.relative_to(root / "png").with_suffix("").as_posix()
        report.add_read("pictures")
        if picture.is_symlink():
            report.skip("links to other pictures", key)
            continue
        drawing = root / "svg" / f"{key}.svg"
        if not drawing.is_file():
            report.skip("no drawing of the same path below svg", key)
            continue
        with drawing.open("rb") as file:
            found = re.search(r"<rdf:RDF.*?</rdf:RDF>", file.read(HEAD).decode("utf-8", "replace"), re.DOTALL)
        about = found[0] if found else ""
        title = _first(about, "dc:title")
        if not title:
            report.skip("no title in the drawing", key)
            continue
        words = [_text(word) for word in re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", about, re.DOTALL)]
        words = list(dict.fromkeys(word for word in words if word.lower() not in NONE))
        yield Piece(key, picture, title, words, _first(about, "dc:description"))


def _clean(pieces: list[Piece], title_uses: int, keywords: int, report: ImportReport) -> list[Piece]:
    uses = Counter(piece.title for piece in pieces)
    kept = []
    for piece in pieces:
        if uses[piece.title] > title_uses:
            report.skip(f"title of more than {title_uses} pictures", f"{piece.key}: {piece.title}")
        elif len(piece.keywords) < keywords:
            report.skip(f"fewer than {keywords} keywords", piece.key)
        else:
            kept.append(piece)
    if not kept:
        raise UserError("no picture is left: all that were found are counted as skipped; see --title-uses, --keywords")
    return kept


def _first(about: str, name: str) -> str:
    """The text of the first element of a name; what stands in it is text."""
    found = re.search(rf"<{name}[^>/]*>([^<]*)</{name}>", about)
    return _text(found[1]) if found else ""


def _text(raw: str) -> str:
    return " ".join(html.unescape(raw).split())
