"""From a request to what the recommender says: the work of the model's thread, for one request or for several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rawrec.errors import UserError
from rawrec.server import wire
from rawrec.server.held import Version, check_item
from rawrec.serving.explaining import Explained
from rawrec.serving.recommender import Scored

Now = Callable[[], Version]
"""The version that answers at this moment."""


def recommend(now: Now, asked: Sequence[wire.RecommendAsked]) -> list[Any]:
    """Lists of requests that ask alike but for their user. Where one of them is wrong, each is asked alone."""
    version, options = now(), asked[0].options()
    users = [one.user for one in asked if one.user is not None]
    if len(asked) > 1 and len(users) == len(asked):
        try:
            table = version.rec.recommend(users=users, **options)
        except UserError:
            return [_each(recommend_one, version, one) for one in asked]
        return [_list(version, found) for found in _rows(table)]
    return [_each(recommend_one, version, one) for one in asked]


def recommend_one(version: Version, asked: wire.RecommendAsked) -> wire.ListAnswer:
    found = version.rec.recommend(asked.user, asked.history, explain=asked.explain, **asked.options())
    return _list(version, found)


def batch(now: Now, asked: Sequence[wire.BatchAsked]) -> list[Any]:
    """Lists of several users, of one request."""
    version = now()
    return [_each(_batch, version, one) for one in asked]


def _batch(version: Version, asked: wire.BatchAsked) -> wire.BatchAnswer:
    table = version.rec.recommend(users=asked.users, **asked.options())
    lists = [
        wire.UserList(user=user, items=_items(found))
        for user, found in zip(table["user_id"].to_pylist(), _rows(table), strict=True)
    ]
    return wire.BatchAnswer(lists=lists, measure=version.rec.measure, served=version.served())


def score(now: Now, asked: Sequence[wire.ScoreAsked]) -> list[Any]:
    version = now()
    return [_each(_score, version, one) for one in asked]


def _score(version: Version, asked: wire.ScoreAsked) -> wire.ScoreAnswer:
    rec = version.rec
    scores = rec.score(asked.user, asked.items, asked.history, asked.context, asked.label)
    return wire.ScoreAnswer(scores=scores, measure=rec.measure, served=version.served())


def similar(now: Now, asked: Sequence[wire.SimilarAsked]) -> list[Any]:
    version = now()
    return [_each(_similar, version, one) for one in asked]


def _similar(version: Version, asked: wire.SimilarAsked) -> wire.ListAnswer:
    check_item(version.rec, asked.item)
    return _list(version, version.rec.similar(asked.item, asked.k, asked.by), "cosine")


def search(now: Now, asked: Sequence[wire.SearchAsked]) -> list[Any]:
    version = now()
    return [_each(_search, version, one) for one in asked]


def _search(version: Version, asked: wire.SearchAsked) -> wire.ListAnswer:
    given = asked.model_dump(exclude={"query"})
    measure = "cosine" if asked.by == "content" else version.rec.measure
    return _list(version, version.rec.search(asked.query, **given), measure)


def _each(ask: Callable[[Version, Any], Any], version: Version, asked: Any) -> Any:
    """The answer, or the exception in its place: one that is wrong does not spoil the others."""
    try:
        return ask(version, asked)
    except Exception as error:
        return error


def _list(version: Version, found: Sequence[Scored] | Sequence[Explained], measure: str = "") -> wire.ListAnswer:
    return wire.ListAnswer(items=_items(found), measure=measure or version.rec.measure, served=version.served())


def _items(found: Sequence[Scored] | Sequence[Explained]) -> list[wire.One]:
    return [_one(one) for one in found]


def _one(one: Scored | Explained) -> wire.One:
    if isinstance(one, Scored):
        return wire.One(item=one.item, score=one.score)
    because = [{"item": item, "weight": weight} for item, weight in one.because]
    return wire.One(item=one.item, score=one.score, because=because, by=one.by, parts=dict(one.parts))


def _rows(table: Any) -> list[list[Scored]]:
    """The lists of a table of `recommend`."""
    pairs = zip(table["items"].to_pylist(), table["scores"].to_pylist(), strict=True)
    return [[Scored(*one) for one in zip(items, scores, strict=True)] for items, scores in pairs]
