"""`import amazon`: the three releases as they are written, the k-core, the preset, and hostile lines."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.errors import UserError
from rawrec.sources import _core
from rawrec.sources.amazon import import_amazon
from rawrec.sources.tables import lines

A, B, C = "B000000001", "B000000002", "B000000003"


def write(path: Path, rows: list[Any], how: Any = json.dumps) -> Path:
    text = "".join((row if isinstance(row, str) else how(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def old(user: str, item: str, rating: float = 5.0, time: int = 1_370_000_000) -> dict[str, Any]:
    return {"reviewerID": user, "asin": item, "helpful": [0, 1], "reviewText": "it's", "overall": rating,
            "summary": 'a "b"', "unixReviewTime": time}  # fmt: skip


def report(folder: Path) -> ImportReport:
    return ImportReport.load(folder / "import.json")


def skipped(folder: Path) -> dict[str, tuple[int, list[str]]]:
    return {reason: (entry.count, entry.examples) for reason, entry in report(folder).skipped.items()}


def words(data: Any, field: str) -> list[list[str]]:
    ptr, codes, names = data.categorical(field)
    return [[names[c] for c in codes[ptr[i] : ptr[i + 1]]] for i in range(data.n_items)]


# ------------------------------------------------------------------------------------------------------------ releases
def test_2014_python_lines(tmp_path: Path) -> None:
    reviews = write(tmp_path / "reviews_X_5.json.gz", [old("u1", A), old("u1", B, 2), old("u2", A, 4)])
    meta = write(
        tmp_path / "meta_X.json.gz",
        [
            {"asin": A, "title": "Baby's \"first\" <b>toy</b> &amp; more", "imUrl": "http://x/a.jpg", "brand": "Acme",
             "categories": [["Baby", "Toys"], ["Baby", "Gifts"]], "related": {"also_bought": [B]}, "price": 3.5,
             "description": "It's\n soft"},
            {"asin": B, "description": "", "categories": [["Baby"]], "salesRank": {}},
            {"asin": C, "title": "never\trated"},
        ],
        repr,
    )  # fmt: skip
    data = import_amazon(reviews, meta, out=tmp_path / "out", image_urls="keep", progress=False)
    assert data.item_ids.tolist() == [A, B, C]
    assert data.texts("title", range(3)) == [['Baby\'s "first" toy & more'], [], ["never rated"]]  # type: ignore[arg-type]
    assert data.texts("description", [0, 1]) == [["It's soft"], []]
    assert data.texts("image_url", [0, 1]) == [["http://x/a.jpg"], []]
    assert words(data, "brand") == [["Acme"], [], []]
    assert words(data, "categories") == [["Baby", "Toys", "Gifts"], ["Baby"], []]
    assert data.positive_only
    assert data.column("rating").tolist() == [5, 2, 4]
    assert skipped(data.path) == {}
    assert any("content.image_url.use=false" in note for note in report(data.path).notes)


def test_2018_json_lines(tmp_path: Path) -> None:
    reviews = write(
        tmp_path / "X.json", [old("u1", A, 5), {**old("u2", B, 3), "style": {"Color:": "red"}, "vote": "2"}]
    )
    meta = write(
        tmp_path / "meta_X.json",
        [
            {"asin": A, "title": "T", "description": ["one", "", "<p>two"], "brand": "Acme",
             "category": ["P", "Q", "P"], "imageURL": ["https://x/s.jpg"], "imageURLHighRes": ["https://x/l.jpg", "https://x/l2.jpg"]},
            {"asin": B, "title": "var x = (new Date()).getTime();", "category": [],
             "imageURL": ["https://x/s.jpg", "no"]},
        ],
    )  # fmt: skip
    data = import_amazon(reviews, meta, out=tmp_path / "out", positive=4, image_urls="keep", progress=False)
    assert data.label().tolist() == [1, 0]
    assert data.texts("description", [0]) == [["one", "two"]]
    assert data.texts("image_url", [0, 1]) == [["https://x/l.jpg", "https://x/l2.jpg"], ["https://x/s.jpg"]]
    assert words(data, "categories")[0] == ["P", "Q"]
    assert data.texts("title", [1]) == [[]]
    assert skipped(data.path)["items: title is code of the page (kept, without title)"][0] == 1


def test_2023_json_lines(tmp_path: Path) -> None:
    def review(user: str, item: str, time: int) -> dict[str, Any]:
        return {"rating": 4.0, "title": "t", "text": "x", "images": [], "asin": "VARIANT", "parent_asin": item,
                "user_id": user, "timestamp": time, "helpful_vote": 0, "verified_purchase": True}  # fmt: skip

    reviews = write(tmp_path / "X.jsonl", [review("u1", A, 1_588_687_728_923), review("u1", B, 1_588_687_729_000)])
    pictures = [
        {"variant": "PT01", "hi_res": None, "large": "https://x/2l.jpg", "thumb": "https://x/2t.jpg"},
        {"variant": "MAIN", "hi_res": "https://x/1h.jpg", "large": "https://x/1l.jpg", "thumb": None},
    ]
    as_lists = {key: [picture[key] for picture in pictures] for key in pictures[0]}
    meta = write(
        tmp_path / "meta.jsonl.gz",
        [
            {"parent_asin": A, "title": "T", "images": pictures, "store": "S", "details": {"Brand": "Br"},
             "categories": [], "main_category": "All Beauty", "description": ["d"], "price": None},
            {"parent_asin": B, "images": as_lists, "store": "S", "details": "{}", "categories": ["c"]},
        ],
    )  # fmt: skip
    data = import_amazon(reviews, meta, out=tmp_path / "out", image_urls="keep", progress=False)
    assert data.timestamps is not None
    assert data.timestamps.tolist() == [1_588_687_728, 1_588_687_729]
    assert data.item_ids.tolist() == [A, B]
    assert data.texts("image_url", [0, 1]) == [["https://x/1h.jpg", "https://x/2l.jpg"]] * 2
    assert words(data, "brand") == [["Br"], ["S"]]
    assert words(data, "categories") == [["All Beauty"], ["c"]]


@pytest.mark.parametrize(
    ("head", "order", "note"),
    [
        ("", "user item", "user, item"),
        ("", "item user", "item, user"),
        ("user_id,parent_asin,rating,timestamp\n", "user item", ""),
    ],
)
def test_ratings_only(head: str, order: str, note: str, tmp_path: Path) -> None:
    lines = [
        f"{user},{item},{rating},100" if order == "user item" else f"{item},{user},{rating},100"
        for user, item, rating in [("A1YJEY40YUW4SE", A, 5.0), ("A60XNB876KYML", B, 1.0)]
    ]
    path = tmp_path / "ratings.csv"
    path.write_text(head + "\n".join([*lines, "broken,line"]) + "\n")
    data = import_amazon(path, out=tmp_path / "out", progress=False)
    assert data.user_ids.tolist() == ["A1YJEY40YUW4SE", "A60XNB876KYML"]
    assert data.item_ids.tolist() == [A, B]
    assert data.column("rating").tolist() == [5, 1]
    assert data.fields.names() == []
    assert bool(note) == any(f"read as {note}, rating" in text for text in report(data.path).notes)
    assert skipped(data.path)["row has not the 4 columns of the header"][1] == [
        f"ratings.csv:{3 + bool(head)} 2 columns"
    ]


# -------------------------------------------------------------------------------------------------------------- k-core
def core_of(rows: list[tuple[str, str, int]], k: int) -> list[tuple[str, str, int]]:
    """The k-core in the plainest way."""
    rows = list(dict.fromkeys(rows))
    while True:
        users, items = Counter(r[0] for r in rows), Counter(r[1] for r in rows)
        kept = [r for r in rows if users[r[0]] >= k and items[r[1]] >= k]
        if len(kept) == len(rows):
            return rows
        rows = kept


def test_k_core_is_iterated_and_repeats_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "ROWS_AT_ONCE", 50)
    monkeypatch.setattr(lines, "BLOCK", 1 << 12)
    random = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{i}", int(t)) for u, i, t in zip(
        random.integers(0, 60, 400), random.integers(0, 50, 400) ** 2 // 50, random.integers(1, 4, 400), strict=True
    )]  # fmt: skip
    wanted = core_of(rows, 5)
    assert 0 < len(wanted) < len(set(rows)) < len(rows)
    reviews = write(tmp_path / "r.json", [old(u, i, 5, t) for u, i, t in rows])
    meta = write(tmp_path / "m.json", [{"asin": f"i{i}", "title": str(i)} for i in range(60)])
    data = import_amazon(reviews, meta, out=tmp_path / "out", k_core=5, progress=False)
    assert data.timestamps is not None
    found = zip(data.user_ids[data.users], data.item_ids[data.items], data.timestamps.tolist(), strict=True)
    assert list(found) == wanted
    assert set(data.item_ids) == {item for _, item, _ in wanted}
    counts = {reason: count for reason, (count, _) in skipped(data.path).items()}
    assert counts == {
        "repeats the user, item and time of an earlier row": len(rows) - len(set(rows)),
        "user or item with too few rows: not in the 5-core": len(set(rows)) - len(wanted),
    }
    assert any("left out" in note for note in report(data.path).notes)
    with pytest.raises(UserError, match="not in the 99-core"):
        import_amazon(reviews, meta, out=tmp_path / "none", k_core=99, progress=False)
    assert not (tmp_path / "none").exists()


def test_preset_lmm(tmp_path: Path) -> None:
    rows = [old(f"u{u}", f"i{i}", 1 + i % 5, 1_370_000_100) for u in range(6) for i in range(10)] + [old("one", "i1")]
    reviews = write(tmp_path / "r.json", rows)
    data = import_amazon(reviews, out=tmp_path / "a", preset="lmm", progress=False)
    assert (data.n_users, data.n_items, data.positive_only) == (6, 10, True)
    assert [np.bincount(data.split()[data.users == u]).tolist() for u in range(6)] == [[8, 1, 1]] * 6
    assert data.meta.splits["default"]["kind"] == "random_user"
    seeded = SplitSpec(kind="random_user", seed=1)
    assert (import_amazon(reviews, out=tmp_path / "b", preset="lmm", split=seeded).split() != data.split()).any()
    conflicts: list[dict[str, Any]] = [{"k_core": 3}, {"positive": 4.0}, {"split": SplitSpec(kind="time_user")}]
    for options in conflicts:
        with pytest.raises(UserError, match=f"preset lmm sets {next(iter(options))} itself"):
            import_amazon(reviews, out=tmp_path / "c", preset="lmm", **options)
    with pytest.raises(UserError, match="Known: lmm"):
        import_amazon(reviews, out=tmp_path / "c", preset="llm")


# ----------------------------------------------------------------------------------------------------------- bad input
def test_nothing_is_executed_and_the_good_lines_are_in(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    lines: list[Any] = [
        {"asin": A, "title": "good"},
        f"{{'asin': __import__('pathlib').Path({str(trap)!r}).touch()}}",
        f"open({str(trap)!r}, 'w')",
        "{'asin': [x for x in 'abc']}",
        "{'asin': 'x', 'title': f'{1}'}",
        "{'a': " + "[" * 5000 + "]" * 5000 + "}",
        "{'a': " + "-" * 100_000 + "1}",
        "{'a': " + "9" * 10_000 + "}",
        "{'a': 1e999}",
        "{'a': {1, 2}, 'asin': 'x'}",
        "{'a': b'x', 'asin': 'x'}",
        "{'asin': 'x', 'b': '" + "x" * (1 << 18) + "'}",
        "{'asin': ",
        "[1]",
        "{'title': 'nameless'}",
        "{'asin': None}",
        "{'asin': 'B', 'title': 'lone \\ud800 half \\d', 'description': {'a': 1}, 'images': [3], 'imUrl': 'file:x'}",
        "{'asin': 'C', 'title': 7, 'categories': [[['x'], True], None], 'images': {'hi_res': [1], 'large': 'x'}}",
    ]
    reviews = write(tmp_path / "r.json", [old("u1", A), "nonsense", "{'reviewerID': 'u2', 'asin': 'B', 'overall': 3.0, "
                    "'unixReviewTime': 1370000005}", {**old("u3", A), "overall": None}, {"asin": A}])  # fmt: skip
    meta = write(tmp_path / "m.json", lines, repr)
    data = import_amazon(reviews, meta, out=tmp_path / "out", image_urls="keep", allow_empty=True, progress=False)
    assert not trap.exists()
    assert data.item_ids.tolist() == [A, "B", "C"]
    assert data.texts("title", range(3)) == [["good"], ["lone \\ud800 half \\d"], ["7"]]  # type: ignore[arg-type]
    assert not data.present("image_url").any()
    assert words(data, "categories") == [[], [], ["x"]]
    assert data.user_ids.tolist() == ["u1", "u2"]
    counts = {reason: count for reason, (count, _) in skipped(data.path).items()}
    assert counts == {
        "not a JSON object or a Python dict of plain values": 13,
        "items: no asin": 3,
        "half of a pair in an escape (kept, as \\ud83d; a row whose id holds one is left out)": 1,
        "empty user id": 1,
        "no usable label in column 'overall': give numbers, yes and no, or name its positives (--positive)": 1,
    }


def test_mistakes_are_named(tmp_path: Path) -> None:
    def fails(words: str, reviews: Path, meta: Path | None = None, **options: Any) -> None:
        with pytest.raises(UserError, match=words):
            import_amazon(reviews, meta, out=tmp_path / "out", progress=False, **options)
        assert not (tmp_path / "out").exists()

    good = write(tmp_path / "good.json", [old("u", A)])
    fails("does not exist", tmp_path / "absent")
    fails("cannot be read", write(tmp_path / "plain.json", ["x"]).rename(tmp_path / "no.json.gz"))
    fails("no column user_id, reviewerID or user", write(tmp_path / "x.json", [{"asin": A}]))
    fails("no column rating or overall", write(tmp_path / "y.csv", ["user,item,time", "u,i,3"]))
    fails("does not exist", good, tmp_path / "absent")
    fails("no column asin or parent_asin", good, write(tmp_path / "m.json", [{"id": A}]))
    fails("none of the first lines", good, write(tmp_path / "n.json", ["import os"]))
    fails("must be at least 1", good, k_core=0)
    fails("'some' is unknown. Known: all, main, keep", good, image_urls="some")
    fails("main needs the catalogue", good, image_urls="main")
    cut = gzip.compress("\n".join(json.dumps(old(f"u{i * 7919 % 10007}", A)) for i in range(20_000)).encode())[:-3000]
    (tmp_path / "cut.json.gz").write_bytes(cut)
    fails("cut.json.gz cannot be read", tmp_path / "cut.json.gz")
