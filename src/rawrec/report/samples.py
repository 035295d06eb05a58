"""Users and cold items drawn by chance, for a person to look at."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rawrec.data.dataset import Dataset
from rawrec.data.sampling import TIMELESS
from rawrec.errors import UserError
from rawrec.evaluation.ctr import group_auc
from rawrec.report.pictures import Tile, Tiles
from rawrec.report.run import TEST, Run
from rawrec.shown import visible

SAMPLED_USERS = SAMPLED_ITEMS = 6
EXTREME_USERS = 3
"""Users of whom the run judges best, and as many of whom it judges worst."""
FURTHER_USERS = 100
"""Users whose stored lists stand in the page to be chosen, without pictures of their own."""
SHOWN = 8
WHOLE = 1000
"""Places of a list in which what was taken is looked for."""
GROUPS = DRAWN, BEST, WORST = "drawn at random", "best judged", "worst judged"


class Recommending(Protocol):
    """The part of a recommender that a report shows: both give (item id, score), best first."""

    def recommend(self, *, user: str, history: Sequence[str], k: int) -> Sequence[tuple[str, float]]: ...

    def similar(self, *, item: str, k: int) -> Sequence[tuple[str, float]]: ...


@dataclass(frozen=True)
class Standing:
    """How well the run judges each user, `[n_users]`, nan where that is unknown; name: of the metric; weight: what a
    user is judged by, which goes first among equals; meaning: in words."""

    name: str
    meaning: str
    values: NDArray[np.float64]
    weight: NDArray[np.int64]

    def extremes(self, among: NDArray[np.integer[Any]]) -> tuple[list[int], list[int]]:
        """The best and the worst of some users (rows, ascending), disjoint."""
        users = among[~np.isnan(self.values[among])]
        order = users[np.lexsort((users, -self.weight[users], -self.values[users]))].tolist()
        count = min(EXTREME_USERS, len(order) // 2)
        worst = users[np.lexsort((users, -self.weight[users], self.values[users]))].tolist()
        best = order[:count]
        return best, [user for user in worst if user not in best][:count]


LEAST = 10
"""Impressions of a user whose AUC says something."""


def standing(mine: Run, data: Dataset) -> Standing | None:
    """Of rankers the AUC within a user's test impressions, of retrieval models the NDCG of a user's list."""
    values, weight = np.full(data.n_users, np.nan), np.zeros(data.n_users, np.int64)
    if mine.judges_impressions:
        groups = group_auc(mine.test["label"], mine.test["score"], mine.test["user"])
        enough = groups.defined & (groups.impressions >= LEAST)
        enough = enough if enough.sum() >= 2 * EXTREME_USERS else groups.defined
        values[groups.groups[enough]] = groups.auc[enough]
        weight[groups.groups] = groups.impressions
        least = f", of users with {LEAST} and more" if (weight[~np.isnan(values)] >= LEAST).all() else ""
        return Standing("AUC", f"AUC within a user's test impressions{least}", values, weight)
    names = [] if mine.topk is None else mine.topk.columns
    ks = [int(name.removeprefix("ndcg@")) for name in names if name.startswith("ndcg@")]
    if mine.topk is None or not ks:
        return None
    k = min(sorted(ks), key=lambda k: abs(k - 20))
    values[mine.topk["user"].to_numpy()] = mine.topk[f"ndcg@{k}"].cast(pl.Float64).to_numpy()
    positive = data.positive(mine.config.data.label) & (data.retrieval_split(mine.config.data.split) == TEST)
    weight = np.bincount(data.users[positive], minlength=data.n_users)
    return Standing(f"NDCG@{k}", f"NDCG of a user's list of {k}", values, weight)


@dataclass(frozen=True)
class Person:
    """A user as the page shows them: dense index, why they are shown; history, recommended and later items as rows.

    scores, ranks: the model's score of what is recommended, and the place of items in the list, 1 for the best; empty
    where they are not known. depth: places in which it was looked for. value: see `Standing`.
    """

    user: int
    group: str
    history: list[int]
    recommended: list[int]
    later: list[int]
    value: float | None = None
    scores: list[float] = field(default_factory=list)
    ranks: dict[int, int] = field(default_factory=dict)
    depth: int = 0

    def rows(self) -> set[int]:
        return {*self.history, *self.recommended, *self.later[:SHOWN]}


@dataclass(frozen=True)
class People:
    """Users of a page; eligible: drawn from so many. further: those who can be chosen beside.

    note: why there are none. told: what the reader should know of how the lists were made. by: how best and worst were
    found.
    """

    data: Dataset
    entries: list[Person]
    eligible: int
    note: str = "No user has a positive in the test part and one before it."
    told: str = ""
    further: list[Person] = field(default_factory=list)
    by: Standing | None = None

    def rows(self) -> set[int]:
        """Items that are shown with a picture."""
        return {row for person in self.entries for row in person.rows()}

    def named(self) -> set[int]:
        """Items that further users' lists name."""
        return {row for person in self.further for row in person.rows()}

    def tiles(self, tiles: Tiles) -> list[dict[str, Any]]:
        return [
            {
                "user": self.data.user_ids[one.user],
                "group": one.group,
                "order": GROUPS.index(one.group),
                "value": f"{self.by.name} {one.value:.3f}" if self.by and one.value is not None else "",
                "history": [tiles.tile(row) for row in one.history],
                "recommended": [
                    tiles.tile(row, note, hit=row in one.later)
                    for row, note in zip(one.recommended, _scores(one), strict=True)
                ],
                "later": [tiles.tile(row, _rank(one, row), hit=row in one.recommended) for row in one.later[:SHOWN]],
                "hits": len(set(one.recommended) & set(one.later)),
                "later_count": len(one.later),
            }
            for one in self.entries
        ]

    def plain(self, place: Mapping[int, int]) -> list[list[Any]]:
        """Further users for the page's script: id, value, history, recommended, later, how many were later. place: of
        every item that they name, in the page's catalogue."""
        return [
            [visible(str(self.data.user_ids[one.user])), one.value]
            + [[place[row] for row in rows] for rows in (one.history, one.recommended, one.later[:SHOWN])]
            + [len(one.later)]
            for one in self.further
        ]


def _scores(one: Person) -> list[str]:
    return [f"{score:.3f}".replace("-", "−") for score in one.scores] or [""] * len(one.recommended)


def _rank(one: Person, row: int) -> str:
    rank = one.ranks.get(row)
    return f"rank {rank:,}" if rank else f"not in the list of {one.depth:,}"


def sample_users(
    mine: Run,
    data: Dataset,
    part: NDArray[np.int8],
    recommender: Recommending | None,
    among: NDArray[np.integer[Any]] | None = None,
) -> People:
    """Users drawn at random (seed 0) among those with an earlier and a test positive, and a list to show; beside them
    those whom the run judges best and worst.

    The history is the one that the model read: what came before the user's first test positive. among: the users who
    may be drawn; None: all.
    """
    positive = data.positive(mine.config.data.label)
    timeless = data.meta.splits[mine.config.data.split]["kind"] in TIMELESS
    times = None if timeless else data.timestamps
    taken = positive & (part == TEST)
    before = positive & (part == 0) if times is None or mine.config.data.history_mode == "train" else positive
    if times is not None:
        first = np.full(data.n_users, np.iinfo(np.int64).min)
        first[data.users[taken]] = np.iinfo(np.int64).max
        np.minimum.at(first, data.users[taken], times[taken])
        before = before & (times < first[data.users])
    eligible = np.intersect1d(data.users[before], data.users[taken])
    stored: dict[int, list[int]] = {}
    if mine.topk is not None:
        eligible = np.intersect1d(eligible, mine.topk["user"].to_numpy())
    elif recommender is None:
        return People(data, [], 0, "No list was stored with this run, and no recommender was at hand.")
    eligible = eligible if among is None else np.intersect1d(eligible, among)
    by = standing(mine, data)
    order = np.random.default_rng(0).permutation(eligible).tolist()
    best, worst = by.extremes(eligible) if by is not None else ([], [])
    chosen = [(user, DRAWN) for user in order[:SAMPLED_USERS]]  # one of them may be among the best, too
    chosen += [(user, BEST) for user in best] + [(user, WORST) for user in worst]
    shown = {user for user, _ in chosen}
    others = [user for user in order if user not in shown][:FURTHER_USERS] if mine.topk is not None else []
    if mine.topk is not None:
        lists = mine.topk.filter(pl.col("user").is_in([*shown, *others]))
        stored = dict(zip(lists["user"].to_list(), lists["items"].to_list(), strict=True))
    kept = np.flatnonzero(np.isin(data.users, [*shown, *others]))
    whose = data.users[kept]

    def in_order(user: int, mask: NDArray[np.bool_]) -> NDArray[np.integer[Any]]:
        rows = kept[whose == user]
        rows = rows[mask[rows]]
        rows = rows if data.timestamps is None else rows[np.argsort(data.timestamps[rows], kind="stable")]
        return data.items[rows]

    def earliest_first(user: int, mask: NDArray[np.bool_]) -> list[int]:
        return list(dict.fromkeys(in_order(user, mask).tolist()))

    def person(user: int, group: str, recommended: list[int], **known: Any) -> Person:
        value = None if by is None or np.isnan(by.values[user]) else float(by.values[user])
        history, later = earliest_first(user, before)[-SHOWN:], earliest_first(user, taken)
        return Person(user, group, history, recommended, later, value, **known)

    found = People(data, [], len(eligible), by=by)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for user, group in chosen:
            listed = [item for item in stored.get(user, []) if item >= 0]
            asked: list[tuple[int, float]] = []
            if recommender is not None:
                # from the same history: what was taken in the test part would be left out of the list otherwise
                who, past = str(data.user_ids[user]), [str(item) for item in data.item_ids[in_order(user, before)]]
                try:
                    asked = _whole_list(recommender, who, past, data)
                except UserError:  # of a model that lists are stored of, but that cannot be asked so
                    if user not in stored:
                        raise
            whole = [row for row, _ in asked]
            recommended = (listed if user in stored else whole)[:SHOWN]
            scores: list[float] = []
            if recommended == whole[: len(recommended)]:  # else it was asked something else than evaluation did
                scores = [score for _, score in asked[: len(recommended)]]
                listed = whole
            ranks = {row: place for place, row in enumerate(listed, 1)}
            found.entries.append(person(user, group, recommended, scores=scores, ranks=ranks, depth=len(listed)))
    found.further.extend(person(user, "", [item for item in stored[user] if item >= 0][:SHOWN]) for user in others)
    if stored:
        return found
    told = "No list was stored with this run: these are made for this page, from the history shown"
    lacking = dict.fromkeys(str(warning.message) for warning in caught)
    return replace(found, told="; ".join([told, *lacking]))


def _whole_list(recommender: Recommending, user: str, history: Sequence[str], data: Dataset) -> list[tuple[int, float]]:
    """Item rows and scores of the list of `WHOLE` places, or of as many as there are, the best first."""
    found = recommender.recommend(user=user, history=history, k=min(WHOLE, data.n_items))
    rows = data.item_rows([item for item, _ in found]).tolist()
    return [(row, float(score)) for row, (_, score) in zip(rows, found, strict=True)]


@dataclass(frozen=True)
class ColdItems:
    """Sampled cold items and their neighbours (row, similarity), or a note on why there are none."""

    entries: list[tuple[int, list[tuple[int, float]]]]
    note: str = ""

    def rows(self) -> set[int]:
        return {row for item, near in self.entries for row in [item, *(n for n, _ in near)]}

    def tiles(self, tiles: Tiles) -> list[tuple[Tile, list[Tile]]]:
        return [(tiles.tile(item), [tiles.tile(row, f"{s:.2f}") for row, s in near]) for item, near in self.entries]


def sample_cold_items(data: Dataset, cold: NDArray[np.bool_], recommender: Recommending | None) -> ColdItems:
    """Cold items drawn at random (seed 0), with a picture where the data hold pictures."""
    if recommender is None:
        return ColdItems([], "No recommender was at hand.")
    for name in data.fields.image:
        cold = cold & data.present(name) if (cold & data.present(name)).any() else cold
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(cold))[:SAMPLED_ITEMS].tolist()
    if not drawn:
        return ColdItems([], "Every item of this dataset has training rows.")
    entries, note = [], ""
    for item in drawn:
        try:
            near = recommender.similar(item=str(data.item_ids[item]), k=SHOWN)
        except UserError as error:  # nothing is known of this item
            note = f"The model knows nothing of these items to compare them by: {error}."
            continue
        rows = data.item_rows([item_id for item_id, _ in near]).tolist()
        entries.append((item, list(zip(rows, [float(score) for _, score in near], strict=True))))
    return ColdItems(entries, note)
