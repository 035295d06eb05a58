"""`import movielens`: both layouts, and the real data where it is."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.movielens import import_movielens

RATINGS = [("1", "10", 4.0, 100), ("1", "20", 3.5, 200), ("2", "10", 5.0, 50), ("2", "30", 4.0, 60)]
MOVIES = [
    ("10", "Amélie (2001)", "Comedy|Romance"),
    ("20", "No Year, The", "(no genres listed)"),
    ("30", "X (1999)", "Drama"),
]


def layout(folder: Path, kind: str) -> None:
    if kind == "dat":
        ratings = "".join("::".join(map(str, row)) + "\n" for row in RATINGS)
        movies = "".join("::".join(row) + "\n" for row in MOVIES)
        (folder / "movies.dat").write_bytes(movies.encode("latin-1"))
    else:
        ratings = "userId,movieId,rating,timestamp\n" + "".join(",".join(map(str, row)) + "\n" for row in RATINGS)
        movies = "movieId,title,genres\n" + "".join(f'{i},"{title}",{genres}\n' for i, title, genres in MOVIES)
        (folder / "movies.csv").write_text(movies)
    (folder / f"ratings.{kind}").write_text(ratings)


@pytest.mark.parametrize("kind", ["csv", "dat"])
def test_both_layouts(kind: str, tmp_path: Path) -> None:
    layout(tmp_path, kind)
    (tmp_path / "posters").mkdir()
    buffer = BytesIO()
    Image.new("RGB", (4, 6)).save(buffer, "JPEG")
    (tmp_path / "posters" / "20.jpg").write_bytes(buffer.getvalue())
    (tmp_path / "plots.tsv").write_text('movieId\tplot\n10\t"Quoted" at first\n99\tunknown\n')
    data = import_movielens(
        tmp_path, tmp_path / "posters", tmp_path / "plots.tsv", 4, out=tmp_path / "out", progress=False
    )
    assert data.item_ids.tolist() == ["10", "20", "30"]
    assert data.texts("title", [0, 1]) == [["Amélie (2001)"], ["No Year, The"]]
    assert data.texts("plot", [0, 1]) == [['"Quoted" at first'], []]
    assert data.images("poster", [1, 0]) == [[buffer.getvalue()], []]
    assert sorted(data.categorical("genres")[2]) == ["Comedy", "Drama", "Romance"]
    np.testing.assert_array_equal(data.numeric("year"), [2001, np.nan, 1999])
    assert data.label().tolist() == [1, 0, 1, 1]
    assert data.column("rating").tolist() == [4.0, 3.5, 5.0, 4.0]
    assert data.meta.label_rule == "rating >= 4" and data.meta.rated == "seen"
    report = ImportReport.load(data.path / "import.json")
    assert report.skipped["text of a movie that is not in the catalogue"].examples == ["99"]


def test_broken_rows_of_dat_files_are_counted(tmp_path: Path) -> None:
    layout(tmp_path, "dat")
    with (tmp_path / "ratings.dat").open("a") as file:
        file.write("1::2\n\n3::10::bad::5\n3::10::5::-5\n")
    data = import_movielens(tmp_path, out=tmp_path / "out", progress=False)
    report = ImportReport.load(data.path / "import.json")
    assert data.n_interactions == 4
    assert {reason: entry.examples for reason, entry in report.skipped.items()} == {
        "row has not 4 values between '::'": ["ratings.dat:5 '1::2'"],
        "no usable label in column 'rating': give numbers, or yes and no": ["ratings.dat:6 'bad'"],
        "no usable time in column 'timestamp'": ["ratings.dat:7 '-5'"],
    }


def test_the_files_of_100k(tmp_path: Path) -> None:
    flags = {"10": {5, 14}, "20": {0}, "30": {3}}  # Comedy and Romance, unknown, Animation
    rows = [[i, title, "01-Jan-1995", "", "http://x?a|b"[:8], *("1" if k in flags[i] else "0" for k in range(19))]
            for i, title, _ in MOVIES]  # fmt: skip
    (tmp_path / "u.item").write_bytes("".join("|".join(row) + "\n" for row in rows).encode("latin-1"))
    (tmp_path / "u.data").write_text("".join(f"{u}\t{i}\t{int(r)}\t{880_000_000 + t}\n" for u, i, r, t in RATINGS))
    (tmp_path / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n")
    data = import_movielens(tmp_path, out=tmp_path / "out", progress=False)
    assert data.item_ids.tolist() == ["10", "20", "30"] and data.n_interactions == 4
    assert data.texts("title", range(3)) == [["Amélie (2001)"], ["No Year, The"], ["X (1999)"]]  # type: ignore[arg-type]
    ptr, codes, words = data.categorical("genres")
    genres = [[words[c] for c in codes[ptr[i] : ptr[i + 1]]] for i in range(3)]
    assert genres == [["Comedy", "Romance"], [], ["Animation"]]
    assert data.label().tolist() == [1, 0, 1, 1] and data.column("rating").tolist() == [4, 3, 5, 4]
    assert data.timestamps is not None and data.timestamps.tolist() == [880_000_000 + row[3] for row in RATINGS]
    assert data.meta.users.categorical == ["gender", "age", "occupation"] and data.meta.rated == "seen"


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        import_movielens(tmp_path / "absent", out=tmp_path / "out")
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n")
    with pytest.raises(UserError, match=r"u\.data and u\.item; found: u\.data"):
        import_movielens(tmp_path, out=tmp_path / "out")
    layout(tmp_path, "csv")
    (tmp_path / "plots.tsv").write_text("movie\tplot\n")
    with pytest.raises(UserError, match="'movieId'; did you mean 'movie'"):
        import_movielens(tmp_path, texts=tmp_path / "plots.tsv", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_real_data(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "ml-latest-small"
    data = import_movielens(folder, folder / "posters", folder / "plots.tsv", out=tmp_path / "ml", progress=False)
    assert (data.n_users, data.n_items, data.n_interactions) == (610, 9742, 100_836)
    assert int((~data.present("poster")).sum()) == 4854
    assert int(data.present("plot").sum()) == 2945
    plots = dict(line.split("\t", 1) for line in (folder / "plots.tsv").read_text().splitlines()[1:])
    rows = np.flatnonzero(data.present("plot"))
    assert [t[0] for t in data.texts("plot", rows)] == [plots[i].strip() for i in data.item_ids[rows].tolist()]
