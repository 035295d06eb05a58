"""Files that pages which tell a story begin with: one function per mark `<!-- test: NAME -->` (test_stories.py)."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rawrec.data.synthetic_items import BADGES, COLOURS, SHAPES
from rawrec.sources.synthetic import import_synthetic

REAL = Path(os.environ.get("RAWREC_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def shop(folder: Path) -> None:
    """The generated shop, small."""
    import_synthetic(folder / "data" / "shop", items=30, users=20, impressions=500, size=32, progress=False)


def tables(folder: Path) -> None:
    """Clicks, a catalogue and a folder of photos, as a shop may have them; p0 has no photo, p1 no name."""
    rng, colours = np.random.default_rng(0), list(COLOURS.items())
    products, photos = [], folder / "photos"
    photos.mkdir()
    for item in range(30):
        (colour, rgb), shape = colours[item % 8], SHAPES[item % 7]
        name = "" if item == 1 else f"{colour.title()} {shape} with a {BADGES[1 + item % 5]}"
        products.append([f"p{item}", name, shape, f"{5 + item}.50"])
        if item:
            Image.new("RGB", (48, 48), rgb).save(photos / f"p{item}.jpg")
    taken = [(f"c{user}", f"p{item}") for user in range(20) for item in rng.permutation(30)[:20]]
    rows = [
        [*pair, f"2026-03-{1 + at % 28:02} 1{at % 10}:00", int(rng.random() < 0.4)] for at, pair in enumerate(taken)
    ]
    _write(folder / "clicks.csv", ["customer", "product", "when", "bought"], rows)
    _write(folder / "products.csv", ["product", "name", "kind", "price"], products)
    _write(folder / "today.csv", ["customer", "product", "when", "bought"], [["c1", "p3", "2026-04-02 10:00", 1]])


def films(folder: Path) -> None:
    """A part of MovieLens latest-small with its posters and plots where real data are at hand; else films made up."""
    source, small = REAL / "ml-latest-small", folder / "ml-latest-small"
    (small / "posters").mkdir(parents=True)
    ratings, movies, plots = _real_films(source, small) if source.is_dir() else _made_films(small)
    _write(small / "ratings.csv", ["userId", "movieId", "rating", "timestamp"], ratings)
    _write(small / "movies.csv", ["movieId", "title", "genres"], movies)
    _write(small / "plots.tsv", ["movieId", "plot"], plots, "\t")


def _real_films(source: Path, small: Path) -> tuple[list[Sequence[Any]], list[Sequence[Any]], list[Sequence[Any]]]:
    """30 users and their ratings of the 60 films that are rated most often, under the ids of the published files."""
    read = {name: _read(source / name) for name in ("ratings.csv", "movies.csv")}
    counts: dict[str, int] = {}
    for _, movie, *_ in read["ratings.csv"][1:]:
        counts[movie] = counts.get(movie, 0) + 1
    kept = set(sorted(counts, key=lambda movie: -counts[movie])[:60]) | {"1", "50"}
    first = int(read["ratings.csv"][1][0]) - 1
    ratings = [(int(user) - first, movie, *rest) for user, movie, *rest in read["ratings.csv"][1:] if movie in kept]
    for movie in kept:
        if (poster := source / "posters" / f"{movie}.jpg").is_file():
            shutil.copyfile(poster, small / "posters" / poster.name)
    plots = [row for row in _read(source / "plots.tsv", "\t") if row[0] in kept]
    return [row for row in ratings if row[0] <= 30], [row for row in read["movies.csv"] if row[0] in kept], plots


def _made_films(small: Path) -> tuple[list[Sequence[Any]], list[Sequence[Any]], list[Sequence[Any]]]:
    rng, genres, colours = np.random.default_rng(0), ["Comedy", "Drama", "Horror"], list(COLOURS.values())
    ratings = [
        (user, movie, 2 + (user + int(movie)) % 4, 960_000_000 + 86_400 * at)
        for user in range(1, 25)
        for at, movie in enumerate(1 + rng.permutation(60)[:30])
    ]
    for movie in range(1, 60):
        Image.new("RGB", (64, 96), colours[movie % 8]).save(small / "posters" / f"{movie}.jpg")
    movies = [(movie, f"Film {movie} ({1980 + movie % 30})", genres[movie % 3]) for movie in range(1, 61)]
    return ratings, movies, [(movie, f"A story of {title}.") for movie, title, _ in movies[:20]]


def _read(path: Path, separator: str = ",") -> list[list[str]]:
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines(), delimiter=separator))


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]], separator: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\n").writerows([head, *rows])
