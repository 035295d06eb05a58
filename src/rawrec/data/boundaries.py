"""Boundaries between the parts of rows: rows in order, runs that stay whole, how many go where."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.lazily import Lazily

if TYPE_CHECKING:
    import polars as pl
else:
    pl = Lazily("polars")

Ints = NDArray[np.integer[Any]]
BITS = 16
"""A search by rank counts so many bits of the values at once."""


def by_user_and_time(users: Ints, times: Ints | None = None) -> NDArray[np.int64]:
    """The order of rows by user, then time, then row; by one key where it fits in 64 bits, which is several times
    as fast."""
    if times is None or not len(users):
        return np.argsort(users, kind="stable")
    first, span = int(times.min()), int(times.max()) - int(times.min()) + 1
    if (int(users.max()) + 1) * span >= 2**63:
        return np.lexsort((times, users))
    keys = pl.DataFrame({"key": users.astype(np.int64) * span + (times - first)})
    return keys.select(pl.arg_sort_by("key", maintain_order=True)).to_series().to_numpy()


def within_seconds(rows: NDArray[np.int64], thousandths: NDArray[np.int16] | None) -> NDArray[np.int64]:
    """Rows by the thousandths of their second, so that who sorts them by seconds, equal ones staying in order, sorts
    by both; as they are without any."""
    return rows if thousandths is None else rows[np.argsort(thousandths[rows], kind="stable")]


def groups(*keys: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and length of every run of equal keys."""
    n = len(keys[0])
    new = np.ones(n, bool)
    if n:
        new[1:] = np.logical_or.reduce([k[1:] != k[:-1] for k in keys])
    starts = np.flatnonzero(new)
    return starts, np.diff(starts, append=n)


def lists_of(users: Ints, values: pa.Array) -> NDArray[np.int64]:
    """The list that each row is of, `[rows]`, lists numbered by first appearance: rows of a user with the same value;
    a row without value is a list of its own."""
    coded = values.dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy().astype(np.int64)
    alone = np.flatnonzero(codes < 0)
    codes[alone] = len(coded.dictionary) + np.arange(len(alone))
    keys = users.astype(np.int64) * (len(coded.dictionary) + len(alone)) + codes
    return pa.array(keys).dictionary_encode().indices.to_numpy().astype(np.int64)


def first_rows(lists: Ints) -> NDArray[np.int64]:
    """The first row of each list, `[lists]`; lists are numbered by first appearance."""
    return np.flatnonzero(np.diff(np.maximum.accumulate(lists), prepend=-1))


def runs(lists: Ints | None, *keys: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and length of the shortest runs of ordered rows that tear neither a list nor equal keys apart."""
    if lists is None:
        return groups(*keys)
    n = len(lists)
    last = np.zeros(int(lists.max(initial=-1)) + 1, np.int64)
    np.maximum.at(last, lists, np.arange(n))
    reach = last[lists]
    if keys:
        starts, lengths = groups(*keys)
        reach = np.maximum(reach, np.repeat(starts + lengths - 1, lengths))
    new = np.ones(n, bool)
    new[1:] = np.maximum.accumulate(reach)[:-1] < np.arange(1, n)
    starts = np.flatnonzero(new)
    return starts, np.diff(starts, append=n)


def at_rank(blocks: Callable[[], Iterable[Ints]], rank: int) -> int:
    """The value that would be at `rank`, from 0, if all int64 values of the blocks stood in order.

    Exact and in bounded memory: each pass over the blocks counts the values by their next BITS bits.
    """
    edges = [(int(values.min()), int(values.max())) for values in blocks() if len(values)]
    first, last = min(low for low, _ in edges), max(high for _, high in edges)
    known, left = 0, (last - first).bit_length()
    while left:
        step = min(BITS, left)
        left -= step
        counts = np.zeros(1 << step, np.int64)
        for values in blocks():
            above = values.astype(np.uint64) - np.uint64(first % 2**64)  # both wrap around alike
            above = above[(above >> np.uint64(left)) >> np.uint64(step) == known] >> np.uint64(left)
            counts += np.bincount((above & np.uint64((1 << step) - 1)).astype(np.int64), minlength=1 << step)
        below = np.cumsum(counts)
        bits = int(np.searchsorted(below, rank, side="right"))
        rank -= int(below[bits - 1]) if bits else 0
        known = known << step | bits
    return first + known


def sizes(lengths: Ints, ratios: tuple[float, float, float]) -> NDArray[np.int64]:
    """Rows per user and part, `[users, 3]`: largest remainders, then small users as the statements of `splits` say."""
    share = np.asarray(ratios)
    quotas = lengths[:, None] * share
    found = np.floor(quotas + 1e-9).astype(np.int64)
    # Equal remainders: the later part first, so that test is not the one to starve.
    order = np.lexsort((-np.arange(3)[None, :].repeat(len(lengths), 0), -np.round(quotas - found, 9)), axis=1)
    rank = np.argsort(order, axis=1)
    found += rank < (lengths - found.sum(1))[:, None]
    for part in (2, 1):
        if share[part] > 0:
            needs = (found[:, part] == 0) & (found.max(1) > 1)
            giver = found.argmax(1)
            found[needs, giver[needs]] -= 1
            found[needs, part] += 1
    alone = (found[:, 0] == 0) & (lengths > 0)
    giver = found.argmax(1)
    found[alone, giver[alone]] -= 1
    found[alone, 0] += 1
    return found


def parts_of(valid: Ints, test: Ints, starts: Ints, lengths: Ints) -> NDArray[np.int8]:
    """Parts of sorted rows from the positions at which each user's valid and test rows begin."""
    rows = np.arange(int(lengths.sum()))
    return (rows >= np.repeat(valid, lengths)).astype(np.int8) + (rows >= np.repeat(test, lengths)).astype(np.int8)
