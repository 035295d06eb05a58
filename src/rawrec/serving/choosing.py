"""Scores of a catalogue -> lists: the best that may be in one, so many of a group, and unlike each other if asked for.

Diversity is maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998) over content embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rawrec.evaluation.topk import TopK, best_of, leave_out, rank_all
from rawrec.serving.filters import Groups
from rawrec.threads import each

POOL, LEAST_POOL = 10, 100
"""A list of k is chosen, where unlikeness decides, among the POOL k best items, or LEAST_POOL."""
TINY = 1e-12
AHEAD = 2
"""Where groups alone decide, the AHEAD k best items are looked at first, and more only if the list is short."""
AT_ONCE = 1 << 24
"""Numbers of content embeddings that are gathered at once."""
FEW = 0.5

Score = Callable[[NDArray[np.int64], Tensor | None], Tensor]
"""Users `[u]`, and the rows of some items (None: all) -> scores `[u, items]`, which may be written over."""


@dataclass
class Choice:
    """What a list of `k` items is chosen by.

    n: items of the catalogue. allowed: `[n]`, which of them a list may hold; None: all. barred: rows of those that it
    may not hold though they are allowed; None: none. limits: groups, and how many of each a list may hold. diversity:
    the weight w in `pick`; vectors: content of all items `[n, dim]` and which have any `[n]`, for it. few: where no
    larger a share of the items may be in a list, the others are not scored.
    """

    k: int
    n: int
    allowed: NDArray[np.bool_] | None = None
    barred: NDArray[np.int64] | None = None
    limits: Sequence[tuple[Groups, int]] = field(default_factory=list)
    diversity: float = 0.0
    vectors: tuple[Tensor, Tensor] | None = None
    few: float = FEW

    @property
    def by_score(self) -> bool:
        """Whether scores alone order what may be in the list."""
        return not self.limits and not self.diversity


def choose(
    score: Score,
    shown: Callable[[NDArray], NDArray],
    users: NDArray,
    ptr: NDArray[np.int64],
    left_out: NDArray,
    choice: Choice,
    user_batch: int = 256,
    workers: int = 1,
    tell: Callable[[int], None] | None = None,
) -> TopK:
    """Lists `[users, k]` of `users`, see `rank_all`; left_out: items not for users[i], `ptr[i]:ptr[i + 1]`.

    shown: what a user sees of scores, by which `pick` weighs them.
    """
    width = min(choice.k, choice.n)
    filtered = _filtered(score, choice)
    if choice.by_score:
        return rank_all(filtered, users, ptr, left_out, width, user_batch, workers, tell)
    items = np.full((len(users), width), -1, np.int64)
    scores = np.full((len(users), width), -np.inf, np.float32)

    def fill(start: int) -> None:
        part = slice(start, min(start + user_batch, len(users)))
        with torch.no_grad():  # a thread has a grad mode of its own
            values = filtered(users[part])
        leave_out(values, ptr[start : part.stop + 1], left_out)
        depth = max(POOL * width, LEAST_POOL) if choice.diversity else AHEAD * width
        while True:
            pool = best_of(values, users[part], min(depth, choice.n))
            found = pick(pool, shown(pool.scores), choice) if choice.diversity else _first(pool.items, choice)
            ends = found[:, -1] < 0
            if depth >= choice.n or not (ends & (pool.items[:, -1] >= 0)).any():
                break
            depth *= 4
        rows = np.arange(len(found))[:, None]
        items[part], scores[part] = pool.items[rows, found], pool.scores[rows, found]
        if ends.any():
            items[part][found < 0], scores[part][found < 0] = -1, -np.inf
        if tell is not None:
            tell(len(values))

    each(fill, range(0, len(users), user_batch), workers)
    return TopK(items, scores)


def _filtered(score: Score, choice: Choice) -> Callable[[NDArray], Tensor]:
    """Scores of the whole catalogue, -inf for what a list may not hold, which is not scored where it is much."""
    allowed = _allowed(score, choice)
    if choice.barred is None:
        return allowed
    out = torch.from_numpy(choice.barred)
    return lambda users: (values := allowed(users)).index_fill_(1, out.to(values.device), -torch.inf)


def _allowed(score: Score, choice: Choice) -> Callable[[NDArray], Tensor]:
    if choice.allowed is None:
        return lambda users: score(users, None)
    if np.count_nonzero(choice.allowed) > choice.few * choice.n:
        # Scores are finite, and to add 0 or -inf takes a fifth of the time of `masked_fill_`.
        level = torch.from_numpy(np.where(choice.allowed, np.float32(0), np.float32(-np.inf)))
        return lambda users: (values := score(users, None)).add_(level.to(values))
    rows = torch.from_numpy(np.flatnonzero(choice.allowed))

    def some(users: NDArray) -> Tensor:
        if not len(rows):
            return torch.full((len(users), choice.n), -torch.inf)
        values = score(users, rows)
        whole = values.new_full((len(users), choice.n), -torch.inf)
        whole[:, rows.to(values.device)] = values
        return whole

    return some


def pick(pool: TopK, shown: NDArray, choice: Choice) -> NDArray[np.int64]:
    """Places in the pool of the items of each list, `[users, k]`, best first, -1 where it ends early.

    pool: the best items of each user, best first, -1 for none. shown: their scores as a user sees them, of which r_i is
    made: (score - the least of the pool) / (the best - the least). One after the other the item is taken that has the
    largest

        (1 - w) r_i - w max over j taken of cos(c_i, c_j)

    among those whose groups are not full; c is content, w `choice.diversity`, the maximum 0 for the first item, and a
    cosine 0 where one of the two has no content. Of equal ones the better scored comes first.
    """
    if not choice.diversity:
        return _first(pool.items, choice)
    assert choice.vectors is not None
    there = pool.items >= 0
    least = np.where(there, shown, np.inf).min(1, keepdims=True, initial=np.inf)
    spread = np.where(there, shown, -np.inf).max(1, keepdims=True, initial=-np.inf) - least
    with np.errstate(invalid="ignore", divide="ignore"):
        relevant = np.where(there & (spread > 0), (shown - least) / spread, 0.0)
    step = max(AT_ONCE // (choice.vectors[0].shape[1] * max(pool.items.shape[1], 1)), 1)
    parts = [_unlike(pool.items[at : at + step], relevant[at : at + step], choice) for at in range(0, len(there), step)]
    return np.concatenate(parts) if parts else np.zeros((0, choice.k), np.int64)


def _first(items: NDArray[np.int64], choice: Choice) -> NDArray[np.int64]:
    """Places of the first items of each pool whose groups are not full, see `pick`.

    Mostly those are the first k, which have no group in common. Else a plain loop, which ends at the k-th item, takes a
    tenth of the time of steps over whole pools.
    """
    width = min(choice.k, choice.n)
    found = np.empty((len(items), width), np.int64)
    found[:] = np.arange(width)
    keys, most = _keys(items, choice)
    of_lists, once = keys[:, :width].reshape(len(items), -1).tolist(), width * len(most)
    for user, of_list in enumerate(of_lists):
        if len(set(of_list)) < once:
            taken = _taken(keys[user].tolist(), most, width)
            found[user] = taken + [-1] * (width - len(taken))
    found[items[np.arange(len(items))[:, None], found] < 0] = -1
    return found


def _taken(keys: list[list[int]], most: list[int], width: int) -> list[int]:
    """The first `width` places whose groups are not full. keys: the groups of each item, `[pool, m]`."""
    counts: dict[int, int] = {}
    full: set[int] = set()
    taken: list[int] = []
    for place, own in enumerate(keys):
        if not full.isdisjoint(own):
            continue
        taken.append(place)
        if len(taken) == width:
            break
        for key, limit in zip(own, most, strict=False):  # to compare their lengths would take as long as the rest
            counts[key] = count = counts.get(key, 0) + 1
            if count == limit and key >= 0:
                full.add(key)
    return taken


def _keys(items: NDArray[np.int64], choice: Choice) -> tuple[NDArray[np.int64], list[int]]:
    """The groups of items by all limits, `[users, pool, m]`, numbered through, in the place of none another negative
    number each; and how many items of each a list may hold, `[m]`."""
    parts, most, before = [items[..., None][..., :0]], [], 0
    for groups, limit in choice.limits:
        codes = groups.of(items)
        parts.append(np.where(codes >= 0, codes + before, -1) if before else codes)
        most += [limit] * codes.shape[-1]
        before += len(groups.words)
    keys = np.concatenate(parts, 2)
    return np.where(keys >= 0, keys, -1 - np.arange(keys[0].size).reshape(keys.shape[1:])), most


def _unlike(items: NDArray[np.int64], relevant: NDArray, choice: Choice) -> NDArray[np.int64]:
    """See `pick`. relevant: r_i, `[users, pool]`."""
    users, content = np.arange(len(items)), _content(items, choice)
    full = [_Full(groups.of(items), most) for groups, most in choice.limits]
    free = np.where(items >= 0, (1 - choice.diversity) * relevant, -np.inf)  # -inf once an item is taken
    nearest, value = np.full(items.shape, -np.inf), free
    found = np.full((len(items), min(choice.k, choice.n)), -1, np.int64)
    for place in range(found.shape[1]):
        if place:
            value = nearest * -choice.diversity
            value += free
        for group in full:
            value = np.where(group.full, -np.inf, value)
        best = value.argmax(1)
        some = value[users, best] > -np.inf
        found[:, place] = np.where(some, best, -1)
        if place + 1 == found.shape[1] or not some.any():
            break
        free[users, best] = -np.inf  # where there is none left, all are
        for group in full:
            group.take(users[some], best[some])
        near = content @ content[users, best][:, :, None]
        np.maximum(nearest, near[:, :, 0], out=nearest)
    return found


def _content(items: NDArray[np.int64], choice: Choice) -> NDArray[np.float32]:
    """Content of pools at length 1, `[users, pool, dim]`; zeros where there is none."""
    assert choice.vectors is not None
    values, valid = choice.vectors
    rows = torch.from_numpy(items.clip(min=0).ravel()).to(values.device)
    found = values.index_select(0, rows).float()
    found *= (valid[rows] / found.norm(dim=1).clamp_min_(TINY))[:, None]
    return found.cpu().numpy().reshape(*items.shape, -1)


class _Full:
    """How many items of each group lists have taken. codes: of pools, `[users, pool, m]`, -1 = none."""

    def __init__(self, codes: NDArray[np.int64], most: int):
        self.most, self.there = most, codes >= 0
        keys = np.arange(len(codes))[:, None, None] * (codes.max(initial=0) + 1) + codes.clip(min=0)
        unique, places = np.unique(keys, return_inverse=True)
        self.places = places.reshape(codes.shape)
        self.counts = np.zeros(len(unique), np.int64)

    @property
    def full(self) -> NDArray[np.bool_]:
        """Whether an item has a group of which there is no more to be had, `[users, pool]`."""
        return np.any(self.there & (self.counts[self.places] >= self.most), axis=2)

    def take(self, users: NDArray[np.int64], best: NDArray[np.int64]) -> None:
        np.add.at(self.counts, self.places[users, best], self.there[users, best])
