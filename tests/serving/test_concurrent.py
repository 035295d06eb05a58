"""One recommender asked from many threads at once: every answer is that of one thread alone."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import numpy as np
import pytest
from test_recommender import TINY, picture

import rawrec
from rawrec import Recommender, UserError
from rawrec.serving.served import ENCODE

THREADS = 20
WORDS = ["red", "blue", "mug", "lamp", "striped", "small", "wool", "steel"]


@pytest.fixture(scope="module")
def run(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with trained layers above a cut, whose encoders run in parts."""
    trained = {"content.image.train": "top:1", "content.text.train": "top:1"}
    return rawrec.train("em3", shop, tmp_path_factory.mktemp("run") / "em3", TINY | trained).path


@pytest.fixture(scope="module")
def served(run: Path) -> Recommender:
    return Recommender.load(run, device="cpu")


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(works: list[Callable[[], Any]]) -> list[Any]:
    """What each work gives, all begun at once."""
    barrier = Barrier(len(works))

    def begin(work: Callable[[], Any]) -> Any:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [one.result() for one in [pool.submit(begin, work) for work in works]]


def new_item(number: int) -> dict[str, Any]:
    words = [WORDS[(number * k + k) % len(WORDS)] for k in range(1, 2 + number % 7)]
    return {"title": " ".join(words), "image": picture((number * 37 % 256, number * 91 % 256, number * 53 % 256))}


def equal(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


def test_new_items_and_known_ones(served: Recommender) -> None:
    user, known = str(served.data.user_ids[3]), [str(item) for item in served.data.item_ids[:3]]
    works: list[Callable[[], Any]] = []
    for n in range(THREADS):
        item = new_item(n)
        works.append(
            [
                lambda item=item: served.score(user, [known[0], item, new_item(7)]),
                lambda item=item: served.embed([item, known[1]]),
                lambda item=item: served.similar(item, 5),
                lambda n=n: served.recommend(str(served.data.user_ids[n]), k=7),
                lambda item=item: served.score(None, [item], history=known),
            ][n % 5]
        )
    alone = [work() for work in works]
    for _ in range(2):
        assert all(map(equal, together(works), alone))
    assert all(map(equal, [work() for work in works], alone))  # nothing is broken afterwards


def test_items_are_added_whole_and_once(run: Path) -> None:
    """Each of the threads adds one item under its own id and one under an id that all want."""
    served = Recommender.load(run, device="cpu")
    before = len(served.recommend(history=[], k=10_000))
    refused = []

    def add(n: int) -> None:
        served.add_items([{"item_id": f"new{n}", **new_item(n)}])
        try:
            served.add_items([{"item_id": f"other{n}", **new_item(n)}, {"item_id": "wanted", **new_item(99)}])
        except UserError as error:
            refused.append((n, str(error)))

    together([lambda n=n: add(n) for n in range(THREADS)])
    winner = set(range(THREADS)) - {n for n, _ in refused}
    assert len(winner) == 1 and all("'wanted'" in text for _, text in refused)
    names = [f"new{n}" for n in range(THREADS)] + [f"other{winner.pop()}", "wanted"]
    assert len(served.recommend(history=[], k=10_000)) == before + len(names)
    numbers = [int(name.strip("newothr")) if name != "wanted" else 99 for name in names]
    fresh = Recommender.load(run, device="cpu")
    assert np.allclose(served.embed(names), fresh.embed([new_item(n) for n in numbers]), atol=1e-4)


def test_readers_see_the_catalogue_before_or_after(run: Path) -> None:
    """While items are added again and again, every answer is of one state of the catalogue."""
    served, done = Recommender.load(run, device="cpu"), Event()
    known, user = served.data.n_items, str(served.data.user_ids[0])
    batches = [[{"item_id": f"n{b}-{i}", **new_item(b)} for i in range(3)] for b in range(6)]
    values = Recommender.load(run, device="cpu").embed([new_item(b) for b in range(6)])
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                found = served.recommend(user, k=10_000, exclude_seen=False)
                assert (len(found) - known) % 3 == 0, len(found)
                added = sorted(item for item, _ in found if "-" in item)
                assert all(f"{item.split('-')[0]}-{i}" in added for item in added for i in range(3))
                if added:
                    assert np.allclose(served.embed(added[:1])[0], values[int(added[0][1:].split("-")[0])], atol=1e-4)
                    assert added[0] not in {item for item, _ in served.similar(added[0], 5)}
                    again = {item for item, _ in found}
                    assert {item for item, _ in served.recommend(user, k=10_000, exclude_seen=False)} >= again
        except BaseException as error:
            errors.append(error)

    readers = [Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for batch in batches:
        served.add_items(batch)
    done.set()
    for reader in readers:
        reader.join()
    assert not errors, errors


def test_an_item_that_is_refused_leaves_nothing(run: Path) -> None:
    served = Recommender.load(run, device="cpu")
    many = [{"item_id": f"n{i}", **new_item(i)} for i in range(ENCODE)]
    with pytest.raises(UserError, match="new item 256 has no item_id"):
        served.add_items([*many, {"title": "nameless"}])
    assert len(served.recommend(history=[], k=10_000)) == served.data.n_items
    assert served.add_items(many[:2]) == 2


def test_copies_go_on_by_themselves(run: Path) -> None:
    served = Recommender.load(run, device="cpu")
    twin = copy.deepcopy(served)
    served.add_items([{"item_id": "n", **new_item(1)}])
    assert len(twin.recommend(history=[], k=10_000)) == len(served.recommend(history=[], k=10_000)) - 1
    assert twin.add_items([{"item_id": "n", **new_item(1)}]) == 1
