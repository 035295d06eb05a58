"""From a request to what the recommender says: the work of the model's thread, for one request or for several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rawrec.errors import UserError
from rawrec.server import wire
from rawrec.server.held import Version, check_item
from rawrec.server.recent import Recent
from rawrec.serving.explaining import Explained
from rawrec.serving.recommender import Recommender, Scored

Now = Callable[[], Version]
"""The version that answers at this moment."""


class Listed(NamedTuple):
    """A list, and the history that it was made by where that is not what the version itself knows of the user."""

    answer: wire.ListAnswer
    history: list[str] | None


def recommend(now: Now, recent: Recent, asked: Sequence[wire.RecommendAsked]) -> list[Any]:
    """`Listed` of requests that ask alike but for their user. Where one of them is wrong, each is asked alone."""
    version, options = now(), asked[0].options()
    users = [one.user for one in asked if one.user is not None]
    plain = len(users) == len(asked) > 1 and not any(recent.of(user, version.rec) for user in users)
    if plain:
        try:
            table = version.rec.recommend(users=users, **options)
        except UserError:
            plain = False
        else:
            return [Listed(_list(version, found), None) for found in _rows(table)]
    return [_each(lambda v, one: _recommend_one(v, recent, one), version, one) for one in asked]


def _recommend_one(version: Version, recent: Recent, asked: wire.RecommendAsked) -> Listed:
    user, history, options = asked.user, asked.history, asked.options()
    if user is not None and history is None and (own := recent.of(user, version.rec)):
        user, history, options = _with(version.rec, user, own, options)
    found = version.rec.recommend(user, history, explain=asked.explain, **options)
    return Listed(_list(version, found), history)


def _with(
    rec: Recommender, user: str, own: list[str], options: dict[str, Any]
) -> tuple[str | None, list[str], dict[str, Any]]:
    """User, history and options as the recommender is to be asked of somebody who took more than it knows of."""
    if not rec.knows_user(user):
        return None, own, options
    if rec.excluded(options.get("exclude_seen")) == "interactions":
        options = {**options, "exclude": [*options.get("exclude", ()), *rec.history(user, met=True)]}
    return user, [*rec.history(user), *own], options


def batch(now: Now, recent: Recent, asked: Sequence[wire.BatchAsked]) -> list[Any]:
    """Lists of several users, of one request."""
    version = now()
    return [_each(lambda v, one: _batch(v, recent, one), version, one) for one in asked]


def _batch(version: Version, recent: Recent, asked: wire.BatchAsked) -> tuple[wire.BatchAnswer, list[Listed]]:
    more = {user: own for user in asked.users if (own := recent.of(user, version.rec))}
    plain = [user for user in asked.users if user not in more]
    table = version.rec.recommend(users=plain, **asked.options()) if plain else None
    found = {} if table is None else dict(zip(table["user_id"].to_pylist(), _rows(table), strict=True))
    options = asked.model_dump(exclude={"users"}, by_alias=True)
    lists = [
        Listed(_list(version, found[user]), None)
        if user in found
        else _recommend_one(version, recent, wire.RecommendAsked(user=user, **options))
        for user in asked.users
    ]
    each = [wire.UserList(user=user, items=one.answer.items) for user, one in zip(asked.users, lists, strict=True)]
    return wire.BatchAnswer(lists=each, measure=version.rec.measure, served=version.served()), lists


def score(now: Now, recent: Recent, asked: Sequence[wire.ScoreAsked]) -> list[Any]:
    version = now()
    return [_each(lambda v, one: _score(v, recent, one), version, one) for one in asked]


def _score(version: Version, recent: Recent, asked: wire.ScoreAsked) -> wire.ScoreAnswer:
    rec, user, history = version.rec, asked.user, asked.history
    if user is not None and history is None and (own := recent.of(user, rec)):
        user, history, _ = _with(rec, user, own, {})
    scores = rec.score(user, asked.items, history, asked.context, asked.label)
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
