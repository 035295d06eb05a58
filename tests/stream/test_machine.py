"""Log, joiner, trainer, publisher and what is served, against dictionaries, whatever happens in whatever order.

`RAWREC_MACHINE=100` runs as many examples (default 3)."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rawrec import faults
from rawrec.data.dataset import Dataset
from rawrec.serving.published import Published
from rawrec.stream import saved, versions
from rawrec.stream.events import Acted, Event, Gone, Item, Shown
from rawrec.stream.log import open_log
from rawrec.stream.online import online
from rawrec.training.runs import RunFolder
from streams import BEGIN, small_run

WAIT = 50.0
SETTINGS: dict[str, Any] = {
    "wait": WAIT, "batch_size": 8, "window": 20, "checkpoint_every": 2, "publish_every": 3, "admit_after": 1,
}  # fmt: skip
POINTS = [point for point in faults.POINTS if not point.startswith(("append", "acknowledge"))]
FAILED = 3


class Stream(RuleBasedStateMachine):
    """A stream of small numbers: ten items of the catalogue, three users, times that go on."""

    data: ClassVar[Dataset]
    base: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="rawrec-machine-"))
        self.run, self.out = self.place / "run", self.place / "out"
        shutil.copytree(self.base, self.run)
        self.url = f"sqlite:{self.place / 'events.db'}"
        self.log: list[Event] = []
        self.time = BEGIN
        self.requests: dict[str, Shown] = {}
        self.items = {str(item): True for item in self.data.item_ids}  # -> is it there yet?
        self.settled = False  # nothing has come, and nobody failed, since a trainer came to its end
        self.done, self.held = 0, ""  # events that a trainer took to their end; the version that somebody holds

    def teardown(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)

    # ---------------------------------------------------------------------------------------------------------- the log
    def append(self, kind: type[Any], **values: Any) -> None:
        event = kind(producer="shop", sequence=len(self.log), time=self.time, **values)
        with open_log(self.url) as log:
            assert log.append([event])[1:] == (1, 0)
        self.log.append(event)
        self.settled = False

    @initialize()
    def begins(self) -> None:
        self.show(range(4), 0, 1.0)

    @rule(places=st.sets(st.integers(0, 9), min_size=2, max_size=4), user=st.integers(0, 2), after=st.floats(0, 30))
    def show(self, places: Any, user: int, after: float) -> None:
        self.time += after
        known = [item for item, there in self.items.items() if there]
        shown = [known[-1 - place] for place in places]
        request = f"r{len(self.log)}"
        self.append(Shown, request=request, items=shown, user=f"visitor{user}")
        self.requests[request] = self.log[-1]  # type: ignore[assignment]

    @rule(which=st.integers(0, 100), place=st.integers(0, 3), after=st.floats(0, 60))
    def act(self, which: int, place: int, after: float) -> None:
        self.time += after
        request, shown = list(self.requests.items())[-1 - which % len(self.requests)]
        self.append(Acted, request=request, item=shown.items[place % len(shown.items)])

    @rule()
    def bring(self) -> None:
        item = f"new{len(self.log)}"
        self.append(Item, item=item, fields=dict.fromkeys(self.data.fields.text[:1], "a thing"))
        self.items[item] = True

    @rule(place=st.integers(0, 9))
    def take_away(self, place: int) -> None:
        item = [item for item, there in self.items.items() if there][-1 - place]
        self.append(Gone, item=item)
        self.items[item] = False

    @rule(first=st.integers(0, 1000))
    def append_again(self, first: int) -> None:
        again = self.log[first % len(self.log) :]
        with open_log(self.url) as log:
            assert log.append(again)[1:] == (0, len(again))

    @invariant()
    def the_log_holds_every_event_once(self) -> None:
        if self.log:
            with open_log(self.url) as log:
                held = [(one.producer, one.sequence) for one in log.read(0, 10_000)]
            assert held == [("shop", number) for number in range(len(self.log))]

    # ------------------------------------------------------------------------------------------- trainer and publisher
    def online(self) -> None:
        online(self.run, log=self.url, until="end", settings=SETTINGS, data=self.data, publish=self.out)

    @rule(point=st.sampled_from(POINTS), number=st.integers(1, 40), kind=st.sampled_from(faults.KINDS))
    def train_and_fail(self, point: str, number: int, kind: str) -> None:
        self.settled = False
        process = os.fork()
        if not process:
            code = 1
            try:
                faults.ask(f"{point}:{number}:{kind}")
                self.online()
                code = 0
            except OSError:
                code = FAILED
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert code in (0, -9, FAILED)

    @rule()
    def train(self) -> None:
        self.online()
        self.done, self.settled = len(self.log), True
        weights = RunFolder.open(self.run).info()["files"]["model.safetensors"]
        found = saved.load(self.run / "online" / "checkpoint", weights)
        assert found is not None
        plain, positions = found[1], found[2].positions
        with open_log(self.url) as log:
            assert list(positions.values()) == [log.end()] == [log.read(0, 10_000)[-1].position]
        counts, joiner = plain["counts"], plain["joiner"]
        kinds = {kind: sum(event.kind == kind for event in self.log) for kind in ("shown", "acted", "item", "gone")}
        assert {kind: counts.get(kind, 0) for kind in kinds} == kinds
        assert "duplicate" not in counts and "dead" not in counts
        waits = {name: one for name, one in self.requests.items() if one.time + WAIT >= self.time}
        assert {one["request"] for one in joiner["pending"]} == waits.keys()
        final = sum(len(one.items) for name, one in self.requests.items() if name not in waits)
        assert counts.get("trained", 0) + len(joiner["ready"]) == final
        clicks = {
            (event.request, event.item)
            for event in self.log
            if isinstance(event, Acted) and event.time <= self.requests[str(event.request)].time + WAIT
        }
        assert joiner["numbers"][2:] == [len(clicks), 0]

    # ------------------------------------------------------------------------------------------------------- the server
    def listed(self) -> versions.Listed | None:
        return versions.listed(self.out) if (self.out / versions.FOLDER).is_dir() else None

    @invariant()
    def what_is_listed_is_whole(self) -> None:
        for name in [one.name for one in found.versions] if (found := self.listed()) else []:
            versions.read(self.out, name)

    @precondition(lambda self: self.done)
    @rule()
    def look(self) -> None:
        found = self.listed()
        assert found is not None and found.current is not None
        assert found.current in [one.name for one in found.versions] and self.held in ("", found.current)
        rec = Published.of(self.out, data=self.data)
        assert rec.about.name == found.current
        if self.held or not self.settled:
            return
        assert found.current == found.versions[-1].name
        assert rec.about.events == self.done and rec.about.watermark == self.time
        assert {item for item in self.items if item in rec} == self.items.keys()
        assert set(rec.hidden) == {item for item, there in self.items.items() if not there}
        lists = rec.recommend(str(self.data.user_ids[0]), k=200)
        assert {one.item for one in lists} <= {item for item, there in self.items.items() if there}

    @precondition(lambda self: self.done)
    @rule(latest=st.booleans())
    def roll_back(self, latest: bool) -> None:
        found = self.listed()
        assert found is not None
        before = [one.name for one in found.versions if found.current and one.name < found.current]
        if latest:
            assert versions.rollback(self.out, versions.LATEST) == found.versions[-1].name
            self.held = ""
        elif before:
            self.held = versions.rollback(self.out)
            assert self.held == before[-1]


@pytest.mark.filterwarnings("ignore")  # of Lance, which wants no forks
def test_a_stream_is_what_dictionaries_say(shop: Path, tmp_path: Path) -> None:
    Stream.data = Dataset.open(shop)
    Stream.base = small_run(tmp_path / "run", Stream.data, "id")
    warm = Stream()  # reads what a forked process cannot
    warm.begins()
    warm.train()
    warm.look()
    warm.teardown()
    few = int(os.environ.get("RAWREC_MACHINE", "3"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_state_machine_as_test(
            Stream,
            settings=settings(
                max_examples=few,
                stateful_step_count=14,
                deadline=None,
                derandomize="RAWREC_MACHINE" not in os.environ,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
                database=None,
            ),
        )
