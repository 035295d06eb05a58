"""`rawrec import amazon`: the reviews and the catalogue of Amazon, releases 2014, 2018 and 2023."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from rawrec.arguments import checked
from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.shown import listed
from rawrec.sources._core import Core
from rawrec.sources._html import without_html
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.tables import WHOLE, Batch, Source, first_lines, open_delimited, open_objects
from rawrec.sources.tables.label_columns import LABEL, LabelColumn, rated_as
from rawrec.sources.tables.rows import Rows, times_of

pc: Any = pyarrow.compute
COLUMNS = {
    "user": ("user_id", "reviewerID", "user"),
    "item": ("parent_asin", "asin", "item"),
    "rating": ("rating", "overall"),
    "time": ("timestamp", "unixReviewTime", "time"),
}
"""What the releases call them; of several the first counts (2023: variants of a product are one item)."""
PRESETS = {"lmm": 5}
"""Name -> k of the k-core. Every rating is a positive, the split is at random per user, 80/10/10."""
RATING = "rating"
"""What the column of ratings is called in the dataset."""
IMAGE_URLS = ("all", "main", "keep")
ITEMS_AT_ONCE = 4096


@checked()
def import_amazon(
    reviews: str | Path,
    meta: str | Path | None = None,
    *,
    out: str | Path,
    positive: float | None = None,
    rated: str | None = None,
    k_core: int | None = None,
    preset: str | None = None,
    split: SplitSpec | None = None,
    image_urls: str | None = None,
    pictures: UrlPictures | None = None,
    encoding: str | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import Amazon's reviews (or ratings only) and the catalogue, as downloaded, gzipped or not.

    reviews: one object per line, or a CSV of user, item, rating and time with or without a header. meta: one object per
    line; Python dicts (2014) are parsed, never executed. Without it there are items without content.
    Fields: text `title` and `description`, categorical `brand` and `categories`. HTML in them is removed.
    image_urls: `all`: download the pictures of every product, the main one first; `main`: that one only; `keep`: a text
    field `image_url` of their addresses, and nothing is downloaded. pictures: how pictures are downloaded; or a table
    of further addresses.
    positive: label = rating >= positive; None: every rating is a positive. The rating is kept. rated: as of
    `import_table`, `seen` with positive.
    k_core: keep only users and items with at least so many ratings, and of the catalogue only such items (see `Core`).
    preset: `lmm`, the protocol of the paper: 5-core, every rating a positive, at random per user 80/10/10.
    encoding: of the tables that are text (default: UTF-8, else as each is found to be).
    split: default by time per user.
    allow_empty: as of `import_table`.

    Raises UserError for absent files and columns, files that cannot be read, and a preset beside what it sets.
    """
    if image_urls is not None and image_urls not in IMAGE_URLS:
        raise UserError(f"image_urls {image_urls!r} is unknown. Known: {', '.join(IMAGE_URLS)}")
    if image_urls is not None and meta is None:
        raise UserError(f"image_urls {image_urls} needs the catalogue, which has the addresses: name meta")
    if image_urls in ("all", "main"):
        pictures = pictures or UrlPictures()
    if preset is not None:
        k_core, split = _preset(preset, positive, k_core, split)
    if k_core is not None and k_core < 1:
        raise UserError(f"k_core={k_core} must be at least 1")
    report = ImportReport(source=f"Amazon {Path(reviews).name}")
    rows = _open_reviews(Path(reviews), report, encoding)
    user, item, rating, time = (_column(rows, what) for what in COLUMNS)
    label = LabelColumn(rating, RATING if positive is None else LABEL, positive)
    more, times = {} if positive is None else {rating: pa.float32()}, times_of(report, [rows], time)
    cleaner = Rows(report, user, item, time, [label], more, times=times)
    cleaner.names |= {rating: RATING}
    catalogue = open_objects(Path(meta), report, encoding) if meta is not None else None
    if catalogue is not None and not {"asin", "parent_asin"} & set(catalogue.columns):
        raise UserError(f"meta: {meta} has no column asin or parent_asin. Found: {listed(catalogue.columns, 'asin')}")
    with (
        DatasetWriter(
            out,
            fields=Fields(
                text=["title", "description", *(["image_url"] if image_urls == "keep" else [])] if catalogue else [],
                categorical=["brand", "categories"] if catalogue else [],
            ),
            source=report.source,
            labels=[] if positive is None else [label.name],
            label_rule="every rating is positive" if positive is None else f"{RATING} >= {positive:g}",
            extra={RATING: pa.float32()},
            has_time=True,
            needed=["image_url"] if image_urls == "keep" else [],
            allow_empty=allow_empty,
            overwrite=overwrite,
            pictures=pictures,
            rated=rated_as(rated, [label]),
        ) as writer,
        Bar(progress) as bar,
    ):
        core = Core(k_core, report) if k_core is not None else None
        add = core.add if core else writer.add_interactions
        for batch in bar.track("ratings", rows, cleaner.columns):
            add(cleaner.clean(batch))
        cleaner.finish(str(reviews))
        wanted = None
        if core:
            wanted, left = core.finish()
            for found in left:
                writer.add_interactions(found)
        if catalogue is not None:
            column = "image_url" if image_urls == "keep" or pictures is None else pictures.column
            _add_items(writer, catalogue, bar, wanted, {column: image_urls} if image_urls else {}, report)
        return writer.finish(split or SplitSpec.model_validate({"kind": "time_user"}), report)


def _preset(preset: str, positive: float | None, k_core: int | None, split: SplitSpec | None) -> tuple[int, SplitSpec]:
    if preset not in PRESETS:
        raise UserError(f"preset {preset!r} is unknown. Known: {', '.join(PRESETS)}")
    own = SplitSpec.model_validate({"kind": "random_user"})
    given = [name for name, value in (("positive", positive), ("k_core", k_core)) if value is not None]
    if split is not None and split.model_copy(update={"seed": own.seed}) != own:
        given.append("split")
    if given:
        raise UserError(f"preset {preset} sets {given[0]} itself: leave one of the two out")
    return PRESETS[preset], split or own


# -------------------------------------------------------------------------------------------------------------- ratings
def _open_reviews(path: Path, report: ImportReport, encoding: str | None) -> Source:
    """A file of objects, or of values between commas, with or without a header."""
    head = first_lines(path, 1000, encoding)
    if any(line.lstrip().startswith("{") for line in head):
        return open_objects(path, report, encoding)
    cells = [[cell.strip() for cell in line.split(",")] for line in head]
    known = {name for names in COLUMNS.values() for name in names}
    rows = [row for row in cells if len(row) == 4 and _is_number(row[2])]
    if not rows or known & set(cells[0]):
        return open_delimited(path, report, ",", encoding=encoding)
    # Products have ids of ten characters, customers longer ones; the releases differ in which comes first.
    first, second = ({len(row[i]) for row in rows} for i in (0, 1))
    columns = ["item", "user"] if first == {10} and second != {10} else ["user", "item"]
    report.note(f"{path.name} has no header: read as {', '.join(columns)}, rating, time")
    return open_delimited(path, report, ",", columns=[*columns, "rating", "time"], encoding=encoding)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _column(source: Source, what: str) -> str:
    for name in COLUMNS[what]:
        if name in source.columns:
            return name
    raise UserError(
        f"reviews: {source.path} has no column {', '.join(COLUMNS[what][:-1])} or {COLUMNS[what][-1]}. "
        f"Columns found: {listed(source.columns, name)}"
    )


# ------------------------------------------------------------------------------------------------------------ catalogue
def _add_items(
    writer: DatasetWriter,
    source: Source,
    bar: Bar,
    wanted: pa.Array | None,
    image_urls: dict[str, str],
    report: ImportReport,
) -> None:
    """The products of the catalogue; with `wanted` only these. image_urls: column -> which addresses it gets."""
    if "keep" in image_urls.values():
        report.note(
            "image_url holds the addresses of pictures, not words: train with content.image_url.use=false. "
            "No picture was downloaded."
        )
    unwanted = 0
    for batch in bar.track("products", source, [WHOLE]):
        report.add_read("items", len(batch.rows))
        products = _products(batch, image_urls, report)
        if wanted is not None:
            keep = pc.is_in(pa.array([p["item_id"] for p in products], pa.string()), value_set=wanted).to_pylist()
            unwanted += len(keep) - sum(keep)
            products = [product for product, kept in zip(products, keep, strict=True) if kept]
        for at in range(0, len(products), ITEMS_AT_ONCE):
            part = products[at : at + ITEMS_AT_ONCE]
            writer.add_items({name: [product[name] for product in part] for name in part[0]})
    if unwanted:
        report.note(f"{unwanted:,} products of the catalogue that have no rating in the core were left out")


def _products(batch: Batch, image_urls: dict[str, str], report: ImportReport) -> list[dict[str, Any]]:
    """The products of a batch with their fields; those without an id are counted."""
    result: list[dict[str, Any]] = []
    nameless = np.zeros(len(batch.rows), bool)
    code = np.zeros(len(batch.rows), bool)
    for i, line in enumerate(batch.columns[WHOLE].to_pylist()):
        row = json.loads(line)
        identity = next(_strings(row.get("parent_asin") or row.get("asin")), "").strip()
        if not identity:
            nameless[i] = True
            continue
        title = _texts(row.get("title"))
        if "getTime()" in "".join(title):
            code[i], title = True, []
        details = row.get("details")
        brand = row.get("brand") or (details.get("Brand") if isinstance(details, dict) else None) or row.get("store")
        categories = row.get("categories") or row.get("category") or row.get("main_category")
        result.append(
            {
                "item_id": identity,
                "title": title,
                "description": _texts(row.get("description")),
                "brand": _texts(brand),
                "categories": list(dict.fromkeys(_texts(categories))),
                **{
                    column: list(dict.fromkeys(_addresses(row)))[: 1 if which == "main" else None]
                    for column, which in image_urls.items()
                },
            }
        )
    for bad, reason in ((nameless, "items: no asin"), (code, "items: title is code of the page (kept, without title)")):
        if bad.any():
            report.skip(reason, batch.examples(bad, WHOLE), int(bad.sum()))
    return result


def _strings(value: Any) -> Iterator[str]:
    """The strings and numbers of a value, in lists of any depth."""
    if isinstance(value, list):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)


def _texts(value: Any) -> list[str]:
    """The strings of a value without HTML; the empty ones are left out."""
    return [text for one in _strings(value) if (text := without_html(one))]


def _addresses(row: dict[str, Any]) -> Iterator[str]:
    """The addresses of a product's pictures in their largest size, the main one first."""
    pictures = row.get("images")
    if isinstance(pictures, dict):  # one list per key instead of one object per picture
        lists = {key: values for key, values in pictures.items() if isinstance(values, list)}
        pictures = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=False)]
    found: Any = row.get("imageURLHighRes") or row.get("imageURL") or row.get("image") or row.get("imUrl")
    if isinstance(pictures, list) and pictures:
        pictures = sorted(
            (p for p in pictures if isinstance(p, dict)), key=lambda picture: picture.get("variant") != "MAIN"
        )
        found = [picture.get("hi_res") or picture.get("large") or picture.get("thumb") for picture in pictures]
    for text in _strings(found):
        if (address := text.strip()).startswith(("http://", "https://")):
            yield address
