"""Recall, NDCG, precision, MAP, hits and MRR of lists of K items out of the full catalogue, in memory of users x K."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rawrec.errors import UserError
from rawrec.plugins import own_code
from rawrec.threads import each

HEAP = 64
"""Rows of so many times k values or more `torch.topk` reads once on a CPU, past a heap of the k largest."""


class Lists(NamedTuple):
    """What a metric of lists is made of, for the users with a positive: items `[users, k]` int64, best first, -1 where
    a list ends early; hits `[users, k]` bool, which of them are positives; positives `[users]` int64, how many each
    user has. Within a bucket, hits and positives are those of its items alone."""

    items: NDArray[np.int64]
    hits: NDArray[np.bool_]
    positives: NDArray[np.int64]


class TopK(NamedTuple):
    """The best items of each user, best first: items `[n_users, k]` int64 and their scores float32.

    Where the catalogue has fewer than k items that are not left out, the list ends with -1 and scores of -inf.
    """

    items: NDArray[np.int64]
    scores: NDArray[np.float32]


def rank_all(
    score: Callable[[NDArray], Tensor],
    users: NDArray,
    mask_ptr: NDArray[np.int64],
    mask_items: NDArray,
    k: int,
    user_batch: int = 256,
    workers: int = 1,
    tell: Callable[[int], None] | None = None,
) -> TopK:
    """The k best items of the whole catalogue for each user, `user_batch` users at a time.

    score: users `[u]` -> scores `[u, n_items]` on any device, which are written over; -inf leaves an item out. users
    `[n_users]`. mask_items[mask_ptr[i]:mask_ptr[i + 1]]: items left out for users[i] (mask_ptr `[n_users + 1]`),
    usually those of training. Items of equal score stand in one order drawn at random, the same for every user, call
    and device, so that the catalogue's own order favours none of them. Raises UserError when a score is nan or +inf.
    workers: threads that score side by side, each on one core of a CPU, which takes less time than small steps on all
    cores one by one. tell: told, by any of them, of so many users who are done. Memory: workers x user_batch x n_items.
    """
    items = np.full((len(users), k), -1, np.int64)
    scores = np.full((len(users), k), -np.inf, np.float32)

    def fill(start: int) -> None:
        part = slice(start, min(start + user_batch, len(users)))
        with torch.no_grad():  # a thread has a grad mode of its own
            values = score(users[part])
        leave_out(values, mask_ptr[start : part.stop + 1], mask_items)
        found = best_of(values, users[part], k)
        items[part, : found.items.shape[1]] = found.items
        scores[part, : found.items.shape[1]] = found.scores
        if tell is not None:
            tell(part.stop - start)

    each(fill, range(0, len(users), user_batch), workers)
    return TopK(items, scores)


def leave_out(values: Tensor, ptr: NDArray[np.int64], items: NDArray) -> None:
    """Writes -inf over the scores of what is left out of lists.

    values: `[u, n]`; items[ptr[i]:ptr[i + 1]]: for row i.
    """
    owners = torch.from_numpy(np.repeat(np.arange(len(values)), np.diff(ptr)))
    masked = torch.from_numpy(items[ptr[0] : ptr[-1]].astype(np.int64))
    values.index_put_((owners.to(values.device), masked.to(values.device)), values.new_tensor(-torch.inf))


def best_of(values: Tensor, users: NDArray, k: int) -> TopK:
    """The k best of each row of scores `[u, n]`, of n if there are fewer, as `rank_all` has them."""
    best, index = _largest(values, min(k + 1, values.shape[1]))
    wrong = best[:, 0].isnan() | best.isposinf().any(1)
    if wrong.any():
        raise UserError(
            f"the model gives user {users[int(wrong.nonzero()[0])]} scores that are not finite: training diverged; "
            "train again with a lower train.lr or train.encoder_lr"
        )
    # Without equal scores among the k + 1 best there is one way to choose and order them, and it is found.
    tied = ((best[:, 1:] == best[:, :-1]) & best[:, 1:].isfinite()).any(1)
    best, index = best[:, :k], index[:, :k]
    if tied.any():
        index[tied], best[tied] = _in_order(values[tied], best[tied], index[tied])
    found, where = best.float().cpu().numpy(), index.cpu().numpy()
    return TopK(np.where(np.isneginf(found), -1, where), found)


def _largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their columns, as `torch.topk` gives them, in less time. values: `[u, n]`.

    Columns are dealt into `m` blocks. The k largest lie in the k blocks of the largest maxima, so that one pass over
    all values for the maxima is enough, and a choice among `m`, then `k n / m`. Both are least for `m` near sqrt(k n),
    but of HEAP * k values or more `torch.topk` chooses in half the time: there are as many blocks where n allows it.
    """
    n = values.shape[1]
    size = max(1, round(math.sqrt(n / k)))
    if n >= 4 * HEAP * k:
        size = min(size, n // (HEAP * k))
    m = n // size
    if m <= k:
        return values.topk(k, dim=1)
    blocks = values[:, : size * m].unflatten(1, (size, m)).amax(1).topk(k, dim=1, sorted=False).indices
    columns = (blocks[:, None] + torch.arange(0, size * m, m, device=values.device)[:, None]).flatten(1)
    rest = torch.arange(size * m, n, device=values.device).expand(len(values), -1)
    columns = torch.cat([columns, rest], 1)
    best, place = values.gather(1, columns).topk(k, dim=1)
    return best, columns.gather(1, place)


@lru_cache(maxsize=4)
def _drawn_order(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The order of n items of equal score, and the place of each item in it, `[n]` each."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return order.to(device), order.argsort().to(device)


def _in_order(values: Tensor, top: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and values of the largest of each row, `[u, k]` each, largest first; ties in the order of `rank_all`.

    values: `[u, n]`. top: its k largest values per row, sorted; columns: where these stand, of equal ones any.
    """
    n, k = values.shape[1], top.shape[1]
    order, places = _drawn_order(n, values.device)
    above, last = top > top[:, -1:], top[:, -1:]
    # Of the columns at the level of the last value, those that come first fill what those above it leave.
    level = torch.where(values == last, places, n).topk(k, dim=1, largest=False).values
    rest = (torch.arange(k, device=values.device) - above.sum(1, keepdim=True)).clamp_(min=0)
    found = torch.where(above, places[columns], level.gather(1, rest)).sort(dim=1)
    best, by_value = top.gather(1, found.indices).sort(dim=1, descending=True, stable=True)
    return order[found.values.gather(1, by_value)], best


def topk_metrics(
    topk_items: NDArray[np.int64],
    positives_ptr: NDArray[np.int64],
    positives_items: NDArray,
    ks: Sequence[int],
    buckets: Mapping[str, NDArray[np.bool_]] | None = None,
    own: Mapping[str, Callable[[Lists], NDArray]] | None = None,
) -> tuple[dict[str, float | None], dict[str, NDArray[np.float64]]]:
    """Ranking metrics at every cut-off, overall and by bucket of the positives.

    own: registered metrics by name, which give a value per user with a positive.

    topk_items `[n_users, >= max(ks)]`, best first, -1 for no item. positives_items[positives_ptr[i]:positives_ptr[i +
    1]]: what user i really took (twice the same counts once). buckets: name -> mask `[n_items]`; `cold/recall@k` asks
    for the cold positives only, within the same list of the full catalogue.

    For each k in ks, over the users with a positive (in the bucket):
    `recall@k`  mean of hits / positives,
    `precision@k`  mean of hits / k,
    `ndcg@k`  gain 1 / log2(rank + 1) against that of a list that starts with min(positives, k) hits,
    `map@k`  mean over users of (sum of precision@rank over the hits) / min(positives, k),
    `hit@k`  share of users with a hit,
    `mrr@k`  mean of 1 / rank of the first hit, 0 without one,
    `recall2@k`  all hits / all positives;
    `topk_users`  how many users that is.

    Returns the metrics (None where no user has a positive: `undefined` tells why) and, but for the pooled recall2,
    their values per user `[n_users]`, nan for a user without positives.
    """
    depth = max(ks)
    if topk_items.shape[1] < depth:
        raise ValueError(f"lists of {topk_items.shape[1]} items cannot be judged at k={depth}")
    items = topk_items[:, :depth]
    n_users = len(items)
    n_items = int(max(items.max(initial=-1), positives_items.max(initial=-1))) + 1
    owners = np.repeat(np.arange(n_users), np.diff(positives_ptr))
    keys = np.unique(owners * n_items + positives_items)
    hits = _member(np.arange(n_users)[:, None] * n_items + items, keys) & (items >= 0)
    owners, wanted = np.divmod(keys, max(n_items, 1))

    metrics: dict[str, float | None] = {}
    per_user: dict[str, NDArray[np.float64]] = {}
    parts: dict[str, NDArray[np.bool_] | None] = {"": None} | {f"{n}/": m for n, m in (buckets or {}).items()}
    for prefix, mask in parts.items():
        part_hits = hits if mask is None else hits & mask[items]
        relevant = np.bincount(owners if mask is None else owners[mask[wanted]], minlength=n_users)
        means, values = _metrics(items, part_hits, relevant, ks, own or {})
        metrics |= {prefix + name: value for name, value in means.items()}
        per_user |= {prefix + name: value for name, value in values.items()}
    return metrics, per_user


def undefined(metrics: Mapping[str, float | None]) -> dict[str, str]:
    """Why each None among the results of `topk_metrics` is one."""
    return {
        name: f"no user has a {name.rpartition('/')[0]} positive".replace("  ", " ")
        for name, value in metrics.items()
        if value is None
    }


def _member(values: NDArray, sorted_keys: NDArray) -> NDArray[np.bool_]:
    if not len(sorted_keys):
        return np.zeros(values.shape, bool)
    at = np.searchsorted(sorted_keys, values)
    return sorted_keys[np.minimum(at, len(sorted_keys) - 1)] == values


def _metrics(
    items: NDArray[np.int64],
    hits: NDArray[np.bool_],
    relevant: NDArray[np.int64],
    ks: Sequence[int],
    own: Mapping[str, Callable[[Lists], NDArray]],
) -> tuple[dict[str, float | None], dict[str, NDArray[np.float64]]]:
    """items, hits `[n_users, depth]`, relevant `[n_users]`: number of positives of each user."""
    has = relevant > 0
    items, hits, positives = items[has], hits[has], relevant[has]
    rank = np.arange(1, hits.shape[1] + 1)
    discount = 1 / np.log2(rank + 1)
    found = np.cumsum(hits, 1)
    gain = np.cumsum(hits * discount, 1)
    ideal_gain = np.cumsum(discount)
    precisions = np.cumsum(hits * found / rank, 1)
    first = hits.argmax(1)  # where the first hit stands, from 0, if there is any

    means: dict[str, float | None] = {}
    per_user = {}
    for k in ks:
        ideal = np.minimum(positives, k)
        values = {
            "recall": found[:, k - 1] / positives,
            "ndcg": gain[:, k - 1] / ideal_gain[ideal - 1],
            "precision": found[:, k - 1] / k,
            "map": precisions[:, k - 1] / ideal,
            "hit": (found[:, k - 1] > 0).astype(np.float64),
            "mrr": np.where(found[:, k - 1] > 0, 1 / (first + 1), 0.0),
        }
        for name, function in own.items():
            values[name] = _per_user(name, function, Lists(items[:, :k], hits[:, :k], positives))
        for name, value in values.items():
            means[f"{name}@{k}"] = float(value.mean()) if len(value) else None
            per_user[f"{name}@{k}"] = np.full(len(has), np.nan)
            per_user[f"{name}@{k}"][has] = value
        means[f"recall2@{k}"] = float(found[:, k - 1].sum() / positives.sum()) if len(positives) else None
    means["topk_users"] = len(positives)
    return means, per_user


def _per_user(name: str, function: Callable[[Lists], NDArray], lists: Lists) -> NDArray[np.float64]:
    """What a registered metric says, `[users]`; UserError where it fails or says something else."""
    with own_code("metric", name):
        values = np.asarray(function(lists), np.float64)
    if values.shape != lists.positives.shape or not np.isfinite(values).all():
        raise UserError(
            f"metric {name!r} must give a finite number for each of {len(lists.positives)} users; it gave an array of "
            f"shape {list(values.shape)}" + ("" if np.isfinite(values).all() else " with numbers that are not finite")
        )
    return values
