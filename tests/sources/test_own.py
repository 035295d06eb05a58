"""Sources of one's own: what they give becomes a dataset, and what is wrong with it is told by the source's name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

import rawrec
from rawrec.config.sources import SOURCES
from rawrec.data.import_report import ImportReport
from rawrec.data.splits import SplitSpec
from rawrec.errors import RunStopped, UserError
from rawrec.sources.own import import_own
from rawrec.sources.table import import_table
from registries import registries  # noqa: F401

pytestmark = pytest.mark.usefixtures("registries")
ROWS = {"who": ["a", "a", "b", "b", "b"], "what": ["x", "y", "x", "z", "y"], "when": [3, 1, 2, 5, 4]}
Make = Callable[[Any, ImportReport], Any]


class Options(rawrec.SourceOptions):
    """A log of this test."""

    path: Path = Path("x.log")
    factor: int = 1


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Registers a source's function, and imports with it into a new folder."""

    def go(make: Make, options: Any = None, **more: Any) -> rawrec.Dataset:
        SOURCES.pop("mine", None)
        rawrec.register_source("mine", Options, make)
        return import_own("mine", options or {}, out=tmp_path / "out", overwrite=True, progress=False, **more)

    return go


def tables(interactions: Any, **more: Any) -> rawrec.SourceTables:
    return rawrec.SourceTables(interactions=interactions, user="who", item="what", time="when", **more)


def taken(data: rawrec.Dataset) -> set[tuple[str, str, int]]:
    users, items = np.array(data.user_ids)[data.users], np.array(data.item_ids)[data.items]
    return set(zip(users.tolist(), items.tolist(), data.column("timestamp").tolist(), strict=True))


EXPECTED = set(zip(ROWS["who"], ROWS["what"], ROWS["when"], strict=True))


def test_queries_and_sessions(run: Callable[..., Any]) -> None:
    rows = ROWS | {"asked": ["mug", "", "mug", "杯子", None], "list": [1, 1, 1, 2, 2]}
    data = run(lambda options, report: tables([rows], query="asked", session="list"))
    assert data.column("query").tolist() == ["mug", None, "mug", "杯子", None]
    assert data.session_rows.tolist() == [0, 0, 1, 2, 2]


def picture() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    return buffer.getvalue()


def in_parts(rows: dict[str, list[Any]]) -> Iterator[Any]:
    """A batch of each form."""
    yield {name: values[:1] for name, values in rows.items()}
    yield pa.table({name: values[1:2] for name, values in rows.items()})
    yield pa.RecordBatch.from_pydict({name: values[2:3] for name, values in rows.items()})
    yield pl.DataFrame({name: values[3:] for name, values in rows.items()})
    yield pa.table({name: values[:0] for name, values in rows.items()}, schema=pa.table(rows).schema)


def test_batches_of_every_form_are_as_one_table(run: Any, tmp_path: Path) -> None:
    data = run(lambda options, report: tables(in_parts(ROWS)))
    assert taken(data) == EXPECTED
    parts = data.split()
    whole = run(lambda options, report: tables([ROWS]))
    assert taken(whole) == EXPECTED and np.array_equal(whole.split(), parts)
    (tmp_path / "x.csv").write_text(pl.DataFrame(ROWS).write_csv())
    table = import_table(tmp_path / "x.csv", "who", "what", time="when", out=tmp_path / "table", progress=False)
    assert taken(table) == EXPECTED and np.array_equal(table.split(), parts)


def test_items_with_everything(run: Any, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "x.jpg")
    np.savez(tmp_path / "v.npz", what=np.array(["x", "y"]), vectors=np.ones((2, 3), np.float32))
    none = {"what": [], "name": [], "kind": [], "price": [], "vec": [], "photo": []}
    columns = {
        "what": ["x", "y"], "name": ["An x", None], "kind": [["k1", "k2"], ["k1"]], "price": [1.5, None],
        "vec": [None, [1.0, 2.0]], "photo": [picture(), None],
    }  # fmt: skip
    schema = pa.table(columns).schema

    def make(options: Any, report: Any) -> Any:
        return tables(
            in_parts(ROWS), items=[pa.table(none, schema), pa.table(columns, schema)],
            text=["name"], category=["kind"], numeric=["price"], feature=["vec"], image_column=["photo"],
            image_dir=tmp_path, vectors={"made": tmp_path / "v.npz"},
        )  # fmt: skip

    data = run(make)
    fields = data.fields
    assert (fields.text, fields.categorical, fields.numeric) == (["name"], ["kind"], ["price"])
    assert fields.feature == {"vec": 2, "made": 3} and fields.image == ["photo", "image"]
    report = ImportReport.load(data.path / "import.json")
    assert {name: entry["items"] for name, entry in report.coverage.items()} == {
        "name": 1, "kind": 2, "price": 1, "vec": 1, "made": 2, "photo": 1, "image": 1,
    }  # fmt: skip
    assert report.read["interactions"] == 5 and report.kept["items"] == 3  # z is in the interactions only


def test_labels_extra_columns_and_a_split_by_column(run: Any) -> None:
    rows = ROWS | {"bought": [True, False, True, True, False], "part": ["train", "train", "valid", "test", "train"]}
    split = SplitSpec.model_validate({"kind": "column", "column": "part"})
    data = run(lambda options, report: tables([rows], labels=["bought"]), split=split)
    assert data.meta.labels == ["bought"] and sorted(np.bincount(data.split()).tolist()) == [1, 1, 3]
    assert data.label("bought").sum() == 3


def test_what_is_left_out_is_counted_once(run: Any) -> None:
    def batches(report: ImportReport) -> Iterator[Any]:
        report.skip("line is blank", "x.log:1")
        yield {"who": ["a", None], "what": ["x", "y"], "when": [1, 2], "vote": ["1", "2"]}
        report.skip("line is blank", "x.log:7")
        yield {"who": ["b"], "what": ["y"], "when": [3], "vote": ["many"]}

    def make(options: Any, report: ImportReport) -> Any:
        report.note("read as of this test")
        return tables(batches(report), extra=["vote"])

    data = run(make, {"path": "logs/day.log", "factor": 2})
    found = json.loads((data.path / "import.json").read_text())
    assert found["source"].startswith("mine path=day.log factor=2") and "read as of this test" in found["notes"]
    skipped = {reason: (entry["count"], entry["examples"]) for reason, entry in found["skipped"].items()}
    assert skipped == {
        "line is blank": (2, ["x.log:1", "x.log:7"]),
        "empty user id": (1, ["mine:interactions:2 None"]),
    }


def test_a_column_that_is_empty_in_a_later_batch(run: Any) -> None:
    rows = [{**ROWS, "vote": [1, 2, 3, 4, 5]}, {"who": ["c"], "what": ["x"], "when": [9], "vote": [None]}]
    data = run(lambda options, report: tables(rows, extra=["vote"]))
    assert data.n_interactions == 6


def raising(error: BaseException) -> Iterator[Any]:
    yield ROWS
    raise error


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda options, report: {}["x"], "source 'mine' failed: KeyError: 'x'"),
        (lambda options: None, "source 'mine' failed: TypeError: .*positional"),
        (lambda options, report: [ROWS], "gave list: its function has to give a rawrec.SourceTables"),
        (lambda options, report: tables(3), "source 'mine' failed: TypeError: 'int' object is not iterable"),
        (lambda options, report: tables([]), "source 'mine' gave no interactions"),
        (lambda options, report: tables([ROWS], items=[]), "source 'mine' gave no items"),
        (lambda options, report: report.skip("odd", "1:1") or tables([]), "no interactions; 1 skipped because: odd"),
        (lambda options, report: tables(raising(ValueError("no"))), "source 'mine' failed: ValueError: no"),
        (lambda options, report: tables(raising(UserError("x.log is cut off"))), "^x.log is cut off$"),
        (lambda options, report: tables([ROWS, 7]), r"batch 2 of its interactions is no table of Arrow \(int\)"),
        (
            lambda options, report: tables([ROWS, None]),
            r"batch 2 of its interactions is no table of Arrow \(NoneType\)",
        ),
        (lambda options, report: tables(["ab"]), r"batch 1 of its interactions is no table of Arrow \(str\)"),
        (lambda options, report: tables([{"who": ["a"], "what": []}]), "batch 1 of its interactions is no table"),
        (lambda options, report: tables([ROWS, {"who": ["a"]}]), "batch 2 .* has the columns who, and the first one"),
        (
            lambda options, report: tables([ROWS, ROWS | {"when": ["1"] * 5}]),
            "batch 2 .* has string in column 'when', and the first one int64: give all of them one type",
        ),
        (lambda options, report: rawrec.SourceTables(interactions=[ROWS]), "mine:interactions has no column 'user_id'"),
        (
            lambda options, report: tables([ROWS], labels=["wen"]),
            "label: mine:interactions has no .*did you mean 'when'",
        ),
        (lambda options, report: tables([ROWS], text=["name"]), "'name' describes items: name the table"),
        (lambda options, report: tables([ROWS], items=[{"what": ["x"]}], text=["name"]), "mine:items has no column"),
    ],
)
def test_what_is_wrong_with_a_source(make: Make, said: str, run: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        run(make)
    assert not list(tmp_path.glob("*out*/*"))  # nothing is left that looks like a dataset


def test_a_stop_is_handed_on(run: Any) -> None:
    with pytest.raises(RunStopped, match="later"):
        run(lambda options, report: tables(raising(RunStopped("later"))))


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="source: 'tabel' is unknown; did you mean table"):
        import_own("tabel", {}, out=tmp_path / "x")
    with pytest.raises(UserError, match=r"one of rawrec's own: use rawrec\.sources\.table\.import_table"):
        import_own("table", {}, out=tmp_path / "x")
    rawrec.register_source("mine", Options, "somewhere_else:f")
    with pytest.raises(UserError, match=r"source 'mine' failed: ModuleNotFoundError: .*somewhere_else"):
        import_own("mine", {}, out=tmp_path / "x")
    with pytest.raises(UserError, match="'fector' is unknown; did you mean factor"):
        import_own("mine", {"fector": 2}, out=tmp_path / "x")
