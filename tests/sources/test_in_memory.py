"""Tables that a program holds: data frames and Arrow give the same dataset as the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import rawrec
from rawrec.errors import UserError

ROWS = {
    "user": ["a", "a", "b", "b", "c"],
    "item": ["x", "y", "x", "z", "z"],
    "when": [1704067200, 1704153600, 1704240000, 1704326400, 1704412800],
    "device": ["tv", "phone", "tv", "tv", "phone"],
}
ITEMS = {
    "item": ["x", "y", "z"],
    "title": ["An x", None, "A z"],
    "tags": [["p", "q"], [], ["p"]],
    "price": [1.5, None, 3.0],
    "vec": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
}
USERS = {"user": ["a", "b", "c"], "country": ["NO", None, "SE"]}
GIVEN: dict[str, Any] = {
    "time": "when", "extra": ["device"], "text": ["title"], "category": ["tags"], "numeric": ["price"],
    "feature": ["vec"], "user_category": ["country"], "progress": False,
}  # fmt: skip
Make = Callable[[dict[str, Any]], Any]


def pandas(columns: dict[str, Any]) -> Any:
    return pytest.importorskip("pandas").DataFrame(columns)


def categories(columns: dict[str, Any]) -> Any:
    """With texts that are categories, of polars: a dictionary of views."""
    return pl.DataFrame(columns).with_columns(pl.col({"device", "country"} & columns.keys()).cast(pl.Categorical))


def stream(columns: dict[str, Any]) -> Any:
    return pa.table(columns).to_reader(max_chunksize=2)


@pytest.fixture(scope="module")
def of_files(tmp_path_factory: pytest.TempPathFactory) -> rawrec.Dataset:
    """The dataset of Parquet files."""
    folder = tmp_path_factory.mktemp("files")
    for name, columns in (("rows", ROWS), ("items", ITEMS), ("users", USERS)):
        pl.DataFrame(columns).write_parquet(folder / f"{name}.parquet")
    named = {"items": folder / "items.parquet", "users": folder / "users.parquet"}
    return rawrec.import_table(folder / "rows.parquet", "user", "item", out=folder / "data", **named, **GIVEN)


@pytest.mark.parametrize(
    ("make", "called"),
    [
        (pandas, "pandas.DataFrame"),
        (pl.DataFrame, "polars.DataFrame"),
        (categories, "polars.DataFrame"),
        (pa.table, "pyarrow.Table"),
        (lambda columns: pa.table(columns).to_batches()[0], "pyarrow.RecordBatch"),
        (stream, "pyarrow.RecordBatchReader"),
    ],
)
def test_a_table_in_memory_is_as_its_file(of_files: rawrec.Dataset, tmp_path: Path, make: Make, called: str) -> None:
    data = rawrec.import_table(
        make(ROWS), "user", "item", items=make(ITEMS), users=make(USERS), out=tmp_path / "data", **GIVEN
    )
    assert data.meta.digest == of_files.meta.digest
    assert data.report.coverage == of_files.report.coverage and data.report.read == of_files.report.read
    assert (
        data.report.source == f"table {called}"
        and not data.report.skipped
        and data.report.notes == of_files.report.notes
    )
    assert "66.7%" in str(data.report) and "\x1b" not in str(data.report)


def test_an_append_takes_them_too(tmp_path: Path) -> None:
    data = rawrec.import_table(pl.DataFrame(ROWS), "user", "item", time="when", out=tmp_path / "data", progress=False)
    more = pa.table({"user": ["d"], "item": ["x"], "when": [1704499200]})
    newer = rawrec.append(data.path, more, "user", "item", time="when", progress=False)
    assert newer.n_interactions == 6 and newer.report.read["interactions"] == 1
    assert newer.report.source == "table pyarrow.Table" and data.report.read["interactions"] == 5


def test_what_is_skipped_names_the_row(tmp_path: Path) -> None:
    rows = pl.DataFrame({**ROWS, "user": ["a", None, "b", " ", "c"]})
    data = rawrec.import_table(rows, "user", "item", out=tmp_path / "data", progress=False)
    assert data.report.skipped["empty user id"].examples == ["interactions:2 None", "interactions:4 ' '"]


def test_the_index_of_a_data_frame_is_left_out_and_told(tmp_path: Path) -> None:
    frame = pandas(ROWS)
    numbered = rawrec.import_table(frame, "user", "item", out=tmp_path / "1", progress=False)
    assert numbered.report.notes == []
    for at, other in enumerate((frame.set_index("device"), frame.iloc[[4, 0, 1]])):
        found = rawrec.import_table(other, "user", "item", out=tmp_path / f"x{at}", progress=False)
        assert [note for note in found.report.notes if "index of the data frame" in note and "reset_index" in note]
    with pytest.raises(UserError, match=r"item: 'item' is the index of interactions.*reset_index"):
        rawrec.import_table(frame.set_index("item"), "user", "item", out=tmp_path / "2")


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (3, {}, r"interactions: int is no table: give a path, a data frame of pandas or polars"),
        (ROWS, {}, "dict is no table"),
        (pl.DataFrame(ROWS).lazy(), {}, r"LazyFrame is no table.*\.collect\(\)"),
        (pl.DataFrame(ROWS), {"columns": ["a"]}, "columns: the interactions are a table in memory"),
        (pl.DataFrame(ROWS), {"time": "wen"}, "time: interactions has no column 'wen'; did you mean 'when'"),
        (pl.DataFrame(ROWS), {"text": "title"}, "text='title': give a list"),
        (pl.DataFrame(ROWS), {"items": 7}, "items: int is no table"),
        (pl.DataFrame(ROWS).clear(), {}, "no interaction was read or kept"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, table: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        rawrec.import_table(table, "user", "item", out=tmp_path / "data", **options)


def test_a_data_frame_of_mixed_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="column user with type object"):
        rawrec.import_table(pandas({"user": [1, "a"], "item": [1, 2]}), "user", "item", out=tmp_path / "data")
