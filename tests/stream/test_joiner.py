"""Events become labelled samples: exactly once each, by the stream's own time, whatever comes in which order."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawrec.config.online import OnlineConfig
from rawrec.stream.events import MOST_ITEMS, Acted, Shown
from rawrec.stream.joiner import AGREE, Joiner
from rawrec.stream.past import Past
from rawrec.stream.seen import APART, Seen

LATE = ("wait", "fake_negative", "elapsed")


def joiner(late: str = "wait", length: int = 5, **given: Any) -> Joiner:
    values: dict[str, Any] = {"wait": 100.0, "elapsed": 10.0, "late": late} | given
    return Joiner(OnlineConfig(**values), Past(length))


def shown(request: str, time: float, items: str = "ab", user: str | None = "u", **more: Any) -> Shown:
    return Shown(producer="p", sequence=0, time=time, request=request, items=list(items), user=user, **more)


def acted(request: str | None, item: str, time: float, user: str | None = None, **more: Any) -> Acted:
    return Acted(producer="p", sequence=0, time=time, request=request, item=item, user=user, **more)


def taken(made: Joiner) -> list[tuple[str, float]]:
    """Item and label of what is ready, which is taken out."""
    found = [(sample.item, sample.label) for sample in made.ready]
    made.ready.clear()
    return found


def play(made: Joiner, *events: Shown | Acted) -> Joiner:
    for event in events:
        made.shown(event) if isinstance(event, Shown) else made.acted(event)
    return made


def test_a_label_is_final_when_the_window_has_passed() -> None:
    made = play(joiner(), shown("r", 0), acted("r", "b", 100))
    assert not made.ready and made.waiting == 1
    made.advance(100)  # the window's own end is part of it
    assert not made.ready
    made.advance(100.5)
    assert taken(made) == [("a", 0.0), ("b", 1.0)] and made.waiting == 0
    assert [found.labels for found in made.closed] == [[0.0, 1.0]]
    play(made, acted("r", "a", 101))
    made.finish()
    assert not made.ready and made.counts == {"unknown_request": 1}


def test_fake_negatives_are_trained_at_once_and_positives_again() -> None:
    made = play(joiner("fake_negative"), shown("r", 0))
    assert taken(made) == [("a", 0.0), ("b", 0.0)]
    play(made, acted("r", "b", 5))
    assert [(sample.item, sample.label, sample.late) for sample in made.ready] == [("b", 1.0, 1.0)]
    made.ready.clear()
    made.finish()
    assert not made.ready and [found.labels for found in made.closed] == [[0.0, 1.0]]


def test_elapsed_waits_and_counts_what_comes_late() -> None:
    made = play(joiner("elapsed"), shown("r", 0, "abc"), acted("r", "a", 4))
    assert not made.ready
    made.advance(11)
    assert [(sample.label, sample.late) for sample in made.ready] == [(1.0, 1 / 3), (0.0, 1 / 3), (0.0, 1 / 3)]
    made.ready.clear()
    play(made, acted("r", "b", 50))
    assert [(sample.item, sample.label, sample.late) for sample in made.ready] == [("b", 1.0, 0.5)]
    made.ready.clear()
    made.finish()
    assert not made.ready


def test_labels_that_are_known_wait_for_nothing() -> None:
    made = play(joiner(), shown("r", 7, labels=[0.0, 0.5]))
    assert taken(made) == [("a", 0.0), ("b", 1.0)] and made.waiting == 0
    assert made.past.at("u", 8) == ["b"] and made.past.at("u", 7) == []
    assert [found.request for found in made.closed] == ["r"] == [found.request for found in made.new]


def test_histories_are_as_they_were_when_it_was_shown() -> None:
    made = play(
        joiner(length=2),
        acted("x", "1", 1, "u"), acted("x", "2", 2, "u"), acted("x", "3", 3, "u"),
        shown("r", 3), acted("r", "a", 4), shown("s", 5), shown("t", 5, user=None), shown("v", 5, history=["9"]),
    )  # fmt: skip
    made.finish()
    assert {found.request: found.history for found in made.closed} == {
        "r": ["1", "2"], "s": ["3", "a"], "t": [], "v": ["9"],
    }  # fmt: skip


def test_a_user_stands_for_the_latest_request() -> None:
    made = play(joiner(), shown("r", 0), shown("s", 1), acted(None, "a", 2, "u"), acted(None, "a", 2, "other"))
    made.finish()
    assert {found.request: found.labels for found in made.closed} == {"r": [0.0, 0.0], "s": [1.0, 0.0]}
    assert made.counts == {"unknown_request": 1}


def test_what_is_not_as_it_should_be_is_counted() -> None:
    made = play(
        joiner(actions=["buy"], pending=2),
        acted("r", "a", 0, action="buy"),
        acted("never", "a", 0, action="buy"),
        shown("r", 1),
        shown("r", 2, "xyz"),
        acted("r", "a", 3, action="buy"),
        acted("r", "q", 3, action="buy"),
        acted("r", "b", 3, action="look"),
        acted("r", "b", 3, action="buy", value=0.0),
        shown("s", 4),
        shown("t", 5),
    )
    assert made.waiting == 2
    assert taken(made) == [("a", 1.0), ("b", 0.0)]
    made.finish()
    assert made.counts == {
        "early": 1, "unknown_request": 1, "repeated_request": 1, "repeated_action": 1, "unknown_item": 1,
        "other_action": 2, "crowded": 1,
    }  # fmt: skip


def test_actions_of_requests_that_never_come_take_bounded_room() -> None:
    """Also where the stream's time stands still: the oldest are given up, and counted."""
    made = play(joiner(pending=5), *(acted(f"never{n}", "a", 0) for n in range(20)))
    assert set(made._orphans) == {f"never{n}" for n in range(15, 20)} and made.counts == {"unknown_request": 15}
    play(made, *(acted("never19", "a", 0) for _ in range(2 * MOST_ITEMS)), shown("never19", 1))
    assert taken(made) == [] and made.counts["unknown_request"] == 15 + MOST_ITEMS + 1
    assert made.counts["early"] == MOST_ITEMS and made._pending["never19"].labels == [1.0, 0.0]
    made.finish()
    assert made.counts["unknown_request"] == 15 + MOST_ITEMS + 1 + 4


def test_an_action_behind_its_window_is_late() -> None:
    made = play(joiner(), acted("r", "a", 300), shown("r", 150))
    assert taken(made) == [("a", 0.0), ("b", 0.0)] and made.counts == {"early": 1, "late": 1}


def test_a_clock_that_jumps_closes_nothing_until_others_agree() -> None:
    made = play(joiner(ahead=1000.0), shown("r", 0), shown("s", 1e9, user="v"))
    assert made.watermark == 0 and not made.ready and made.counts == {"future": 1}
    play(made, acted("s", "a", 1e9), acted("r", "a", 50))
    made.advance(101)
    assert len(made.closed) == 2 and all(found.labels == [1.0, 0.0] for found in made.closed)
    for number in range(AGREE):
        assert made.watermark == 101
        play(made, shown(f"t{number}", 1e9))
    assert made.watermark == 1e9


def test_times_that_are_in_order_are_believed() -> None:
    made = joiner(ahead=1000.0)
    made.trusting = True
    play(made, shown("r", 0), shown("s", 1e9, user="v"))
    assert made.watermark == 1e9 and not made.counts
    assert [found.time for found in made._pending.values()] == [1e9]


def events_of(choices: list[tuple[int, int, int]]) -> list[Shown | Acted]:
    """(0: shown, else acted; request; seconds since the last one), in the order of time."""
    time, events = 0.0, []
    for kind, request, seconds in choices:
        time += seconds
        name, item = f"r{request}", "abc"[(kind + request) % 3]
        events.append(shown(name, time, "abc") if kind == 0 else acted(name, item, time))
    return events


CHOICES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 60)), max_size=25)


@pytest.mark.parametrize("late", LATE)
@given(choices=CHOICES, cut=st.integers(0, 25))
@settings(max_examples=40, deadline=None)
def test_every_impression_is_trained_once_and_as_a_model_of_it_says(
    late: str, choices: list[tuple[int, int, int]], cut: int
) -> None:
    """Beside a model that counts; and its state, through JSON, goes on in the same way."""
    made, events = joiner(late), events_of(choices)
    for number, event in enumerate(events):
        if number == cut:
            state = json.loads(json.dumps(made.state()))
            past = Past(5, state=json.loads(json.dumps(made.past.state())))
            made = Joiner.of(made.cfg, past, state)
            assert json.loads(json.dumps(made.state())) == state
        play(made, event)
    made.finish()
    impressions = impressions_of(events)
    found = Counter((found.request, found.time, tuple(found.labels)) for found in made.closed)
    assert found == Counter(impressions)
    trained = Counter((sample.item, sample.label) for sample in made.ready)
    positives = Counter(
        item for _, _, labels in impressions for item, label in zip("abc", labels, strict=True) if label
    )
    assert Counter({item: n for (item, label), n in trained.items() if label}) == positives
    negatives = {item: n for (item, label), n in trained.items() if not label}
    for item in "abc":
        once = len(impressions) - positives[item]
        if late == "wait":
            assert negatives.get(item, 0) == once
        else:  # those positives that came late were taken for negatives before
            assert once <= negatives.get(item, 0) <= len(impressions)
    if late == "fake_negative":
        early = made.counts["early"]
        assert sum(negatives.values()) + early >= 3 * len(impressions) - early


def impressions_of(events: list[Shown | Acted]) -> list[tuple[str, float, tuple[float, ...]]]:
    """Of each impression the items acted on until its window ends, or, where a request did not wait yet, before."""
    found: list[tuple[str, float, tuple[float, ...]]] = []
    open_: dict[str, tuple[float, set[str]]] = {}
    early: dict[str, tuple[float, set[str]]] = {}

    def close(name: str) -> None:
        time, items = open_.pop(name)
        found.append((name, time, tuple(float(item in items) for item in "abc")))

    for event in events:
        for name in [name for name, (time, _) in open_.items() if time + 100 < event.time]:
            close(name)
        for name in [name for name, (time, _) in early.items() if time + 100 < event.time]:
            del early[name]
        name = event.request
        assert name is not None
        if isinstance(event, Shown):
            if name not in open_:
                open_[name] = (event.time, early.pop(name, (0.0, set()))[1])
        elif name in open_:
            open_[name][1].add(event.item)
        else:
            early.setdefault(name, (event.time, set()))[1].add(event.item)
    for name in [*open_]:
        close(name)
    return found


@given(st.lists(st.tuples(st.sampled_from("pq"), st.integers(0, 12)), max_size=40))
def test_ids_are_had_once(ids: list[tuple[str, int]]) -> None:
    seen, had = Seen(), set()
    for producer, number in ids:
        assert seen.take(producer, number) == ((producer, number) not in had)
        had.add((producer, number))
        seen = Seen(json.loads(json.dumps(seen.state())))


def test_numbers_without_gaps_take_no_room() -> None:
    seen = Seen()
    assert all(seen.take("p", number) for number in range(1000))
    assert seen.state() == {"p": [999, []]}
    gaps = Seen()
    for number in range(0, 5 * APART, 2):
        assert gaps.take("q", number)
    assert len(gaps.state()["q"][1]) <= APART
    assert not gaps.take("q", 1) and not gaps.take("q", 0) and gaps.take("q", 5 * APART - 3)
