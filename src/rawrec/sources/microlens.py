"""`rawrec import microlens` and `pixelrec`: the files of these releases, found by name and by header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rawrec.arguments import checked
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.errors import UserError
from rawrec.shown import listed
from rawrec.sources._videos import ITEMS, ItemTable, Videos, write_videos
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.tables import Source, first_lines, open_delimited

TEXTS = ("title", "title_en", "description")
COUNTED_LATER = "not read, being counts of a day after the interactions; take them with --counts"


@checked()
def import_microlens(
    folder: str | Path,
    *,
    out: str | Path,
    pairs: str | Path | None = None,
    titles: str | Path | None = None,
    covers: str | Path | None = None,
    counts: bool = False,
    pictures: UrlPictures | None = None,
    encoding: str | None = None,
    split: SplitSpec | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import a folder of MicroLens: `*_pairs.csv` (or `*_pairs.tsv`), and where there are any `*_titles.csv` (or
    `*_title_en.csv`), `tags_to_summary.csv` and a folder `*_covers` of `<item>.jpg`.

    pairs, titles, covers: these, where they have other names or places. counts: also `*_likes_and_views.txt`, as
    numeric `likes` and `views`, which tell of the time after the interactions. Fields: image `cover`, text `title`,
    categorical `tag`. In a `.tsv` the place in a user's list stands for the time. pictures: a table of addresses of
    pictures, to be downloaded. encoding: of the tables (default: UTF-8, else as each is found to be). split: default
    leave one out.
    allow_empty: as of `import_table`.

    Raises UserError for files that are absent, ambiguous or cannot be read.
    """
    folder = _folder(folder)
    report = ImportReport(source=f"MicroLens {folder.name}")
    path = _file(folder, "pairs", pairs, ("*pairs.csv", "*pairs.tsv"))
    if path is None:
        raise UserError(f"{folder} holds no *_pairs.csv or *_pairs.tsv: name the interactions with pairs (--pairs)")
    line = _first_line(path, encoding)
    lists = line.count("\t") == 1 and not _header(line, "\t")
    if lists:
        source = open_delimited(path, report, "\t", columns=["user", "items"], quotes=False, encoding=encoding)
    else:
        source = _open(path, report, ",", ["user", "item", "timestamp"], encoding)
    found = _file(folder, "titles", titles, ("*_titles.csv", "*_title_en.csv"))
    videos = Videos(
        pairs=source,
        lists=lists,
        catalogue=_table(found, report, ",", {"title": "text"}, encoding) if found is not None else None,
        needs_covers=covers is not None,
        covers=_one(folder, "covers", covers, [path for path in sorted(folder.glob("*covers")) if path.is_dir()]),
    )
    if (found := _file(folder, "tags", None, ("*tags_to_summary.csv",))) is not None:
        videos.beside.append(_table(found, report, ",", {"tag": "categorical"}, encoding))
    if (found := _file(folder, "counts", None, ("*likes_and_views.txt",))) is not None:
        if counts:
            videos.beside.append(_table(found, report, "\t", {"likes": "numeric", "views": "numeric"}, encoding))
        else:
            report.note(f"{found.name}: {COUNTED_LATER}")
    return write_videos(videos, report, out, split, allow_empty, overwrite, progress, pictures)


@checked()
def import_pixelrec(
    folder: str | Path,
    *,
    out: str | Path,
    pairs: str | Path | None = None,
    titles: str | Path | None = None,
    covers: str | Path | None = None,
    counts: bool = False,
    pictures: UrlPictures | None = None,
    encoding: str | None = None,
    split: SplitSpec | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import a folder of PixelRec: in it or one folder below, a CSV with `item_id` and `user_id` (the interactions) and
    one with `item_id` and `title` (the items); and a folder `cover`, `covers` or `images` of `<item_id>.jpg`.

    pairs, titles, covers: these, where there are several or elsewhere. counts: also the columns `*_number` of the
    items, as numeric fields, which tell of the time after the interactions. Fields: image `cover`, text `title`,
    `title_en` and `description`, categorical `tag`. pictures: a table of addresses of pictures, to be
    downloaded. encoding: of the tables (default: UTF-8, else as each is found to be). split: default leave one out.
    allow_empty: as of `import_table`.

    Raises UserError for files that are absent, ambiguous or cannot be read.
    """
    folder = _folder(folder)
    report = ImportReport(source=f"PixelRec {folder.name}")
    files = [path for path in sorted([*folder.glob("*.csv"), *folder.glob("*/*.csv")]) if path.stat().st_size]
    heads = {path: _header(_first_line(path, encoding), ",") for path in files}
    found = _one(folder, "pairs", pairs, [path for path, head in heads.items() if {"item_id", "user_id"} <= head])
    if found is None:
        raise UserError(f"{folder} holds no CSV with the columns item_id and user_id: name it with pairs (--pairs)")
    source = _named(folder, found, report, encoding)
    found = _one(folder, "titles", titles, [path for path, head in heads.items() if head & set(TEXTS)])
    catalogue = None
    if found is not None:
        items = _named(folder, found, report, encoding)
        items.require("titles", ["item_id"])
        kinds = {name: "text" for name in TEXTS if name in items.columns}
        kinds |= {"tag": "categorical"} if "tag" in items.columns else {}
        counted = [name for name in items.columns if name.endswith("_number")]
        if counts:
            kinds |= dict.fromkeys(counted, "numeric")
        elif counted:
            report.note(f"{', '.join(counted)}: {COUNTED_LATER}")
        catalogue = ItemTable(items, "item_id", kinds)
    folders = [path for name in ("cover", "covers", "images") if (path := folder / name).is_dir()]
    videos = Videos(source, catalogue, _one(folder, "covers", covers, folders), needs_covers=covers is not None)
    return write_videos(videos, report, out, split, allow_empty, overwrite, progress, pictures)


def _folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist or is not a folder")
    return folder


def _file(folder: Path, what: str, given: str | Path | None, patterns: Sequence[str]) -> Path | None:
    """The file that is given, else the one that fits the first of the patterns that any fits."""
    found = [[path for path in sorted(folder.glob(pattern)) if path.is_file()] for pattern in patterns]
    return _one(folder, what, given, next(filter(None, found), []))


def _one(folder: Path, what: str, given: str | Path | None, found: list[Path]) -> Path | None:
    if given is not None:
        return Path(given)
    if len(found) > 1:
        names = listed(path.relative_to(folder) for path in found)
        raise UserError(f"{folder} holds several {what}: {names}; leave one there, or name it with {what} (--{what})")
    return found[0] if found else None


def _named(folder: Path, path: Path, report: ImportReport, encoding: str | None) -> Source:
    """A table with a header, which reports call by its place in the folder: two may have the same name."""
    source = open_delimited(path, report, ",", encoding=encoding)
    if path.is_relative_to(folder):
        source.name = str(path.relative_to(folder))
    return source


def _first_line(path: Path, encoding: str | None) -> str:
    return next(iter(first_lines(path, 1, encoding)), "")


def _header(line: str, separator: str) -> set[str]:
    """The values of a first line, lower case, if one of them is a name of items."""
    values = {value.strip().strip('"').lower() for value in line.split(separator)}
    return values if values & set(ITEMS) else set()


def _open(path: Path, report: ImportReport, separator: str, columns: list[str], encoding: str | None) -> Source:
    """A table with or without a header; without one, with these columns, which is noted."""
    if _header(_first_line(path, encoding), separator):
        return open_delimited(path, report, separator, encoding=encoding)
    report.note(f"{path.name} has no header: read as {', '.join(columns)}")
    return open_delimited(path, report, separator, columns=columns, encoding=encoding)


def _table(path: Path, report: ImportReport, separator: str, kinds: dict[str, str], encoding: str | None) -> ItemTable:
    """A table of an item's id and then, in this order, these fields, whatever its header calls them."""
    source = _open(path, report, separator, ["item", *kinds], encoding)
    if len(source.columns) != len(kinds) + 1:
        found = listed(source.columns)
        raise UserError(
            f"{path} must have {len(kinds) + 1} columns, an item's id and {', '.join(kinds)}; found: {found}"
        )
    source.columns = ["item", *kinds]
    return ItemTable(source, "item", kinds)
