"""Events of a stream as typed records: what was shown, what was done about it, items that come, change and go.

On the wire an event is a JSON object in UTF-8 (see `docs/online.md`). Every record is bounded in size, so that none can
fill a memory; a reader takes fields that it does not know for those of a newer producer, and leaves them out.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from rawrec.errors import UserError
from rawrec.reading import first_problem

MIB = 1 << 20
LARGEST = 16 * MIB
"""Bytes of an event on the wire, which pictures of an item may need."""
LARGEST_PLAIN = MIB
"""The same of events without pictures."""
MOST_ITEMS = 1000
"""Items that one event may show; the longest of lists that people look at have some hundred."""
MOST_PICTURES = 64
LATEST = 2.0**38
"""Seconds since 1970, some thousand years: a time beyond is none (milliseconds, most often)."""

Id = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=65536)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Value = str | bool | int | Number | None
"""Of a context."""
Raw = Text | Number | list[Text] | list[Number]
"""Of a field of an item: a text, a number, several of either."""


class _Event(BaseModel):
    """producer, sequence: the event's id. A producer numbers its events in the order in which it appends them.
    time: seconds since 1970 (UTC) when it happened."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    producer: Id
    sequence: int = Field(ge=0, lt=2**63)
    time: float = Field(ge=0, lt=LATEST)


class Shown(_Event):
    """Items that somebody was shown, in their order, by the answer to one request.

    context: what else was known then, by name; history: the items that the server read as the user's past, oldest
    first; scores: click probabilities as served; version: what served them; labels: what came of it, where that is
    known already (rows of a table): nothing is waited for then.
    """

    kind: Literal["shown"] = "shown"
    request: Id
    items: list[Id] = Field(min_length=1, max_length=MOST_ITEMS)
    user: Id | None = None
    query: Annotated[str, Field(max_length=4096)] | None = None
    session: Id | None = None
    context: dict[Name, Value] = Field(default={}, max_length=64)
    history: list[Id] | None = Field(default=None, max_length=10_000)
    version: Id | None = None
    scores: list[Number] | None = None
    labels: list[Annotated[float, Field(ge=0, le=1)]] | None = None

    @model_validator(mode="after")
    def _fit(self) -> Self:
        count = len(self.items)
        if self.scores is not None and len(self.scores) != count:
            raise ValueError(f"{len(self.scores)} scores for {count} items")
        if self.labels is not None and len(self.labels) != count:
            raise ValueError(f"{len(self.labels)} labels for {count} items")
        if count > 1 and len(set(self.items)) < count:
            raise ValueError("an item stands twice among those of a request")
        return self


class Acted(_Event):
    """What somebody did with an item, in answer to a request, or of a user, whose latest impression of it is meant.

    value: above 0 it makes the impression a positive."""

    kind: Literal["acted"] = "acted"
    item: Id
    request: Id | None = None
    user: Id | None = None
    action: Name = "click"
    value: Number = 1.0

    @model_validator(mode="after")
    def _whose(self) -> Self:
        if self.request is None and self.user is None:
            raise ValueError("neither a request nor a user is named")
        return self


class Picture(BaseModel):
    """The bytes of a picture's file (base64 on the wire), or an address that begins with http."""

    model_config = ConfigDict(extra="forbid", frozen=True, val_json_bytes="base64", ser_json_bytes="base64")

    data: bytes | None = None
    address: Annotated[str, Field(max_length=2048, pattern=r"^https?://")] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.data is None) == (self.address is None):
            raise ValueError("give data or address")
        return self


class Item(_Event):
    """An item that is new, or has changed: what is not named stays as it was.

    fields: texts, categories, numbers, ready-made vectors by the dataset's names; pictures: by image field.
    """

    kind: Literal["item"] = "item"
    item: Id
    fields: dict[Name, Raw] = Field(default={}, max_length=256)
    pictures: dict[Name, Annotated[list[Picture], Field(max_length=MOST_PICTURES)]] = Field(default={}, max_length=32)


class Gone(_Event):
    """An item that is not to be recommended any more."""

    kind: Literal["gone"] = "gone"
    item: Id


Event = Shown | Acted | Item | Gone
_READER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])
_KNOWN = {record.model_fields["kind"].default: frozenset(record.model_fields) for record in (Shown, Acted, Item, Gone)}


class Read(NamedTuple):
    """An event, and the names of fields that this version does not know."""

    event: Event
    unknown: tuple[str, ...] = ()


def write_event(event: Event) -> bytes:
    """An event as JSON, at most `LARGEST` bytes. Raises UserError where it is larger."""
    data = event.model_dump_json(exclude_none=True).encode()
    _check_size(data, event.kind == "item")
    return data


def read_event(data: bytes) -> Read:
    """The reverse of `write_event`. Raises UserError, which says what is wrong, where it is no event."""
    _check_size(data, pictures=True)
    try:
        event, unknown = _READER.validate_json(data, extra="forbid"), ()
    except ValidationError:  # it may only have fields that this version does not know
        event, unknown = _leaving_out(data)
    _check_size(data, event.kind == "item")
    return Read(event, unknown)


def _leaving_out(data: bytes) -> tuple[Event, tuple[str, ...]]:
    """An event without the fields that this version does not know, and their names."""
    try:
        event = _READER.validate_json(data)
    except ValidationError as error:
        raise UserError(first_problem(error)) from None
    named: Any = json.loads(data)
    return event, tuple(sorted(str(name)[:64] for name in named if name not in _KNOWN[event.kind]))


def _check_size(data: bytes, pictures: bool) -> None:
    limit = LARGEST if pictures else LARGEST_PLAIN
    if len(data) > limit:
        raise UserError(f"an event of {len(data):,} bytes; at most {limit:,} are taken")
