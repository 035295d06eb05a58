"""`rawrec import movielens`: the folders of MovieLens (.csv, .dat or u.data), with posters and plots beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from rawrec.arguments import checked
from rawrec.data.bar import Bar
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.shown import listed
from rawrec.sources._movielens_100k import is_100k, open_100k
from rawrec.sources.download.urls import UrlPictures
from rawrec.sources.media.pictures import ImageFolder, spans
from rawrec.sources.tables import Source, open_double_colon, open_source
from rawrec.sources.tables.convert import string_lists
from rawrec.sources.tables.label_columns import LABEL, LabelColumn, kept, rated_as
from rawrec.sources.tables.rows import Rows, read_ids, times_of
from rawrec.sources.users import Users

RATINGS = ["userId", "movieId", "rating", "timestamp"]
PEOPLE = ["userId", "gender", "age", "occupation", "zip"]
MOVIES = ["movieId", "title", "genres"]
NO_GENRE = "(no genres listed)"
YEAR = re.compile(r"\((\d{4})(?:[-–]\d{0,4})?\)\s*$")


@checked()
def import_movielens(
    folder: str | Path,
    posters: str | Path | None = None,
    texts: str | Path | None = None,
    positive: float = 4.0,
    *,
    rated: str | None = None,
    out: str | Path,
    split: SplitSpec | None = None,
    pictures: UrlPictures | None = None,
    encoding: str | None = None,
    allow_empty: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Import MovieLens: ratings.csv and movies.csv, ratings.dat and movies.dat, or u.data and u.item, of `folder`.

    posters: folder of `<movieId>.jpg`, the image field `poster`. texts: table with the columns movieId and plot, the
    text field `plot`. Further fields: text `title`, categorical `genres`, numeric `year` (of the title). pictures: a
    table of addresses of pictures, to be downloaded. users.dat beside ratings.dat, u.user beside u.data: gender, age
    and occupation (in users.dat codes) of users, as categories.
    encoding: of the tables that are text (default: UTF-8, else as each is found to be).
    label = rating >= `positive`; the rating is kept. rated: `seen` (default) or `unseen`, as of `import_table`. split:
    default by time per user.
    allow_empty: as of `import_table`.

    Raises UserError for absent files and columns and files that cannot be read.
    """
    report = ImportReport(source=f"MovieLens {Path(folder).name}")
    ratings, movies, people = _open(Path(folder), report, encoding)
    folder_of_posters = ImageFolder(Path(posters), "{item}.jpg", report) if posters is not None else None
    plots = _plots(Path(texts), report, encoding) if texts is not None else None
    fields = Fields(
        image=["poster"] if folder_of_posters else [],
        text=["title"] if plots is None else ["title", "plot"],
        categorical=["genres"],
        numeric=["year"],
        feature={},
    )
    users = Users(report, people, "userId", PEOPLE[1:4] if people is not None else ())
    label = LabelColumn("rating", LABEL, positive)
    times = times_of(report, [ratings], "timestamp")
    cleaner = Rows(report, "userId", "movieId", "timestamp", [label], kept([label]), times=times)
    with (
        DatasetWriter(
            out,
            fields=fields,
            source=report.source,
            labels=[label.name],
            label_rule=label.rule,
            extra=cleaner.extra,
            users=users.fields,
            has_time=True,
            needed=[*fields.image, *(["plot"] if plots is not None else [])],
            allow_empty=allow_empty,
            overwrite=overwrite,
            pictures=pictures,
            rated=rated_as(rated, [label]),
        ) as writer,
        Bar(progress) as bar,
    ):
        for batch in bar.track("movies", movies, MOVIES):
            report.add_read("items", len(batch.rows))
            found, good = read_ids(batch, "movieId", report, empty="items: empty movieId")
            if not good.all():
                found, batch = found.filter(pa.array(good)), batch.keep(good)
            item_ids = found.to_pylist()
            titles = string_lists(batch.columns["title"], "title", json_lists=False, separator=None)
            genres = string_lists(batch.columns["genres"], "genres", json_lists=False, separator="|")
            columns = {
                "title": titles,
                "genres": [[genre for genre in row if genre != NO_GENRE] for row in genres],
                "year": [_year(title) for title in titles],
            }
            if plots is not None:
                columns["plot"] = [plots.pop(i, []) for i in item_ids]
            for part, images in spans(item_ids, folder_of_posters, writer.checked):
                rows = {"item_id": item_ids[part], **{name: values[part] for name, values in columns.items()}}
                writer.add_items(rows | ({} if images is None else {"poster": images}))
        if folder_of_posters is not None:
            folder_of_posters.count_unused()
        if plots:
            report.skip("text of a movie that is not in the catalogue", list(plots)[:20], len(plots))
        users.write(writer, bar)
        for batch in bar.track("ratings", ratings, cleaner.columns):
            writer.add_interactions(cleaner.clean(batch))
        cleaner.finish(str(ratings.path))
        return writer.finish(split or SplitSpec.model_validate({"kind": "time_user"}), report)


def _open(folder: Path, report: ImportReport, encoding: str | None) -> tuple[Source, Source, Source | None]:
    """Ratings, movies and, where there are any, users."""
    if (folder / "ratings.csv").is_file() and (folder / "movies.csv").is_file():
        ratings, movies = (open_source(folder / name, report, encoding) for name in ("ratings.csv", "movies.csv"))
        ratings.require("ratings", RATINGS)
        movies.require("movies", MOVIES)
        return ratings, movies, None
    if (folder / "ratings.dat").is_file() and (folder / "movies.dat").is_file():
        ratings = open_double_colon(folder / "ratings.dat", report, RATINGS, encoding)
        movies, users = open_double_colon(folder / "movies.dat", report, MOVIES, encoding), folder / "users.dat"
        return ratings, movies, open_double_colon(users, report, PEOPLE, encoding) if users.is_file() else None
    if is_100k(folder):
        return open_100k(folder, report, encoding, RATINGS)
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist or is not a folder")
    found = listed(sorted(path.name for path in folder.iterdir()), none="nothing")
    raise UserError(
        f"{folder} holds neither ratings.csv and movies.csv, nor ratings.dat and movies.dat, nor u.data and u.item; "
        f"found: {found}"
    )


def _plots(path: Path, report: ImportReport, encoding: str | None) -> dict[str, list[str]]:
    """movieId -> its plots."""
    source = open_source(path, report, encoding)
    source.require("texts", ["movieId", "plot"])
    result: dict[str, list[str]] = {}
    for batch in source.batches(["movieId", "plot"]):
        report.add_read("texts", len(batch.rows))
        found, good = read_ids(batch, "movieId", report, "texts", "text without a movieId")
        texts = string_lists(batch.columns["plot"], "plot", json_lists=source.format == "jsonl", separator=None)
        for movie, plot, there in zip(found.to_pylist(), texts, good.tolist(), strict=True):
            if not there:
                continue
            result.setdefault(movie, []).extend(plot)
    return result


def _year(title: list[str]) -> float:
    """1995.0 of ["Toy Story (1995)"]; nan where there is no year."""
    match = YEAR.search(title[0]) if title else None
    return float(match[1]) if match else float("nan")
