"""Items that are hidden stand in no list, at once, and may be shown again."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from lists_shop import ITEMS, MODELS, USERS, make_runs, make_shop
from rawrec import Recommender, UserError

ALL = {f"i{k}" for k in range(ITEMS)}
HIDDEN = ["i3", "i11", "i20"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hiding")
    return make_runs(make_shop(folder / "data"), folder)


@pytest.mark.parametrize("model", MODELS)
def test_no_list_holds_what_is_hidden(runs: dict[str, Path], model: str, tmp_path: Path) -> None:
    rec = Recommender.load(runs[model], device="cpu")
    before, scores = rec.recommend("u1", k=99, exclude_seen=False), rec.score("u1", HIDDEN)
    rec.hide(HIDDEN)
    assert sorted(rec.hidden) == sorted(HIDDEN)
    kept = [one for one in before if one.item not in HIDDEN]
    assert {one.item for one in before} == ALL and len(kept) == len(before) - 3
    assert [one.item for one in rec.recommend("u1", k=99, exclude_seen=False)] == [one.item for one in kept]
    assert rec.recommend("u1", items=[*HIDDEN, "i5"], exclude_seen=False) == [one for one in before if one.item == "i5"]
    for one in rec.recommend("u1", k=99, where={"kind": ["lamp", "chair"]}, max_per={"brand": 3}, diversity=0.5):
        assert one.item not in HIDDEN
    assert not set(HIDDEN) & {one.item for one in rec.similar("i5", k=99)}
    lists = pl.read_parquet(rec.recommend_all(tmp_path / "lists.parquet", k=99, exclude_seen=False))
    assert lists["user_id"].to_list() == [f"u{k}" for k in range(USERS)]
    assert not set(HIDDEN) & {item for row in lists["items"] for item in row}
    assert rec.score("u1", HIDDEN) == scores  # who asks for them by id is answered
    rec.show(["i3"])
    assert sorted(rec.hidden) == ["i11", "i20"]
    rec.show()
    assert rec.hidden == [] and rec.recommend("u1", k=99, exclude_seen=False) == before


def test_a_hidden_item_stays_hidden_when_others_come(runs: dict[str, Path]) -> None:
    rec = Recommender.load(runs["em3"], device="cpu")
    rec.hide(["i3"])
    rec.add_items([{"item_id": "n1", "look": [0.5, -1.0, 0.3, 0.2, 1.5, -0.7]}])
    rec.hide(["n1"])
    assert rec.hidden == ["i3", "n1"]
    assert not {"i3", "n1"} & {one.item for one in rec.recommend("u1", k=99)}
    rec.show(["n1"])
    assert "n1" in {one.item for one in rec.recommend("u1", k=99)}


def test_a_list_may_be_empty_when_all_is_hidden(runs: dict[str, Path]) -> None:
    rec = Recommender.load(runs["id"], device="cpu")
    rec.hide(sorted(ALL))
    assert rec.recommend("u1") == []


@pytest.mark.parametrize(("given", "said"), [(["i999"], "i999"), ("i3", "items='i3'"), ([3.5], "items")])
def test_an_unknown_item_is_refused_and_nothing_is_hidden(runs: dict[str, Path], given: object, said: str) -> None:
    rec = Recommender.load(runs["id"], device="cpu")
    with pytest.raises(UserError, match=said):
        rec.hide(given)  # type: ignore[arg-type]
    assert rec.hidden == []
