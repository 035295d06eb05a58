"""Events on the wire: what is written is read again, and what is none is refused with a reason."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawrec.errors import UserError
from rawrec.stream import events
from rawrec.stream.events import Acted, Gone, Item, Picture, Shown, read_event, write_event

HEAD: dict[str, Any] = {"producer": "p", "sequence": 3, "time": 1.5}
NAME = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())
NUMBER = st.floats(allow_nan=False, allow_infinity=False)


def wire(**values: Any) -> bytes:
    return json.dumps(HEAD | values).encode()


@given(
    items=st.lists(NAME, min_size=1, max_size=5, unique=True),
    context=st.dictionaries(NAME, st.one_of(NAME, NUMBER, st.booleans(), st.none(), st.integers(-9, 9)), max_size=3),
    query=st.none() | st.text(max_size=9).filter(str.isprintable),
    score=NUMBER,
)
def test_shown_survives_the_wire(items: list[str], context: dict[str, Any], query: str | None, score: float) -> None:
    shown = Shown(**HEAD, request="r", items=items, context=context, query=query, scores=[score] * len(items))
    assert read_event(write_event(shown)).event == shown


@pytest.mark.parametrize(
    "event",
    [
        Acted(**HEAD, item="i", user="u", value=-1.0),
        Gone(**HEAD, item="i"),
        Item(
            **HEAD,
            item="i",
            fields={"title": "A film", "genres": ["a", "b"], "year": 1999.0, "vector": [0.5, 1.0]},
            pictures={"poster": [Picture(data=b"\x00\xff"), Picture(address="https://x/y.png")]},
        ),
    ],
    ids=["acted", "gone", "item"],
)
def test_events_survive_the_wire(event: events.Event) -> None:
    found = read_event(write_event(event))
    assert found.event == event and found.unknown == ()


def test_pictures_are_bytes() -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        data = wire(kind="item", item="i", pictures={"poster": [{"data": encode(b"\xfb\xff\x00x").decode()}]})
        event = read_event(data).event
        assert isinstance(event, Item) and event.pictures["poster"][0].data == b"\xfb\xff\x00x"


def test_fields_of_a_newer_producer_are_left_out_and_named() -> None:
    found = read_event(wire(kind="gone", item="i", why="sold", **{"": 1}))
    assert found.event == Gone(**HEAD, item="i") and found.unknown == ("", "why")
    both = read_event(wire(kind="shown", request="r", items=["a"], labels=[1.0], context={"why": "x"}, more=[]))
    assert both.event == Shown(**HEAD, request="r", items=["a"], labels=[1.0], context={"why": "x"})
    assert both.unknown == ("more",)
    same = read_event(json.dumps({"item": "i", "kind": "gone", **HEAD}, indent=1).encode())
    assert same.event == Gone(**HEAD, item="i") and same.unknown == ()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[1]", "object"),
        (b"[" * 100_000, "JSON"),
        (wire(kind="bought", item="i"), "kind"),
        (wire(item="i"), "kind"),
        (wire(kind="gone"), "item"),
        (wire(kind="gone", item=""), "at least 1 character"),
        (wire(kind="gone", item="i" * 300), "at most 256"),
        (wire(kind="gone", item="i", sequence=-1), "sequence"),
        (wire(kind="gone", item="i", sequence=2**63), "sequence"),
        (wire(kind="gone", item="i", time=1.7e12), "time"),
        (b'{"producer":"p","sequence":1,"time":NaN,"kind":"gone","item":"i"}', "time"),
        (b'{"producer":"p","sequence":1,"time":1e999,"kind":"gone","item":"i"}', "time"),
        (wire(kind="acted", item="i"), "neither a request nor a user"),
        (wire(kind="shown", request="r", items=[]), "at least 1 item"),
        (wire(kind="shown", request="r", items=[str(n) for n in range(10_000)]), "at most 1000"),
        (wire(kind="shown", request="r", items=["a", "a"]), "twice"),
        (wire(kind="shown", request="r", items=["a", "b"], scores=[0.5]), "1 scores for 2 items"),
        (wire(kind="shown", request="r", items=["a"], labels=[2.0]), "labels"),
        (wire(kind="shown", request="r", items=["a"], context={"a": [1]}), "context"),
        (wire(kind="item", item="i", pictures={"p": [{"data": "*"}]}), "base64"),
        (wire(kind="item", item="i", pictures={"p": [{"address": "file:///etc/passwd"}]}), "pattern"),
        (wire(kind="item", item="i", pictures={"p": [{}]}), "give data or address"),
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused_with_a_reason(data: bytes, said: str) -> None:
    with pytest.raises(UserError) as error:
        read_event(data)
    assert said in str(error.value) and len(str(error.value)) < 600


def test_large_events_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="at most"):
        read_event(b"x" * (events.LARGEST + 1))
    big = Shown(**HEAD, request="r", items=["i"], context={str(n): "x" * 20_000 for n in range(64)})
    with pytest.raises(UserError, match="1,048,576"):
        write_event(big)
