import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.inspect import inspect, print_inspection
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from rawrec.errors import UserError


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def odd(tmp_path):
    """A dataset with one of every problem."""
    fields = Fields(image=["photo"], text=["title"], categorical=["genre"], numeric=["year"], feature={"clip": 2})
    with DatasetWriter(tmp_path / "odd", fields=fields, source="[odd]", labels=["label"], has_time=True) as target:
        target.add_items(
            {
                "item_id": ["a", "b", "c", "d"],
                "photo": [[picture()], [b"not a picture"], None, None],
                "title": [["A"], ["four"], None, ["x" * 10]],
                "genre": [["x", "y"], ["x"], None, None],
                "year": [1.0, None, 3.0, 2.0],
                "clip": np.array([[1, 2], [np.nan, 0], [3, 4], [0, 0]]),
            }
        )
        rows = [("u", "a", 5), ("u", "a", 5), ("u", "b", 10**12), ("u", "c", 7), ("v", "a", -3)]
        users, items, times = zip(*rows, strict=True)
        values = {"user_id": list(users), "item_id": list(items), "timestamp": list(times), "label": [1] * 5}
        target.add_interactions(values)
        target.finish(SplitSpec(kind="leave_one_out"), ImportReport())
    return tmp_path / "odd"


def test_counts_and_coverage(odd):
    found = inspect(odd)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["counts"] == {"users": 2, "items": 4, "interactions": 5}
    assert {k: found["splits"]["default"][k] for k in ("train", "valid", "test")} == {"train": 3, "valid": 1, "test": 1}
    assert found["labels"]["label"]["positive"] == 1
    fields = found["fields"]
    assert fields["photo"]["images"] == 2 and fields["photo"]["bytes"] == len(picture()) + 13
    assert fields["photo"]["checked"] == 2 and fields["photo"]["undecodable"] == 1
    assert fields["title"]["characters"] == pytest.approx({"min": 1, "median": 4, "p95": 9.4, "max": 10})
    assert fields["genre"] == {"kind": "categorical", "items": 2, "share": 0.5, "values": 3, "distinct": 2}
    assert fields["year"]["values"]["median"] == 2 and fields["year"]["items"] == 3
    assert fields["clip"] == {"kind": "feature", "items": 3, "share": 0.75, "width": 2}
    assert found["buckets"]["cold"] == {"rule": "0", "items": 3, "train_rows": 0, "test_rows": 1, "test_share": 1.0}
    assert found["buckets"]["rare"]["items"] == 1 and found["buckets"]["rare"]["train_rows"] == 3


def test_problems(odd):
    problems = {entry["problem"]: entry for entry in inspect(odd)["problems"]}
    assert problems["items with neither image nor text"]["examples"] == ["c"]
    assert problems["items without any interaction"]["examples"] == ["d"]
    assert problems["users with a single interaction"]["examples"] == ["v"]
    assert problems["duplicate interactions (same user, item and time)"]["count"] == 1
    assert problems["images of photo that cannot be decoded (of 2 checked)"]["examples"][0].startswith("b: ")
    assert problems["times before 1970"]["count"] == 1
    assert any(p.startswith("label label is always 1") for p in problems)
    assert any("milliseconds?" in p for p in problems)


def test_tables_print_what_users_named_as_it_is(odd):
    console = Console(width=160, file=io.StringIO())
    print_inspection(inspect(odd), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("[odd]", "Leave one out", "Items by training rows", "photo", "75.0%", "Problems"):
        assert words in text


@pytest.mark.parametrize(
    ("labels", "remark", "problem"),
    [
        ([0, 1, 1, 0], "", ""),
        ([-1, 1, 1, -1], "label label: 2 distinct values (-1 to 1); above 0 is positive, which 50.0%", ""),
        ([0, 0.25, 300, 2], "label label: 4 distinct values (0 to 300); above 0 is positive, which 75.0% of", ""),
        ([1, 2, 5, 1], "label label: 3 distinct values (1 to 5); it is never 0 or", "1 to 5, so every row is positive"),
        ([-2, -2, -2, -2], "label label: always -2; above 0 is positive, which 0.0%", "-2, so every row is not"),
    ],
)  # fmt: skip
def test_labels_of_any_scale(tmp_path, labels, remark, problem):
    report = ImportReport()
    with DatasetWriter(tmp_path / "d", fields=Fields(), source="x", labels=["label"], has_time=False) as target:
        target.add_items({"item_id": ["a", "b"]})
        target.add_interactions({"user_id": list("uuvv"), "item_id": list("abab"), "label": labels})
        target.finish(SplitSpec(kind="random_user"), report)
    found = inspect(tmp_path / "d")
    entry = found["labels"]["label"]
    assert entry["positive"] == np.mean(np.array(labels) > 0) and entry["distinct"] == len(set(labels))
    assert entry["remark"].startswith(remark) and bool(entry["remark"]) == bool(remark)
    assert report.notes == ([entry["remark"]] if remark else [])
    said = [entry["problem"] for entry in found["problems"] if "nothing to learn" in entry["problem"]]
    assert len(said) == bool(problem) and all(problem in text for text in said)
    console = Console(width=160, file=io.StringIO())
    print_inspection(found, console)
    assert "Share of positives" in console.file.getvalue() and remark in console.file.getvalue()


def test_generated_shop(shop):
    found = inspect(shop)
    data = Dataset.open(shop)
    assert found["generated"] and found["counts"]["items"] == data.n_items
    assert sum(bucket["test_rows"] for bucket in found["buckets"].values()) == found["splits"]["default"]["test"]
    assert sum(bucket["items"] for bucket in found["buckets"].values()) == data.n_items
    assert all(entry["undecodable"] == 0 for entry in found["fields"].values() if entry["kind"] == "image")
    console = Console(width=120, file=io.StringIO())
    print_inspection(found, console)
    assert "These data are generated" in console.file.getvalue()  # type: ignore[attr-defined]


def test_not_a_dataset(tmp_path):
    with pytest.raises(UserError, match="not a rawrec dataset"):
        inspect(tmp_path)


def test_ids_of_any_length_are_printed_short(tmp_path):
    with DatasetWriter(
        tmp_path / "long", fields=Fields(text=["title"]), source="long", labels=[], has_time=False
    ) as target:
        target.add_items({"item_id": ["x" * 9_999, "y"], "title": [["A"], ["B"]]})
        target.add_interactions({"user_id": ["u", "u"], "item_id": ["y", "y"]})
        target.finish(SplitSpec(kind="random_user"), ImportReport())
    found = inspect(tmp_path / "long")
    assert any("x" * 9_999 in problem["examples"] for problem in found["problems"])  # whole, for machines
    text = io.StringIO()
    print_inspection(found, Console(file=text, width=100))
    assert 100 < text.getvalue().count("x") < 300
