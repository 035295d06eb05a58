"""What the page asks, answered in plain values: of one run, or of two side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rawrec import __version__
from rawrec.arguments import shown
from rawrec.browse.facts import Fact, Facts
from rawrec.browse.people import People
from rawrec.browse.points import points
from rawrec.data.splits import BUCKETS
from rawrec.errors import UserError
from rawrec.report.pictures import thumbnail_bytes
from rawrec.serving.explaining import Explained
from rawrec.serving.recommender import Recommender, Scored

K = 20
"""Items of a list, unless asked for others."""
DEPTH = 1000
"""Places in which what came next is looked for."""
NEIGHBOURS = 8
SIDE = 176
"""Pixels of the longer side of a small picture."""


@dataclass
class Wish:
    """What a list is asked for. user, history: see `Recommender.recommend`; until: "train", from what the user took
    before the run was judged, or "now", from all that is known; of a history that is given it says nothing. options:
    where, max_per, diversity, exclude, of `recommend`."""

    user: str | None = None
    history: Sequence[str] | None = None
    until: str = "train"
    k: int = K
    explain: bool = True
    options: Mapping[str, Any] | None = None


class View:
    """recs: the run that is looked at, with its name, and perhaps another beside it."""

    def __init__(self, recs: Sequence[tuple[str, Recommender]]) -> None:
        self.names, self.recs = [name for name, _ in recs], [rec for _, rec in recs]
        self.facts = [Facts(rec) for rec in self.recs]
        self.people = People(self.recs[0])

    def prepare(self) -> None:
        """Read what is then held: who took what, and which items have pictures."""
        self.people.prepare()
        for facts in self.facts:
            facts.prepare()

    def about(self) -> dict[str, Any]:
        """What the page is of."""
        rec, facts = self.recs[0], self.facts[0]
        fields = rec.data.fields
        return {
            "rawrec": __version__,
            "runs": [
                self._run(name, one) | {"short": short}
                for name, one, short in zip(self.names, self.recs, _short(self.recs, self.names), strict=True)
            ],
            "data": rec.people.path.resolve().name,
            "items": rec.n_items,
            "users": rec.people.n_users,
            "buckets": {name: int(facts.bucket_rows(name).sum()) for name in BUCKETS},
            "columns": facts.columns(),
            "texts": fields.text,
            "images": fields.image,
            "split": str(rec.people.meta.splits[self.people.split].get("statement", "")),
            "k": K,
        }

    @staticmethod
    def _run(name: str, rec: Recommender) -> dict[str, Any]:
        info = rec.run.info()
        return {
            "name": name,
            "model": str(info.get("model", "")),
            "paradigm": str(info.get("paradigm") or ""),
            "measure": rec.measure,
            "history": rec.reads_histories,
            "near": rec.ways(),
            "labels": rec.run.config().data.label_names,
        }

    # ------------------------------------------------------------------------------------------------ users and items
    def users(self, find: str = "", k: int = 30) -> dict[str, Any]:
        return self.people.find(find, k)

    def user(self, user: str) -> dict[str, Any]:
        found = self.people.user(user)
        return {**found, "facts": self.of([one[0] for one in (*found["history"], *found["later"])])}

    def items(
        self,
        find: str = "",
        where: Mapping[str, Any] | None = None,
        bucket: str | None = None,
        at: int = 0,
        k: int = 40,
    ) -> dict[str, Any]:
        return self.facts[0].find(find, where, bucket, at, k)

    def item(self, item: str) -> Fact:
        return self._first(item).whole(item)

    def of(self, items: Sequence[str]) -> dict[str, Fact]:
        """Facts of items by id, of the first run that has them."""
        found: dict[str, Fact] = {}
        for facts in self.facts:
            found |= facts.of([item for item in items if item not in found])
        return found

    def _first(self, item: str) -> Facts:
        return next((facts for facts in self.facts if item in facts.rec), self.facts[0])

    def picture(self, item: str, field: str | None = None, side: int = SIDE) -> bytes | None:
        """A small JPEG of an item's first picture; None where it has none that can be decoded."""
        facts = self._first(item)
        if item not in facts.rec:
            return None
        found = facts.rec.picture(item, field)
        return None if found is None else thumbnail_bytes(found, side)

    # ------------------------------------------------------------------------------------------------------- the model
    def near(self, item: str, by: str = "", of: int = 0, k: int = NEIGHBOURS) -> dict[str, Any]:
        """Items like one, by content, id, image or text; "": as the model compares them."""
        rec = self._rec(of)
        if item not in rec:
            raise UserError("there is no such item")
        found = rec.similar(item, k, by or None)
        return {"items": _pairs(found), "facts": self.of([one.item for one in found])}

    def list(self, wish: Wish, of: int = 0) -> dict[str, Any]:
        """A list with its reasons; `ranks`: the places of what came next among the first DEPTH."""
        rec, who, options = self._rec(of), *self._asked(wish, of)
        depth = min(rec.n_items, DEPTH)
        given = dict(wish.options or {})
        excluded = [item for item in (*options.pop("exclude", ()), *given.pop("exclude", ())) if item in rec]
        found = rec.recommend(**who, k=max(depth, wish.k), exclude=excluded, **options, **given)
        places = {one.item: n for n, one in enumerate(found, 1)}
        later = self.people.later(wish.user) if wish.user is not None and self.people.data.has_user(wish.user) else []
        best, told = found[: wish.k], ""
        made: Sequence[Scored | Explained] = best
        if wish.explain and best:
            try:
                made = rec.explain(items=[one.item for one in best], **who)
            except UserError as error:  # of a model that has scores alone
                told = str(error)
        because = [item for one in made if isinstance(one, Explained) for item, _ in one.because]
        return {
            "items": [_item(one) for one in made],
            "ranks": {item: places[item] for item in later if item in places},
            "depth": len(found),
            "measure": rec.measure,
            "told": told,
            "facts": self.of([*(one.item for one in best), *because]),
        }

    def _asked(self, wish: Wish, of: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Who is asked, and what lists leave out: the run as it is usual, of what the user took until then."""
        rec, user = self._rec(of), wish.user
        if wish.history is not None:
            self._reads(rec)
            known = user if user is not None and rec.knows_user(user) else None
            return {"user": known, "history": [item for item in wish.history if item in rec]}, {}
        if user is None:
            raise UserError("say who: a user, or a history")
        if wish.until == "now" or not self.people.data.has_user(user):
            return {"user": user}, {}
        past, usual = self.people.before(user), rec.excluded(None)
        left_out = [] if usual == "none" else past if usual == "positives" else self.people.met(user)
        who: dict[str, Any] = {"user": user if rec.knows_user(user) or not rec.reads_histories else None}
        if rec.reads_histories:
            who["history"] = [item for item in past if item in rec]
        return who, {"exclude_seen": False, "exclude": left_out}

    def attempt(self, item: Mapping[str, Any], wish: Wish, by: str = "", of: int = 0) -> dict[str, Any]:
        """An item that does not exist: its neighbours, and where it would stand in a list. item: fields, pictures as
        lists of bytes."""
        rec = self._rec(of)
        found = rec.similar(dict(item), NEIGHBOURS, by or None)
        answer: dict[str, Any] = {"items": _pairs(found), "facts": self.of([one.item for one in found])}
        if wish.user is None and wish.history is None:
            return answer
        who, options = self._asked(wish, of)
        score = rec.score(items=[dict(item)], **who)[0]
        excluded = [one for one in options.pop("exclude", ()) if one in rec]
        listed = rec.recommend(**who, k=min(rec.n_items, DEPTH), exclude=excluded, **options)
        rank = 1 + sum(one.score > score for one in listed)
        return {**answer, "score": score, "rank": rank, "depth": len(listed), "measure": rec.measure}

    def points(self) -> dict[str, Any]:
        return points(self.facts[0])

    def _rec(self, of: int) -> Recommender:
        if not 0 <= of < len(self.recs):
            raise UserError(f"of={shown(of)}: there are {len(self.recs)} runs here, the first is 0")
        return self.recs[of]

    @staticmethod
    def _reads(rec: Recommender) -> None:
        if not rec.reads_histories:
            raise UserError(
                f"this run is of model `{rec.run.config().label}`, which knows users by their id and reads no history"
            )


def _short(recs: Sequence[Recommender], names: Sequence[str]) -> list[str]:
    """Names for headings: of runs those of their folders, where these differ."""
    folders = [rec.run.path.resolve().name for rec in recs]
    return folders if len(set(folders)) == len(folders) else list(names)


def _pairs(found: Sequence[Scored]) -> list[list[Any]]:
    return [[one.item, one.score] for one in found]


def _item(one: Scored | Explained) -> dict[str, Any]:
    if isinstance(one, Scored):
        return {"item": one.item, "score": one.score}
    because = [[item, weight] for item, weight in one.because]
    return {"item": one.item, "score": one.score, "because": because, "by": one.by, "parts": dict(one.parts)}
