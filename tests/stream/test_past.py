"""Histories beside a list of everything: the dataset's and the stream's, each event once, strictly before a moment."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from rawrec.stream.past import ROOM, Past

LENGTH = 3
EVENTS = st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), max_size=30)


@given(own=EVENTS, told=EVENTS, asked=st.lists(st.integers(0, 32), min_size=1, max_size=30), cut=st.integers(0, 30))
@settings(max_examples=200, deadline=None)
def test_the_latest_of_both(own: list, told: list, asked: list[int], cut: int) -> None:
    line = sorted(dict.fromkeys((float(time), item) for time, item in own))
    apart = [time for time, _ in line], [item for _, item in line]
    past, kept = Past(LENGTH, lambda user: apart), list[tuple[float, str]]()
    for n in range(max(len(told), len(asked))):
        if n == cut:  # its state is all of it
            past = Past(LENGTH, lambda user: apart, json.loads(json.dumps(past.state())))
        if n < len(told):
            event = float(told[n][0]), told[n][1]
            past.add("u", event[1], event[0])
            kept = sorted({*kept, event})[-LENGTH - ROOM :]
        moment = float(asked[n % len(asked)])
        every = sorted(dict.fromkeys([*line, *kept]), key=lambda one: one[0])
        assert past.at("u", moment) == [item for time, item in every if time < moment][-LENGTH:]
        assert past.at(None, moment) == []
    assert apart == ([time for time, _ in line], [item for _, item in line])


def test_who_is_forgotten_has_what_the_dataset_says() -> None:
    past = Past(LENGTH, lambda user: ([1.0], ["a"]))
    past.add("u", "b", 2.0)
    assert past.at("u", 9.0) == ["a", "b"]
    past.forget(5.0)
    assert past.at("u", 9.0) == ["a"] and past.state() == {}
