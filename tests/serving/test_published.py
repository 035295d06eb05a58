"""A published version in use: it judges as its trainer does, and knows who and what came with the stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rawrec import Recommender, UserError
from rawrec.data.dataset import Dataset
from rawrec.serving.published import Published
from rawrec.stream.events import Gone, Item
from rawrec.stream.joiner import Sample
from rawrec.stream.log import open_log
from rawrec.stream.online import online
from streams import BEGIN, SETTINGS, events_of, small_run, write

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=["hybrid", "id"])
def served(request: pytest.FixtureRequest, shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("published")
    data = Dataset.open(shop)
    run, url, out = small_run(folder / "run", data, request.param), f"sqlite:{folder / 'events.db'}", folder / "out"
    write(url, events_of(data, 30))
    with open_log(url) as log:
        fields = {"category": ["mug"], "price": 7.5}
        log.append([Item(producer="x", sequence=0, time=BEGIN + 9000, item="filtered", fields=fields)])
        log.append([Gone(producer="x", sequence=1, time=BEGIN + 9001, item=str(data.item_ids[0]))])
    online(run, log=url, until="end", settings=SETTINGS | {"admit_after": 1}, publish=out)
    return Published.of(out)


def known(served: Published) -> tuple[list[str], list[str]]:
    """Some items of the dataset, and all that came."""
    ids, n = list(served._stream.items), served.data.n_items
    return ids[1:5], ids[n:]


def test_scores_are_those_of_the_trainer(served: Published) -> None:
    old, new = known(served)
    assert new
    user, past = str(served.data.user_ids[0]), [str(item) for item in served.data.item_ids[2:6]]
    items = [*old, *new]
    asked = [Sample(user, item, past, BEGIN, 0.0) for item in items]
    expected = served._stream.predict(asked, items)
    assert served.score(user, items, history=past) == pytest.approx(expected, abs=1e-5)
    listed = {one.item: one.score for one in served.recommend(user, past, k=999, exclude_seen=False)}
    assert {item: listed.get(item) for item in items if item in listed} == pytest.approx(
        {item: score for item, score in zip(items, expected, strict=True) if item in listed}, abs=1e-5
    )


def test_what_came_is_listed_and_what_went_is_not(served: Published) -> None:
    _, new = known(served)
    found = {one.item for one in served.recommend(str(served.data.user_ids[0]), k=999, exclude_seen=False)}
    gone = str(served.data.item_ids[0])
    assert gone not in found and gone in served.hidden and gone in served
    listable = set(new) - set(served.hidden)
    assert listable & found and found <= set(served._stream.items)
    assert served.n_items == served.data.n_items + len(new)


def test_lists_are_filtered_by_what_events_said(served: Published) -> None:
    user = str(served.data.user_ids[0])
    found = served.recommend(user, k=999, exclude_seen=False, where={"price": (7.4, 7.6)})
    assert "filtered" in {one.item for one in found} or served._table is not None  # which content alone can judge
    allowed = served._columns.where({"price": (7.4, 7.6), "category": ["mug"]})
    assert allowed[served._rows["filtered"]]


def test_users_that_came_are_known_by_their_id(served: Published) -> None:
    assert served.knows_user("new1") and not served.knows_user("nobody")
    assert served.history("new1") == ["fresh5"]  # what they took in the stream
    assert len(served.recommend("new1", k=5)) == 5
    own = served.recommend("new1", history=["filtered", str(served.data.item_ids[3])], k=5)
    assert len(own) == 5 and str(served.data.item_ids[3]) not in {one.item for one in own}
    with pytest.raises(UserError, match="nobody"):
        served.recommend("nobody")
    old = str(served.data.user_ids[1])
    table = served.recommend(users=[old], k=3)
    assert table["items"].to_pylist()[0] == [one.item for one in served.recommend(old, k=3)]


def test_alike_items_and_more_items(served: Published) -> None:
    old, _ = known(served)
    found = served.similar(old[0], k=999)
    assert {one.item for one in found} <= set(served._stream.items)
    assert served.similar(old[0], k=3, by="id")
    if served._table is not None:
        before = served.n_items
        served.add_items([{"item_id": "later", "title": "A red mug"}])
        assert served.n_items == before + 1
        user = str(served.data.user_ids[0])
        assert "later" in {one.item for one in served.recommend(user, k=999)}
        assert np.isfinite(served.score(user, ["later"])[0])


def test_a_version_is_not_saved_as_a_run_is(served: Published, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="never changes"):
        served.save(tmp_path / "kept")
    with pytest.raises(UserError, match="of its run alone"):
        served.restore(tmp_path / "kept")
    assert isinstance(served, Recommender) and served.fingerprint() == f"{served.about.name}-{served.about.sum}"
