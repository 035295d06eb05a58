"""Which part of the data a row belongs to: seeded, vectorised, in bounded memory, and stated in words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rawrec.data.boundaries import Ints, at_rank, by_user_and_time, first_rows, groups, lists_of, parts_of, runs, sizes
from rawrec.data.meta import MILLISECOND
from rawrec.data.splits import PARTS, SplitSpec
from rawrec.errors import UserError

ROWS_AT_ONCE = 1 << 21
"""More rows are divided in turns, some users in each."""
DRAW = "/draw"
"""A column beside those of the interactions, whose names have no `/`."""
Parts = NDArray[np.int8]


@dataclass(frozen=True)
class Rows:
    """Interactions that can be read in their order, again and again, some at a time.

    count: how many. names: their columns, among them `user`, and `item` and `timestamp` where they are needed.
    read: batches of the columns that it is given.
    """

    count: int
    names: Collection[str]
    read: Callable[[list[str]], Iterator[pa.RecordBatch]]


def make_split(
    spec: SplitSpec, rows: Rows, n_items: int, present: NDArray[np.bool_] | None = None
) -> tuple[Parts, str]:
    """The part of every row, `[rows.count]` int8, and a statement of what was done, with counts.

    rows: with the columns of the spec. present: `[n_items]`, items that a `new_items` split may hold out (None: all).
    Deterministic by `spec.seed`. Memory: two bytes per row, and some 150 for each of ROWS_AT_ONCE rows; where users are
    divided one by one, the rows are read once for every so many.
    Raises UserError where the split is impossible.
    """
    if spec.kind in ("time_user", "time_global") and "timestamp" not in rows.names:
        raise UserError(
            f"split {spec.kind} needs timestamps, and the interactions have none: name a time column, "
            "or use random_user, leave_one_out, column or new_items"
        )
    divided, rest = rows, None
    if spec.history:
        rest = np.concatenate([above_zero(batch.column(0), spec.history) for batch in rows.read([spec.history])])
        divided = _without(rows, rest)
        if not divided.count:
            raise UserError(f"split history {spec.history!r} is above 0 in every row: nothing is left to divide")
    if spec.kind == "new_items":
        parts, words = _new_items(spec, divided, present, n_items)
    else:
        parts, words = _KINDS[spec.kind](spec, divided)
    if rest is not None:
        whole = np.full(rows.count, -1, np.int8)
        whole[~rest] = parts
        parts, words = whole, f"{words}; rows with {spec.history!r} above 0 are in no part and make histories only"
    counts = [f"{name} {int((parts == i).sum()):,}" for i, name in enumerate(PARTS)]
    if (parts < 0).any():
        counts.append(f"in no part {int((parts < 0).sum()):,}")
    return parts, f"{words}. Rows: {', '.join(counts)}."


def above_zero(values: pa.Array, name: str) -> NDArray[np.bool_]:
    """Where the column `name` is above 0, `[rows]`; not where it is empty. UserError where it holds no numbers."""
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)):
        raise UserError(f"split history {name!r} holds {values.type}: name a column of numbers")
    return values.cast(pa.float64(), safe=False).fill_null(0).to_numpy() > 0


# ----------------------------------------------------------------------------------------------------------- the kinds
def _by_user(cut: Callable[[pa.Table], Parts], rows: Rows, *columns: str) -> Parts:
    """`cut` of all rows; of many rows some users at a time, so that about ROWS_AT_ONCE of them are sorted at once."""
    turns = -(-rows.count // ROWS_AT_ONCE)
    parts = np.empty(rows.count, np.int8)
    for turn in range(turns):
        found, places, start = [], [], 0
        for batch in rows.read(["user", *columns]):
            mine = batch.column("user").to_numpy() % turns == turn
            found.append(batch.filter(pa.array(mine)))
            places.append(start + np.flatnonzero(mine))
            start += len(batch)
        parts[np.concatenate(places)] = cut(pa.Table.from_batches(found))
    return parts


def _random_user(spec: SplitSpec, rows: Rows) -> tuple[Parts, str]:
    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        chance = np.random.default_rng(spec.seed)
        for batch in rows.read([name for name in columns if name != DRAW]):
            yield batch.append_column(DRAW, pa.array(chance.random(len(batch))))

    def cut(table: pa.Table) -> Parts:
        users, draws, lists = _numbers(table, "user"), _numbers(table, DRAW), _lists(spec, table)
        if lists is not None:
            first = first_rows(lists)
            users, draws = users[first], draws[first]
        order = np.lexsort((draws, users))
        starts, lengths = groups(users[order])
        size = sizes(lengths, spec.ratios)
        parts = np.empty(len(users), np.int8)
        parts[order] = parts_of(starts + size[:, 0], starts + size[:, 0] + size[:, 1], starts, lengths)
        return parts if lists is None else parts[lists]

    parts = _by_user(cut, Rows(rows.count, rows.names, read), DRAW, *_together(spec))
    what = f", {_list(spec)} being divided whole" if spec.together else ""
    return parts, f"At random within each user{what}, {_ratios(spec)}, seed {spec.seed}; {_small(spec)}"


def _time_user(spec: SplitSpec, rows: Rows) -> tuple[Parts, str]:
    def cut(table: pa.Table) -> Parts:
        users, times, lists = _numbers(table, "user"), _numbers(table, "timestamp"), _lists(spec, table)
        order = by_user_and_time(users, times)
        starts, lengths = groups(users[order])
        size = sizes(lengths, spec.ratios)
        begins, whole_lengths = runs(None if lists is None else lists[order], users[order], times[order])
        ends = begins + whole_lengths

        def whole(cut: Ints) -> Ints:
            """A boundary inside a run moves to its nearer edge (the earlier of two, but never emptying train)."""
            at = np.searchsorted(begins, cut, side="right") - 1
            earlier = (cut - begins[at] <= ends[at] - cut) & (begins[at] > starts)
            return np.where(earlier | (begins[at] == cut), begins[at], ends[at])

        parts = np.empty(len(users), np.int8)
        cuts = starts + size[:, 0], starts + size[:, 0] + size[:, 1]
        if len(users):
            cuts = whole(cuts[0]), whole(cuts[1])
        parts[order] = parts_of(*cuts, starts, lengths)
        return parts

    lists = f", nor is {_list(spec)} or what overlaps with it" if spec.together else ""
    edge = "edge" if spec.together else "edge of the instant"
    return _by_user(cut, rows, "timestamp", *_together(spec)), (
        f"By time within each user, {_ratios(spec)}; rows of a user with equal times are never torn apart{lists} "
        f"(the boundary moves to the nearer {edge}), otherwise {_small()}"
    )


def _time_global(spec: SplitSpec, rows: Rows) -> tuple[Parts, str]:
    def times() -> Iterator[Ints]:
        for batch in rows.read(["timestamp"]):
            yield batch.column("timestamp").to_numpy()

    def cut(table: pa.Table) -> Parts:
        moments, lists = _numbers(table, "timestamp"), _lists(spec, table)
        assert lists is not None
        last = np.full(int(lists.max(initial=-1)) + 1, np.iinfo(np.int64).min)
        np.maximum.at(last, lists, moments)
        return _after(cuts, last[lists])

    positions = np.round(np.cumsum(spec.ratios)[:2] * rows.count).astype(np.int64).tolist()
    cuts = [at_rank(times, p) if p < rows.count else None for p in positions]
    if spec.together:
        parts = _by_user(cut, rows, "timestamp", spec.together)
    else:
        parts = np.concatenate([_after(cuts, moments) for moments in times()])
    if not (parts == 0).any():
        raise UserError(
            f"split time_global leaves no training row: the earliest {spec.ratios[0]:.0%} of the rows all have "
            f"the time {cuts[0]}; use random_user or time_user"
        )
    edges = ", ".join(
        f"{name} from {_moment(cut)}" for name, cut in zip(PARTS[1:], cuts, strict=True) if cut is not None
    )
    lists = f"; {_list(spec)} goes by its last row" if spec.together else ""
    return parts, f"By global time, {_ratios(spec)}: {edges}; rows with equal times stay together{lists}"


def _leave_one_out(spec: SplitSpec, rows: Rows) -> tuple[Parts, str]:
    times = [name for name in ("timestamp", MILLISECOND) if name in rows.names and "timestamp" in rows.names]
    few = 0

    def cut(table: pa.Table) -> Parts:
        nonlocal few
        users, lists = _numbers(table, "user"), _lists(spec, table)
        order = by_user_and_time(users, _instants(table, times))
        begins, whole_lengths = runs(None, np.arange(len(users))) if lists is None else runs(lists[order])
        starts, lengths = groups(users[order][begins])
        held = np.where(lengths >= 3, 1, 0)
        few += int((lengths < 3).sum())
        ends = starts + lengths
        parts = np.empty(len(users), np.int8)
        parts[order] = np.repeat(parts_of(ends - 2 * held, ends - held, starts, lengths), whole_lengths)
        return parts

    parts = _by_user(cut, rows, *times, *_together(spec))
    by = "time (equal times: by row)" if times else "order of rows (there are no times)"
    one = "list" if spec.together else "row"
    lists = f"; {_list(spec)} goes as one, as do lists that overlap" if spec.together else ""
    return parts, (
        f"Leave one out by {by}: each user's last {one} is test, the one before it valid; "
        f"{few:,} users with fewer than 3 {one}s are all train{lists}"
    )


def _column(spec: SplitSpec, rows: Rows) -> tuple[Parts, str]:
    assert spec.column is not None
    meaning = {"0": 0, "1": 1, "2": 2, "train": 0, "valid": 1, "test": 2, "-1": -1, "": -1, "None": -1, "nan": -1}
    found = []
    for batch in rows.read([spec.column]):
        coded = batch.column(0).dictionary_encode(null_encoding="encode")
        keys = [str(value).strip().removesuffix(".0") for value in coded.dictionary.to_pylist()]
        for key in keys:
            if key not in meaning:
                raise UserError(
                    f"split column {spec.column!r} holds {key!r}: use 0, 1, 2 or train, valid, test "
                    "(empty or -1: in no part)"
                )
        found.append(np.array([meaning[key] for key in keys], np.int8)[coded.indices.to_numpy()])
    return np.concatenate(found), f"As the column {spec.column!r} of the source says"


def _new_items(spec: SplitSpec, rows: Rows, present: NDArray[np.bool_] | None, n_items: int) -> tuple[Parts, str]:
    eligible = np.zeros(n_items, bool)
    for batch in rows.read(["item"]):
        eligible[batch.column("item").to_numpy()] = True
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
    return np.concatenate([part_of[batch.column("item").to_numpy()] for batch in rows.read(["item"])]), (
        f"New items, fold {spec.fold} of {spec.folds}, seed {spec.seed}: of {len(chosen):,} {kind} that have "
        f"interactions, {test:,} are held out for test and {valid:,} others for valid, with all of their rows"
    )


_KINDS: dict[str, Callable[[SplitSpec, Rows], tuple[Parts, str]]] = {
    "random_user": _random_user,
    "time_user": _time_user,
    "time_global": _time_global,
    "leave_one_out": _leave_one_out,
    "column": _column,
}


# ------------------------------------------------------------------------------------------------------------- helpers
def _without(rows: Rows, left_out: NDArray[np.bool_]) -> Rows:
    """The rows but those where `left_out` `[rows.count]` holds."""

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in rows.read(columns):
            yield batch.filter(pa.array(~left_out[start : start + len(batch)]))
            start += len(batch)

    return Rows(int((~left_out).sum()), rows.names, read)


def _numbers(table: pa.Table, name: str) -> NDArray[Any]:
    return table.column(name).to_numpy()


def _together(spec: SplitSpec) -> list[str]:
    return [spec.together] if spec.together else []


def _lists(spec: SplitSpec, table: pa.Table) -> NDArray[np.int64] | None:
    if not spec.together:
        return None
    return lists_of(_numbers(table, "user"), table.column(spec.together).combine_chunks())


def _after(cuts: list[int | None], times: Ints) -> Parts:
    """How many of the cuts are not later than each time."""
    parts = np.zeros(len(times), np.int8)
    for cut in cuts:
        if cut is not None:
            parts += times >= cut
    return parts


def _list(spec: SplitSpec) -> str:
    return f"a list (rows of a user with the same {spec.together!r})"


def _small(spec: SplitSpec | None = None) -> str:
    one = "list" if spec and spec.together else "row"
    return f"a user with 1 {one} has it in train, with 2 in train and test, with 3 or more at least one in every part"


def _instants(table: pa.Table, names: Sequence[str]) -> Ints | None:
    """Seconds, or thousandths of them where the rows have those; None without times."""
    if not names:
        return None
    seconds, *rest = (_numbers(table, name) for name in names)
    return 1000 * seconds + np.nan_to_num(rest[0]).astype(np.int64) if rest else seconds


def _moment(time: int) -> str:
    """A time as a date where it can be one (seconds since 1970), else as it is."""
    if 0 < time < 2**33:
        return f"{np.datetime64(int(time), 's')} UTC (time {time})"
    return f"time {time}"


def _ratios(spec: SplitSpec) -> str:
    return "/".join(f"{100 * r:g}" for r in spec.ratios)
