"""Damaged files of every source: a dataset that is whole or a `UserError`, soon; nothing executed, nothing left behind.

RAWREC_FUZZ says how many cases each source gets.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import source_samples
from mutations import cases, limit
from rawrec.data.dataset import Dataset
from rawrec.data.validate import validate
from rawrec.errors import UserError
from rawrec.sources.amazon import import_amazon
from rawrec.sources.huggingface import import_huggingface
from rawrec.sources.impressions import import_impressions
from rawrec.sources.microlens import import_microlens, import_pixelrec
from rawrec.sources.mind import import_mind
from rawrec.sources.mmrec import import_mmrec
from rawrec.sources.movielens import import_movielens
from rawrec.sources.recbole import import_recbole
from rawrec.sources.table import import_table
from rawrec.sources.webdataset import import_webdataset

Import = Callable[[Path, Path], Dataset]


def tables(folder: Path) -> None:
    """The table of clicks and that of books in every format."""
    source_samples.table(folder)
    for name, separator in (("clicks.csv", ","), ("books.tsv", "\t")):
        table, stem = pl.read_csv(folder / name, separator=separator), folder / name.split(".")[0]
        table.write_parquet(stem.with_suffix(".parquet"))
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_dicts()]
        stem.with_suffix(".jsonl").write_text("".join(lines), encoding="utf-8")
        source_samples.json_lines(stem.with_suffix(".ndjson.gz"), table.to_dicts())
        table.write_csv(stem.with_suffix(".txt"), separator=";")


def table(suffix: str) -> Import:
    def run(folder: Path, out: Path) -> Dataset:
        return import_table(
            folder / f"clicks.{suffix}", "user", "book", time="when", labels=["clicked"], extra=["channel"],
            items=folder / f"books.{suffix.replace('csv', 'tsv')}", text=["title"], category=["genres"],
            numeric=["price"], image_dir=folder / "covers", out=out, progress=False,
        )  # fmt: skip

    return run


def opened(importer: Callable[..., Dataset], *names: str, **options: Any) -> Import:
    """The importer with files or folders of the sample."""

    def run(folder: Path, out: Path) -> Dataset:
        return importer(*(folder / name for name in names), out=out, progress=False, **options)

    return run


def huggingface(folder: Path, out: Path) -> Dataset:
    clicks = str(folder / random.Random(str(out)).choice(["clicks", "log"]))
    more = {"items": str(folder / "books"), "text": ["title"], "image": ["cover"]} if clicks.endswith("clicks") else {}
    return import_huggingface(
        clicks, "user_id", "book", time="time", labels=["clicked"], out=out, progress=False, **more
    )


def webdataset(folder: Path, out: Path) -> Dataset:
    return import_webdataset(
        str(folder / "shards" / "*.tar*"), folder / "clicks.tsv", "user", "book", time="when", text=["title"],
        numeric=["price"], out=out, progress=False,
    )  # fmt: skip


def ordered(folder: Path, out: Path) -> Dataset:
    lists = folder / "MicroLens-50k" / "MicroLens-50k_pairs.tsv"
    return import_microlens(lists.parent, pairs=lists, out=out, progress=False)


def impressions(folder: Path, out: Path) -> Dataset:
    return import_impressions(
        folder / "shown.jsonl", "user", "items", "clicks", query="query", session="session", time="time",
        items=folder / "items.tsv", item_id="sku", text=["title"], category=["kind"], out=out, progress=False,
    )  # fmt: skip


SOURCES: dict[str, tuple[Callable[[Path], None], list[Import]]] = {
    "table": (tables, [table(suffix) for suffix in ("csv", "txt", "jsonl")]),
    "parquet": (tables, [table("parquet")]),
    "gzip": (tables, [table("ndjson.gz")]),
    "movielens": (
        source_samples.movielens,
        [
            opened(import_movielens, "ml-latest-small", "ml-latest-small/posters", "ml-latest-small/plots.tsv"),
            opened(import_movielens, "ml-1m"),
        ],
    ),
    "mmrec": (source_samples.mmrec, [opened(import_mmrec, "baby")]),
    "recbole": (
        source_samples.recbole,
        [opened(import_recbole, "ml-1m", text=["movie_title"], positive=4), opened(import_recbole, "ml-split")],
    ),
    "amazon": (
        source_samples.amazon,
        [
            opened(import_amazon, "reviews_Baby_5.json.gz", "meta_Baby.json.gz", k_core=2),
            opened(import_amazon, "Video_Games.jsonl.gz", "meta_Video_Games.jsonl.gz", positive=4),
            opened(import_amazon, "ratings_Baby.csv"),
        ],
    ),
    "microlens": (
        source_samples.microlens,
        [
            opened(import_microlens, "MicroLens-50k", counts=True),
            ordered,
        ],
    ),
    "pixelrec": (source_samples.microlens, [opened(import_pixelrec, "PixelRec50K", counts=True)]),
    "mind": (source_samples.mind, [opened(import_mind, "MIND")]),
    "impressions": (
        source_samples.impressions,
        [impressions, opened(import_impressions, "feed.csv", user="visitor", items_shown="cards", clicks="tapped",
                             clicks_are="flags", time="when")],
    ),
    "huggingface": (source_samples.huggingface, [huggingface]),
    "webdataset": (source_samples.webdataset, [webdataset]),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_imports_of_damaged_files(name: str, tmp_path: Path) -> None:
    make, imports = SOURCES[name]
    whole = tmp_path / "whole"
    whole.mkdir()
    make(whole)
    for i, run in enumerate(imports):
        run(whole, tmp_path / f"good{i}")
    for chance, folder in cases(name, whole, tmp_path):
        run, out = chance.choice(imports), folder / "out"
        try:
            with limit():
                data = run(folder, out)
        except UserError as error:
            assert "\n" not in str(error) and not out.exists(), (folder, str(error))
            assert not [path for path in folder.iterdir() if path.name.startswith(".out.n")]
        else:
            assert data.n_interactions > 0 and validate(out, progress=False).problems == [], folder
