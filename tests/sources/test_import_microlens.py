"""`import microlens` and `pixelrec`: files found by name and header, orders without times, covers, bad rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.sampling import Samples
from rawrec.errors import UserError
from rawrec.sources.microlens import import_microlens, import_pixelrec

PAIRS = "user,item,timestamp\n1,11,1583378629552\n1,12,1583378630000\n2,11,1583378640000\n1,13,1583378628000\n2,14,1\n"
LISTS = "1\t13 11 12\n2\t11, 14\n3\t12\n"
PIXEL = "item_id,user_id,timestamp\ni1,u1,1650000002\ni2,u1,1650000001\ni3,u1,1650000003\n"
INFO = (
    'item_id,view_number,comment_number,title,tag,description\ni1,10,2,"One, two",anime,"Line\nbreak"\ni9,x,,Nine,,\n'
)


def files(folder: Path, **texts: str) -> Path:
    """A folder with these files; `__` in a name is a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def covers(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / f"{name}.jpg")
    return folder


def report(data: Dataset) -> ImportReport:
    return ImportReport.load(data.path / "import.json")


def reasons(data: Dataset) -> dict[str, list[str]]:
    return {reason: entry.examples for reason, entry in report(data).skipped.items()}


def pairs(data: Dataset) -> list[tuple[str, str, int]]:
    assert data.timestamps is not None
    users, items = data.user_ids[data.users].tolist(), data.item_ids[data.items].tolist()
    return list(zip(users, items, data.timestamps.tolist(), strict=True))


def test_a_whole_folder(tmp_path: Path) -> None:
    folder = files(
        tmp_path / "MicroLens-50k",
        **{
            "MicroLens-50k_pairs__csv": PAIRS.replace(",1\n", ",1583378650000\n"),
            "MicroLens-50k_pairs__tsv": LISTS,
            "MicroLens-50k_titles__csv": 'item,title\n11,"Cats, dogs"\n12,\n10,Never watched\n',
            "MicroLens-50k_likes_and_views__txt": "11\t5\t100\n13\tmany\t7\n13\t1\t1\n",
            "tags_to_summary__csv": "11,Pets\n14,News\n",
        },
    )
    covers(folder / "MicroLens-50k_covers", "11", "14", "99")
    data = import_microlens(folder, out=tmp_path / "out", progress=False)
    assert data.positive_only
    assert data.item_ids.tolist() == ["11", "12", "10", "13", "14"]
    assert pairs(data)[:2] == [("1", "11", 1583378629), ("1", "12", 1583378630)]
    assert data.meta.splits["default"]["kind"] == "leave_one_out"
    assert data.split().tolist() == [1, 2, 0, 0, 0]
    assert data.texts("title", [0, 1, 2, 3]) == [["Cats, dogs"], [], ["Never watched"], []]
    ends, codes, words = data.categorical("tag")
    assert [[words[c] for c in codes[ends[i] : ends[i + 1]]] for i in range(5)] == [["Pets"], [], [], [], ["News"]]
    assert [len(found) for found in data.images("cover", [0, 1, 2, 3, 4])] == [1, 0, 0, 0, 1]
    assert data.meta.fields.numeric == []
    notes = report(data).notes
    assert "tags_to_summary.csv has no header: read as item, tag" in notes
    assert "items of the interactions that MicroLens-50k_titles.csv lacks: 2" in notes
    assert any("likes_and_views.txt: not read" in note for note in notes)
    assert reasons(data) == {"file of the image folder that no item names": ["99.jpg"]}
    assert report(data).read["items"] == 5
    data = import_microlens(folder, out=tmp_path / "counts", counts=True, progress=False)
    np.testing.assert_array_equal(data.numeric("likes"), [5, np.nan, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(data.numeric("views"), [100, np.nan, np.nan, 7, np.nan])
    assert reasons(data)["items: likes is no number (kept, empty)"] == ["MicroLens-50k_likes_and_views.txt:2 'many'"]


def test_lists_without_times(tmp_path: Path) -> None:
    folder = files(tmp_path / "x", x_pairs__tsv=LISTS + "\t11\n4\t \n5\n")
    data = import_microlens(folder, out=tmp_path / "out", progress=False)
    assert pairs(data) == [
        ("1", "13", 1),
        ("1", "11", 2),
        ("1", "12", 3),
        ("2", "11", 1),
        ("2", "14", 2),
        ("3", "12", 1),
    ]
    assert data.split().tolist() == [0, 1, 2, 0, 0, 0]
    assert any("has no times" in note for note in report(data).notes)
    assert reasons(data) == {
        "empty user id": ["x_pairs.tsv:4 ''"],
        "user without items": ["x_pairs.tsv:5 '4'"],
        "row has not the 2 columns of the header": ["x_pairs.tsv:6 1 columns"],
    }
    # An item that nobody takes first can still be drawn as a negative of a first one.
    samples = Samples(data, "default", "", 4, "rolling", 200)
    drawn = samples.impressions(np.array([5]), 0, np.random.default_rng(0)).items[0, 1:]
    assert set(data.item_ids[drawn]) == {"11", "13", "14"}


def test_names_and_headers_of_other_releases(tmp_path: Path) -> None:
    folder = files(
        tmp_path / "x",
        pairs__csv="userID,videoID\n1,a\n1,b\n1,c\n",
        x_title_en__csv="videoID, title\na,Alpha\n,Nobody\nb,Beta,Gamma\na,Again\n",
        x_likes_and_views__txt="",
    )
    data = import_microlens(folder, out=tmp_path / "out", progress=False)
    assert data.timestamps is None
    assert data.split().tolist() == [0, 1, 2]
    assert data.texts("title", [0, 1, 2]) == [["Alpha"], [], []]
    assert set(reasons(data)) == {
        "items: empty item id", "row has not the 2 columns of the header", "duplicate item id (the first row is kept)",
    }  # fmt: skip
    files(folder, pairs__csv="7,a,1583378629552\n7,b,-4\n7,c,then\n,d,1583378629552\n7,,1\n")
    data = import_microlens(folder, out=tmp_path / "bare", progress=False)
    assert pairs(data) == [("7", "a", 1583378629)]
    assert "pairs.csv has no header: read as user, item, timestamp" in report(data).notes
    assert reasons(data)["no usable time in column 'timestamp'"] == ["pairs.csv:2 '-4'", "pairs.csv:3 'then'"]


def test_pixelrec(tmp_path: Path) -> None:
    folder = tmp_path / "pixel"
    files(folder / "interactions", Pixel200K__csv=PIXEL)
    files(folder / "items", Pixel200K__csv=INFO)
    files(folder, other__csv="a,b\n1,2\n", empty__csv="")
    covers(folder / "cover", "i1", "i2")
    data = import_pixelrec(folder, out=tmp_path / "out", progress=False)
    assert pairs(data) == [("u1", "i1", 1650000002), ("u1", "i2", 1650000001), ("u1", "i3", 1650000003)]
    assert data.split().tolist() == [1, 0, 2]
    assert data.item_ids.tolist() == ["i1", "i9", "i2", "i3"]
    assert data.texts("title", [0, 1]) == [["One, two"], ["Nine"]]
    assert data.texts("description", [0, 1]) == [["Line\nbreak"], []]
    assert data.categorical("tag")[2] == ["anime"]
    assert [len(found) for found in data.images("cover", [0, 1, 2, 3])] == [1, 0, 1, 0]
    assert any("view_number, comment_number: not read" in note for note in report(data).notes)
    data = import_pixelrec(folder, out=tmp_path / "counts", counts=True, progress=False)
    np.testing.assert_array_equal(data.numeric("view_number"), [10, np.nan, np.nan, np.nan])
    assert reasons(data) == {"items: view_number is no number (kept, empty)": ["items/Pixel200K.csv:3 'x'"]}


def test_which_of_several_files(tmp_path: Path) -> None:
    folder = tmp_path / "pixel"
    files(folder / "interactions", Pixel200K__csv=PIXEL, Pixel1M__csv=PIXEL + "i4,u1,1650000009\n")
    with pytest.raises(
        UserError, match=r"several pairs: interactions/Pixel1M.csv, interactions/Pixel200K.csv; .*--pairs"
    ):
        import_pixelrec(folder, out=tmp_path / "out")
    chosen = folder / "interactions" / "Pixel1M.csv"
    picture = covers(tmp_path / "elsewhere", "i4")
    info = files(tmp_path / "i", i__csv=INFO) / "i.csv"
    data = import_pixelrec(folder, out=tmp_path / "out", pairs=chosen, titles=info, covers=picture, progress=False)
    assert len(pairs(data)) == 4
    assert report(data).coverage["cover"]["items"] == 1


def test_mistakes_are_named(tmp_path: Path) -> None:
    def fails(words: str, work: Any = import_microlens, **options: Any) -> None:
        with pytest.raises(UserError, match=words):
            work(folder, out=tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    folder = tmp_path / "x"
    fails("does not exist or is not a folder")
    folder.mkdir()
    fails(r"holds no \*_pairs.csv or \*_pairs.tsv")
    fails("holds no CSV with the columns item_id and user_id", import_pixelrec)
    fails("nothing.csv does not exist", pairs=folder / "nothing.csv")
    files(folder, a_pairs__csv=PAIRS, b_pairs__csv=PAIRS)
    fails("several pairs: a_pairs.csv, b_pairs.csv")
    (folder / "b_pairs.csv").unlink()
    fails("image folder .* does not exist", covers=folder / "none")
    files(folder, a_titles__csv="item,title,more\n1,a,b\n")
    fails("must have 2 columns, an item's id and title; found: item, title, more")
    (folder / "a_titles.csv").unlink()
    files(folder, a_pairs__csv="who,item,timestamp\n1,2,3\n")
    fails("no column of users .* Columns found: who, item, timestamp")
    files(folder, a_pairs__csv="user,item,timestamp\n1,2,then\n")
    fails("no usable time in column 'timestamp' of any row")
    (folder / "a_pairs.csv").write_bytes(PAIRS.encode("utf-16-le"))
    fails("binary file, not text; if it is text in UTF-16, name that")
    files(folder, a_pairs__csv="user,item,timestamp\n")
    fails("no interaction was read or kept")
