"""Values within objects and structs, named by dots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.errors import UserError
from rawrec.sources.append import append
from rawrec.sources.table import import_table

ITEMS: list[dict[str, Any]] = [
    {"id": "a", "about": {"title": "A", "shop": {"brand": "Ace, Inc.", "price": 1.5}, "tags": ["x", "y"]}, "n.x": "1"},
    {"id": "b", "about": {"title": "B", "shop": None, "tags": []}, "n.x": "2"},
    {"id": "c", "about": None, "n.x": "3"},
]
FIELDS: dict[str, Any] = {
    "text": ["about.title"], "category": ["about.shop.brand", "about.tags", "n.x"], "numeric": ["about.shop.price"],
}  # fmt: skip


def table(folder: Path, kind: str, **options: Any) -> Dataset:
    (folder / "log.csv").write_text("user,item\nu1,a\nu2,b\nu3,c\n")
    path = folder / f"items.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ITEMS))
    else:
        pl.DataFrame(ITEMS).write_parquet(path)
    given: dict[str, Any] = {"items": path, "item_id": "id", "out": folder / "data", "progress": False}
    return import_table(folder / "log.csv", "user", "item", **(given | FIELDS | options))


def words(data: Dataset, name: str) -> list[list[str]]:
    ptr, codes, known = data.categorical(name)
    return [[known[c] for c in codes[ptr[i] : ptr[i + 1]]] for i in range(data.n_items)]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_dots_lead_into_objects(kind: str, tmp_path: Path) -> None:
    data = table(tmp_path, kind)
    text, (brand, tags, plain), (price,) = data.fields.text[0], data.fields.categorical, data.fields.numeric
    assert data.texts(text, [0, 1, 2]) == [["A"], ["B"], []]
    assert words(data, brand) == [["Ace, Inc."], [], []] and words(data, plain) == [["1"], ["2"], ["3"]]
    assert [sorted(row) for row in words(data, tags)] == [["x", "y"], [], []]
    np.testing.assert_array_equal(data.numeric(price), [1.5, np.nan, np.nan])
    assert not ImportReport.load(data.path / "import.json").skipped
    new = [{"id": "d", "about": {"title": "D", "shop": {"brand": "Bo", "price": 2}, "tags": ["x"]}, "n.x": "4"}]
    (tmp_path / "new.jsonl").write_text(json.dumps(new[0]) + "\n")
    names: dict[str, Any] = {"text": [f"about.title={text}"], "category": [f"about.shop.brand={brand}"]}
    more = append(data.path, items=tmp_path / "new.jsonl", item_id="id", **names, progress=False)
    assert more.texts(text, [3]) == [["D"]] and words(more, brand)[3] == ["Bo"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_what_is_not_there_is_named(kind: str, tmp_path: Path) -> None:
    for column in ("about.colour", "about.title.x", "other.title", "about."):
        with pytest.raises(UserError, match=f"no column '{column}'"):
            table(tmp_path, kind, text=[column])


def test_an_object_as_a_category_is_told(tmp_path: Path) -> None:
    data = table(tmp_path, "jsonl", text=[], category=["about"], numeric=[])
    note = "items: column 'about' holds objects, kept as JSON: name what is in them, about.KEY"
    assert note in ImportReport.load(data.path / "import.json").notes
