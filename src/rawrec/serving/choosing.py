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

from rawrec.evaluation.topk import TopK, rank_all
from rawrec.serving.filters import Groups
from rawrec.threads import each

POOL, LEAST_POOL = 10, 100
"""A list of k is chosen, where more than scores decide, among the POOL k best items, or LEAST_POOL."""
AT_ONCE = 1 << 24
"""Numbers of content embeddings that are gathered at once."""
FEW = 0.5
SINGLE = 8
"""Where no more than one in so many items is left out, it takes less time to leave out one by one."""

Score = Callable[[NDArray[np.int64], Tensor | None], Tensor]
"""Users `[u]`, and the rows of some items (None: all) -> scores `[u, items]`, which may be written over."""


@dataclass
class Choice:
    """What a list of `k` items is chosen by.

    n: items of the catalogue. allowed: `[n]`, which of them a list may hold; None: all. limits: groups, and how many of
    each a list may hold. diversity: the weight w in `pick`; vectors: content of all items `[n, dim]` and which have
    any `[n]`, for it. few: where no larger a share of the items may be in a list, the others are not scored.
    """

    k: int
    n: int
    allowed: NDArray[np.bool_] | None = None
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
        own = ptr[part.start : part.stop + 1]
        mine, depth = left_out[own[0] : own[-1]], max(POOL * width, LEAST_POOL)
        while True:
            pool = rank_all(lambda _: values, users[part], own - own[0], mine, min(depth, choice.n), len(values))
            found = pick(pool, shown(pool.scores), choice)
            short = (found < 0).any(1) & (pool.items[:, -1] >= 0)
            if depth >= choice.n or not short.any():
                break
            depth *= 4
        places = found.clip(min=0)
        items[part] = np.where(found >= 0, np.take_along_axis(pool.items, places, 1), -1)
        scores[part] = np.where(found >= 0, np.take_along_axis(pool.scores, places, 1), -np.inf)
        if tell is not None:
            tell(len(values))

    each(fill, range(0, len(users), user_batch), workers)
    return TopK(items, scores)


def _filtered(score: Score, choice: Choice) -> Callable[[NDArray], Tensor]:
    """Scores of the whole catalogue, -inf for what a list may not hold, which is not scored where it is much."""
    if choice.allowed is None:
        return lambda users: score(users, None)
    count = np.count_nonzero(choice.allowed)
    if count >= choice.n - choice.n // SINGLE:
        out = torch.from_numpy(np.flatnonzero(~choice.allowed))
        return lambda users: (values := score(users, None)).index_fill_(1, out.to(values.device), -torch.inf)
    if count > choice.few * choice.n:
        # Scores are finite, and to add 0 or -inf takes a fifth of the time of `masked_fill_`.
        barred = torch.from_numpy(np.where(choice.allowed, np.float32(0), np.float32(-np.inf)))
        return lambda users: (values := score(users, None)).add_(barred.to(values))
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
    there = pool.items >= 0
    least = np.where(there, shown, np.inf).min(1, keepdims=True, initial=np.inf)
    spread = np.where(there, shown, -np.inf).max(1, keepdims=True, initial=-np.inf) - least
    with np.errstate(invalid="ignore", divide="ignore"):
        relevant = np.where(there & (spread > 0), (shown - least) / spread, 0.0)
    size = AT_ONCE if choice.vectors is None else choice.vectors[0].shape[1] * max(pool.items.shape[1], 1)
    step = max(AT_ONCE // size, 1) if choice.diversity else max(len(there), 1)
    parts = [_pick(pool.items[at : at + step], relevant[at : at + step], choice) for at in range(0, len(there), step)]
    return np.concatenate(parts) if parts else np.zeros((0, choice.k), np.int64)


def _pick(items: NDArray[np.int64], relevant: NDArray, choice: Choice) -> NDArray[np.int64]:
    free, users = items >= 0, np.arange(len(items))
    full = [_Full(groups.of(items), most) for groups, most in choice.limits]
    content = _content(items, choice) if choice.diversity else None
    nearest = np.full(items.shape, -np.inf)
    found = np.full((len(items), min(choice.k, choice.n)), -1, np.int64)
    for place in range(found.shape[1]):
        may = free.copy()
        for group in full:
            may &= ~group.full
        if not may.any():
            break
        value = (1 - choice.diversity) * relevant if choice.diversity else -np.arange(items.shape[1])[None]
        if content is not None and place:
            value = value - choice.diversity * nearest
        best = np.where(may, value, -np.inf).argmax(1)
        some = may[users, best]
        found[some, place] = best[some]
        free[users, best] = False
        for group in full:
            group.take(users[some], best[some])
        if content is not None:
            of_best = content[users, best][:, :, None]
            nearest = np.maximum(nearest, (content @ of_best)[:, :, 0])
    return found


def _content(items: NDArray[np.int64], choice: Choice) -> NDArray[np.float32]:
    """Content of pools at length 1, `[users, pool, dim]`; zeros where there is none."""
    assert choice.vectors is not None
    values, valid = choice.vectors
    rows = torch.from_numpy(items.clip(min=0)).to(values.device)
    found = torch.nn.functional.normalize(values[rows].float(), dim=2) * valid[rows][..., None]
    return found.cpu().numpy()


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
