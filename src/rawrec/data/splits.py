"""Which part of the data a row belongs to: seeded, vectorised, and stated in words.

Parts are 0 train, 1 valid, 2 test and -1 (in no part).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from rawrec.errors import UserError

PARTS = ("train", "valid", "test")
BUCKETS: dict[str, tuple[int, int | None]] = {"cold": (0, 0), "rare": (1, 4), "medium": (5, 19), "warm": (20, None)}
"""Name -> fewest and most training rows of an item in that bucket."""
ROWS_AT_ONCE = 1 << 21
"""More rows are divided in turns, some users in each."""
Kind = Literal["random_user", "time_user", "time_global", "leave_one_out", "column", "new_items"]
Ints = NDArray[np.integer[Any]]


class SplitSpec(BaseModel):
    """How the interactions are divided.

    random_user: each user's rows at random, by `ratios`.
    time_user: each user's rows by time, by `ratios`; rows of one instant stay together.
    time_global: all rows by time, by `ratios`; rows of one instant stay together.
    leave_one_out: each user's last row is test, the one before it valid.
    column: as the column `column` says (0, 1, 2 or train, valid, test; empty or -1: in no part).
    new_items: `share` of the items (those with `field`, if given) are held out with all of their rows as test,
        half as many others likewise as valid; fold `fold` of `folds` is disjoint from the other folds.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Kind = "time_user"
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = Field(default=0, ge=0)
    share: float = Field(default=0.2, gt=0, lt=0.6)
    fold: int = Field(default=0, ge=0)
    folds: int = Field(default=5, ge=1)
    field: str | None = None
    column: str | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _explained(cls, value: Any, handler: ModelWrapValidatorHandler[SplitSpec]) -> SplitSpec:
        try:
            return handler(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(["split", *map(str, first["loc"])])
            raise UserError(f"{where}={first['input']!r}: {first['msg']}") from None

    @model_validator(mode="after")
    def _possible(self) -> SplitSpec:
        if min(self.ratios) < 0 or abs(sum(self.ratios) - 1) > 1e-6 or self.ratios[0] == 0:
            raise UserError(f"split ratios {self.ratios} must be at least 0, sum to 1 and leave something for train")
        if self.kind == "column" and not self.column:
            raise UserError("a split of kind 'column' needs the name of the column that holds the parts")
        if self.kind == "new_items" and self.fold >= self.folds:
            raise UserError(
                f"split fold {self.fold} does not exist: with folds={self.folds} it is at most {self.folds - 1}"
            )
        if self.kind == "new_items" and self.share * self.folds > 1 + 1e-9:
            raise UserError(
                f"split share {self.share} in {self.folds} disjoint folds is more than all items: "
                f"use share <= {1 / self.folds:.3g} or fewer folds"
            )
        return self

    def settings(self) -> dict[str, Any]:
        """The settings that matter to this kind, as plain values."""
        return {"kind": self.kind, **self.model_dump(mode="json", include=_USED[self.kind], exclude_none=True)}


_USED: dict[str, set[str]] = {
    "random_user": {"ratios", "seed"},
    "time_user": {"ratios"},
    "time_global": {"ratios"},
    "leave_one_out": set(),
    "column": {"column"},
    "new_items": {"share", "fold", "folds", "field", "seed"},
}


def make_split(
    spec: SplitSpec,
    users: Ints,
    items: Ints | None,
    timestamps: Ints | None,
    column_values: NDArray[Any] | None,
    present: NDArray[np.bool_] | None,
    n_items: int,
) -> tuple[NDArray[np.int8], str]:
    """The part of every row, `[n]` int8, and a statement of what was done, with counts.

    users, items, timestamps: `[n]`; items and timestamps may be None where the split does not need them.
    column_values: `[n]`, the column that a `column` split reads. present: `[n_items]`, items that a `new_items`
    split may hold out (None: all). Deterministic by `spec.seed`. Raises UserError where the split is impossible.
    """
    if spec.kind in ("time_user", "time_global") and timestamps is None:
        raise UserError(
            f"split {spec.kind} needs timestamps, and the interactions have none: name a time column, "
            "or use random_user, leave_one_out, column or new_items"
        )
    if spec.kind == "random_user":
        parts, words = _random_user(spec, users)
    elif spec.kind == "time_user" and timestamps is not None:
        parts, words = _time_user(spec, users, timestamps)
    elif spec.kind == "time_global" and timestamps is not None:
        parts, words = _time_global(spec, timestamps)
    elif spec.kind == "leave_one_out":
        parts, words = _leave_one_out(users, timestamps)
    elif spec.kind == "column":
        if column_values is None:
            raise UserError(f"split column {spec.column!r} is not among the columns of the interactions")
        parts, words = _column(spec, column_values)
    else:
        assert items is not None
        parts, words = _new_items(spec, items, present, n_items)
    counts = [f"{name} {int((parts == i).sum()):,}" for i, name in enumerate(PARTS)]
    if (parts < 0).any():
        counts.append(f"in no part {int((parts < 0).sum()):,}")
    return parts, f"{words}. Rows: {', '.join(counts)}."


# ----------------------------------------------------------------------------------------------------------- the kinds
def _by_user(cut: Callable[..., NDArray[np.int8]], users: Ints, *columns: NDArray[Any]) -> NDArray[np.int8]:
    """`cut` of all rows; of many rows some users at a time, so that about ROWS_AT_ONCE of them are sorted at once."""
    turns = -(-len(users) // ROWS_AT_ONCE)
    if turns <= 1:
        return cut(users, *columns)
    parts = np.empty(len(users), np.int8)
    for turn in range(turns):
        rows = np.flatnonzero(users % turns == turn)
        parts[rows] = cut(users[rows], *(column[rows] for column in columns))
    return parts


def _random_user(spec: SplitSpec, users: Ints) -> tuple[NDArray[np.int8], str]:
    def cut(users: Ints, draws: NDArray[np.float64]) -> NDArray[np.int8]:
        order = np.lexsort((draws, users))
        starts, lengths = _groups(users[order])
        sizes = _sizes(lengths, spec.ratios)
        parts = np.empty(len(users), np.int8)
        parts[order] = _cut(starts + sizes[:, 0], starts + sizes[:, 0] + sizes[:, 1], starts, lengths)
        return parts

    parts = _by_user(cut, users, np.random.default_rng(spec.seed).random(len(users)))
    return parts, f"At random within each user, {_ratios(spec)}, seed {spec.seed}; {_SMALL}"


def _time_user(spec: SplitSpec, users: Ints, times: Ints) -> tuple[NDArray[np.int8], str]:
    def cut(users: Ints, times: Ints) -> NDArray[np.int8]:
        order = _by_user_and_time(users, times)
        starts, lengths = _groups(users[order])
        sizes = _sizes(lengths, spec.ratios)
        instants, instant_lengths = _groups(users[order], times[order])
        ends = instants + instant_lengths

        def whole(cut: Ints) -> Ints:
            """A boundary inside an instant moves to its nearer edge (the earlier of two, but never emptying train)."""
            at = np.searchsorted(instants, cut, side="right") - 1
            earlier = (cut - instants[at] <= ends[at] - cut) & (instants[at] > starts)
            return np.where(earlier | (instants[at] == cut), instants[at], ends[at])

        parts = np.empty(len(users), np.int8)
        cuts = starts + sizes[:, 0], starts + sizes[:, 0] + sizes[:, 1]
        if len(users):
            cuts = whole(cuts[0]), whole(cuts[1])
        parts[order] = _cut(*cuts, starts, lengths)
        return parts

    return _by_user(cut, users, times), (
        f"By time within each user, {_ratios(spec)}; rows of a user with equal times are never torn apart "
        f"(the boundary moves to the nearer edge of the instant), otherwise {_SMALL}"
    )


def _time_global(spec: SplitSpec, times: Ints) -> tuple[NDArray[np.int8], str]:
    ordered = np.sort(times)
    positions = np.round(np.cumsum(spec.ratios)[:2] * len(times)).astype(np.int64)
    cuts = [int(ordered[p]) if p < len(ordered) else None for p in positions]
    parts = np.zeros(len(times), np.int8)
    for cut in cuts:
        if cut is not None:
            parts += times >= cut
    if len(times) and not (parts == 0).any():
        raise UserError(
            f"split time_global leaves no training row: the earliest {spec.ratios[0]:.0%} of the rows all have "
            f"the time {cuts[0]}; use random_user or time_user"
        )
    edges = ", ".join(
        f"{name} from {_moment(cut)}" for name, cut in zip(PARTS[1:], cuts, strict=True) if cut is not None
    )
    return parts, f"By global time, {_ratios(spec)}: {edges}; rows with equal times stay together"


def _leave_one_out(users: Ints, times: Ints | None) -> tuple[NDArray[np.int8], str]:
    def cut(users: Ints, *times: Ints) -> NDArray[np.int8]:
        order = _by_user_and_time(users, *times)
        starts, lengths = _groups(users[order])
        held = np.where(lengths >= 3, 1, 0)
        ends = starts + lengths
        parts = np.empty(len(users), np.int8)
        parts[order] = _cut(ends - 2 * held, ends - held, starts, lengths)
        return parts

    parts = _by_user(cut, users, *(() if times is None else (times,)))
    counts = np.bincount(users) if len(users) else np.zeros(0, np.int64)
    by = "order of rows (there are no times)" if times is None else "time (equal times: by row)"
    return parts, (
        f"Leave one out by {by}: each user's last row is test, the one before it valid; "
        f"{int(((counts > 0) & (counts < 3)).sum()):,} users with fewer than 3 rows are all train"
    )


def _column(spec: SplitSpec, values: NDArray[Any]) -> tuple[NDArray[np.int8], str]:
    meaning = {"0": 0, "1": 1, "2": 2, "train": 0, "valid": 1, "test": 2, "-1": -1, "": -1, "None": -1, "nan": -1}
    distinct, codes = np.unique(np.asarray(values).astype(str), return_inverse=True)
    keys = [v.strip().removesuffix(".0") for v in distinct.tolist()]
    for key in keys:
        if key not in meaning:
            raise UserError(
                f"split column {spec.column!r} holds {key!r}: use 0, 1, 2 or train, valid, test "
                "(empty or -1: in no part)"
            )
    table = np.array([meaning[k] for k in keys], np.int8)
    parts = table[codes] if len(table) else np.empty(0, np.int8)
    return parts, f"As the column {spec.column!r} of the source says"


def _new_items(
    spec: SplitSpec, items: Ints, present: NDArray[np.bool_] | None, n_items: int
) -> tuple[NDArray[np.int8], str]:
    eligible = np.bincount(items, minlength=n_items) > 0
    if present is not None:
        eligible &= present
    chosen = np.random.default_rng(spec.seed).permutation(np.flatnonzero(eligible))
    test, valid = round(spec.share * len(chosen)), round(spec.share / 2 * len(chosen))
    kind = f"items with {spec.field}" if spec.field else "items"
    if not test or not valid:
        raise UserError(f"split new_items: {len(chosen)} {kind} with interactions are too few for share {spec.share}")
    chosen = np.roll(chosen, -(spec.fold * len(chosen) // spec.folds))
    part_of = np.zeros(n_items, np.int8)
    part_of[chosen[:test]] = 2
    part_of[chosen[test : test + valid]] = 1
    return part_of[items], (
        f"New items, fold {spec.fold} of {spec.folds}, seed {spec.seed}: of {len(chosen):,} {kind} that have "
        f"interactions, {test:,} are held out for test and {valid:,} others for valid, with all of their rows"
    )


# ------------------------------------------------------------------------------------------------------------- helpers
_SMALL = "a user with 1 row has it in train, with 2 in train and test, with 3 or more at least one in every part"


def _moment(time: int) -> str:
    """A time as a date where it can be one (seconds since 1970), else as it is."""
    if 0 < time < 2**33:
        return f"{np.datetime64(int(time), 's')} UTC (time {time})"
    return f"time {time}"


def _ratios(spec: SplitSpec) -> str:
    return "/".join(f"{100 * r:g}" for r in spec.ratios)


def _by_user_and_time(users: Ints, times: Ints | None = None) -> NDArray[np.int64]:
    """The order of rows by user, then time, then row; by one key where it fits in 64 bits, which is several times
    as fast."""
    if times is None or not len(users):
        return np.argsort(users, kind="stable")
    first, span = int(times.min()), int(times.max()) - int(times.min()) + 1
    if (int(users.max()) + 1) * span >= 2**63:
        return np.lexsort((times, users))
    keys = pl.DataFrame({"key": users.astype(np.int64) * span + (times - first)})
    return keys.select(pl.arg_sort_by("key", maintain_order=True)).to_series().to_numpy()


def _groups(*keys: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and length of every run of equal keys."""
    n = len(keys[0])
    new = np.ones(n, bool)
    if n:
        new[1:] = np.logical_or.reduce([k[1:] != k[:-1] for k in keys])
    starts = np.flatnonzero(new)
    return starts, np.diff(starts, append=n)


def _sizes(lengths: Ints, ratios: tuple[float, float, float]) -> NDArray[np.int64]:
    """Rows per user and part, `[users, 3]`: largest remainders, then small users as `_SMALL` says."""
    share = np.asarray(ratios)
    quotas = lengths[:, None] * share
    sizes = np.floor(quotas + 1e-9).astype(np.int64)
    # Equal remainders: the later part first, so that test is not the one to starve.
    order = np.lexsort((-np.arange(3)[None, :].repeat(len(lengths), 0), -np.round(quotas - sizes, 9)), axis=1)
    rank = np.argsort(order, axis=1)
    sizes += rank < (lengths - sizes.sum(1))[:, None]
    for part in (2, 1):
        if share[part] > 0:
            needs = (sizes[:, part] == 0) & (sizes.max(1) > 1)
            giver = sizes.argmax(1)
            sizes[needs, giver[needs]] -= 1
            sizes[needs, part] += 1
    alone = (sizes[:, 0] == 0) & (lengths > 0)
    giver = sizes.argmax(1)
    sizes[alone, giver[alone]] -= 1
    sizes[alone, 0] += 1
    return sizes


def _cut(valid: Ints, test: Ints, starts: Ints, lengths: Ints) -> NDArray[np.int8]:
    """Parts of sorted rows from the positions at which each user's valid and test rows begin."""
    rows = np.arange(int(lengths.sum()))
    return (rows >= np.repeat(valid, lengths)).astype(np.int8) + (rows >= np.repeat(test, lengths)).astype(np.int8)
