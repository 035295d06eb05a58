"""Searches in the generated shop: lists as designed, clicks from known effects, a best QAUC that is what it says."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import logit

from rawrec.data import synthetic
from rawrec.data.dataset import Dataset
from rawrec.data.import_report import ImportReport
from rawrec.data.synthetic import MATCH_EFFECT, POSITION_EFFECT, Shop, generate
from rawrec.data.synthetic_items import BADGES, VALUES
from rawrec.data.synthetic_searches import ATTRIBUTES, FORMS, WORDINGS
from rawrec.data.validate import validate
from rawrec.errors import UserError
from rawrec.evaluation.ctr import auc, group_auc
from rawrec.sources.synthetic import best_auc, best_qauc, import_synthetic

SIZES: dict[str, Any] = {"items": 300, "users": 80, "impressions": 12_000, "seed": 4}


@pytest.fixture(scope="module")
def shop() -> Shop:
    return generate(**SIZES, queries=True, shown=6)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("searches") / "shop"
    sizes: dict[str, Any] = {**SIZES, "items": 120, "size": 32}
    return import_synthetic(out, **sizes, queries=True, progress=False)


def lists(shop: Shop) -> tuple[np.ndarray, np.ndarray]:
    assert shop.session is not None and shop.positions is not None
    return shop.session, shop.positions


@cache
def wanted() -> dict[str, dict[str, str]]:
    """Every query that there can be -> the values that it asks for."""
    found = {}
    for form in FORMS:
        names = [name for name in ATTRIBUTES if f"{{{name}}}" in form]
        for values in itertools.product(*(VALUES[name] for name in names)):
            asked = dict(zip(names, values, strict=True))
            said = [WORDINGS.get(name, {}).get(value, (value,)) for name, value in asked.items()]
            for words in itertools.product(*said):
                text = form.format(**dict(zip(names, words, strict=True)))
                assert found.setdefault(text, asked) == asked, text
    return found


def test_lists_are_of_one_user_at_one_time_without_repeats(shop: Shop) -> None:
    session, position = lists(shop)
    begins = np.flatnonzero(np.r_[True, np.diff(session) != 0])
    assert len(begins) == len(np.unique(session))  # the rows of a session stand together
    sizes = np.diff(np.r_[begins, len(session)])
    assert sizes.max() == 6 and np.median(sizes) == 6 and abs(len(session) - 12_000) < 600
    for values in (shop.users, shop.timestamps):
        np.testing.assert_array_equal(values, np.repeat(values[begins], sizes))
    np.testing.assert_array_equal(position, np.arange(len(session)) - np.repeat(begins, sizes))
    assert len(np.unique(session * 300 + shop.items)) == len(session)
    assert (shop.timestamps >= shop.launched[shop.items]).all()
    assert np.bincount(shop.users, minlength=80).min() > 0 and (np.diff(shop.timestamps) >= 0).all()


def test_a_query_words_attributes_and_what_is_shown_has_some_of_them(shop: Shop) -> None:
    session, _ = lists(shop)
    assert shop.searches is not None and shop.match is not None
    known, texts = wanted(), shop.searches.texts
    assert len(set(texts)) == len(texts) and set(texts) <= known.keys()
    query = shop.searches.query[session]
    expected = np.zeros(len(query))
    for row, text in enumerate(texts):
        rows, asked = np.flatnonzero(query == row), known[text]
        same = [shop.codes[name][shop.items[rows]] == VALUES[name].index(value) for name, value in asked.items()]
        expected[rows] = np.mean(same, 0)
    np.testing.assert_allclose(shop.match, expected)
    assert 0.2 < (expected == 1).mean() < 0.6 and 0.1 < (expected == 0).mean() < 0.6
    assert not any("none" in text.split() for text in texts)
    used = {form for form in FORMS if any(text for text in texts if _of_form(text, form))}
    assert used == set(FORMS)


def _of_form(text: str, form: str) -> bool:
    return wanted().get(text, {}).keys() == {name for name in ATTRIBUTES if f"{{{name}}}" in form}


def test_some_queries_name_what_no_words_say(shop: Shop) -> None:
    words = " ".join(text for texts in (*shop.titles, *shop.descriptions) for text in texts)
    assert "background" not in words and "in front of" not in words
    assert shop.searches is not None
    share = np.mean(["{background}" in form for form in FORMS for _ in range(int(FORMS[form]))])
    named = np.array(["background" in text or "in front of" in text for text in shop.searches.texts])
    assert named[shop.searches.query].mean() == pytest.approx(share, abs=0.03)
    assert len(BADGES) == 6 and any("with a star" in text for text in shop.searches.texts)


def test_clicks_depend_on_match_and_position_as_is_said(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    session, position = lists(shop)
    assert shop.match is not None
    for name, effect, values in (
        ("MATCH_EFFECT", MATCH_EFFECT, shop.match),
        ("POSITION_EFFECT", POSITION_EFFECT, position),
    ):
        monkeypatch.setattr(synthetic, name, 0.0)
        other = generate(**SIZES, queries=True, shown=6)
        monkeypatch.undo()
        np.testing.assert_array_equal(other.items, shop.items)
        added = logit(shop.probability.astype(float)) - logit(other.probability.astype(float)) - effect * values
        assert np.ptp(added) < 2e-3  # but for the constant that keeps the rate of clicks
    assert abs(shop.clicks.mean() - 0.25) < 0.02 and auc(shop.clicks, shop.match) > 0.62
    assert 0.78 < auc(shop.clicks, shop.probability) < 0.92
    first, last = (shop.match[position == place].mean() for place in (0, 5))
    assert first > last + 0.2  # the order of a list goes by match, so that place and match are not independent
    assert (np.bincount(session) > 0).all()


def test_the_products_are_those_of_the_shop_without_queries(shop: Shop) -> None:
    plain = generate(**SIZES)
    assert plain.searches is None and plain.session is None and plain.positions is None
    for name in ("prices", "launched", "has_image"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(shop, name))
    assert (plain.titles, plain.descriptions) == (shop.titles, shop.descriptions)
    assert plain.picture(0) == shop.picture(0)


def test_with_context_and_purchases() -> None:
    shop = generate(**SIZES, queries=True, context=True, buy_rate=0.3)
    session, position = lists(shop)
    assert shop.devices is not None and shop.ages is not None and shop.buys is not None
    begins = np.flatnonzero(position == 0)
    sizes = np.diff(np.r_[begins, len(session)])
    np.testing.assert_array_equal(shop.devices, np.repeat(shop.devices[begins], sizes))  # one device per search
    assert len(np.unique(shop.devices)) == 3 and (shop.buys <= shop.clicks).all()


def test_few_products_and_long_histories() -> None:
    shop = generate(items=10, users=3, impressions=100, queries=True, shown=20, history_events=400)
    session, position = lists(shop)
    assert position.max() <= 9 and len(session) > 100
    assert np.bincount(shop.users[position == 0], minlength=3).min() >= 20


# ------------------------------------------------------------------------------------------------------------- dataset
def test_the_dataset(data: Dataset) -> None:
    assert data.meta.extra == ["probability", "position", "match"] and data.meta.context.numeric == ["position"]
    assert (data.query_rows >= 0).all() and (data.session_rows >= 0).all()
    assert set(data.queries) <= wanted().keys() and len(data.queries) > 100
    assert np.bincount(data.session_rows).max() == 8 and "queries, shown=8" in data.meta.source
    parts = data.split()
    assert (parts[np.unique(data.session_rows, return_index=True)[1]][data.session_rows] == parts).all()
    assert validate(data.path, progress=False).sound


def test_the_best_qauc_is_that_of_the_probability(data: Dataset) -> None:
    test = data.split() == 2
    expected = group_auc(data.label()[test], data.column("probability")[test], data.query_rows[test]).mean
    assert best_qauc(data, test) == pytest.approx(expected, abs=1e-12)
    notes = " ".join(ImportReport.load(data.path / "import.json").notes)
    whole = best_qauc(data, np.ones(data.n_interactions, bool))
    assert f"Best possible QAUC over all impressions: {whole!s:.6}" in notes
    assert 0.7 < whole < 0.95 and best_auc(data, test) > 0.75
    assert np.isnan(best_qauc(data, data.label() > 0))


def test_same_seed_same_searches(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"items": 20, "users": 5, "impressions": 200, "size": 32, "shown": 4, "queries": True}
    made = [
        import_synthetic(tmp_path / name, **sizes, seed=seed, progress=False)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    files = [(d.path / "interactions.parquet").read_bytes() + (d.path / "queries.parquet").read_bytes() for d in made]
    assert files[0] == files[1] != files[2]


def test_impossible_lists(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shown=5: .*add queries \(--queries\)"):
        import_synthetic(tmp_path / "x", shown=5, progress=False)
    for shown in (0, 1, 101):
        with pytest.raises(UserError, match=f"shown={shown}: "):
            import_synthetic(tmp_path / "x", queries=True, shown=shown, progress=False)
    assert not (tmp_path / "x").exists()
