"""An item given by its raw fields is judged as the same item of the dataset, which training never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_recommender import TINY

import rawrec
from rawrec import Recommender, UserError
from rawrec.data.dataset import Dataset

PARADIGMS = ["frozen", "hybrid", "end_to_end"]
STILL = {"content.image.train": "none", "content.text.train": "none"}


@pytest.fixture(scope="module")
def served(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recommender]:
    """Rankers that read every column and popularity, trained on a split that holds items out."""
    folder = tmp_path_factory.mktemp("runs")
    columns = {"model.columns": "all", "model.popularity": True}
    trained = {"content.image.train": "top:1", "content.text.train": "lora"}
    settings = {
        "frozen": TINY | columns | STILL,
        "hybrid": TINY | columns | STILL,
        "end_to_end": TINY | columns | trained,
    }
    runs = {name: rawrec.train("em3", shop, folder / name, settings[name] | {"paradigm": name}) for name in PARADIGMS}
    return {name: Recommender.load(run.path, device="cpu") for name, run in runs.items()}


def raw_items(data: Dataset, rows: np.ndarray) -> list[dict[str, Any]]:
    """All that the dataset knows of items, as a user would give it; what is missing is left out or None."""
    items: list[dict[str, Any]] = [{} for _ in rows]
    for fields, read in ((data.fields.image, data.images), (data.fields.text, data.texts)):
        for field in fields:
            for item, values in zip(items, read(field, rows), strict=True):
                item[field] = values
    for field in data.fields.categorical:
        ptr, codes, words = data.categorical(field)
        for item, row in zip(items, rows, strict=True):
            item[field] = [words[code] for code in codes[ptr[row] : ptr[row + 1]]]
    for field in data.fields.numeric:
        for item, value in zip(items, data.numeric(field)[rows].tolist(), strict=True):
            item[field] = None if np.isnan(value) else value
    return items


def cold_rows(rec: Recommender) -> np.ndarray:
    return np.flatnonzero(rec.system.samples.train_counts == 0)


@pytest.mark.parametrize("name", PARADIGMS)
def test_raw_fields_score_as_the_item_does(served: dict[str, Recommender], name: str) -> None:
    rec = served[name]
    rows = cold_rows(rec)
    assert len(rows) >= 3 and len(rec.system.ranker.inputs.columns.readers) == 2
    known = [str(item) for item in rec.data.item_ids[rows]]
    raw = raw_items(rec.data, rows)
    for who in ({"user": str(rec.data.user_ids[3])}, {"history": [str(i) for i in rec.data.item_ids[:4]]}):
        by_id = rec.score(items=known, **who)
        np.testing.assert_allclose(rec.score(items=raw, **who), by_id, rtol=0, atol=1e-6)
        mixed = [new if k % 2 else old for k, (new, old) in enumerate(zip(raw, known, strict=True))]
        np.testing.assert_allclose(rec.score(items=mixed, **who), by_id, rtol=0, atol=1e-6)
        assert np.ptp(by_id) > 1e-4


@pytest.mark.parametrize("name", PARADIGMS)
def test_every_column_of_a_new_item_counts(served: dict[str, Recommender], name: str) -> None:
    rec = served[name]
    item = raw_items(rec.data, cold_rows(rec)[:1])[0]
    fields = rec.data.fields
    category, number = fields.categorical[0], fields.numeric[0]
    trained = rec.system.ranker.inputs.columns.readers[category]
    words = [word for word, code in zip(trained.words, trained.codes, strict=True) if code]
    values = (words[0], [words[1]], "never seen", None, ["", None])
    one, other, unseen, nothing, empty = rec.score(history=[], items=[{**item, category: value} for value in values])
    assert len({one, other, unseen, nothing}) == 4 and nothing == pytest.approx(empty, abs=1e-7)
    cheap, dear, missing, absent, nan = rec.score(
        history=[],
        items=[
            {**item, number: 1},
            {**item, number: np.float32(90)},
            {**item, number: None},
            {key: value for key, value in item.items() if key != number},
            {**item, number: float("nan")},
        ],
    )
    assert len({cheap, dear, missing}) == 3
    np.testing.assert_allclose([absent, nan], missing, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", PARADIGMS)
def test_added_items_are_as_those_of_the_catalogue(shop: Path, served: dict[str, Recommender], name: str) -> None:
    """As candidates and in histories; added in two parts."""
    rec = Recommender.load(served[name].run.path, device="cpu")
    rows = cold_rows(rec)
    known = [str(item) for item in rec.data.item_ids[rows]]
    new = [{"item_id": f"new {item}", **raw} for item, raw in zip(known, raw_items(rec.data, rows), strict=True)]
    names = [str(item["item_id"]) for item in new]
    assert rec.add_items(new[:2]) == 2 and rec.add_items(new[2:]) == len(new) - 2
    user, warm = str(rec.data.user_ids[3]), [str(i) for i in rec.data.item_ids[:5]]
    by_id = rec.score(user, known)
    np.testing.assert_allclose(rec.score(user, names), by_id, rtol=0, atol=1e-6)
    past = [*warm[:2], known[0], known[1]], [*warm[:2], names[0], names[1]]
    before, after = (rec.score(history=history, items=warm) for history in past)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)
    assert np.abs(np.subtract(before, rec.score(history=warm[:2], items=warm))).max() > 1e-5
    found = dict(rec.recommend(user, k=10_000, exclude_seen=False))
    assert len(found) == rec.data.n_items + len(new)
    np.testing.assert_allclose([found[item] for item in names], by_id, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"category": 5}, r"new item 1, category: expected a category \(text\) or a list of them, found 5"),
        ({"category": ["a", 5]}, "new item 1, category: expected a category .* found 5"),
        ({"category": {"a": 1}}, "new item 1, category: expected a category"),
        ({"price": "cheap"}, "new item 1, price: expected a number, found 'cheap'"),
        ({"price": True}, "new item 1, price: expected a number, found True"),
        ({"price": [3.0]}, "new item 1, price: expected a number"),
        ({"price": 10**400}, "new item 1, price: the number is too large"),
    ],
)
def test_values_of_a_wrong_type_are_named(served: dict[str, Recommender], values: dict[str, Any], said: str) -> None:
    rec = served["hybrid"]
    items = [{"title": "sound"}, {"title": "x", **values}]
    for ask in (
        lambda: rec.score(history=[], items=items),
        lambda: rec.add_items([{"item_id": f"n{k}", **item} for k, item in enumerate(items)]),
    ):
        with pytest.raises(UserError, match=said):
            ask()
    assert len(rec.recommend(history=[], k=10_000)) == rec.data.n_items


def test_columns_that_the_model_does_not_read_are_left_aside(shop: Path, tmp_path: Path) -> None:
    settings = TINY | {"paradigm": "hybrid", "model.columns": ["price"]}
    rec = Recommender.load(rawrec.train("em3", shop, tmp_path / "run", settings | STILL).path)
    rows = cold_rows(rec)
    raw = raw_items(rec.data, rows)
    by_id = rec.score(history=[], items=[str(item) for item in rec.data.item_ids[rows]])
    np.testing.assert_allclose(rec.score(history=[], items=raw), by_id, rtol=0, atol=1e-6)
    odd = rec.score(history=[], items=[{**item, "category": 5} for item in raw])
    np.testing.assert_allclose(odd, by_id, rtol=0, atol=1e-6)
