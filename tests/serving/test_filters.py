"""Lists of some items alone, for one user or many; ids and columns are the user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from lists_shop import ITEMS, KINDS, MODELS, PRICES, TAGS, USERS, make_runs, make_shop
from rawrec import Recommender, UserError

ALL = [f"i{k}" for k in range(ITEMS)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recommender]:
    folder = tmp_path_factory.mktemp("lists")
    runs = make_runs(make_shop(folder / "data"), folder)
    return {name: Recommender.load(path, device="cpu") for name, path in runs.items()}


def ids(found: list) -> list[str]:
    return [item for item, _ in found]


def price(k: int) -> float:
    return float("nan") if PRICES[k] is None else float(PRICES[k] or 0)


WHERE: list[tuple[dict[str, Any], Callable[[int], bool]]] = [
    ({"kind": "lamp"}, lambda k: KINDS[k % 3] == "lamp"),
    ({"kind": ["lamp", "mug"]}, lambda k: KINDS[k % 3] != "chair"),
    ({"kind": {"not": ["lamp", "mug"]}}, lambda k: KINDS[k % 3] == "chair"),
    ({"brand": {"not": "b1"}}, lambda k: not k % 5 or k % 4 != 1),
    ({"in_stock": True}, lambda k: k % 2 == 1),
    ({"in_stock": False, "kind": ("mug",)}, lambda k: k % 2 == 0 and k % 3 == 2),
    ({"tags": "sale"}, lambda k: "sale" in TAGS[k]),
    ({"tags": {"new", "sale"}}, lambda k: bool(TAGS[k])),
    ({"price": (None, 20.0)}, lambda k: price(k) <= 20),
    ({"price": (7, 9)}, lambda k: 7 <= price(k) <= 9),
    ({"price": (30, None)}, lambda k: price(k) >= 30),
    ({"price": (None, None)}, lambda k: PRICES[k] is not None),
    ({"price": [3, 4.0, 12]}, lambda k: k in (3, 4)),
    ({"price": 5}, lambda k: k == 5),
    ({"price": {"not": (None, 20)}}, lambda k: not price(k) <= 20),
    ({"kind": []}, lambda k: False),
]


@pytest.mark.parametrize("model", MODELS)
def test_where_keeps_what_has_the_values(served: dict[str, Recommender], model: str) -> None:
    """In the order, and with the scores, of the list of all."""
    rec = served[model]
    whole = rec.recommend("u3", k=ITEMS, exclude_seen=False)
    for where, has in WHERE:
        expected = [one for one in whole if has(int(one.item[1:]))]
        found = rec.recommend("u3", k=ITEMS, exclude_seen=False, where=where)
        assert ids(found) == ids(expected), where
        np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], rtol=1e-5)


def test_a_filter_that_is_asked_again_is_the_same(served: dict[str, Recommender]) -> None:
    """Whatever was excluded beside it meanwhile; what looks alike is told apart."""
    rec, where = served["id"], {"in_stock": True, "price": (None, 20.0)}
    first = rec.recommend("u3", k=ITEMS, where=where)
    assert rec.recommend("u3", k=ITEMS, where=where, exclude=ids(first)[:3]) == first[3:]
    assert rec.recommend("u3", k=ITEMS, where=where) == first
    with pytest.raises(UserError, match="no item has in_stock=1"):
        rec.recommend("u3", where={"in_stock": 1, "price": (None, 20.0)})
    ranged, listed = (rec.recommend("u3", k=ITEMS, where={"price": of((3, 9))}) for of in (tuple, list))
    assert set(ids(listed)) <= {"i3", "i9"} < set(ids(rec.recommend(history=[], k=ITEMS, where={"price": (3, 9)})))
    assert len(ranged) >= len(listed)
    for low in range(40):  # more than are held
        assert len(rec.recommend(history=[], k=99, where={"price": (low, None)})) == sum(
            price(k) >= low for k in range(40)
        )


@pytest.mark.parametrize("model", MODELS)
def test_candidates_and_what_is_excluded(served: dict[str, Recommender], model: str) -> None:
    rec, some = served[model], ["i7", "i3", "i30", "i7", "i11"]
    taken = set(ALL) - set(ids(rec.recommend("u3", k=ITEMS)))
    for candidates in (some, ALL, np.array(ALL[:30]), pl.Series(some), []):
        found = rec.recommend("u3", k=ITEMS, items=candidates)  # type: ignore[arg-type]
        assert ids(found) == [i for i in ids(rec.recommend("u3", k=ITEMS)) if i in set(candidates)]
    assert set(ids(rec.recommend("u3", k=ITEMS, exclude=some))) == set(ALL) - taken - set(some)
    both = rec.recommend("u3", k=ITEMS, exclude_seen=False, items=some, exclude=["i3"], where={"in_stock": True})
    assert set(ids(both)) == {"i7", "i11"}
    assert (
        rec.recommend("u3", k=2, exclude_seen=False, items=some)
        == rec.recommend("u3", k=4, exclude_seen=False, items=some)[:2]
    )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "more", [{}, {"where": {"kind": "lamp"}, "exclude": ["i3"], "max_per": {"brand": 1}, "diversity": 0.4}]
)
def test_many_users_at_once(served: dict[str, Recommender], tmp_path: Path, model: str, more: dict[str, Any]) -> None:
    """A row for each, in the order given, of what each gets alone; the file of all users has the same."""
    rec, users = served[model], ["u5", "u0", "u11", "u5"]
    table = rec.recommend(users=users, k=4, **more)
    assert isinstance(table, pa.Table) and table.column_names == ["user_id", "items", "scores"]
    assert table["user_id"].to_pylist() == users
    for user, items, scores in zip(*table.to_pydict().values(), strict=True):
        single = rec.recommend(user, k=4, **more)
        assert items == ids(single) and len(items) >= (1 if more else 4)
        np.testing.assert_allclose(scores, [s for _, s in single], rtol=1e-4)
    some = pl.read_parquet(rec.recommend_all(tmp_path / "some.parquet", k=4, users=users, **more))
    assert some["items"].to_list() == table["items"].to_pylist()
    every = pl.read_parquet(rec.recommend_all(tmp_path / "all.parquet", k=4, **more))
    assert every.height == USERS and every["user_id"].to_list() == list(rec.data.user_ids)
    assert every.filter(pl.col("user_id") == "u0")["items"].to_list() == [table["items"].to_pylist()[1]]
    assert len(rec.recommend(users=[], k=4)) == 0


def test_added_items_have_columns_too(served: dict[str, Recommender]) -> None:
    rec = Recommender.load(served["em3"].run.path, device="cpu")
    look = np.arange(6.0)
    assert rec.recommend(history=[], k=1, where={"kind": "lamp"})  # the column is read before
    rec.add_items([{"item_id": "n1", "look": look, "kind": "lamp", "price": 4, "in_stock": "true"}])
    rec.add_items([{"item_id": "n2", "look": look, "kind": ["sofa", None], "tags": ["new", "sale"]}, {"item_id": "n3"}])
    everything = {*ALL, "n1", "n2", "n3"}
    for where, expected in [
        ({"kind": "sofa"}, {"n2"}),
        ({"kind": "lamp", "price": (4, 6)}, {"n1", "i6"}),
        ({"kind": {"not": KINDS}}, {"n2", "n3"}),
        ({"tags": "sale", "kind": {"not": KINDS}}, {"n2"}),
        ({"in_stock": True, "price": 4}, {"n1"}),
    ]:
        assert set(ids(rec.recommend(history=[], k=99, where=where))) == expected
    assert set(ids(rec.recommend(history=[], k=99))) == everything
    assert ids(rec.recommend(history=[], k=99, items=["n3", "i1"], exclude=["i1"])) == ["n3"]
    with pytest.raises(UserError, match="new item 0, kind: expected a category"):
        rec.add_items([{"item_id": "n4", "kind": 5}])


def test_new_items_in_a_history(served: dict[str, Recommender]) -> None:
    """A copy of an item whose id training never saw is read as that item; it is no candidate."""
    rec = served["em3"]
    values, _ = rec.data.feature("look")
    copy = {"look": values[3], "kind": KINDS[0], "price": 3}
    added = Recommender.load(rec.run.path, device="cpu")
    added.add_items([{"item_id": "copy", **copy}])
    for past, same in ([copy], ["copy"]), (["i1", copy, "i5"], ["i1", "copy", "i5"]):
        found, expected = rec.recommend(history=past, k=ITEMS), added.recommend(history=same, k=ITEMS + 1)
        assert ids(found) == [i for i in ids(expected) if i != "copy"]
        np.testing.assert_allclose(rec.score(history=past, items=ALL), added.score(history=same, items=ALL), atol=1e-6)
        both = rec.score(history=past, items=["i2", {"look": values[5]}])
        np.testing.assert_allclose(both, added.score(history=same, items=["i2", {"look": values[5]}]), atol=1e-6)
    assert len(rec.recommend(history=[copy], k=99)) == ITEMS
    with pytest.raises(UserError, match="model `id`"):
        served["id"].recommend(history=[copy])


def test_unknown_ids_are_refused_or_skipped(served: dict[str, Recommender]) -> None:
    rec = served["em3"]
    with pytest.raises(UserError, match=r"history: item 'gone' is not in .*unknown='skip'"):
        rec.recommend(history=["i1", "gone"])
    with pytest.warns(UserWarning, match="history: 2 of 3 items are not in the catalogue .* first 'gone'"):
        found = rec.recommend(history=["gone", "i1", "away"], k=5, unknown="skip")
    assert found == rec.recommend(history=["i1"], k=5)
    with pytest.warns(UserWarning, match="history: 1 of 2"):
        assert rec.score(history=["gone", "i1"], items=["i2"], unknown="skip") == rec.score(
            history=["i1"], items=["i2"]
        )
    for name in ("items", "exclude"):
        with pytest.raises(UserError, match=f"{name}: item 'gone' is not in .*unknown='skip'"):
            rec.recommend("u1", **{name: ["gone", "i1"]})  # type: ignore[arg-type]
        with pytest.warns(UserWarning, match=f"{name}: 1 of 2 items"):
            found = rec.recommend("u1", k=9, unknown="skip", **{name: ["gone", "i1"]})  # type: ignore[arg-type]
        assert found == rec.recommend("u1", k=9, **{name: ["i1"]})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"where: no item has kind='lmap'; close to it: lamp. unknown='skip'"):
        rec.recommend("u1", where={"kind": ["lmap", "mug"]})
    with pytest.warns(UserWarning, match="where: no item has kind='lmap'"):
        found = rec.recommend("u1", unknown="skip", where={"kind": ["lmap", "mug"]})
    assert found == rec.recommend("u1", where={"kind": "mug"})


BAD: list[tuple[dict[str, Any], str]] = [
    ({"k": 0}, "k=0: give a whole number, 1 or more"),
    ({"k": "5"}, "k='5': give a whole number"),
    ({"user": ["u1", "u2"]}, r"user=\['u1', 'u2'\]: give the id of one user; of several at once use users="),
    ({"user": 1.5}, "user=1.5: give an id"),
    ({"user": None, "users": "u1"}, r"users='u1': give a list"),
    ({"user": None, "users": ["u1", None]}, r"users=.*None.*: give a list, each entry an id"),
    ({"user": None, "users": ["u1", "who"]}, "user 'who' is not in"),
    ({"users": ["u1"]}, "leave out user and history"),
    ({"user": None, "users": ["u1"], "history": ["i1"]}, "leave out user and history"),
    ({"items": "i1"}, "items='i1': give a list"),
    ({"items": [{"look": [0] * 6}]}, "items=.*: give a list, each entry an id"),
    ({"exclude": 5}, "exclude=5: give a list"),
    ({"exclude": [["i1"]]}, "exclude=.*: give a list, each entry an id"),
    ({"where": ["kind"]}, r"where=\['kind'\]: give columns"),
    ({"where": {"knd": "lamp"}}, r"where: the column 'knd' does not exist; did you mean 'kind'\? There are: kind, "),
    ({"where": {"look": 1}}, "where: the column 'look' does not exist"),
    ({"where": {"kind": None}}, "where: kind=None: give a category"),
    ({"where": {"kind": 1.5}}, "where: kind=1.5: give a category"),
    ({"where": {"kind": {"in": "lamp"}}}, "where: kind=.*use {'not': ...}"),
    ({"where": {"price": "cheap"}}, "where: price='cheap': give a number"),
    ({"where": {"price": float("nan")}}, "where: price=nan: give a number"),
    ({"where": {"price": (1, 2, 3)}}, "where: price=.*the least and the most"),
    ({"where": {"price": (5, 2)}}, "where: price=.*the least is more than the most"),
    ({"where": {"price": ("a", None)}}, "where: price=.*the least and the most"),
    ({"max_per": {"brand": 0}}, "max_per: brand=0: give a whole number, 1 or more"),
    ({"max_per": {"brand": True}}, "max_per: brand=True: give a whole number"),
    ({"max_per": {"price": 2}}, "max_per: 'price' is a column of numbers. There are: kind, brand"),
    ({"max_per": {"bran": 2}}, "max_per: 'bran' is no categorical column of the items. There are: kind, brand"),
    ({"max_per": "brand"}, "max_per='brand': give columns"),
    ({"diversity": 1.5}, "diversity=1.5: give a number from 0"),
    ({"diversity": "much"}, "diversity='much': give a number from 0"),
    ({"diversity": True}, "diversity=True: give a number from 0"),
    ({"unknown": "ignore"}, "unknown='ignore': give one of 'refuse', 'skip'"),
]


@pytest.mark.parametrize("model", ["em3", "vbpr"])
def test_what_is_wrong_is_named(served: dict[str, Recommender], model: str) -> None:
    for own, said in BAD:
        given: dict[str, Any] = {"user": "u1", **own}
        with pytest.raises(UserError, match=said):
            served[model].recommend(**given)
