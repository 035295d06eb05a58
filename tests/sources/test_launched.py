"""When items began to exist, from a column of the items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.validate import validate
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.table import import_table

DAY = 86_400
FIRST = 1_577_836_800  # 2020-01-01
ITEMS = "item,title,since\na,A,2020-01-01\nb,B,02.01.2020\nc,C,31.01.2020\nd,D,\ne,E,soon\nf,F,0\n"


def table(folder: Path, **options: Any) -> Dataset:
    """Every item taken on each of the first three days."""
    rows = [f"u{day},{item},{FIRST + day * DAY}" for day in range(3) for item in "abcd"]
    (folder / "log.csv").write_text("\n".join(["user,item,t", *rows]) + "\n")
    (folder / "items.csv").write_text(ITEMS)
    settings = {"time": "t", "items": folder / "items.csv", "text": ["title"], "launched": "since", "progress": False}
    return import_table(folder / "log.csv", "user", "item", out=folder / "data", overwrite=True, **(settings | options))


def test_dates_of_launch(tmp_path: Path) -> None:
    data = table(tmp_path)
    never = np.iinfo(np.int64).max
    assert data.launched is not None
    assert data.launched.tolist() == [FIRST, FIRST + DAY, FIRST + 30 * DAY, FIRST, never, never]
    report = ImportReport.load(data.path / "import.json")
    assert report.skipped["items: no usable time of launch in column 'since' (kept, without one)"].count == 2
    assert "3 items have no time of launch: they count from their first interaction on" in report.notes
    assert validate(data.path).sound


def test_an_append_brings_dates_of_new_items(tmp_path: Path) -> None:
    data = table(tmp_path)
    (tmp_path / "new.csv").write_text("item,title,launched\ng,G,2020-02-01\ne,E,2020-02-02\n")
    more = append(data.path, items=tmp_path / "new.csv", item_id="item", update=True, progress=False)
    assert more.launched is not None and more.launched[[4, 6]].tolist() == [FIRST + 32 * DAY, FIRST + 31 * DAY]
    (tmp_path / "new.csv").write_text("item,title,from\nh,H,2020-02-03\n")
    more = append(data.path, items=tmp_path / "new.csv", item_id="item", launched="from", progress=False)
    assert more.launched is not None and more.launched[7] == FIRST + 33 * DAY and validate(more.path).sound
    without = table(tmp_path, launched=None)
    with pytest.raises(UserError, match="have no time of launch: import it anew"):
        append(without.path, items=tmp_path / "new.csv", item_id="item", launched="from", progress=False)


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"launched 'since': .* name the column of their times \(time\)"):
        table(tmp_path, time=None)
    with pytest.raises(UserError, match=r"launched: .*no column 'begin'"):
        table(tmp_path, launched="begin")
    with pytest.raises(UserError, match="column 'since' describes items"):
        table(tmp_path, items=None, text=[])
