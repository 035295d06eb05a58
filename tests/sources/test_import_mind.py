"""`import mind`: impressions, histories without times, folders as parts, and what is wrong in the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.sampling import Samples
from rawrec.data.splits import SplitSpec
from rawrec.errors import UserError
from rawrec.sources.mind import import_mind
from rawrec.sources.tables import lines

DAY = 86_400
START = 1_573_257_600  # 2019-11-09 00:00
TRAIN = [
    ("1", "U1", "11/10/2019 8:00:00 AM", "N7 N8 N9", "N1-0 N2-1"),
    ("2", "U1", "11/9/2019 12:00:10 AM", "N7 N8", "N3-1"),
    ("3", "U2", "11/11/2019 11:59:59 PM", "", "N1-1 N3-0"),
]
DEV = [
    ("1", "U1", "11/15/2019 1:00:00 PM", "N7 N8 N3 N2", "N4-1 N1-0"),
    ("2", "U3", "11/15/2019 12:30:00 PM", "N2 N1", "N4-0 N5-1"),
]
NEWS: list[tuple[str, ...]] = [
    (f"N{i}", "sports" if i % 2 else "news", f"sub{i}", f'Title "{i}', f"Abstract {i}" if i > 1 else "")
    for i in range(1, 6)
]
Import = Callable[..., Dataset]


@pytest.fixture
def run(tmp_path: Path) -> Import:
    def go(folder: Path, **options: Any) -> Dataset:
        out = tmp_path / "out" / str(len(list(tmp_path.rglob("import.json"))))
        return import_mind(folder, **{"out": out, "progress": False, **options})

    return go


def write(folder: Path, rows: list[tuple[str, ...]], news: list[tuple[str, ...]] = NEWS) -> Path:
    folder.mkdir(parents=True)
    (folder / "behaviors.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    (folder / "news.tsv").write_text("".join("\t".join([*row, "https://x", "[]", '[{"a": "']) + "\n" for row in news))
    return folder


def report(data: Dataset) -> ImportReport:
    return ImportReport.load(data.path / "import.json")


def rows(data: Dataset, *columns: str) -> list[tuple[Any, ...]]:
    users, items = data.user_ids[data.users].tolist(), data.item_ids[data.items].tolist()
    return list(zip(users, items, *(data.column(name).tolist() for name in columns), strict=True))


def test_one_folder(tmp_path: Path, run: Import) -> None:
    data = run(write(tmp_path / "mind", TRAIN), history=False)
    assert rows(data, "click", "session", "given") == [
        ("U1", "N1", 0, "1", 0), ("U1", "N2", 1, "1", 0), ("U1", "N3", 1, "2", 0), ("U2", "N1", 1, "3", 0),
        ("U2", "N3", 0, "3", 0),
    ]  # fmt: skip
    assert data.timestamps is not None
    assert (data.timestamps - START).tolist() == [DAY + 8 * 3600] * 2 + [10] + [3 * DAY - 1] * 2
    assert data.item_ids.tolist() == [row[0] for row in NEWS]
    assert data.texts("title", [0, 1]) == [['Title "1'], ['Title "2']]
    assert data.texts("abstract", [0, 1]) == [[], ["Abstract 2"]]
    assert data.categorical("category")[2] == ["news", "sports"]
    assert data.meta.splits["default"]["kind"] == "time_global"
    assert report(data).read == {"items": 5, "impressions": 3, "interactions": 5}
    assert report(data).skipped == {}


def test_histories_come_once_and_before_everything(tmp_path: Path, run: Import) -> None:
    write(tmp_path / "mind" / "MINDsmall_train", TRAIN)
    write(tmp_path / "mind" / "MINDsmall_dev", DEV, [*NEWS, ("N6", "news", "", "Only in dev", "")])
    data = run(tmp_path / "mind")
    given = [row for row in rows(data, "timestamp", "click", "given", "split", "session") if row[4]]
    first = START + 10
    # U1's first impression is the second row of train; U3 is only in dev.
    assert given == [
        ("U1", "N7", first - 2, 1, 1, -1, None), ("U1", "N8", first - 1, 1, 1, -1, None),
        ("U3", "N2", first - 2, 1, 1, -1, None), ("U3", "N1", first - 1, 1, 1, -1, None),
    ]  # fmt: skip
    assert report(data).read["earlier clicks"] == 4
    assert any("given=1" in note for note in report(data).notes)
    # What a model reads as U3's history in dev is the list, in its order; and of U1 also what was clicked meanwhile.
    samples = Samples(data, "default", "click", 8, "rolling", 0)
    test = samples.impressions(samples.rows(2), 2, None)  # type: ignore[arg-type]
    read = [[data.item_ids[i] for i in row if i >= 0] for row in samples.histories(test, 2).tolist()]
    assert read == [["N7", "N8", "N3", "N2"]] * 2 + [["N2", "N1"]] * 2
    # In training, too, they are history but no sample; models that read positives alone train on them.
    train = samples.impressions(samples.rows(0), 0, None)  # type: ignore[arg-type]
    assert not np.isin(train.rows, np.flatnonzero(data.column("given"))).any()
    read = [[data.item_ids[i] for i in row if i >= 0] for row in samples.histories(train, 0).tolist()]
    assert read == [["N7", "N8", "N3"]] * 2 + [["N7", "N8"]]
    assert (data.retrieval_split() == np.where(data.column("given") == 1, 0, data.split())).all()
    # The news of both folders, each once.
    assert data.item_ids.tolist() == ["N1", "N2", "N3", "N4", "N5", "N6", "N7", "N8"]
    assert data.texts("title", [5]) == [["Only in dev"]]
    assert report(data).skipped == {}


def test_folders_are_parts(tmp_path: Path, run: Import) -> None:
    write(tmp_path / "mind" / "train", TRAIN)
    write(tmp_path / "mind" / "dev", DEV)
    unlabelled = [("1", "U1", "11/16/2019 1:00:00 PM", "", "N4 N1")]
    write(tmp_path / "mind" / "test", unlabelled)
    data = run(tmp_path / "mind", history=False)
    # The last day of train (U2's impression) is valid, dev is test.
    assert rows(data, "split", "session") == [
        ("U1", "N1", 0, "train-1"), ("U1", "N2", 0, "train-1"), ("U1", "N3", 0, "train-2"), ("U2", "N1", 1, "train-3"),
        ("U2", "N3", 1, "train-3"), ("U1", "N4", 2, "dev-1"), ("U1", "N1", 2, "dev-1"), ("U3", "N4", 2, "dev-2"),
        ("U3", "N5", 2, "dev-2"),
    ]  # fmt: skip
    notes = report(data).notes
    assert notes[0].startswith("test: left out") and "the last day of train is valid, dev is test" in notes
    (tmp_path / "mind" / "test" / "behaviors.tsv").write_text("1\tU1\t11/16/2019 1:00:00 PM\t\tN4-0 N1-1\n")
    data = run(tmp_path / "mind", history=False)
    assert data.split().tolist() == [0] * 5 + [1] * 4 + [2] * 2
    data = run(tmp_path / "mind", split=SplitSpec(kind="time_global"))
    assert all((part == -1) == given for *_, given, part in rows(data, "given", "split"))
    # A split that could tear an impression apart does not, by itself at import and where it is asked to later.
    data = run(tmp_path / "mind", split=SplitSpec(kind="leave_one_out"))
    data.add_split("more", SplitSpec(kind="random_user", together="session"))
    for name in ("default", "more"):
        assert "same 'session'" in data.meta.splits[name]["statement"]
        sessions = zip(data.column("session").tolist(), data.split(name).tolist(), strict=True)
        assert len({pair for pair in sessions if pair[0]}) == len({*data.column("session").tolist()} - {None})
        assert (data.split(name)[data.column("given") == 1] == -1).all()


def test_what_does_not_fit_is_counted(tmp_path: Path, run: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [
        ("1", "U1", "11/9/2019 8:55:22 AM", "N1", "N1-0 N2 N3-2 -1 N-4-1"),
        ("2", " ", "11/9/2019 8:55:22 AM", "N1", "N1-0"),
        ("3", "U1", "2019-11-09 08:55:22", "N1", "N1-0"),
        ("4", "U1", "13/9/2019 8:55:22 AM", "N1", "N1-0"),
        ("5", "U1", "11/9/1969 8:55:22 AM", "N1", "N1-0"),
        ("6", "U1", "11/9/2019 8:55:22 AM", "N1", " "),
        ("7", "U1", "11/9/2019 8:55:22 AM"),
        ("8", "U\0", "11/9/2019 9:55:22 AM", "N1\0", "N1-1"),
    ]
    folder = write(tmp_path / "mind", bad, [*NEWS, ("", "c", "s", "No id", ""), ("N1", "c", "s", "Again", ""), ("N9",)])
    with (folder / "behaviors.tsv").open("ab") as file:
        file.write(b"9\tU\xe9\t11/9/2019 8:55:22 AM\t\tN1-1\n")
    data = run(folder, encoding="utf-8")
    shown = [(user, item, click) for user, item, click, given in rows(data, "click", "given") if not given]
    assert shown == [("U1", "N1", 0), ("U1", "N-4", 1), ("U\0", "N1", 1)]
    found = {reason: entry.examples for reason, entry in report(data).skipped.items()}
    assert found.pop("bytes that are not utf-8 (kept, such a byte as \\xe9; a row whose id holds one is left out)")
    reason = "id with bytes that are not of the file's encoding (see --encoding) (impression left out)"
    assert found.pop(reason) == [r"mind/behaviors.tsv:9 'U\\xe9'"]
    assert found == {
        "news shown without -0 or -1 behind its id": [f"mind/behaviors.tsv:1 {t!r}" for t in ("N2", "N3-2", "-1")],
        "empty user id (impression left out)": ["mind/behaviors.tsv:2 ' '"],
        "time is not like 11/15/2019 8:55:22 AM (impression left out)": [
            "mind/behaviors.tsv:3 '2019-11-09 08:55:22'", "mind/behaviors.tsv:4 '13/9/2019 8:55:22 AM'",
            "mind/behaviors.tsv:5 '11/9/1969 8:55:22 AM'",
        ],
        "no news shown (impression left out)": ["mind/behaviors.tsv:6 '6'"],
        "row has not the 5 columns of the header": ["mind/behaviors.tsv:7 3 columns"],
        "row has not the 8 columns of the header": ["mind/news.tsv:8 4 columns"],
        "items: empty news id": ["mind/news.tsv:6 ''"],
        "duplicate item id (the first row is kept)": ["N1"],
    }  # fmt: skip
    monkeypatch.setattr(lines, "BLOCK", 64)
    again = run(folder, encoding="utf-8")
    columns = ("timestamp", "click", "given", "session")
    assert sorted(rows(again, *columns), key=str) == sorted(rows(data, *columns), key=str)


def test_mistakes_are_named(tmp_path: Path, run: Import) -> None:
    def fails(words: str) -> None:
        with pytest.raises(UserError, match=words):
            run(folder)
        assert not list(tmp_path.glob("out/*"))

    folder = tmp_path / "mind"
    fails("does not exist or is not a folder")
    folder.mkdir()
    fails("no behaviors.tsv, nor do subfolders named train, dev or test; found: nothing")
    write(folder / "MINDsmall_dev", DEV)
    write(folder / "test", DEV)
    fails("has no subfolder named train; found: MINDsmall_dev, test")
    write(folder / "MINDsmall_train", [("1", "U1", "11/9/2019 8:55:22 AM", "", "N1 N2")])
    fails("has no subfolder named train")
    write(folder / "large_train", TRAIN)
    fails("several folders of train: MINDsmall_train, large_train")
    folder = write(tmp_path / "one", [("1", "U1", "11/9/2019 8:55:22 AM", "", "N1 N2")])
    fails("no impression says what was clicked")
    folder = write(tmp_path / "other", [("1", "U1", "yesterday", "", "N1-1 N2-0")])
    fails("no interaction was read or kept; 1 skipped because: time is not like")
    folder = write(tmp_path / "last", TRAIN)
    (folder / "news.tsv").unlink()
    fails("news.tsv does not exist")


def test_behaviors_without_impression_ids_are_refused_with_what_is_wrong(run: Import, tmp_path: Path) -> None:
    short = [row[1:] for row in TRAIN]
    reason = r"behaviors.tsv: rows have not the 5 columns impression, user.*behaviors.tsv:1 4 columns"
    with pytest.raises(UserError, match=reason):
        run(write(tmp_path / "alone", short))
    write(tmp_path / "both" / "train", short)
    write(tmp_path / "both" / "dev", DEV)
    with pytest.raises(UserError, match=reason):  # and dev is not taken for everything
        run(tmp_path / "both")
