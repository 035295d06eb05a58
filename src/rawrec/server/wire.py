"""What requests and answers of the server look like: typed, bounded, nothing unknown taken.

A string never stands for a file here: pictures come as uploaded bytes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Base64Bytes, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rawrec.arguments import shown
from rawrec.data.dataset import Fields
from rawrec.errors import UserError
from rawrec.shown import listed

LONGEST_LIST = 1000
LONGEST_HISTORY = 5000
LONGEST_LOOK = 100
MOST_IDS = 20_000
MOST_USERS = 1000
MOST_NAMES = 64
"""Fields of an object, and names of columns."""


def few(given: Any, most: int = MOST_NAMES) -> Any:
    """The same. Raises ValueError where an object has more keys: each that is wrong would be an error of its own, and a
    body has room for a million."""
    if isinstance(given, dict) and len(given) > most:
        raise ValueError(f"{len(given):,} fields are given; at most {most:,} are taken")
    return given


FEW = BeforeValidator(few)
Id = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=4096)]
History = Annotated[list[Id], Field(max_length=LONGEST_HISTORY, fail_fast=True)]
Ids = Annotated[list[Id], Field(max_length=MOST_IDS, fail_fast=True)]
Size = Annotated[int, Field(ge=1, le=LONGEST_LIST)]
AnyId = Annotated[str, Field(min_length=1, max_length=4096)]
AnyIds = Annotated[list[AnyId], Field(max_length=1000)]
Plain = str | bool | int | float


class Wire(BaseModel):
    """A record of a request: unknown keys are refused; a number may stand for an id."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few(cls, given: Any) -> Any:
        return few(given)


class Range(Wire):
    """Of a number: between these, both within; one may be left out."""

    least: float | None = None
    most: float | None = None


class Reverse(Wire):
    """None of what `not` means."""

    of: Plain | Annotated[list[Plain], Field(max_length=1000, fail_fast=True)] | Range = Field(alias="not")


Wanted = Plain | Annotated[list[Plain], Field(max_length=1000, fail_fast=True)] | Range | Reverse
Seen = Annotated[dict[Id, bool], BeforeValidator(lambda given: few(given, LONGEST_HISTORY))]
Context = Annotated[dict[Name, Text | int | float | bool | History | Seen | None], Field(max_length=MOST_NAMES), FEW]


class Who(Wire):
    """Who is asked: a known user, or a history of item ids, oldest first, or both (then the history counts)."""

    user: Id | None = Field(None, examples=["u1"])
    history: History | None = Field(None, examples=[["p0001", "p0007"]])


class Lists(Wire):
    """What lists are made of; see `Recommender.recommend`."""

    k: Size = 10
    exclude_seen: Literal["positives", "interactions", "none"] | bool | None = None
    context: Context | None = None
    label: Name | None = None
    items: Ids | None = Field(None, description="the only items that may be in the list")
    exclude: Ids | None = Field(None, description="items that may not be in the list")
    where: Annotated[dict[Name, Wanted], FEW] | None = Field(
        None, examples=[{"category": ["mugs"], "price": {"most": 20}}]
    )
    max_per: Annotated[dict[Name, Size], FEW] | None = Field(None, examples=[{"category": 2}])
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    unknown: Literal["refuse", "skip"] = "refuse"

    def options(self) -> dict[str, Any]:
        """The arguments of `recommend` that say what a list is of, without those that are not given."""
        given = self.model_dump(include=set(Lists.model_fields), exclude_defaults=True, by_alias=True)
        if self.where is not None:
            given["where"] = {name: wanted_of(value) for name, value in self.where.items()}
        return given


class RecommendAsked(Lists, Who):
    """One list."""

    explain: bool = False


class BatchAsked(Lists):
    """Lists of several known users at once."""

    users: Annotated[list[Id], Field(min_length=1, max_length=MOST_USERS, fail_fast=True)]


class ScoreAsked(Who):
    """Scores of items, in their order."""

    items: Ids
    context: Context | None = None
    label: Name | None = None


class SimilarAsked(Wire):
    """Items like one, by content, id, image, text or one field."""

    item: Id = Field(examples=["p0001"])
    k: Size = 10
    by: Name | None = None


class SearchAsked(Who):
    """Items for what was typed, of a run that reads queries."""

    query: Text
    k: Size = 10
    by: Literal["score", "content"] = "score"
    candidates: Annotated[int, Field(ge=1, le=100_000)] | None = None
    exclude_seen: Literal["positives", "interactions", "none"] | bool | None = False
    context: Context | None = None
    label: Name | None = None


class HiddenAsked(Wire):
    """Items that no list may hold from now on, or again."""

    hide: Ids = []
    show: Ids = []


class EventsAsked(Wire):
    """What was shown by others than this server, and what was done: events as docs/online.md has them, of the kinds
    `shown` and `acted`. `producer` and `sequence`, the id by which an event that is sent again is known, and `time` may
    be left out."""

    events: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1000)] = Field(
        examples=[[{"kind": "acted", "request": "9f0c", "item": "p0001"}]]
    )


# ------------------------------------------------------------------------------------------------------------ the page
class WishAsked(Wire):
    """See `rawrec.browse.view.Wish`."""

    user: AnyId | None = None
    history: AnyIds | None = None
    until: Literal["train", "now"] = "train"
    k: Annotated[int, Field(ge=1, le=LONGEST_LOOK)] = 20
    explain: bool = True
    of: Annotated[int, Field(ge=0, le=1)] = 0
    exclude: AnyIds = []
    where: dict[Name, Wanted] = {}
    max_per: dict[Name, Size] = {}
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0


class TryAsked(WishAsked):
    """An item that does not exist: its texts by field, its pictures by field, in Base64."""

    texts: dict[Name, Text] = {}
    pictures: dict[Name, Annotated[list[Base64Bytes], Field(max_length=4)]] = {}
    by: Literal["", "content", "image", "text"] = ""


class FoundAsked(Wire):
    """Items by words of their titles, by columns, by how often training saw them."""

    find: Annotated[str, Field(max_length=400)] = ""
    where: dict[Name, Wanted] = {}
    bucket: Literal["cold", "rare", "medium", "warm"] | None = None
    at: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    k: Annotated[int, Field(ge=1, le=200)] = 40


class FactsAsked(Wire):
    """Items of which the facts are wanted."""

    items: AnyIds


# ------------------------------------------------------------------------------------------------------------- answers
class EventsAnswer(BaseModel):
    """What became of events, which are on the disk: how many are new, and how many were there already (by their id).
    unknown: names of fields that were left out."""

    taken: int
    duplicates: int
    unknown: list[str] = []


class Served(BaseModel):
    """Which version answered: its name; the time of the latest event it knows, seconds since 1970 (None: the data have
    no times); seconds since then."""

    version: str
    watermark: float | None
    age: float | None


class One(BaseModel):
    """An item of a list; `because`, `by` and `parts` where reasons were asked for."""

    item: str
    score: float
    because: list[dict[str, Any]] | None = None
    by: str | None = None
    parts: dict[str, float] | None = None


class ListAnswer(BaseModel):
    """Items, best first. measure: what scores are, `probability`, `score` or `cosine`. request: by which actions may
    name this answer, where there is a log."""

    request: str | None = None
    items: list[One]
    measure: str
    served: Served


class UserList(BaseModel):
    """The list of one user of several."""

    user: str
    items: list[One]
    request: str | None = None


class BatchAnswer(BaseModel):
    """Lists in the order of the users."""

    lists: list[UserList]
    measure: str
    served: Served


class ScoreAnswer(BaseModel):
    """Scores in the order of the items."""

    scores: list[float]
    measure: str
    served: Served


class ItemsAnswer(BaseModel):
    """What became of items: taken in, or hidden by now. changed: known ones whose change is in the log; the trainer
    makes their content anew, and a version to come brings it."""

    added: list[str] = []
    changed: list[str] = []
    hidden: int
    served: Served


class Failure(BaseModel):
    """Any answer that is not 200."""

    error: str


def wanted_of(value: Wanted) -> Any:
    """A wish of `where`, as the recommender reads it."""
    if isinstance(value, Range):
        if value.least is None and value.most is None:
            raise UserError("where: a range needs `least` or `most`")
        return (value.least, value.most)
    if isinstance(value, Reverse):
        return {"not": wanted_of(value.of)}
    return value


def item_of(given: Mapping[str, Any], pictures: Mapping[str, list[bytes]], fields: Fields) -> dict[str, Any]:
    """A new item as `add_items` takes it, of a JSON object and uploaded files by the names of their fields.

    Raises UserError where the object says what a picture is: a string would be read as the name of a file here.
    """
    item = dict(given)
    for name in (*fields.image, "image"):
        if name in item:
            raise UserError(f"{name}: pictures are uploaded as files of the form, not named in `item`")
    for name, files in pictures.items():
        if not fields.image or name not in (*fields.image, "image"):
            raise UserError(f"{shown(name)} is no image field. Known: {listed(fields.image, name)}")
        item[name] = files
    return item
