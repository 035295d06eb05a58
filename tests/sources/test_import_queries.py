"""Columns of queries and sessions in every importer that has columns of the context, and in appends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.data.validate import validate
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.impressions import import_impressions
from rawrec.sources.mind import import_mind
from rawrec.sources.recbole import import_recbole
from rawrec.sources.table import import_table

ROWS = """who,film,when,typed,visit,query,good
u1,a,1,red mug,7,x,1
u1,b,2, red mug ,7,y,0
u2,a,3,,7,x,1
u2,c,4,"mug, blue",,x,0
u3,c,5,杯子,8,x,1
u3,b,6,red mug,8.0,x,0
"""
TEXTS = ["red mug", " red mug ", None, "mug, blue", "杯子", "red mug"]


def imported(folder: Path, text: str = ROWS, name: str = "rows.csv", **settings: Any) -> Dataset:
    (folder / name).write_text(text, encoding="utf-8")
    given: dict[str, Any] = {"time": "when", "labels": ["good"], "query": "typed", "session": "visit"}
    return import_table(folder / name, "who", "film", out=folder / "d", progress=False, **(given | settings))


def test_a_table(tmp_path: Path) -> None:
    data = imported(tmp_path)
    assert data.column("query").tolist() == TEXTS
    assert list(data.queries) == ["red mug", " red mug ", "mug, blue", "杯子"]
    assert data.column("session").tolist() == ["7", "7", "7", None, "8", "8.0"]
    assert data.session_rows.tolist() == [0, 0, 1, -1, 2, 3]
    notes = " ".join(ImportReport.load(data.path / "import.json").notes)
    assert "query: 1 of 6 interactions have none" in notes and "session: 1 of 6" in notes
    assert validate(data.path, progress=False).sound


def test_another_column_of_these_names_and_the_context(tmp_path: Path) -> None:
    data = imported(tmp_path, extra=["query"], context_category=["typed", "visit"])
    assert data.meta.extra == ["source_query"] and data.meta.context.categorical == ["query", "session"]
    codes, words = data.row_categories("query")
    assert words == ["mug, blue", "red mug", "杯子"]  # a category is without white space around it, a query is not
    assert codes.tolist() == [1, 1, -1, 0, 2, 1]
    assert data.row_categories("session")[0].tolist() == [0, 0, 0, -1, 1, 2]
    assert data.column("source_query").tolist() == list("xyxxxx")
    (tmp_path / "e").mkdir()
    plain = imported(tmp_path / "e", query=None, session=None, context_category=["query"])
    assert plain.meta.extra == ["query"] and not plain.has_queries
    assert plain.row_categories("query")[1] == ["x", "y"]


def test_numbers_as_sessions(tmp_path: Path) -> None:
    rows = [{"who": "u", "film": "a", "visit": 7, "when": i} for i in range(3)]
    text = "\n".join(map(json.dumps, rows))
    data = imported(tmp_path, text, "rows.jsonl", query=None, labels=[])
    assert data.column("session").tolist() == ["7"] * 3 and not data.has_queries


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"query": "typd"}, "query: .*no column 'typd'; did you mean 'typed'"),
        ({"session": "nope"}, "session: .*no column 'nope'"),
        ({"session": "typed"}, "'typed' is named as query and as session"),
        ({"extra": ["typed"]}, "'typed' is to be kept twice"),
        ({"context_numeric": ["visit"]}, "'visit' is kept as text"),
        ({"query": "good"}, "'good' is named as a label and as a further column"),
        ({"split": SplitSpec(kind="column", column="typed")}, "'typed' is to be kept twice"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        imported(tmp_path, **settings)
    assert not (tmp_path / "d").exists()


def test_lists_of_words_are_no_query(tmp_path: Path) -> None:
    table = pa.table({"who": ["u"] * 3, "film": ["a"] * 3, "typed": [["red", "mug"]] * 3})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"rows.parquet: typed holds values of type list"):
        import_table(tmp_path / "rows.parquet", "who", "film", query="typed", out=tmp_path / "d", progress=False)


def test_sessions_stay_whole_without_times(tmp_path: Path) -> None:
    lines = [f"u{i % 2},f{i},,{i // 10},{i}" for i in range(100)]
    text = "\n".join(["who,film,typed,visit,n", *lines]) + "\n"
    data = imported(tmp_path, text, time=None, labels=[])
    found = {}
    for session, part in zip(data.session_rows.tolist(), data.split().tolist(), strict=True):
        found.setdefault(session, set()).add(part)
    assert all(len(parts) == 1 for parts in found.values()) and len(found) == 20
    assert data.meta.splits["default"]["together"] == "session"


# ----------------------------------------------------------------------------------------------------------- appending
MORE = """who,film,when,asked,visit,good
u1,a,7,blue mug,7,1
u9,b,8,red mug,7,0
"""


def test_an_append(tmp_path: Path) -> None:
    data = imported(tmp_path)
    (tmp_path / "more.csv").write_text(MORE)
    named = {"time": "when", "labels": ["good"]}
    now = append(
        data.path, tmp_path / "more.csv", "who", "film", query="asked", session="visit", progress=False, **named
    )
    assert now.column("query").tolist()[6:] == ["blue mug", "red mug"] and now.query_rows.tolist()[6:] == [4, 0]
    assert now.session_rows.tolist()[6:] == [0, 4]  # session 7 of u1 goes on, that of u9 is another
    now = append(data.path, tmp_path / "more.csv", "who", "film", progress=False, **named)
    assert now.query_rows.tolist()[8:] == [-1, -1] == now.session_rows.tolist()[8:]
    notes = " ".join(ImportReport.load(data.path / "import-3.json").notes)
    assert "has no column 'query': it is empty in the rows appended" in notes and "'session'" in notes
    (tmp_path / "same.csv").write_text(MORE.replace("asked,visit", "query,session"))
    now = append(data.path, tmp_path / "same.csv", "who", "film", progress=False, **named)
    assert now.query_rows.tolist()[10:] == [4, 0] and now.session_rows.tolist()[10:] == [0, 4]
    assert validate(data.path, progress=False).sound


def test_an_append_that_names_what_is_not_there(tmp_path: Path) -> None:
    data = imported(tmp_path, query=None)
    (tmp_path / "more.csv").write_text(MORE)
    named: dict[str, Any] = {"time": "when", "labels": ["good"], "progress": False}
    with pytest.raises(UserError, match=r"has no queries: import it anew with query \(--query COLUMN\)"):
        append(data.path, tmp_path / "more.csv", "who", "film", query="asked", **named)
    with pytest.raises(UserError, match=r"session: .*no column 'nope'"):
        append(data.path, tmp_path / "more.csv", "who", "film", session="nope", **named)


# ------------------------------------------------------------------------------------------------------- other sources
def test_shown_lists(tmp_path: Path) -> None:
    rows = [
        {"u": "a", "shown": ["x", "y"], "clicks": ["x"], "q": "lamp", "s": 5, "t": 1},
        {"u": "b", "shown": ["y", "z"], "clicks": [], "q": "", "s": 5, "t": 2},
    ]
    (tmp_path / "shown.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given: dict[str, Any] = {"out": tmp_path / "d", "progress": False, "overwrite": True, "time": "t"}
    data = import_impressions(tmp_path / "shown.jsonl", "u", "shown", "clicks", query="q", session="s", **given)
    assert data.column("query").tolist() == ["lamp", "lamp", None, None]
    assert data.session_rows.tolist() == [0, 0, 1, 1] and data.meta.extra == ["position"]
    data = import_impressions(tmp_path / "shown.jsonl", "u", "shown", "clicks", **given)
    assert data.session_rows.tolist() == [0, 0, 1, 1] and not data.has_queries


def test_mind(tmp_path: Path) -> None:
    (tmp_path / "news.tsv").write_text("".join(f"N{i}\tnews\tall\tTitle {i}\t\t\t[]\t[]\n" for i in range(5)))
    lines = ["1\tU1\t11/11/2019 9:05:58 AM\tN0\tN1-1 N2-0", "2\tU2\t11/12/2019 9:05:58 AM\t\tN3-1 N4-0"]
    (tmp_path / "behaviors.tsv").write_text("\n".join(lines) + "\n")
    data = import_mind(tmp_path, out=tmp_path / "d", progress=False)
    given = data.column("given") > 0
    assert (data.session_rows[given] == -1).all() and data.session_rows[~given].tolist() == [0, 0, 1, 1]
    assert data.session_ids.tolist() == ["1", "2"] and not data.has_queries
    assert validate(data.path, progress=False).sound


def test_recbole(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    lines = [
        "user_id:token\titem_id:token\twords:token_seq\tvisit:token",
        "u\ti\tred mug\t1",
        "u\tj\t\t1",
        "v\ti\ta\t2",
    ]
    (folder / "x.inter").write_text("\n".join(lines) + "\n")
    data = import_recbole(folder, query="words", session="visit", out=tmp_path / "d", progress=False)
    assert data.column("query").tolist() == ["red mug", None, "a"] and data.session_rows.tolist() == [0, 0, 1]
    assert data.meta.extra == []
    with pytest.raises(UserError, match="'words' is kept as the query"):
        import_recbole(folder, query="words", context_numeric=["words"], out=tmp_path / "e", progress=False)
    with pytest.raises(UserError, match="no column 'word'"):
        import_recbole(folder, query="word", out=tmp_path / "e", progress=False)
