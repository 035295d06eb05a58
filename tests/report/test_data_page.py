"""The page of a dataset: what is there twice, what is missing, how the parts differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rawrec.data.dataset import Dataset
from rawrec.errors import UserError
from rawrec.report import build_data_page, data_parts
from rawrec.report.data_parts import drift, duplicates, histograms, shares
from report_pages import check_self_contained, pictures_of, read
from systems import small_dataset


@pytest.fixture(scope="module")
def data(shop: Path) -> Dataset:
    return Dataset.open(shop)


@pytest.mark.drawn
def test_the_page_of_a_dataset(shop: Path, data: Dataset, tmp_path: Path) -> None:
    path = build_data_page(shop, tmp_path / "data.html")
    check_self_contained(path)
    page, text = read(path)
    assert "Generated data." in text and f"{data.n_interactions:,}" in text
    grid = [attrs for tag, attrs in page.tags if tag == "figure"]
    assert len(grid) >= min(48, int(data.present("image").sum())) and pictures_of(path)
    drawings = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("class") == "plot"]
    assert drawings == [
        "Interactions per user: users", "Interactions per item: items",
        "Interactions over time: train, valid, test", "price of items: items",
    ]  # fmt: skip
    both = int((data.present("image") & (data.present("title") | data.present("description"))).sum())
    assert f"picture and text {both}" in text
    assert path.stat().st_size < 700_000


def test_where_the_page_may_be_written(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="inside of the dataset"):
        build_data_page(shop, shop / "page.html")
    with pytest.raises(UserError, match=r"does not exist|no dataset"):
        build_data_page(tmp_path / "none", tmp_path / "page.html")


def test_what_is_there_twice(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Dataset.images
    pairs = np.flatnonzero(data.present("image"))[:6].tolist()

    def images(self: Dataset, field: str, rows: np.ndarray) -> list[list[bytes]]:
        same = {pairs[1]: pairs[0], pairs[4]: pairs[0], pairs[3]: pairs[2]}
        return read(self, field, [same.get(int(row), int(row)) for row in rows])

    sizes = data.image_bytes("image").copy()
    for group in ((0, 1, 4), (2, 3)):
        sizes[[pairs[k] for k in group]] = sizes[pairs[group[0]]]
    monkeypatch.setattr(Dataset, "images", images)
    monkeypatch.setattr(Dataset, "image_bytes", lambda self, field: sizes)
    image, title, _ = duplicates(data)
    assert image.field == "image" and image.groups == 2 and image.items == 5 and image.whole
    assert image.shown == [[pairs[0], pairs[1], pairs[4]], [pairs[2], pairs[3]]]
    assert image.compared == int(data.present("image").sum())
    words: dict[str, int] = {}
    for texts in data.texts("title", np.flatnonzero(data.present("title"))):
        words["\0".join(texts)] = words.get("\0".join(texts), 0) + 1
    assert title.items == sum(n for n in words.values() if n > 1)
    assert title.groups == sum(n > 1 for n in words.values())
    monkeypatch.setattr(data_parts, "READ", int(sizes[pairs[2]]) * 2)
    monkeypatch.setattr(data_parts, "TEXTS", 10)
    image, title, _ = duplicates(data)
    assert not image.whole and image.compared < int(data.present("image").sum())
    assert not title.whole and title.compared == 10


def test_how_parts_differ(tmp_path: Path) -> None:
    parts = ["train"] * 6 + ["valid"] * 2 + ["test"] * 2
    rows = [(user, (user + k) % 20 if k < 8 else 20 + k, 10 * k + user, float(k % 2)) for user in range(20)
            for k in range(10)]  # fmt: skip
    kinds = [["a"] if item < 10 else ["b", "c"] if item < 20 else [] for item in range(30)]
    data = small_dataset(tmp_path / "d", rows, 30, categorical=kinds, parts=parts * 20)
    found = {one.name: one.values for one in drift(data)}
    assert found["Interactions"] == [120, 40, 40] and found["Users"] == [20, 20, 20] and found["Items"] == [20, 20, 2]
    assert found["Of items without a training row"] == [0, 0, 1]
    assert found["Of users without a training row"] == [0, 0, 0]
    assert found["Training rows of the item, median"] == [6, 6, 0] and found["Positive by label"] == [0.5, 0.5, 0.5]
    (kind,) = shares(data)
    assert [word for word, _ in kind.values] == ["a", "b", "c"]
    assert kind.values[0][1][0] == pytest.approx(1 / 3) and kind.values[0][1][2] is None
    assert kind.away[0] is not None and kind.away[0][0] == pytest.approx(0) and kind.away[1] is None
    charts = {one.title: one for one in histograms(data)}
    assert charts["Interactions per user"].counts == {"users": [0, 0, 0, 0, 20]}
    assert sum(charts["Interactions per item"].counts["items"]) == 30
    assert charts["Interactions per item"].counts["items"][0] == 8
    assert [sum(v) for v in charts["Interactions over time"].counts.values()] == [120, 40, 40]


def test_data_without_times_fields_or_parts(tmp_path: Path, undrawn: None) -> None:
    rows = [(user, item, 0, 1.0) for user in range(5) for item in range(5)]
    small_dataset(
        tmp_path / "d", rows, 6, has_time=False, labelled=False, parts=(["train"] * 3 + ["valid", "test"]) * 5
    )
    _, text = read(build_data_page(tmp_path / "d", tmp_path / "page.html"))
    assert "items have no fields" in text and "Interactions over time" not in text
