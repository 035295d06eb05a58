"""One recommender in many threads, trainings in threads, and forks of a process that has used everything."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from attacks.calls import _loaded
from attacks.engine import Fault, Place, child, message, sound


def together(works: list[Callable[[], Any]]) -> list[Any]:
    barrier = Barrier(len(works))

    def begin(work: Callable[[], Any]) -> Any:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [one.result() for one in [pool.submit(begin, work) for work in works]]


def answers(place: Place) -> None:
    """Every answer is that of one thread alone, number for number."""
    import copy

    from test_concurrent import new_item

    rng = place.rng
    served = copy.deepcopy(_loaded(place.origin.path / rng.choice(["em3-done", "live-done"])))
    users, items = [f"u{n}" for n in range(1, 9)], [f"p{n:04}" for n in range(1, 20)]
    new = [new_item(rng.randrange(200)) for _ in range(6)]
    users = [user for user in users if user in set(served.data.user_ids.tolist())]
    items = [item for item in items if item in set(served.data.item_ids.tolist())]

    def work() -> Callable[[], Any]:
        user, some, item = rng.choice(users), rng.sample(items, 3), rng.choice(new)
        return rng.choice([
            lambda: served.recommend(user, k=4), lambda: served.score(user, [*some, item]),
            lambda: served.similar(item, k=3),
            lambda: served.embed([item, *some]).tolist(), lambda: served.recommend(history=[*some, item], k=3),
        ])  # fmt: skip

    works = [work() for _ in range(rng.choice([2, 4, 8]))]
    alone = [one() for one in works]
    before = sys.getswitchinterval()
    sys.setswitchinterval(rng.choice([1e-5, 1e-4, 5e-3]))
    try:
        if repr(together(works)) != repr(alone):
            raise Fault("other answers than alone")
        added = [{"item_id": f"new{n}", **new_item(n)} for n in range(4)]
        together([*(lambda one=one: served.add_items([one]) for one in added), *works])
    finally:
        sys.setswitchinterval(before)
    for one in added:
        content = {key: value for key, value in one.items() if key != "item_id"}
        if abs(served.embed([one["item_id"]]) - served.embed([content])).max() > 1e-5:
            raise Fault("an added item has another's content")


def trainings(place: Place) -> None:
    """The second of two threads is refused, the first is exact."""
    import rawrec
    from attacks.origin import RUNS, outcome

    preset, settings = RUNS["id"]

    def train(number: int) -> Callable[[], str | None]:
        return lambda: message(
            lambda: rawrec.train(preset, place.origin.path / "shop", place.here / f"run{number}", settings)
        )

    said = together([train(0), train(1)])
    for number, one in enumerate(said):
        if one is None and outcome(place.here / f"run{number}")["model"] != place.origin.known["id"]["model"]:
            raise Fault("another model than alone")
        if one is not None and "another thread" not in one:
            raise Fault(one)
    if None not in said:
        raise Fault("both were refused")


def forks(place: Place) -> None:
    """A forked child of a process that has used everything: it answers, or says that it cannot."""
    import rawrec
    from rawrec.data.dataset import Dataset
    from rawrec.report import build_report

    rng, run = place.rng, place.origin.path / "em3-done"
    served = _loaded(run)
    served.recommend("u1", k=2)
    data = Dataset.open(place.origin.path / "shop")
    data.texts("title", [0])
    quick = {"train.epochs": 1, "train.threads": 1, "train.device": "cpu"}
    name, work = rng.choice(sorted({
        "recommend": lambda: served.recommend("u1", k=2),
        "embed": lambda: served.embed(["p0001"]),
        "report": lambda: build_report(run, out=place.here / "page.html"),
        "texts": lambda: data.texts("title", [0, 1]),
        "images": lambda: Dataset.open(place.origin.path / "shop").images("image", [0, 1]),
        "compare": lambda: rawrec.compare([run, place.origin.path / "id-done"]),
        "train": lambda: rawrec.train("id", place.origin.path / "shop", place.here / "run", quick),
        "evaluate": lambda: rawrec.evaluate(run, "valid"),
        "load": lambda: rawrec.Recommender.load(run).recommend("u1"),
        "lists": lambda: served.recommend_all(place.here / "lists.csv", k=2),
    }.items()))  # fmt: skip
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        sound(child(place, work, 20))
    except Fault as fault:
        raise Fault(f"{name}: {fault}") from None
