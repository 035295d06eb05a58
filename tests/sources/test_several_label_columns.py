"""Tables with several labels, some of them empty; the second label of the generated shop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import logit

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.inspect import inspect
from rawrec.data.synthetic import generate
from rawrec.data.validate import validate
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.synthetic import import_synthetic
from rawrec.sources.table import import_table

ROWS = ["u1,a,1,1,1", "u1,b,2,1,", "u2,a,3,0, ", "u2,b,4,,0", "u3,a,5,,", "u3,b,6,1,perhaps", "u3,c,7,0,0"]


def table(folder: Path, rows: list[str] = ROWS, labels: tuple[str, ...] = ("click", "buy")) -> Dataset:
    file = folder / "shown.csv"
    file.write_text("\n".join(["user,item,time,click,buy", *rows]) + "\n")
    return import_table(file, "user", "item", time="time", labels=list(labels), out=folder / "data", progress=False)


def test_a_row_that_lacks_one_label_is_kept_for_the_other(tmp_path: Path) -> None:
    data, nan = table(tmp_path), np.nan
    assert np.array_equal(data.label("click"), [1, 1, 0, nan, 0], equal_nan=True)
    assert np.array_equal(data.label("buy"), [1, nan, nan, 0, 0], equal_nan=True)
    assert data.positive("buy").tolist() == [True, False, False, False, False]
    report = ImportReport.load(data.path / "import.json")
    assert {reason: entry.count for reason, entry in report.skipped.items()} == {
        "no label in any of the columns click, buy": 1,
        "no usable label in column 'buy': give numbers, yes and no, or name its positives (--positive)": 1,
    }
    assert "no label in column 'buy' of 2 rows, which are kept for their other labels" in report.notes
    assert not validate(data.path).problems


def test_of_one_label_an_empty_value_still_leaves_the_row_out(tmp_path: Path) -> None:
    data = table(tmp_path, labels=("buy",))
    assert data.label("buy").tolist() == [1, 0, 0]


def test_inspect_tells_of_rows_without_a_label(tmp_path: Path) -> None:
    found = inspect(table(tmp_path).path)["labels"]["buy"]
    assert found["empty"] == 2 and found["positive"] == pytest.approx(1 / 3) and found["distinct"] == 2


def test_append_keeps_labels_empty_beside_a_threshold(tmp_path: Path) -> None:
    data = table(tmp_path)
    more = tmp_path / "more.csv"
    more.write_text("user_id,item_id,timestamp,click,buy\nu1,c,8,3,\nu2,c,9,,5\n")
    append(data.path, interactions=more, positive=4, progress=False)
    now = Dataset.open(data.path)
    assert np.array_equal(now.label("click")[-2:], [0, np.nan], equal_nan=True)
    assert np.array_equal(now.label("buy")[-2:], [np.nan, 1], equal_nan=True)


# --------------------------------------------------------------------------------------------------- the generated shop
SHOP: dict[str, Any] = {"items": 60, "users": 40, "impressions": 20_000}


def test_purchases_are_drawn_of_clicks_from_a_known_probability() -> None:
    shop = generate(**SHOP, buy_rate=0.3)
    buys, probability = shop.buys, shop.buy_probability
    assert buys is not None and probability is not None
    assert probability.mean() == pytest.approx(0.3, abs=1e-3) and not buys[shop.clicks == 0].any()
    clicked = shop.clicks == 1
    error = (buys[clicked] - probability[clicked]).mean()
    assert abs(error) < 4 * np.sqrt((probability * (1 - probability))[clicked].sum()) / clicked.sum()
    assert logit(probability.astype(float)).std() == pytest.approx(1.35, abs=0.15)


def test_all_else_of_the_shop_is_the_same_with_purchases() -> None:
    with_buys, without = generate(**SHOP, buy_rate=0.3), generate(**SHOP)
    assert without.buys is None and without.titles == with_buys.titles
    for name in ("users", "items", "timestamps", "probability", "clicks", "prices"):
        assert np.array_equal(getattr(with_buys, name), getattr(without, name)), name


def test_the_shop_as_a_dataset_has_both_labels_and_probabilities(tmp_path: Path) -> None:
    data = import_synthetic(tmp_path / "d", items=30, users=10, impressions=300, size=32, buy_rate=0.5, progress=False)
    assert data.meta.labels == ["label", "buy"] and data.meta.extra == ["probability", "buy_probability"]
    product = data.column("probability") * data.column("buy_probability")
    assert np.array_equal(data.true_probability("buy"), product)
    assert np.array_equal(data.true_probability("label"), data.column("probability"))
    assert any("Purchases: " in note for note in ImportReport.load(data.path / "import.json").notes)
    with pytest.raises(UserError, match=r"buy_rate=0\.0"):
        import_synthetic(tmp_path / "e", items=30, users=10, impressions=300, buy_rate=0.0, progress=False)
