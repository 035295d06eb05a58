"""Small files of every source, for the commands of the pages in docs/sources: one function per mark of a page.

`<!-- test: NAME -->` in a page calls `NAME(folder)`, which writes into `folder` what the block's commands read.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

TITLES = ["Toy Story", "Die Hard", "Before Sunrise", "Alien", "Clueless", "Fargo", "Heat", "Casino"]
GENRES = ["Animation|Comedy", "Action", "Romance", "Horror|Sci-Fi", "Comedy", "Crime|Drama", "Action|Crime", "Drama"]


def clicks(users: int = 6, items: int = len(TITLES)) -> list[tuple[int, int, int]]:
    """(user, item, place in time) of users who each take most of the items, in an order of their own."""
    rng = np.random.default_rng(0)
    pairs = [(user, int(item)) for user in range(users) for item in rng.permutation(items)[: items - 2]]
    return [(user, item, at) for at, (user, item) in enumerate(pairs)]


def table_file(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]], separator: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\n").writerows([head, *rows])


def json_lines(path: Path, rows: Sequence[Any], write: Any = json.dumps) -> None:
    """Gzipped, one row per line as `write` puts it."""
    path.write_bytes(gzip.compress("".join(write(row) + "\n" for row in rows).encode()))


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 32), ((37 * number) % 256, (91 * number) % 256, 120)).save(path)


def table(folder: Path) -> None:
    """Clicks, a catalogue in two forms and a folder of covers."""
    rows = [[f"u{u}", f"b{i}", f"2024-05-{1 + at // 24:02}T{at % 24:02}:00:00", int(i % 3 > 0), "app"]
            for u, i, at in clicks()]  # fmt: skip
    table_file(folder / "clicks.csv", ["user", "book", "when", "clicked", "channel"], rows)
    items = [[f"b{i}", title, genres, 5 + i] for i, (title, genres) in enumerate(zip(TITLES, GENRES, strict=True))]
    table_file(folder / "books.tsv", ["book", "title", "genres", "price"], items, "\t")
    for i in range(len(TITLES) - 1):
        picture(folder / "covers" / f"b{i}.jpg", i)
    events = [{"visitor": f"v{u}", "sku": f"s{i}"} for u, i, _ in clicks()]
    json_lines(folder / "events.jsonl.gz", events)


def table_labels(folder: Path) -> None:
    """Events of several kinds, with stars."""
    kinds = ["view", "purchase", "gift", "view"]
    rows = [[f"u{u}", f"b{i}", f"2024-05-{1 + at // 24:02}T{at % 24:02}:00:00", kinds[i % 4], 1 + (u + i) % 5]
            for u, i, at in clicks()]  # fmt: skip
    table_file(folder / "events.csv", ["user", "book", "when", "event", "stars"], rows)


def table_vectors(folder: Path) -> None:
    """The files of `table`, a catalogue with a column of vectors, and two files of vectors by id."""
    table(folder)
    rng, books = np.random.default_rng(0), [f"b{i}" for i in range(len(TITLES))]
    embedding = rng.normal(size=(len(books), 4)).tolist()
    catalogue = {"book": books, "title": TITLES, "embedding": embedding}
    pl.DataFrame(catalogue).write_parquet(folder / "books.parquet")
    np.savez(folder / "clip.npz", book=np.array(books), clip=rng.normal(size=(len(books), 6)))
    sound = {"book": [*books[:5], "other"], "vector": rng.normal(size=(6, 3)).tolist()}
    pl.DataFrame(sound).write_parquet(folder / "sound.parquet")


def movielens(folder: Path) -> None:
    """The files of ml-latest-small, posters and plots beside them; the .dat files of ml-1m; and those of ml-100k."""
    small, old = folder / "ml-latest-small", folder / "ml-1m"
    ratings = [[u + 1, i + 1, 3 + (u + i) % 3, 964_982_703 + 60 * at] for u, i, at in clicks()]
    movies = [[i + 1, f"{title} (1995)", genres] for i, (title, genres) in enumerate(zip(TITLES, GENRES, strict=True))]
    table_file(small / "ratings.csv", ["userId", "movieId", "rating", "timestamp"], ratings)
    table_file(small / "movies.csv", ["movieId", "title", "genres"], movies)
    table_file(small / "plots.tsv", ["movieId", "plot"], [[row[0], f"A story of {row[1]}."] for row in movies], "\t")
    for row in movies[1:]:
        picture(small / "posters" / f"{row[0]}.jpg", row[0])
    old.mkdir()
    for name, rows in (("ratings", ratings), ("movies", movies)):
        (old / f"{name}.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in rows), encoding="latin-1")
    table_file(folder / "ml-100k" / "u.data", ratings[0], ratings[1:], "\t")
    flagged = [[*row[:2], "01-Jan-1995", "", "", *([0] * 18), 1] for row in movies]
    table_file(folder / "ml-100k" / "u.item", flagged[0], flagged[1:], "|")


def mmrec(folder: Path) -> None:
    """A folder `baby` with parts, two features and the ids behind the numbers."""
    baby = folder / "baby"
    rows = [[u, i, 5.0, 1_370_000_000 + at, 2 if at % 6 == 5 else 1 if at % 6 == 4 else 0] for u, i, at in clicks()]
    table_file(baby / "baby.inter", ["userID", "itemID", "rating", "timestamp", "x_label"], rows, "\t")
    rng = np.random.default_rng(0)
    np.save(baby / "image_feat.npy", rng.normal(size=(len(TITLES), 6)).astype(np.float32))
    np.save(baby / "text_feat.npy", rng.normal(size=(len(TITLES), 4)).astype(np.float32))
    table_file(baby / "i_id_mapping.csv", ["asin", "itemID"], [[f"B00{i}", i] for i in range(len(TITLES))], "\t")


def recbole(folder: Path) -> None:
    """A folder `ml-1m` of atomic files, and `ml-split` with its parts in files of their own."""
    head = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    rows = [[u, i, 3 + (u + i) % 3, 978_300_760 + at] for u, i, at in clicks()]
    items = [
        [i, title, genres.replace("|", " "), 1995] for i, (title, genres) in enumerate(zip(TITLES, GENRES, strict=True))
    ]
    item_head = ["item_id:token", "movie_title:token_seq", "class:token_seq", "release_year:float"]
    table_file(folder / "ml-1m" / "ml-1m.inter", head, rows, "\t")
    table_file(folder / "ml-1m" / "ml-1m.item", item_head, items, "\t")
    for number, part in enumerate(("train", "valid", "test")):
        chosen = [row for at, row in enumerate(rows) if max(0, at % 6 - 3) == number]
        table_file(folder / "ml-split" / f"ml-split.{part}.inter", head, chosen, "\t")


def amazon(folder: Path) -> None:
    """Reviews and products as in the releases of 2014 and 2023, and a table of ratings."""
    chosen = [(u, i, at) for u, i, at in clicks(8)]
    old = [{"reviewerID": f"A{u}", "asin": f"B{i:09}", "overall": 5.0, "unixReviewTime": 1_370_000_000 + at,
            "reviewText": "fine", "summary": "ok"} for u, i, at in chosen]  # fmt: skip
    products = [{"asin": f"B{i:09}", "title": title, "brand": "Acme", "categories": [["Baby", "Toys"]],
                 "description": f"About {title}", "imUrl": f"http://example.com/{i}.jpg"}
                for i, title in enumerate(TITLES)]  # fmt: skip
    json_lines(folder / "reviews_Baby_5.json.gz", old)
    json_lines(folder / "meta_Baby.json.gz", products, repr)
    new = [{"user_id": f"A{u}", "parent_asin": f"B{i:09}", "asin": "V", "rating": 3.0 + (u + i) % 3,
            "timestamp": 1_588_687_728_000 + at, "title": "ok", "text": "fine"} for u, i, at in chosen]  # fmt: skip
    games = [{"parent_asin": f"B{i:09}", "title": title, "store": "Acme", "main_category": "Video Games",
              "categories": ["Games"], "description": [f"About {title}"], "details": {}, "images": []}
             for i, title in enumerate(TITLES)]  # fmt: skip
    json_lines(folder / "Video_Games.jsonl.gz", new)
    json_lines(folder / "meta_Video_Games.jsonl.gz", games)
    rows = [[row["reviewerID"], row["asin"], row["overall"], row["unixReviewTime"]] for row in old]
    table_file(folder / "ratings_Baby.csv", ["user_id", "parent_asin", "rating", "timestamp"], rows)


def synthetic(folder: Path) -> None:
    """Nothing: the shop is generated."""


def huggingface(folder: Path) -> None:
    """`clicks`, Parquet files of three splits; `books`, saved by `save_to_disk`; `log`, one table of both."""
    import datasets

    datasets.disable_progress_bars()
    rows = [{"user_id": f"u{u}", "book": i, "time": at, "clicked": int(i % 3 > 0)} for u, i, at in clicks()]
    for number, part in enumerate(("train", "validation", "test")):
        chosen = [row for at, row in enumerate(rows) if max(0, at % 6 - 3) == number]
        path = folder / "clicks" / "data" / f"{part}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(chosen).to_parquet(path)
    kinds = datasets.ClassLabel(names=sorted(set(GENRES)))
    features = datasets.Features(
        {"book": datasets.Value("int64"), "title": datasets.Value("string"), "genre": kinds, "cover": datasets.Image()}
    )
    for i in range(len(TITLES)):
        picture(folder / "covers" / f"{i}.png", i)
    books = {
        "book": list(range(len(TITLES))),
        "title": TITLES,
        "genre": GENRES,
        "cover": [str(folder / "covers" / f"{i}.png") for i in range(len(TITLES))],
    }
    datasets.Dataset.from_dict(books, features=features).save_to_disk(folder / "books")
    log = [{**row, "title": TITLES[row["book"]]} for row in rows]
    (folder / "log").mkdir()
    json_lines(folder / "log" / "train.jsonl.gz", log)


def webdataset(folder: Path) -> None:
    """Three shards of covers, descriptions and metadata, one of them gzipped, and the clicks."""
    for number in range(3):
        name = f"shards/books-{number:03}.tar" + (".gz" if number == 2 else "")
        (folder / "shards").mkdir(exist_ok=True)
        with tarfile.open(folder / name, "w:gz" if number == 2 else "w") as shard:
            for i in range(number, len(TITLES), 3):
                picture(folder / "covers" / f"{i}.jpg", i)
                meta = {"isbn": f"isbn-{i}", "title": TITLES[i], "genres": GENRES[i].split("|"), "price": 5 + i}
                for ending, data in (
                    ("jpg", (folder / "covers" / f"{i}.jpg").read_bytes()),
                    ("txt", f"About {TITLES[i]}".encode()),
                    ("json", json.dumps(meta).encode()),
                ):
                    member = tarfile.TarInfo(f"b{i}.{ending}")
                    member.size = len(data)
                    shard.addfile(member, io.BytesIO(data))
    head = ["user", "book", "isbn", "when"]
    table_file(folder / "clicks.tsv", head, [[f"u{u}", f"b{i}", f"isbn-{i}", at] for u, i, at in clicks()], "\t")


def openclipart(folder: Path) -> None:
    """Five pictures with drawings of them, one without a title, and a link, in the layout of Debian's packages."""
    root = folder / "clipart" / "usr" / "share" / "openclipart"
    about = """<?xml version="1.0"?><svg><metadata><rdf:RDF xmlns:dc="x"><cc:Work><dc:title>{}</dc:title>
        <dc:description>{}</dc:description><dc:subject><rdf:Bag>{}</rdf:Bag></dc:subject></cc:Work></rdf:RDF></metadata>"""
    for number, (path, title, words) in enumerate(
        [
            ("animals/cat", "Cat &amp; mouse", ["animal", "pet", "unsorted"]),
            ("animals/birds/owl", "Owl", ["animal", "bird"]),
            ("tools/saw", "Saw", ["unsorted", "tool"]),
            ("tools/nameless", "", ["tool", "metal"]),
            ("tools/fork", "Fork", ["tool", "kitchen"]),
        ]
    ):
        picture(root / "png" / f"{path}.png", number)
        drawing = root / "svg" / f"{path}.svg"
        drawing.parent.mkdir(parents=True, exist_ok=True)
        listed = "".join(f"<rdf:li>{word}</rdf:li>" for word in words)
        drawing.write_text(about.format(title, "" if number else "A cat.", listed), encoding="utf-8")
    (root / "png" / "tools" / "link.png").symlink_to("saw.png")


def trained_run(folder: Path) -> None:
    """`data/shop`, a small generated shop, and `runs/em3`, a small model trained on it."""
    import rawrec
    from rawrec.sources.synthetic import import_synthetic

    data = import_synthetic(folder / "data" / "shop", items=40, users=30, impressions=800, progress=False)
    small = {"content.image.encoder": "random:conv", "content.image.size": 32, "content.text.encoder": "random:bert"}
    quick = {"train.epochs": 1, "train.threads": 1, "train.precision": "fp32", "eval.full_ranking": False}
    rawrec.train("em3", data, folder / "runs" / "em3", small | quick)


def trained_retrieval(folder: Path) -> None:
    """`data/shop`, a small generated shop, and `runs/bpr`, a small retrieval model trained on it."""
    import rawrec
    from rawrec.sources.synthetic import import_synthetic

    data = import_synthetic(folder / "data" / "shop", items=40, users=30, impressions=800, progress=False)
    rawrec.train("bpr", data, folder / "runs" / "bpr", {"train.epochs": 1, "train.threads": 1})


def microlens(folder: Path) -> None:
    """A folder of MicroLens with its files, and one of PixelRec."""
    micro, pixel = folder / "MicroLens-50k", folder / "PixelRec50K"
    rows = [[u + 1, i + 1, 1_583_378_629_552 + 60_000 * at] for u, i, at in clicks()]
    table_file(micro / "MicroLens-50k_pairs.csv", ["user", "item", "timestamp"], rows)
    lists = [f"{u}\t{' '.join(str(row[1]) for row in rows if row[0] == u)}\n" for u in range(1, 7)]
    (micro / "MicroLens-50k_pairs.tsv").write_text("".join(lists))
    titles = list(enumerate(TITLES, 1))
    table_file(micro / "MicroLens-50k_titles.csv", ["item", "title"], titles)
    (micro / "MicroLens-50k_likes_and_views.txt").write_text("".join(f"{i}\t{7 * i}\t{90 * i}\n" for i, _ in titles))
    (micro / "tags_to_summary.csv").write_text("".join(f"{i},Film\n" for i, _ in titles))
    table_file(pixel / "interaction.csv", ["item_id", "user_id", "timestamp"],
               [[f"i{i}", f"u{u}", at // 1000] for u, i, at in rows])  # fmt: skip
    table_file(pixel / "item_info.csv", ["item_id", "view_number", "title", "tag", "description"],
               [[f"i{i}", 90 * i, title, "film", f"About {title}"] for i, title in titles])  # fmt: skip
    for i, _ in titles:
        picture(micro / "MicroLens-50k_covers" / f"{i}.jpg", i)
        picture(pixel / "cover" / f"i{i}.jpg", i)


def mind(folder: Path) -> None:
    """MIND small as it is unpacked: train, dev, and a test without clicks."""
    news = [[f"N{i}", "movies", genres.split("|")[0].lower(), title, f"About {title}", "https://x.com", "[]", "[]"]
            for i, (title, genres) in enumerate(zip(TITLES, GENRES, strict=True))]  # fmt: skip
    for name, days in (("train", range(9, 15)), ("dev", range(15, 16)), ("test", range(16, 17))):
        lines, part = [], folder / "MIND" / f"MINDsmall_{name}"
        for number, (user, item, _) in enumerate(clicks()):
            shown = [item, (item + 1) % len(TITLES), (item + 3) % len(TITLES)]
            marks = [f"N{i}" if name == "test" else f"N{i}-{int(i == item)}" for i in shown]
            time = f"11/{days[number % len(days)]}/2019 {1 + number % 12}:05:09 PM"
            lines.append([str(number + 1), f"U{user}", time, f"N{user} N{user + 1}", " ".join(marks)])
        part.mkdir(parents=True)
        for file, rows in (("behaviors.tsv", lines), ("news.tsv", news)):
            (part / file).write_text("".join("\t".join(row) + "\n" for row in rows))


def taobao_mm(folder: Path, users: int = 30, whole: bool = True) -> None:
    """Taobao-MM in both layouts, and vectors of all items but the last ones; ids as they are there, some below 0. Item
    -2 has no vector, user 4 no history. whole: with shards and arrays, too."""
    rng, root = np.random.default_rng(0), folder / "Taobao-MM"
    items = [-(10**16) * 7 + i for i in range(20)]
    known = {"206": [5 + i % 3 for i in range(20)], "213": [0 if i % 4 else 9 for i in range(20)], "214": [-7] * 20}
    user = {name: [i * (u + 1) % 4 for u in range(users)] for i, name in enumerate(f"130_{k}" for k in range(1, 6))}
    past = [[items[(u + i) % 18] for i in range(0 if u == 4 else u + 1)] for u in range(users)]
    past[0] = [0, 0, items[3], -2]  # padding, and an item that was never shown
    kinds = [[0 if item == 0 else 8 if item == -2 else 5 + items.index(item) % 3 for item in row] for row in past]
    features = pl.DataFrame(
        {"129_1": [100 + u for u in range(users)], **user, "150_2_180": past, "151_2_180": kinds},
        schema_overrides={"150_2_180": pl.List(pl.Int64), "151_2_180": pl.List(pl.Int64)},
    )
    values = rng.integers(-60, 60, (20, 8)).astype(np.int8)
    (root / "raw").mkdir(parents=True)
    catalogue = pl.DataFrame({"205": items, **known})
    for part, some in (("train", range(users - 5)), ("test", range(users - 6, users))):
        shown = [(u, item, at) for u in some for at, item in enumerate(items[u % 10 : u % 10 + 8])]
        samples = pl.DataFrame(
            {
                "label_0": [[int((u + at) % 3 > 0), int((u + at) % 3 == 0)] for u, _, at in shown],
                "129_1": [100 + u for u, _, _ in shown],
                "205": [item for _, item, _ in shown],
            },
            schema_overrides={"label_0": pl.List(pl.Int8)},
        )
        mine = features.filter(pl.col("129_1").is_in([100 + u for u in some]))
        samples.write_parquet(root / "raw" / f"{part}_samples.parquet")
        mine.write_parquet(root / "raw" / f"{part}_user_features.parquet")
        if whole:
            (root / part).mkdir()
            joined = samples.join(mine, on="129_1", how="left").join(catalogue, on="205", how="left")
            for number, shard in enumerate(joined.iter_slices(100)):
                shard.write_parquet(root / part / f"{part}-shard-{number:06}.parquet")
    catalogue.write_parquet(root / "raw" / "item_features.parquet")
    vectors = pl.DataFrame({"205": items, "205_c": values.tolist()}, schema_overrides={"205_c": pl.List(pl.Int8)})
    vectors.write_parquet(root / "raw" / "scl_embedding_int8_p90.parquet")
    if whole:
        (root / "feature_map").mkdir()
        np.save(root / "feature_map" / "scl_emb_int8_p90_keys.npy", np.array(items))
        np.save(root / "feature_map" / "scl_emb_int8_p90_values.npy", values)


def impressions(folder: Path) -> None:
    """Lists shown for queries, with a catalogue and pictures; and a feed whose clicks are flags."""
    logs, feed = [], []
    for user, item, at in clicks():
        shown = [f"s{(item + k) % len(TITLES)}" for k in range(3)]
        logs.append({"user": f"u{user}", "session": f"{user}-{at // 4}", "query": TITLES[item].lower(), "items": shown,
                     "clicks": shown[: at % 2], "time": 1_700_000_000 + 60 * at})  # fmt: skip
        feed.append([f"v{user}", "|".join(shown), "|".join(str(int(k == at % 4)) for k in range(3)), 1000 + at])
    (folder / "shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logs))
    table_file(folder / "feed.csv", ["visitor", "cards", "tapped", "when"], feed)
    items = [[f"s{i}", title, genres] for i, (title, genres) in enumerate(zip(TITLES, GENRES, strict=True))]
    table_file(folder / "items.tsv", ["sku", "title", "kind"], items, "\t")
    for i in range(len(TITLES)):
        picture(folder / "pictures" / f"s{i}.jpg", i)


def append(folder: Path) -> None:
    """The files of `table`, two more days of clicks, and a table with a new book and an old one."""
    table(folder)
    monday = [["u1", "b2", "2024-06-03", 1, "app"], ["u90", "b99", "2024-06-03", 0, "app"]]
    table_file(folder / "monday.csv", ["user", "book", "when", "clicked", "channel"], monday)
    tuesday = [["u2", "b99", "2024-06-04", 1], ["u91", "b98", "2024-06-04", 1]]
    table_file(folder / "tuesday.csv", ["reader", "sku", "at", "tapped"], tuesday)
    books = [["b99", "A new book", "Drama"], ["b1", "A new title", ""]]
    table_file(folder / "new_books.tsv", ["book", "title", "genres"], books, "\t")
    picture(folder / "covers" / "b99.jpg", 99)


def append_vectors(folder: Path) -> None:
    """The files of `mmrec`, a day of clicks with a new item, and vectors of it and of an old one."""
    mmrec(folder)
    day = [["3", "B00new", 1_390_000_000], ["4", "B001", 1_390_000_001]]
    table_file(folder / "day.csv", ["user", "asin", "when"], day)
    rng, items = np.random.default_rng(1), ["B001", "B00new"]
    np.savez(folder / "image.npz", asin=np.array(items), image=rng.normal(size=(2, 6)))
    pl.DataFrame({"asin": items, "text": rng.normal(size=(2, 4)).tolist()}).write_parquet(folder / "text.parquet")
    np.save(folder / "again.npy", rng.normal(size=(2, 6)))
    (folder / "again.ids.jsonl").write_text("".join(json.dumps({"item_id": item}) + "\n" for item in items))


def urls(folder: Path) -> None:
    """Books, movies and products whose pictures a server on this machine has, all but one of them."""
    web = folder / "web"
    for i in range(len(TITLES) - 1):
        picture(web / f"{i}.jpg", i)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(web)))
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    table_file(folder / "clicks.csv", ["user", "book"], [[f"u{u}", f"b{i}"] for u, i, _ in clicks()])
    books = [[f"b{i}", title, f"{address}/{i}.jpg", f"{address}/0.jpg"] for i, title in enumerate(TITLES)]
    table_file(folder / "books.csv", ["book", "title", "cover", "back"], books)
    ratings = [[u, i, 4, at] for u, i, at in clicks()]
    table_file(folder / "ml" / "ratings.csv", ["userId", "movieId", "rating", "timestamp"], ratings)
    movies = [[i, title, genres] for i, (title, genres) in enumerate(zip(TITLES, GENRES, strict=True))]
    table_file(folder / "ml" / "movies.csv", ["movieId", "title", "genres"], movies)
    posters = [[i, f"{address}/{i}.jpg"] for i in range(len(TITLES))]
    table_file(folder / "posters.tsv", ["movieId", "poster"], posters, "\t")
    reviews = [{"user_id": f"A{u}", "parent_asin": f"B{i:09}", "rating": 5.0, "timestamp": 1_588_687_728_000 + at}
               for u, i, at in clicks()]  # fmt: skip
    products = [{"parent_asin": f"B{i:09}", "title": title, "images": [{"large": f"{address}/{i}.jpg"}]}
                for i, title in enumerate(TITLES)]  # fmt: skip
    (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reviews))
    (folder / "meta.jsonl").write_text("".join(json.dumps(row) + "\n" for row in products))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing: the requests of a sample are of no interest."""
