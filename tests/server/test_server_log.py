"""With a log, what was shown and done is written down, and counts for the user's history at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lists_shop import ITEMS, make_runs, make_shop
from rawrec import Recommender, UserError

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from rawrec.server.recent import Answered, Recent
from rawrec.server.run import Options, application, open_serving
from rawrec.server.worker import Busy
from rawrec.server.written import MOST_WAITING, Writer
from rawrec.serving.published import Published
from rawrec.stream.events import Acted, Gone, Item, Shown, read_event
from rawrec.stream.log import Log, open_log

TOKEN = "0123456789abcdef"
BEARS = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("server-log")
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    return make_runs(make_shop(folder / "data"), folder)


def client(run: Path, log: str | None) -> TestClient:
    options = Options(token_file=run.parent / "token", threads=1, log=log)
    serving, _ = open_serving(lambda added: Recommender.load(run, device="cpu", added=added), options)
    return TestClient(application(serving, options), base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def log(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'events.db'}"


def written(log: str) -> list[Any]:
    with open_log(log) as opened:
        return [read_event(record.data).event for record in opened.read(0)]


def test_lists_are_written_down_as_they_were_served(runs: dict[str, Path], log: str) -> None:
    with client(runs["em3"], log) as http:
        one = http.post("/recommend", json={"user": "u1", "k": 3}).json()
        two = http.post("/recommend", json={"history": ["i1", "i2"], "k": 2}).json()
        many = http.post("/recommend/batch", json={"users": ["u2", "u3"], "k": 2}).json()
        http.post("/recommend", json={"user": "u1", "items": ["i1"], "exclude": ["i1"]})  # of which nothing is shown
    events = written(log)
    assert all(isinstance(event, Shown) for event in events)
    assert [event.request for event in events] == [
        one["request"], two["request"], many["lists"][0]["request"], many["lists"][1]["request"],
    ]  # fmt: skip
    assert len({event.request for event in events}) == 4 and [event.sequence for event in events] == [0, 1, 2, 3]
    assert [event.user for event in events] == ["u1", None, "u2", "u3"]
    assert events[0].items == [item["item"] for item in one["items"]]
    assert events[0].scores == pytest.approx([item["score"] for item in one["items"]])
    assert events[0].version == one["served"]["version"] and abs(events[0].time - time.time()) < 60
    assert events[0].history is None and events[1].history == ["i1", "i2"]


def test_scores_that_are_no_probabilities_are_not_written(runs: dict[str, Path], log: str) -> None:
    with client(runs["vbpr"], log) as http:
        assert http.post("/recommend", json={"user": "u1", "k": 3}).json()["request"]
    assert written(log)[0].scores is None


def test_an_action_counts_from_the_next_request_on(runs: dict[str, Path], log: str) -> None:
    rec = Recommender.load(runs["em3"], device="cpu")
    with client(runs["em3"], log) as http:
        first = http.post("/recommend", json={"user": "u1", "k": 3}).json()
        taken = first["items"][0]["item"]
        sent = {"events": [{"kind": "acted", "request": first["request"], "item": taken}]}
        assert http.post("/events", json=sent).status_code == 401
        assert http.post("/events", json=sent, headers=BEARS).json() == {"taken": 1, "duplicates": 0, "unknown": []}
        for asked in ({"user": "u1", "k": 5}, {"user": "u1", "k": 5, "where": {"price": {"least": 3}}}):
            found = http.post("/recommend", json=asked).json()["items"]
            more = {"where": {"price": (3, None)}} if "where" in asked else {}
            expected = rec.recommend("u1", [*rec.history("u1"), taken], k=5, **more)
            assert [(one["item"], one["score"]) for one in found] == [
                (one.item, pytest.approx(one.score, abs=1e-6)) for one in expected
            ]
            assert taken not in {one["item"] for one in found}
        both = http.post("/recommend/batch", json={"users": ["u2", "u1"], "k": 5}).json()["lists"]
        assert [one["item"] for one in both[1]["items"]] == [
            one.item for one in rec.recommend("u1", [*rec.history("u1"), taken], k=5)
        ]
        assert [one["item"] for one in both[0]["items"]] == [one.item for one in rec.recommend("u2", k=5)]
        scores = http.post("/score", json={"user": "u1", "items": ["i7"]}).json()["scores"]
        assert scores == pytest.approx(rec.score("u1", ["i7"], history=[*rec.history("u1"), taken]))
        everything = {"user": "u1", "k": 99, "exclude_seen": "interactions"}
        met = {item["item"] for item in http.post("/recommend", json=everything).json()["items"]}
        assert not met & {*rec.history("u1", met=True), taken}
    assert isinstance(written(log)[1], Acted) and written(log)[1].request == first["request"]


def test_somebody_new_is_known_by_what_they_did(runs: dict[str, Path], log: str) -> None:
    rec = Recommender.load(runs["em3"], device="cpu")
    acted = [{"kind": "acted", "user": "stranger", "item": item} for item in ("i4", "i9", "not here")]
    with client(runs["em3"], log) as http:
        assert http.post("/recommend", json={"user": "stranger"}).status_code == 422
        http.post("/events", json={"events": acted}, headers=BEARS)
        found = http.post("/recommend", json={"user": "stranger", "k": 4}).json()["items"]
        assert [one["item"] for one in found] == [one.item for one in rec.recommend(history=["i4", "i9"], k=4)]
        ignored = [{"kind": "acted", "user": "other", "item": "i4", "action": "hide", "value": 0}]
        http.post("/events", json={"events": ignored}, headers=BEARS)
        assert http.post("/recommend", json={"user": "other"}).status_code == 422


def test_items_that_come_and_go_are_events(runs: dict[str, Path], log: str) -> None:
    item = {"item_id": "n1", "kind": "lamp", "price": 4.5, "look": [0.5, -1.0, 0.3, 0.2, 1.5, -0.7]}
    with client(runs["em3"], log) as http:
        assert http.post("/items", json=item, headers=BEARS).json()["added"] == ["n1"]
        assert http.delete("/items/n1", headers=BEARS).status_code == 200
        assert http.post("/items", json={"item_id": "n1"}, headers=BEARS).status_code == 422
    came, went = written(log)
    assert isinstance(came, Item) and came.item == "n1"
    assert came.fields == {name: value for name, value in item.items() if name != "item_id"}
    assert isinstance(went, Gone) and went.item == "n1"


def test_an_event_that_is_sent_again_is_known(runs: dict[str, Path], log: str) -> None:
    event = {"kind": "acted", "user": "u1", "item": "i1", "producer": "web", "sequence": 7, "colour": "red"}
    with client(runs["id"], log) as http:
        for expected in ({"taken": 1, "duplicates": 0}, {"taken": 0, "duplicates": 1}):
            answer = http.post("/events", json={"events": [event]}, headers=BEARS).json()
            assert answer == expected | {"unknown": ["colour"]}
    assert len(written(log)) == 1


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "events"),
        ([{"kind": "item", "item": "i1"}], "by the routes of items"),
        ([{"kind": "acted", "item": "i1"}], "neither a request nor a user"),
        ([{"kind": "acted", "user": "u1", "item": "i1"}, {"kind": "acted", "user": "u1"}], "events.1"),
        ([{"kind": "acted", "user": "u1", "item": "i1", "producer": "web"}], "give both, or none"),
        ([{"kind": "acted", "user": "u1", "item": "i1", "time": 1.7e18}], "time"),
        ([{"kind": "acted", "user": "u1", "item": "i1"}] * 1001, "at most 1000"),
        ([{"kind": "shown", "user": "u1", "items": ["i1"] * 2, "request": "r"}], "twice"),
    ],
)
def test_a_mistake_in_one_event_writes_none(
    runs: dict[str, Path], log: str, events: list[dict[str, Any]], said: str
) -> None:
    with client(runs["id"], log) as http:
        answer = http.post("/events", json={"events": events}, headers=BEARS)
        assert answer.status_code == 422 and said in answer.json()["error"]
    assert written(log) == []


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"item_id": "i" * 300}, "at most 256"),
        ({"kind": {"a": "lamp"}}, "kind"),
        ({"kind": "x" * 70_000}, "65536"),
        ({"price": float("inf")}, "price"),
        ({"kind": "a\ud800"}, "unicode"),
    ],
)
def test_an_item_that_the_log_cannot_hold_is_not_taken_in(
    runs: dict[str, Path], log: str, item: dict[str, Any], said: str
) -> None:
    given = {"item_id": "n1", "kind": "lamp", "look": [0.5, -1.0, 0.3, 0.2, 1.5, -0.7]} | item
    with client(runs["em3"], log) as http:
        before = http.app.state.serving.now().rec.n_items  # type: ignore[attr-defined]
        answer = http.post("/items", content=json.dumps(given), headers=BEARS | {"content-type": "application/json"})
        assert answer.status_code == 422 and said in answer.json()["error"], answer.text
        assert http.app.state.serving.now().rec.n_items == before  # type: ignore[attr-defined]
    assert written(log) == []


def test_what_could_not_be_kept_is_told_with_what_was_done(
    runs: dict[str, Path], log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item answers, and who has sent it hears that neither folder nor log hold it."""
    item = {"item_id": "n1", "kind": "lamp", "look": [0.5, -1.0, 0.3, 0.2, 1.5, -0.7]}
    monkeypatch.setattr("rawrec.server.held.State.keep_hidden", lambda self, rec: (tmp_path / "gone").stat())
    monkeypatch.setattr("rawrec.server.written.Writer.hand_in", lambda self, make: _busy())
    with client(runs["em3"], log) as http:
        for answer, said in [
            (http.post("/items", json=item, headers=BEARS), "'n1' is taken in here, and is not in the log: too many"),
            (
                http.post("/hidden", json={"hide": ["n1"]}, headers=BEARS),
                "could not be kept: No such file or directory",
            ),
        ]:
            assert answer.status_code == 422 and said in answer.json()["error"] and "/" not in answer.json()["error"]
        assert http.post("/score", json={"user": "u1", "items": ["n1"]}).status_code == 200


def _busy() -> Any:
    raise Busy(1)


def test_without_a_log_nothing_is_written(runs: dict[str, Path]) -> None:
    with client(runs["id"], None) as http:
        sent = {"events": [{"kind": "acted", "user": "u1", "item": "i1"}]}
        answer = http.post("/events", json=sent, headers=BEARS)
        assert answer.status_code == 404 and "--log" in answer.json()["error"]
        assert "request" not in http.post("/recommend", json={"user": "u1"}).json()


def test_a_log_that_is_none_is_told_at_the_start(runs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="--log 'events'"):
        client(runs["id"], "events")
    with pytest.raises(UserError, match="not there"):
        client(runs["id"], "sqlite:/nowhere/events.db")


# ----------------------------------------------------------------------------------------------------------- the writer
def shown(producer: str, number: int, now: float) -> Shown:
    return Shown(producer=producer, sequence=number, time=now, request=f"r{number}", items=["i1"])


class Failing:
    """Stands before a log, and refuses some appends."""

    def __init__(self, log: Log, times: int) -> None:
        self.log, self.left, self.sizes = log, times, list[int]()

    def append_raw(self, entries: Any) -> Any:
        self.left -= 1
        if self.left >= 0:
            raise OSError(28, "No space left on device")
        self.sizes.append(len(entries))
        return self.log.append_raw(entries)

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Failing]]:
    made: list[Failing] = []
    monkeypatch.setattr("rawrec.server.written.AGAIN", 0.01)
    monkeypatch.setattr(
        "rawrec.server.written.open_log", lambda url: made.append(Failing(open_log(url), 3)) or made[-1]
    )
    yield made


def test_what_a_full_disk_refused_is_written_later_in_its_order(
    log: str, failing: list[Failing], capsys: pytest.CaptureFixture[str]
) -> None:
    writer = Writer(log)
    for _ in range(5):
        writer.shown(shown)
    until = time.monotonic() + 10
    while len(writer) and time.monotonic() < until:
        time.sleep(0.01)
    writer.close()
    assert [event.sequence for event in written(log)] == [0, 1, 2, 3, 4]
    said = capsys.readouterr().err
    assert said.count("takes no events") == 1 and said.count("takes events again") == 1


def test_who_hands_in_is_told_that_it_was_refused(log: str, failing: list[Failing]) -> None:
    writer = Writer(log)
    answer = writer.hand_in(lambda number, now: [shown("web", number(), now)])
    with pytest.raises(UserError, match="could not be written"):
        answer.result(10)
    writer.close()
    assert written(log) == [] and len(writer) == 0


def test_what_can_not_be_written_at_the_end_is_told(
    log: str, failing: list[Failing], capsys: pytest.CaptureFixture[str]
) -> None:
    writer = Writer(log)
    failing[0].left = 10**6
    writer.shown(shown)
    writer.close()
    assert "1 events could not be written" in capsys.readouterr().err
    with pytest.raises(Busy):
        writer.shown(shown)


def test_more_than_may_wait_is_refused(log: str, failing: list[Failing]) -> None:
    writer = Writer(log)
    failing[0].left = 10**6
    writer._count += MOST_WAITING
    with pytest.raises(Busy):
        writer.shown(shown)
    writer._count -= MOST_WAITING
    writer.close()


def test_an_event_that_is_too_large_is_refused_before_it_waits(log: str) -> None:
    writer = Writer(log)
    with pytest.raises(UserError, match="at most"):
        writer.shown(lambda *id_: shown(*id_).model_copy(update={"history": ["x" * 256] * 5000}))
    writer.shown(shown)
    writer.close()
    assert len(written(log)) == 1


# ------------------------------------------------------------------------------------------------------- who did what
def test_the_latest_are_kept_and_the_longest_silent_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawrec.server.recent.MOST_USERS", 2)
    recent = Recent(3)
    for user, items in (("a", ["1", "2"]), ("b", ["1"]), ("a", ["3", "4"]), ("c", ["5"])):
        recent.add(user, items)
    assert recent._of == {"a": ("2", "3", "4"), "c": ("5",)}
    recent = Recent(0)
    recent.add("a", ["1"])
    assert not recent._of


def test_what_a_version_knows_by_now_is_not_told_twice() -> None:
    class Version(Published):
        reads_histories = True

        def __init__(self) -> None: ...
        def __contains__(self, item: object) -> bool:
            return item != "gone"

        def heard(self, user: str) -> list[str]:
            return ["1", "2"] if user == "a" else []

    recent = Recent(9)
    recent.add("a", ["1", "2", "gone", "3"])
    recent.add("b", ["1"])
    assert recent.of("a", Version()) == ["3"] and recent.of("b", Version()) == ["1"]


def test_requests_are_known_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawrec.server.recent.MOST_REQUESTS", 2)
    answered = Answered()
    for n in range(3):
        answered.add(f"r{n}", f"u{n}")
    assert [answered.user(request) for request in ("r0", "r1", "r2", None)] == [None, "u1", "u2", None]


def test_a_history_is_all_that_a_user_took(runs: dict[str, Path]) -> None:
    rec = Recommender.load(runs["id"], device="cpu")
    data = rec.data
    mine = (data.users == 3) & data.positive()
    assert data.timestamps is not None
    order = data.timestamps[mine].argsort(kind="stable")
    assert rec.history("u3") == [str(data.item_ids[row]) for row in data.items[mine][order]]
    assert set(rec.history("u3", met=True)) == {str(data.item_ids[row]) for row in data.items[data.users == 3]}
    assert len(rec.history("u3", met=True)) == ITEMS // 2 and json.dumps(rec.history("u3"))
    with pytest.raises(UserError, match="nobody"):
        rec.history("nobody")
    assert rec.knows_user("u3") and not rec.knows_user("nobody")
