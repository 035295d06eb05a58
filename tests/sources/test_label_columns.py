"""What is positive in a column: thresholds, values, words; and what the label is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.table import import_table

LOG = "user,item,event,rating,liked\nu1,a,view,5,yes\nu1,b,purchase,3.5,No\nu2,a,gift,4,t\nu2,c,view,1,N\nu3,a,,2,F\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(LOG)
    return tmp_path / "log.csv"


def run(log: Path, **options: Any) -> Dataset:
    return import_table(log, "user", "item", out=log.parent / "data", overwrite=True, progress=False, **options)


def notes(data: Dataset) -> list[str]:
    return ImportReport.load(data.path / "import.json").notes


def test_a_threshold_makes_the_label_and_the_column_is_kept(log: Path) -> None:
    data = run(log, labels=["rating"], positive=4)
    assert data.meta.labels == ["label"] and data.meta.label_rule == "rating >= 4"
    assert data.label("label").tolist() == [1, 0, 1, 0, 0]
    assert data.column("rating").tolist() == [5, 3.5, 4, 1, 2]
    assert run(log, labels=["rating"], positive=["4"]).label("label").tolist() == [1, 0, 1, 0, 0]
    assert run(log, labels=["rating=good"], positive="rating>=3.5").label("good").tolist() == [1, 1, 1, 0, 0]
    # 3.9 in float32 is not 3.9: the threshold is what a rating of that size is stored as
    log.write_text("user,item,rating\nu1,a,3.9\nu1,b,3.8\n")
    assert run(log, labels=["rating"], positive=3.9).label("label").tolist() == [1, 0]


def test_ratings_with_a_decimal_comma(log: Path) -> None:
    log.write_text("user;item;rating\nu1;a;5\nu1;b;3,5\nu2;a;4,5\nu2;c;yes\nu3;a;1.000,5\n")
    data = run(log, labels=["rating"])
    assert data.label("rating").tolist() == [5, 3.5, 4.5, 1, 1000.5]
    assert "interactions: numbers of rating read with a decimal comma: 3" in notes(data)
    data = run(log, labels=["rating"], positive=4)
    assert data.label("label").tolist() == [1, 0, 1, 0, 1]
    assert data.column("rating")[:3].tolist() == [5, 3.5, 4.5]
    more = log.with_name("more.csv")
    more.write_text("user;item;rating\nu4;a;4,5\nu4;b;2,5\n")
    append(data.path, more, "user", "item", labels=["rating=label"], positive=4, progress=False)
    assert Dataset.open(data.path).label("label").tolist()[-2:] == [1, 0]
    # a column that contradicts itself is read as before: what is no plain number is no label
    log.write_text("user;item;rating\nu1;a;4.5\nu1;b;3,5\n")
    assert run(log, labels=["rating"]).label("rating").tolist() == [4.5]


def test_values_are_positives(log: Path) -> None:
    data = run(log, positive="event=purchase")
    assert data.meta.labels == ["label"] and data.meta.label_rule == "event is purchase"
    assert data.label("label").tolist() == [0, 1, 0, 0] and data.column("event").tolist()[0] == "view"
    skipped = ImportReport.load(data.path / "import.json").skipped
    assert skipped["no usable label in column 'event': it is empty"].examples == ["log.csv:6 ''"]
    both = run(log, labels=["event"], positive=["event=purchase", "event==gift"])
    assert both.label("label").tolist() == [0, 1, 1, 0] and both.meta.label_rule == "event is purchase or gift"
    never = "no positive label: column 'event' is never 'Purchase'; it holds 'view', 'purchase', 'gift'"
    assert never in notes(run(log, positive="event=Purchase"))


def test_numbers_of_a_parquet_table_are_named_as_they_are_written(tmp_path: Path) -> None:
    table = pa.table({"user": ["u", "v", "w"], "item": ["a", "b", "c"], "kind": pa.array([2.0, 3.0, None])})
    pq.write_table(table, tmp_path / "log.parquet")
    assert run(tmp_path / "log.parquet", positive="kind=2").label("label").tolist() == [1, 0]


def test_words_are_labels(log: Path) -> None:
    assert run(log, labels=["liked"]).label("liked").tolist() == [1, 0, 1, 0, 0]


def test_several_labels_have_names(log: Path) -> None:
    data = run(log, labels=["event=bought", "rating=good", "liked"], positive=["event=purchase", "rating>=4"])
    assert data.meta.labels == ["bought", "good", "liked"]
    assert data.meta.label_rule == "event is purchase, rating >= 4, column liked"
    assert np.array_equal(data.label("bought"), [0, 1, 0, 0, np.nan], equal_nan=True)
    assert data.label("good").tolist() == [1, 0, 1, 0, 0] and data.label("liked").tolist() == [1, 0, 1, 0, 0]
    assert data.column("rating").tolist() == [5, 3.5, 4, 1, 2]


def test_a_label_that_is_never_0_is_told(log: Path) -> None:
    advice = "it is never 0 or less, so every row is a positive: import with --positive N if low values are none"
    assert notes(run(log, labels=["rating"])) == [f"label rating: 5 distinct values (1 to 5); {advice}"]


def test_what_was_rated_is_seen_and_what_happened_is_not(log: Path) -> None:
    ratings: dict[str, Any] = {"labels": ["rating"], "positive": 4}
    for options, expected in (
        (ratings, "seen"),
        (ratings | {"rated": "unseen"}, "unseen"),
        ({"positive": "event=purchase"}, "unseen"),
        ({"positive": "event=purchase", "rated": "seen"}, "seen"),
        ({"labels": ["rating"]}, "unseen"),
        ({}, "unseen"),
    ):
        data = run(log, **options)
        text = (data.path / "dataset.yaml").read_text()
        assert data.meta.rated == expected
        assert ("rated: seen" in text, "schema_version: 5" in text) == (expected == "seen", expected == "seen")
        assert "schema_version: 3" in text or expected == "seen"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rated": "known"}, "rated='known': use seen"),
        ({"positive": 4}, "positive .*: of which column"),
        ({"labels": ["rating"], "positive": "high"}, "positive 'high': give a number"),
        ({"labels": ["rating"], "positive": "stars=5"}, "positive: .*no column 'stars'"),
        ({"labels": ["rating"], "positive": "rating>=many"}, "'many' is no number"),
        ({"labels": ["rating"], "positive": [4, 5]}, "it is 4 already"),
        ({"labels": ["rating"], "positive": ["rating>=4", "rating=5"]}, "'rating' has a rule already"),
        ({"labels": ["rating", "liked"], "positive": "rating>=4"}, "called: label rating=NAME"),
        ({"labels": ["rating=x", "liked=x"]}, "two labels would be called 'x'"),
        ({"labels": ["rating=liked"], "extra": ["liked"]}, r"'liked' is named as a label \(of column 'rating'\)"),
        ({"labels": ["rating"], "extra": ["rating"]}, "'rating' is named as a label and as a further column"),
    ],
)
def test_what_cannot_be_is_named(options: dict[str, Any], message: str, log: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(log, **options)


def test_append_reads_labels_by_the_same_rules(log: Path) -> None:
    data = run(log, positive="event=purchase")
    (log.parent / "more.csv").write_text("user,item,event\nu1,c,purchase\nu1,d,view\n")
    more = append(data.path, log.parent / "more.csv", "user", "item", positive="event=purchase", progress=False)
    assert more.label().tolist() == [0, 1, 0, 0, 1, 0] and more.column("event").tolist()[4:] == ["purchase", "view"]
    rule: dict[str, Any] = {"labels": ["event=label"], "positive": ["event=view"]}
    again = append(data.path, log.parent / "more.csv", "user", "item", **rule, progress=False)
    assert again.label()[6:].tolist() == [0, 1]
    with pytest.raises(UserError, match="positive: column 'item' is no label"):
        append(data.path, log.parent / "more.csv", "user", "item", labels=["event=label"], positive="item=c")
