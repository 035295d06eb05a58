"""Ids without impressions lose their rows, in the trainer and in what it publishes, and come back as new ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rawrec.data.dataset import Dataset
from rawrec.stream.events import Gone, Shown
from rawrec.stream.joiner import Sample
from rawrec.stream.online import load_version, online
from rawrec.stream.trainer import Trainer
from rawrec.stream.versions import listed
from rawrec.training.runs import RunFolder
from streams import BEGIN, SETTINGS, check_same, events_of, go_on, state_of, write

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lance, which wants no forks


def trainer_of(run: Path, data: Dataset, **given: Any) -> Trainer:
    (run / "online").mkdir(exist_ok=True)
    return Trainer(RunFolder.open(run), run / "online", SETTINGS | given, data)


class Record:
    def __init__(self, event: Any) -> None:
        self.event, self.producer, self.sequence, self.position = event, event.producer, event.sequence, 0


class Feed:
    """Labelled impressions, one after the other."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.number = trainer, 0

    def show(self, user: str, item: str, time: float, times: int = 1) -> None:
        for _ in range(times):
            head = {"producer": "p", "sequence": self.number, "time": BEGIN + time}
            shown = Shown(**head, request=f"r{self.number}", items=[item], user=user, labels=[self.number % 2])
            self.trainer.take(Record(shown))
            self.trainer.train_ready()
            self.number += 1


def test_an_inactive_id_is_as_one_that_never_was(copied: Callable[..., Path], data: Dataset) -> None:
    trainer = trainer_of(copied("id"), data, batch_size=4, admit_after=2, expire_after=100.0)
    task, feed = trainer.task, Feed(trainer)
    old, item = str(data.user_ids[0]), str(data.item_ids[0])
    feed.show("visitor", "thing", 0, times=8)
    row, table = task.users["visitor"], task.ranker.inputs.ids.user
    assert table.known[row] and task.ranker.inputs.ids.item.known[task.items["thing"]]
    moments = next(t for t in trainer.steps.optimiser.tables.values() if t.weight is table.weight).moments
    assert moments is not None and float(moments[0][row + 1].abs().sum()) > 0 and int(moments[2][row + 1]) > 0
    feed.show(old, item, 95, times=4)
    assert "visitor" in task.users  # not yet
    feed.show(old, item, 150, times=4)
    assert "visitor" not in task.users and not table.known[row] and bool(table.known[task.users[old]])
    moments = next(t for t in trainer.steps.optimiser.tables.values() if t.weight is table.weight).moments
    assert moments is not None and all(float(values[row + 1].abs().sum()) == 0 for values in moments)
    assert float(table.weight[row + 1].abs().sum()) == 0
    thing = task.items["thing"]  # stays in the catalogue, without an id of its own
    assert not task.ranker.inputs.ids.item.known[thing]
    assert task.counts["expired_users"] >= 1 and task.counts["expired_items"] >= 1
    one = [Sample("visitor", "thing", [], BEGIN + 151, 0.0), Sample("stranger", "thing", [], BEGIN + 151, 0.0)]
    first, second = task.predict(one, ["thing", "thing"])
    assert first == second
    # Admitted again as new: after as many impressions, and in a row that was given up.
    feed.show("visitor", "thing", 160)
    feed.show(old, item, 160, times=3)
    assert "visitor" not in task.users
    feed.show("visitor", "thing", 161)
    feed.show(old, item, 161, times=3)
    assert task.users["visitor"] == row and table.known[row]


def test_ids_of_the_dataset_count_from_the_begin_of_the_stream(copied: Callable[..., Path], data: Dataset) -> None:
    trainer = trainer_of(copied("id"), data, batch_size=4, expire_after=100.0)
    feed, known = Feed(trainer), trainer.task.ranker.inputs.ids.user.known
    user, item, before = str(data.user_ids[0]), str(data.item_ids[0]), int(known.sum())
    feed.show(user, item, 0, times=4)
    feed.show(user, item, 90, times=4)
    assert int(known.sum()) == before > 5
    feed.show(user, item, 120, times=4)
    assert int(known.sum()) == 1 and bool(known[trainer.task.users[user]])
    assert trainer.task.users.keys() == {str(name) for name in data.user_ids}


def test_visitors_that_come_once_do_not_make_it_grow(copied: Callable[..., Path], data: Dataset) -> None:
    trainer = trainer_of(copied("id"), data, batch_size=4, admit_after=1, expire_after=40.0, window=50)
    feed, item = Feed(trainer), str(data.item_ids[0])
    for n in range(400):
        feed.show(f"visitor{n}", item, n)
    task = trainer.task
    assert task.counts["new_users"] == 400 and len(task.newcomers) < 60 and len(task.users) < data.n_users + 60
    assert len(trainer.past.state()) < 60 and not task._tried[True]


@pytest.mark.parametrize("until", [[30, 61], [11, 47, 80]])
def test_a_stream_in_pieces_forgets_the_same(
    until: list[int], copied: Callable[..., Path], data: Dataset, tmp_path: Path
) -> None:
    url = f"sqlite:{tmp_path / 'events.db'}"
    end = write(url, events_of(data, 60))
    whole, pieces = copied("id", "whole"), copied("id", "pieces")
    given: dict[str, Any] = {"expire_after": 150.0, "data": data, "admit_after": 1, "batch_size": 8}
    counts = go_on(whole, url, **given)["counts"]
    assert counts["expired_users"] > 3 and counts["expired_items"] > 3
    for position in (*until, end):
        go_on(pieces, url, position, **given)
    check_same(whole, pieces)


def test_what_is_published_forgets_it_too(copied: Callable[..., Path], data: Dataset, tmp_path: Path) -> None:
    url, out, run = f"sqlite:{tmp_path / 'events.db'}", tmp_path / "out", copied("id")
    write(url, events_of(data, 60))
    settings = SETTINGS | {"expire_after": 150.0, "admit_after": 1, "batch_size": 8, "publish_every": 6}
    online(run, log=url, until="end", settings=settings, publish=out, data=data)
    versions = listed(out).versions
    assert len(versions) > 4 and all(version.refused is None for version in versions)
    plain = state_of(run)[1]["task"]
    _, served = load_version(out, data=data)
    assert served.newcomers == plain["users"]
    known = torch.from_numpy(trainer_of(run, data).task.ranker.inputs.ids.user.known.numpy())
    assert torch.equal(served.ranker.inputs.ids.user.known, known) and not bool(known[: data.n_users].all())


def test_an_item_that_goes_is_in_no_list(copied: Callable[..., Path], data: Dataset, tmp_path: Path) -> None:
    from rawrec.serving.published import Published

    url, out, run = f"sqlite:{tmp_path / 'events.db'}", tmp_path / "out", copied("id")
    user = str(data.user_ids[0])
    gone = [str(item) for item in data.item_ids[:30]]
    write(url, [Gone(producer="p", sequence=n, time=BEGIN, item=item) for n, item in enumerate(gone)], False)
    online(run, log=url, until="end", settings=SETTINGS, publish=out, data=data)
    found = {one.item for one in Published.of(out, data=data).recommend(user, k=60, exclude_seen=False)}
    assert found == {str(item) for item in data.item_ids[30:]}
