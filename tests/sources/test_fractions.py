"""Fractions of a second: to the thousandth they order what happened within a second, wherever an order is read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import rawrec
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.meta import MILLISECOND
from rawrec.data.sampling import Samples
from rawrec.data.splits import SplitSpec
from rawrec.sources.tables.times import Times

SECOND = 1_700_000_000
PARTS = [400, 123, 999, 0]
"""Thousandths of the rows of a user, in the order of the file."""


def times(form: str) -> list[Any]:
    whole = [SECOND + part / 1000 for part in PARTS]
    return {
        "number": whole,
        "milliseconds": [1000 * SECOND + part for part in PARTS],
        "written": [datetime.fromtimestamp(SECOND, UTC).strftime(f"%Y-%m-%dT%H:%M:%S.{part:03}Z") for part in PARTS],
        "timestamp": [datetime.fromtimestamp(SECOND, UTC).replace(microsecond=1000 * part) for part in PARTS],
        "seconds": [SECOND] * len(PARTS),
    }[form]


def clicks(form: str, **more: Any) -> pl.DataFrame:
    return pl.DataFrame({"user": ["u"] * 4, "item": list("abcd"), "time": times(form), **more})


def take(out: Path, form: str, **options: Any) -> Dataset:
    return rawrec.import_table(clicks(form), "user", "item", time="time", out=out, progress=False, **options)


@pytest.mark.parametrize("form", ["number", "milliseconds", "written", "timestamp"])
def test_order_within_a_second(form: str, tmp_path: Path) -> None:
    data = take(tmp_path / "data", form, split=SplitSpec(kind="leave_one_out"))
    assert data.timestamps is not None and set(data.timestamps.tolist()) == {SECOND}
    assert data.thousandths is not None and data.thousandths.tolist() == PARTS
    order = [str(data.item_ids[item]) for item in data.items[data.in_order(np.ones(4, bool))]]
    assert order == ["d", "b", "a", "c"]
    parts = dict(zip("abcd", data.split().tolist(), strict=True))
    assert parts == {"d": 0, "b": 0, "a": 1, "c": 2}
    past = Samples(data, "default", "label", 4, "rolling", 0).eval_histories
    later = past.read(np.array([0]), None, np.array([SECOND + 1]), 4)[0]
    assert [str(data.item_ids[item]) for item in later] == ["d", "b", "a", "c"]


def test_rows_that_are_appended(tmp_path: Path) -> None:
    data = take(tmp_path / "data", "number")
    later = clicks("milliseconds").with_columns(user=pl.lit("v"))
    rawrec.append(data.path, later, user="user", item="item", time="time")
    newer = Dataset.open(tmp_path / "data")
    assert newer.thousandths is not None and newer.thousandths.tolist() == PARTS * 2
    assert not [note for note in newer.report.notes if MILLISECOND in note]


def test_whole_seconds_are_as_they_were(tmp_path: Path) -> None:
    data = take(tmp_path / "data", "seconds")
    assert data.thousandths is None and MILLISECOND not in data.meta.extra
    assert data.in_order(np.array([True, False, True, True])).tolist() == [0, 2, 3]


def test_every_thousandth_is_itself() -> None:
    values = pl.Series([SECOND + part / 1000 for part in range(1000)])
    found = Times(ImportReport(), "time")(values.to_arrow(), "x")
    assert found.thousandths.tolist() == list(range(1000)) and set(found.seconds.tolist()) == {SECOND}
