"""What came after a run: items that were added and kept, and a newer version of its dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lists_shop import ITEMS, MODELS, USERS, make_runs, make_shop
from rawrec import Recommender, UserError
from rawrec.data.dataset import Dataset
from rawrec.sources.append import append

LOOK = [[0.5, -1.0, 0.3, 0.2, 1.5, -0.7], [1.0, 2.0, -0.3, 0.9, 0.1, 0.4]]
NEW: list[dict[str, Any]] = [
    {"item_id": "n1", "look": LOOK[0], "kind": "lamp", "price": 4.5, "tags": ["new", "sale"]},
    {"item_id": "n2", "look": LOOK[1], "kind": "sofa"},
    {"item_id": "n3", "kind": "mug", "in_stock": "true"},
]
ALL = [f"i{k}" for k in range(ITEMS)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("growing")
    return make_runs(make_shop(folder / "data"), folder)


def ids(found: list) -> list[str]:
    return [item for item, _ in found]


# ----------------------------------------------------------------------------------------------------------------- save
def test_items_that_were_kept_are_there_again(runs: dict[str, Path], tmp_path: Path) -> None:
    rec, out = Recommender.load(runs["em3"], device="cpu"), tmp_path / "deep" / "added"
    rec.add_items(NEW[:2])
    rec.add_items(NEW[2:])
    assert rec.save(out) == out
    assert all(path.suffix in (".json", ".parquet", ".safetensors") for path in out.iterdir())
    again = Recommender.load(runs["em3"], device="cpu", added=out)
    for made in (rec, again):
        assert set(ids(made.recommend(history=["n1"], k=99))) == {*ALL, "n2", "n3"}
    for ask in (
        lambda made: made.recommend("u3", k=99, exclude_seen=False),
        lambda made: made.recommend(history=["n2", "i3"], k=99),
        lambda made: made.recommend("u3", k=99, where={"kind": ["sofa", "lamp"]}, max_per={"tags": 1}),
        lambda made: made.recommend("u3", k=99, where={"price": (4, 5)}),
        lambda made: made.similar("n1", 99),
        lambda made: made.similar("n1", 99, by="look"),
        lambda made: made.score("u1", ["n1", "n2", "n3", "i1"]),
        lambda made: made.embed(["n1", "n2", "n3"]).tolist(),
    ):
        assert ask(again) == ask(rec)
    assert again.add_items([{"item_id": "n4", "look": LOOK[0]}]) == 1
    again.save(out)  # replaces
    assert len(list(out.iterdir())) == 3
    third = Recommender.load(runs["em3"], added=out)
    assert set(ids(third.recommend(history=[], k=99))) == {*ALL, "n1", "n2", "n3", "n4"}


def test_nothing_added_is_kept_too(runs: dict[str, Path], tmp_path: Path) -> None:
    Recommender.load(runs["em3"]).save(tmp_path / "none")
    assert len(Recommender.load(runs["em3"], added=tmp_path / "none").recommend(history=[], k=99)) == ITEMS


def test_what_cannot_be_kept_or_restored_is_named(runs: dict[str, Path], tmp_path: Path) -> None:
    rec = Recommender.load(runs["em3"])
    rec.add_items(NEW)
    out = rec.save(tmp_path / "added")
    for name in ("id", "vbpr"):
        with pytest.raises(UserError, match=f"model `{name}`, which cannot judge"):
            Recommender.load(runs[name]).save(tmp_path / name)
        with pytest.raises(UserError, match=f"model `{name}`, which cannot judge"):
            Recommender.load(runs[name], added=out)
    with pytest.raises(UserError, match="is there already and holds no added items"):
        rec.save(runs["em3"])
    with pytest.raises(UserError, match=r"it has no added\.json"):
        Recommender.load(runs["em3"], added=tmp_path)
    with pytest.warns(UserWarning, match="3 of 3 items are in the catalogue already and were left out, first 'n1'"):
        rec.restore(out)
    known = json.loads((out / "added.json").read_text())
    for change, said in [
        ({"run": "other"}, "that another run made"),
        ({"format": 2}, "of format 2"),
        ({"n": 2}, "its files are of different items"),
        ({"items": "gone.parquet"}, "is damaged"),
        ({"contents": known["items"]}, "damaged"),
    ]:
        (out / "added.json").write_text(json.dumps(known | change))
        with pytest.raises(UserError, match=said):
            Recommender.load(runs["em3"], added=out)
    (out / "added.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        Recommender.load(runs["em3"], added=out)


# --------------------------------------------------------------------------------------------------------------- newest
def unmet(data: Dataset) -> str:
    """The first item that u3 met in no interaction of version 1."""
    met = set(data.items[: USERS * 20][data.users[: USERS * 20] == 3])
    return next(f"i{k}" for k in range(5, ITEMS) if k not in met)


@pytest.fixture(scope="module")
def grown(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop, to which were added two items, what u3 took of all items then, and a new user."""
    folder = tmp_path_factory.mktemp("grown")
    shutil.copytree(runs["em3"].parent / "data", folder / "data")
    log = [("u3", "i2", 1.0), ("u3", "n1", 1.0), ("u3", unmet(Dataset.open(folder / "data")), 0.0)]
    log += [("w", item, 1.0) for item in ("i5", "n2", "i1")]
    clicks = pl.DataFrame(log, schema=["user_id", "item_id", "label"], orient="row")
    clicks.with_columns(timestamp=pl.int_range(100, 106)).write_parquet(folder / "log.parquet")
    columns = {name: [item.get(name) for item in NEW[:2]] for name in ("item_id", "look", "price")}
    columns |= {"kind": ["lamp", "sofa"], "brand": [None, None], "tags": ["new|sale", None], "in_stock": ["true", None]}
    pl.DataFrame(columns, strict=False).write_parquet(folder / "items.parquet")
    append(folder / "data", folder / "log.parquet", part="test", items=folder / "items.parquet", progress=False)
    return folder / "data"


def test_rankers_read_the_newest_version(runs: dict[str, Path], grown: Path, tmp_path: Path) -> None:
    """Histories, new users and new items; as if these were given by hand."""
    old = Recommender.load(runs["em3"], grown, "cpu")
    new = Recommender.load(runs["em3"], grown, "cpu", newest=True)
    assert new.people.version == 2 and new.data.version == old.people.version == 1
    old.add_items(NEW[:2])
    known = old._past.items[old._past.ptr[3] : old._past.ptr[4]]
    past = [*(str(old.data.item_ids[row]) for row in known), "i2", "n1"]
    items = [*ALL, "n1", "n2"]
    np.testing.assert_allclose(new.score("u3", items), old.score("u3", items, history=past), atol=1e-6)
    np.testing.assert_allclose(new.score("w", items), old.score(items=items, history=["i5", "n2", "i1"]), atol=1e-6)
    assert set(ids(new.recommend("u3", k=99))) == set(items) - set(past)
    bad = unmet(new.data)
    assert bad in ids(new.recommend("u3", k=99))
    assert bad not in ids(new.recommend("u3", k=99, exclude_seen="interactions"))
    assert set(ids(new.recommend("w", k=99, where={"kind": ["sofa", "lamp"]}))) >= {"n1", "i0"}
    assert new.explain("w", ["i3"])[0].because
    table = new.recommend(users=["w", "u3"], k=3)
    assert table["items"].to_pylist() == [ids(new.recommend(user, k=3)) for user in ("w", "u3")]
    lists = pl.read_parquet(new.recommend_all(tmp_path / "all.parquet", k=3))
    assert lists["user_id"].to_list() == list(Dataset.open(grown).user_ids) and "w" in lists["user_id"]
    new.add_items(NEW[2:])
    kept = new.save(tmp_path / "added")  # what the dataset has is not kept
    assert set(ids(Recommender.load(runs["em3"], grown, added=kept).recommend(history=[], k=99))) == {*ALL, "n3"}
    both = Recommender.load(runs["em3"], grown, newest=True, added=kept)
    assert set(ids(both.recommend(history=[], k=99))) == {*items, "n3"}
    with pytest.raises(UserError, match=r"\(the newest is 2\).*newest=True \(--newest\)"):
        old.recommend("w")


def test_models_that_judge_no_new_item_leave_it_aside(runs: dict[str, Path], grown: Path) -> None:
    for name in ("id", "vbpr"):
        with pytest.warns(UserWarning, match="2 items came after version 1 of .* are left aside"):
            rec = Recommender.load(runs[name], grown, "cpu", newest=True)
        assert "i2" not in ids(rec.recommend("u3", k=99)) and set(ids(rec.recommend("u3", k=99))) <= set(ALL)
        if name == "id":
            assert set(ids(rec.recommend("w", k=99))) == set(ALL) - {"i5", "i1"}
            assert rec.score("w", ALL) == pytest.approx(rec.score(items=ALL, history=["i5", "i1"]), abs=1e-6)
        else:
            with pytest.raises(UserError, match="user 'w' has no training interaction"):
                rec.recommend("w")
            assert rec.recommend(users=["w", "u3"], k=3)["items"].to_pylist()[0] == []


def test_without_news_nothing_changes(runs: dict[str, Path]) -> None:
    for name in MODELS:
        rec, new = (Recommender.load(runs[name], device="cpu", newest=newest) for newest in (False, True))
        assert rec.recommend("u3", k=5) == new.recommend("u3", k=5)
    with pytest.raises(UserError, match="newest=1: give True or False"):
        Recommender.load(runs["id"], newest=1)  # type: ignore[arg-type]
