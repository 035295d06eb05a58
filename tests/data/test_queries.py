"""Queries and sessions of a dataset: written once, named by row, appended, checked, told of and exported."""

from __future__ import annotations

import io
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from rawrec.data.appender import Appender
from rawrec.data.dataset import Dataset, Fields
from rawrec.data.exporters import export_mmrec, export_recbole
from rawrec.data.import_report import ImportReport
from rawrec.data.inspect import inspect, print_inspection
from rawrec.data.queries import Numbers
from rawrec.data.splits import SplitSpec
from rawrec.data.validate import validate
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError
from rawrec.sources.recbole import import_recbole

SCRIPTS = ["red mug", "красная кружка", "赤いマグ", "كوب أحمر", "🔴 mug", "लाल मग", "mug\u0301", " red mug", "Red Mug"]
"""Nine different queries, the last two being others than the first."""
ROWS = 36


def rows(start: int = 0, count: int = ROWS) -> dict[str, Any]:
    at = np.arange(start, start + count)
    return {
        "user_id": [f"u{i % 4}" for i in at],
        "item_id": [f"i{i % 7}" for i in at],
        "timestamp": 1000 + at,
        "label": (at % 3 == 0).astype(float),
        "query": [[None, "", " \t", *SCRIPTS][i % 12] for i in at],
        "session": ["" if i % 12 == 5 else f"s{i // 8}" for i in at],
    }


def made(out: Path, given: dict[str, Any] | None = None, **settings: Any) -> Dataset:
    given = given or rows()
    asked = [name for name in ("query", "session") if name in given]
    with DatasetWriter(
        out, fields=Fields(text=["title"]), source="made", labels=["label"], has_time=True, asked=asked, **settings
    ) as writer:
        writer.ROW_BUFFER = 10
        batch = len(given["user_id"]) // 3
        for start in range(0, len(given["user_id"]), batch):
            writer.add_interactions({name: values[start : start + batch] for name, values in given.items()})
        return writer.finish(SplitSpec(), ImportReport())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions; not to be changed."""
    data = made(tmp_path_factory.mktemp("queries") / "data")
    with Appender(data.path, "test") as target:
        added = rows(ROWS, 12)
        added["query"][6] = "new one"
        added["user_id"][3] = "late"
        target.add_interactions(added)
        target.finish(ImportReport())
    return data.path


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "data"))


# ------------------------------------------------------------------------------------------------------------- writing
def test_a_query_is_there_once_and_as_it_was_typed(tmp_path: Path) -> None:
    data = made(tmp_path / "d")
    assert list(data.queries) == SCRIPTS and data.meta.counts["queries"] == len(data.queries) == 9
    expected = [None if i % 12 < 3 else SCRIPTS[i % 12 - 3] for i in range(ROWS)]
    assert data.queries.take(data.query_rows) == expected == data.column("query").tolist()
    assert data.query_rows.dtype == np.int32 and (data.query_rows == -1).sum() == 9
    assert data.queries[1] == SCRIPTS[1] and data.queries[2:4] == SCRIPTS[2:4]
    assert data.queries.rows(["Red Mug", "red", SCRIPTS[4]]).tolist() == [8, -1, 4]
    table = pq.read_table(data.path / "queries.parquet")
    assert table.schema == pa.schema([("query", pa.string())]) and table.column("query").to_pylist() == SCRIPTS
    stored = pq.read_table(data.path / "interactions.parquet").column("query")
    assert stored.type == pa.int32() and stored.to_pylist() == [None if row < 0 else row for row in data.query_rows]
    notes = " ".join(ImportReport.load(data.path / "import.json").notes)
    assert "query: 9 of 36 interactions have none (an empty one counts as none)" in notes
    assert "session: 3 of 36" in notes
    assert ImportReport.load(data.path / "import.json").kept["queries"] == 9


def test_a_session_is_of_one_user(tmp_path: Path) -> None:
    data = made(tmp_path / "d")
    given = rows()
    pairs = [None if not s else (u, s) for u, s in zip(given["user_id"], given["session"], strict=True)]
    found = [
        None if row < 0 else (u, data.session_ids[row])
        for u, row in zip(given["user_id"], data.session_rows, strict=True)
    ]
    assert found == pairs and data.meta.counts["sessions"] == len({*pairs} - {None})
    rows_of = pl.DataFrame({"row": data.session_rows, "user": data.users}).filter(pl.col("row") >= 0)
    assert rows_of.group_by("row").agg(pl.col("user").n_unique())["user"].max() == 1
    assert data.column("session").tolist() == [s or None for s in given["session"]]
    kept = pq.read_table(data.path / "sessions.parquet")
    assert kept.column_names == ["user", "session_id"]
    assert kept.column("user").to_numpy()[data.session_rows[0]] == data.users[0]


def test_ids_with_any_sign_and_numbers_as_ids(tmp_path: Path) -> None:
    given = {name: values[:4] for name, values in rows(count=4).items()}
    given["session"] = ["1\x1f2", "\x1f", "2\x1fx", " 1\x1f2 "]
    data = made(tmp_path / "d", {n: v for n, v in given.items() if n != "query"} | {"user_id": ["a", "1", "a", "a"]})
    assert data.column("session").tolist() == ["1\x1f2", None, "2\x1fx", "1\x1f2"]  # \x1f alone is white space
    given["session"] = [7, 7, 8, 7]
    assert made(tmp_path / "n", given).column("session").tolist() == ["7", "7", "8", "7"]
    with pytest.raises(UserError, match="query"):
        made(tmp_path / "e", given | {"query": [["a", "list"]] * 4})


def test_batches_of_any_size_number_alike(tmp_path: Path) -> None:
    whole, given = made(tmp_path / "a"), rows()
    numbers, parts = Numbers("query"), []
    for start in range(0, ROWS, 5):
        part = pa.array(given["query"][start : start + 5], pa.string())
        parts += numbers.encode(pa.array([0] * len(part), pa.int32()), part).fill_null(-1).to_pylist()
    assert parts == whole.query_rows.tolist()


def test_without_queries_nothing_of_them_is_written(tmp_path: Path) -> None:
    plain = {name: values for name, values in rows().items() if name not in ("query", "session")}
    data = made(tmp_path / "d", plain)
    text = (data.path / "dataset.yaml").read_text()
    assert "quer" not in text and "session" not in text and "schema_version: 3\n" in text
    assert sorted(p.name for p in data.path.glob("*.parquet")) == ["interactions.parquet"]
    assert not data.has_queries and not data.has_sessions
    for read in (lambda: data.queries, lambda: data.query_rows, lambda: data.session_rows, lambda: data.session_ids):
        with pytest.raises(UserError, match=r"import it anew with (query|session)"):
            read()
    alone = made(tmp_path / "q", plain | {"query": ["x"] * ROWS})
    assert alone.has_queries and not alone.has_sessions
    assert yaml.safe_load((alone.path / "dataset.yaml").read_text())["schema_version"] == 4


def test_a_dataset_whose_queries_are_all_empty(tmp_path: Path) -> None:
    data = made(tmp_path / "d", rows() | {"query": [""] * ROWS, "session": [None] * ROWS})
    assert len(data.queries) == 0 and (data.query_rows == -1).all() and len(data.session_ids) == 0
    assert validate(data.path, progress=False).sound
    assert inspect(data.path)["asked"]["query"]["rows_each"] is None


def test_texts_under_these_names_stay_texts_where_they_are_further_columns(tmp_path: Path) -> None:
    given = rows() | {"query": ["a"] * ROWS, "session": ["s"] * ROWS}
    with DatasetWriter(
        tmp_path / "d", fields=Fields(), source="made", labels=["label"], has_time=True,
        extra={"query": pa.string(), "session": pa.string()},
    ) as writer:  # fmt: skip
        writer.add_interactions(given)
        data = writer.finish(SplitSpec(), ImportReport())
    assert not data.has_queries and data.column("query").tolist() == ["a"] * ROWS
    with pytest.raises(UserError, match="reserved"):
        made(tmp_path / "e", given, extra={"query": pa.string()})


def test_sessions_stay_whole_in_a_split(tmp_path: Path) -> None:
    data = made(tmp_path / "d")
    data.add_split("whole", SplitSpec(kind="random_user", together="session"))
    parts = pl.DataFrame({"session": data.session_rows, "part": data.split("whole")})
    sessions = parts.filter(pl.col("session") >= 0).group_by("session").agg(pl.col("part").n_unique())
    assert sessions["part"].max() == 1 and parts["part"].n_unique() == 3
    with pytest.raises(UserError, match="'query' says what was asked for"):
        data.add_split("wrong", SplitSpec(kind="column", column="query"))
    with pytest.raises(UserError, match="'session' says what was asked for"):
        data.add_split("wrong", SplitSpec(kind="random_user", history="session"))


# ----------------------------------------------------------------------------------------------------------- appending
def test_an_append_adds_queries_and_sessions(sound: Path) -> None:
    before, now = Dataset.open(sound, 1), Dataset.open(sound)
    assert list(now.queries) == [*SCRIPTS, "new one"] and list(before.queries) == SCRIPTS
    np.testing.assert_array_equal(now.query_rows[:ROWS], before.query_rows)
    np.testing.assert_array_equal(now.session_rows[:ROWS], before.session_rows)
    assert now.session_ids[: len(before.session_ids)].tolist() == before.session_ids.tolist()
    expected = [None if not (text or "").strip() else text for text in rows(ROWS, 12)["query"]]
    expected[6] = "new one"
    assert now.column("query").tolist()[ROWS:] == expected
    assert pq.read_table(sound / "queries-2.parquet").column("query").to_pylist() == ["new one"]
    # s4 goes on for the users who had begun it, and is another session of the one who is new
    added, ids = now.session_rows[ROWS:], now.column("session")[ROWS:]
    goes_on = (added >= 0) & (added < len(before.session_ids))
    assert ids[goes_on].tolist() == ["s4"] * 3
    assert ids[3] == "s4" and now.user_ids[now.users[ROWS + 3]] == "late" and not goes_on[3]
    assert validate(sound, progress=False).sound


def test_an_append_without_any_new_query(path: Path) -> None:
    with Appender(path) as target:
        target.add_interactions(rows(0, 6) | {"query": ["red mug", None, "new one", "", "new one", "red mug"]})
        data = target.finish(ImportReport())
    assert not (path / "queries-3.parquet").exists() and data.meta.versions[2].counts["queries"] == 0
    assert data.query_rows[-6:].tolist() == [0, -1, 9, -1, 9, 0]
    assert validate(path, progress=False).sound


def test_an_append_that_is_cut_off_leaves_the_queries(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawrec.data.appender.write_meta", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), Appender(path) as target:
        target.add_interactions(rows(0, 3) | {"query": ["other"] * 3})
        target.finish(ImportReport())
    monkeypatch.undo()
    assert list(Dataset.open(path).queries) == [*SCRIPTS, "new one"]
    with Appender(path) as target:
        target.add_interactions(rows(0, 3) | {"query": ["third"] * 3})
        assert list(target.finish(ImportReport()).queries) == [*SCRIPTS, "new one", "third"]
    assert validate(path, progress=False).sound


# ------------------------------------------------------------------------------------------------- checking and telling
def changed(path: Path, file: str, column: str, row: int, value: Any) -> None:
    table = pq.read_table(path / file)
    values = table.column(column).to_pylist()
    values[row] = value
    at = table.schema.get_field_index(column)
    kind = table.schema.field(at)
    pq.write_table(table.set_column(at, kind, pa.array(values, kind.type)), path / file)


@pytest.mark.parametrize(
    ("file", "column", "row", "value", "said"),
    [
        ("queries.parquet", "query", 1, "another", "digest of version 1"),
        ("queries.parquet", "query", 1, "", "a query is empty"),
        ("queries-2.parquet", "query", 0, "red mug", "a query stands there twice"),
        ("sessions.parquet", "session_id", 0, "s9", "digest of version 1"),
        ("sessions.parquet", "user", 0, 3, "is of another user"),
        ("sessions.parquet", "user", 0, 99, "a user is not in"),
        ("interactions.parquet", "query", 4, 99, "is not in 0..8"),
        ("interactions.parquet", "query", 4, -1, "is not in 0..8"),
        ("interactions.parquet", "query", 4, 9, "is not in 0..8"),  # it came with version 2
        ("interactions.parquet", "query", 4, None, "digest of version 1"),
        ("interactions-2.parquet", "session", 4, 99, "is not in 0.."),
    ],
)
def test_damage_is_found(path: Path, file: str, column: str, row: int, value: Any, said: str) -> None:
    changed(path, file, column, row, value)
    problems = validate(path, progress=False).problems
    assert any(said in problem.what for problem in problems), problems


def test_missing_and_short_files(path: Path) -> None:
    kept = (path / "queries-2.parquet").read_bytes()
    (path / "queries-2.parquet").unlink()
    assert "queries-2.parquet" in str(validate(path, progress=False).problems)
    with pytest.raises(UserError, match="damaged"):
        _ = Dataset.open(path).queries
    (path / "queries-2.parquet").write_bytes(kept)
    pq.write_table(pq.read_table(path / "sessions.parquet")[:2], path / "sessions.parquet")
    assert "has 2 rows" in str(validate(path, progress=False).problems)
    with pytest.raises(UserError, match=r"sessions\.parquet is damaged"):
        _ = Dataset.open(path).session_ids
    pq.write_table(pa.table({"wrong": [1]}), path / "queries.parquet")
    assert "its columns are not query" in str(validate(path, progress=False).problems)


@pytest.mark.parametrize("name", ["queries.parquet", "sessions.parquet", "queries-2.parquet"])
def test_flipped_bits_are_found_or_change_nothing(path: Path, name: str) -> None:
    def content() -> list[Any]:
        data = Dataset.open(path)
        return [list(data.queries), data.session_ids.tolist(), data.query_rows.tolist(), data.session_rows.tolist()]

    rng, whole, before = random.Random(name), (path / name).read_bytes(), content()
    for _ in range(20):
        broken = bytearray(whole)
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        (path / name).write_bytes(broken)
        if validate(path, progress=False).sound:
            assert content() == before


def test_inspect_tells_of_them(sound: Path) -> None:
    data, found = Dataset.open(sound), inspect(sound)
    assert found["counts"]["queries"] == 10 and found["counts"]["sessions"] == len(data.session_ids)
    query, session = found["asked"]["query"], found["asked"]["session"]
    assert (query["with_it"], query["missing"], query["distinct"]) == ((data.query_rows >= 0).sum(), 12 - 1 + 1, 10)
    assert query["characters"]["max"] == max(map(len, data.queries)) and query["rows_each"]["min"] == 1
    train = {*data.query_rows[data.split() == 0].tolist()} - {-1}
    assert query["distinct_train"] == len(train)
    assert query["unseen_rows"] == sum(
        row not in train and row >= 0 and part > 0 for row, part in zip(data.query_rows, data.split(), strict=True)
    )
    labels: dict[int, set[float]] = {}
    for row, label in zip(data.session_rows.tolist(), data.label().tolist(), strict=True):
        labels.setdefault(row, set()).add(label)
    assert session["both_labels"] == {"label": sum(len(v) == 2 for row, v in labels.items() if row >= 0)}
    target = io.StringIO()
    print_inspection(found, Console(file=target, width=200))
    assert "Queries and sessions" in target.getvalue() and f"{query['distinct_train']} in training" in target.getvalue()


def test_export_and_back(tmp_path: Path) -> None:
    given = rows() | {"query": ["red\tmug", 'a "b"', "", *(["x y"] * (ROWS - 3))]}
    data = made(tmp_path / "d", given)
    export_recbole(data, tmp_path / "rec")
    head = (tmp_path / "rec" / "rec.train.inter").read_text().splitlines()[0]
    assert head.split("\t")[-2:] == ["query:token_seq", "session:token"]
    back = import_recbole(
        tmp_path / "rec", out=tmp_path / "b", query="query", session="session", labels=["label"], progress=False
    )
    assert {*back.queries} == {"red mug", "a 'b'", "x y"} and back.meta.counts["sessions"] == len(data.session_ids)
    assert (back.query_rows >= 0).sum() == (data.query_rows >= 0).sum()
    assert "queries and sessions" in " ".join(export_mmrec(data, tmp_path / "mm").notes)


def test_ids_of_sessions_that_users_share_are_told() -> None:
    numbers = Numbers("session")
    numbers.encode(pa.array([0, 0, 1, 1]), pa.array(["a", "a", "a", "b"]))
    assert list(numbers.told()) == [
        "session: a session is of one user, and several users share ids: 2 ids are 3 sessions"
    ]
    own = Numbers("session")
    own.encode(pa.array([0, 0, 1]), pa.array(["a", "a", "b"]))
    assert not list(own.told())
