"""Users and cold items drawn by chance, for a person to look at."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rawrec.data.dataset import Dataset
from rawrec.data.sampling import TIMELESS
from rawrec.errors import UserError
from rawrec.report.pictures import Tile, Tiles
from rawrec.report.run import TEST, Run

SAMPLED_USERS = SAMPLED_ITEMS = 6
SHOWN = 8
WHOLE = 1000
"""Places of a list in which what was taken is looked for."""


class Recommending(Protocol):
    """The part of a recommender that a report shows: both give (item id, score), best first."""

    def recommend(self, *, user: str, history: Sequence[str], k: int) -> Sequence[tuple[str, float]]: ...

    def similar(self, *, item: str, k: int) -> Sequence[tuple[str, float]]: ...


@dataclass(frozen=True)
class People:
    """Sampled users: dense index, history, recommended and later items as rows; eligible: drawn from so many.

    note: why there are none. told: what the reader should know of how the lists were made. scores, ranks: of each user
    the model's score of what is recommended, and the place of items in the list, 1 for the best; empty where they are
    not known. depth: places in which it was looked for.
    """

    data: Dataset
    entries: list[tuple[int, list[int], list[int], list[int]]]
    eligible: int
    note: str = "No user has a positive in the test part and one before it."
    told: str = ""
    scores: dict[int, list[float]] = field(default_factory=dict)
    ranks: dict[int, dict[int, int]] = field(default_factory=dict)
    depth: dict[int, int] = field(default_factory=dict)

    def rows(self) -> set[int]:
        return {row for _, *lists in self.entries for items in lists for row in items}

    def tiles(self, tiles: Tiles) -> list[dict[str, Any]]:
        return [
            {
                "user": self.data.user_ids[user],
                "history": [tiles.tile(row) for row in history],
                "recommended": [
                    tiles.tile(row, note, hit=row in later)
                    for row, note in zip(recommended, self._scores(user, len(recommended)), strict=True)
                ],
                "later": [tiles.tile(row, self._rank(user, row), hit=row in recommended) for row in later[:SHOWN]],
                "hits": len(set(recommended) & set(later)),
                "later_count": len(later),
            }
            for user, history, recommended, later in self.entries
        ]

    def _scores(self, user: int, count: int) -> list[str]:
        return [f"{score:.3f}".replace("-", "−") for score in self.scores.get(user, [])] or [""] * count

    def _rank(self, user: int, row: int) -> str:
        rank = self.ranks.get(user, {}).get(row)
        return f"rank {rank:,}" if rank else f"not in the list of {self.depth[user]:,}"


def sample_users(mine: Run, data: Dataset, part: NDArray[np.int8], recommender: Recommending | None) -> People:
    """Users drawn at random (seed 0) among those with an earlier and a test positive, and a list to show.

    The history is the one that the model read: what came before the user's first test positive.
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
    users = np.random.default_rng(0).permutation(eligible)[:SAMPLED_USERS].tolist()
    if mine.topk is not None:
        lists = mine.topk.filter(pl.col("user").is_in(users))
        stored = dict(zip(lists["user"].to_list(), lists["items"].to_list(), strict=True))

    def in_order(user: int, mask: NDArray[np.bool_]) -> NDArray[np.integer[Any]]:
        rows = np.flatnonzero((data.users == user) & mask)
        rows = rows if data.timestamps is None else rows[np.argsort(data.timestamps[rows], kind="stable")]
        return data.items[rows]

    def earliest_first(user: int, mask: NDArray[np.bool_]) -> list[int]:
        return list(dict.fromkeys(in_order(user, mask).tolist()))

    found = People(data, [], len(eligible))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for user in users:
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
            if recommended == whole[: len(recommended)]:  # else it was asked something else than evaluation did
                found.scores[user] = [score for _, score in asked[: len(recommended)]]
                listed = whole
            found.ranks[user] = {row: place for place, row in enumerate(listed, 1)}
            found.depth[user] = len(listed)
            shown = earliest_first(user, before)[-SHOWN:], recommended, earliest_first(user, taken)
            found.entries.append((user, *shown))
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
