"""The files of MovieLens 100K, `u.data`, `u.item` and `u.user`: tables without a header, genres as flags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from rawrec.data.import_report import ImportReport
from rawrec.sources.tables import Batch, Source, open_delimited
from rawrec.sources.tables.convert import numbers

GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
MOVIE = ["movieId", "title", "released", "video", "address", "unknown", *GENRES]
PERSON = ["userId", "age", "gender", "occupation", "zip"]


class FlaggedGenres(Source):
    """`u.item` as a table of movieId, title and genres, these between "|"."""

    format = "text"

    def __init__(self, source: Source) -> None:
        super().__init__(source.path, source.report)
        self.source, self.columns = source, ["movieId", "title", "genres"]

    def again(self) -> FlaggedGenres:
        return FlaggedGenres(self.source.again())

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        plain = [name for name in columns if name != "genres"]
        for batch in self.source.batches([*plain, *(GENRES if "genres" in columns else ())]):
            self.fraction = self.source.fraction
            found = {name: batch.columns[name] for name in plain}
            if "genres" in columns:
                flags = np.stack([numbers(batch.columns[name], name) == 1 for name in GENRES], axis=1)
                rows = [[GENRES[i] for i in np.flatnonzero(row)] for row in flags]
                found["genres"] = pa.array(["|".join(row) for row in rows], pa.string())
            yield replace(batch, columns=found)


def is_100k(folder: Path) -> bool:
    """Whether the files of MovieLens 100K are in the folder."""
    return (folder / "u.data").is_file() and (folder / "u.item").is_file()


def open_100k(
    folder: Path, report: ImportReport, encoding: str | None, ratings: list[str]
) -> tuple[Source, Source, Source | None]:
    """Ratings, movies and, where there are any, users. Raises UserError for files that cannot be read."""
    rows = open_delimited(folder / "u.data", report, "\t", columns=ratings, quotes=False, encoding=encoding)
    movies = open_delimited(folder / "u.item", report, "|", columns=MOVIE, quotes=False, encoding=encoding)
    people = None
    if (folder / "u.user").is_file():
        people = open_delimited(folder / "u.user", report, "|", columns=PERSON, quotes=False, encoding=encoding)
    return rows, FlaggedGenres(movies), people
