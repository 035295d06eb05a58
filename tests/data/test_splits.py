import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawrec.data import division
from rawrec.data.boundaries import at_rank
from rawrec.data.division import Rows, make_split
from rawrec.data.splits import SplitSpec
from rawrec.errors import UserError

KINDS = ["random_user", "time_user", "time_global", "leave_one_out", "column", "new_items"]


def split(spec, users, items=None, times=None, present=None, n_items=None, batch=7, **columns):
    users = np.asarray(users, np.int32)
    items = np.zeros(len(users), np.int32) if items is None else np.asarray(items, np.int32)
    n_items = int(items.max(initial=0)) + 1 if n_items is None else n_items
    table = pa.table({"user": users, "item": items, **columns})
    if times is not None:
        table = table.append_column("timestamp", pa.array(np.asarray(times, np.int64)))
    rows = Rows(len(users), table.column_names, lambda names: iter(table.select(names).to_batches(batch)))
    return make_split(spec, rows, n_items, present)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (5, (3, 1, 1)), (10, (8, 1, 1)), (25, (20, 2, 3))],
)
@pytest.mark.parametrize("kind", ["random_user", "time_user"])
def test_sizes_per_user(kind, rows, expected):
    parts, statement = split(SplitSpec(kind=kind), [0] * rows, times=range(rows))
    assert tuple(np.bincount(parts, minlength=3)) == expected
    assert f"train {expected[0]}, valid {expected[1]}, test {expected[2]}" in statement


def test_random_user_is_seeded_and_per_user():
    users = np.repeat(np.arange(50), 20)
    one, _ = split(SplitSpec(kind="random_user"), users)
    same, _ = split(SplitSpec(kind="random_user"), users)
    other, _ = split(SplitSpec(kind="random_user", seed=1), users)
    assert (one == same).all() and (one != other).any()
    for part, count in ((0, 16), (1, 2), (2, 2)):
        assert (np.bincount(users[one == part], minlength=50) == count).all()


@pytest.mark.parametrize("together", [None, "shown"])
@pytest.mark.parametrize("history", [None, "before"])
@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_are_divided_in_turns_to_the_same_end(kind, history, together, monkeypatch):
    if together and kind in ("column", "new_items"):
        return
    chance = np.random.default_rng(0)
    users, times, items = chance.integers(0, 40, 500), chance.integers(0, 90, 500), chance.integers(0, 60, 500)
    columns = {"fold": chance.integers(-1, 3, 500), "before": chance.random(500) < 0.1}
    columns["shown"] = pa.array(chance.choice(["a", "b", "c", None], 500))
    spec = SplitSpec(kind=kind, column="fold", history=history, together=together)
    whole = split(spec, users, items, times, batch=500, **columns)
    monkeypatch.setattr(division, "ROWS_AT_ONCE", 70)
    in_turns = split(spec, users, items, times, batch=33, **columns)
    assert (whole[0] == in_turns[0]).all() and whole[1] == in_turns[1]


@pytest.mark.parametrize(
    ("settings_", "expected"),
    [
        ({"kind": "random_user"}, [0, 0, 0, 0, 1, 2, 0, 0, 0, 2, 2, 0, 1, 0, 0]),
        ({"kind": "random_user", "seed": 7}, [0, 2, 1, 0, 0, 1, 0, 2, 0, 2, 0, 0, 0, 0, 0]),
        ({"kind": "time_user"}, [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0, 0]),
        ({"kind": "time_global"}, [0, 0, 0, 2, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0]),
        ({"kind": "leave_one_out"}, [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0, 1]),
        ({"kind": "new_items", "seed": 2, "folds": 3}, [2, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0, 1, 0]),
    ],
)
def test_parts_stay_what_they_were(settings_, expected):
    """Of datasets imported earlier: a rule or the order of draws that changes would give others."""
    users = [0, 1, 0, 2, 0, 1, 0, 0, 1, 2, 0, 0, 1, 0, 0]
    times = [5, 5, 3, 9, 4, 1, 7, 7, 2, 9, 8, 1, 6, 2, 7]
    items = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9]
    assert split(SplitSpec(**settings_), users, items, times, n_items=10)[0].tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300)), min_size=1), st.data())
def test_value_at_a_rank(blocks, data):
    values = sorted(value for block in blocks for value in block)
    if values:
        rank = data.draw(st.integers(0, len(values) - 1))
        assert at_rank(lambda: [np.array(block, np.int64) for block in blocks], rank) == values[rank]


def test_times_far_apart_are_ordered_all_the_same():
    users, times = [1, 0, 1, 0, 1, 0], [2**62, -(2**62), 5, 7, -(2**62), 7]
    parts, _ = split(SplitSpec(kind="leave_one_out"), users, times=times)
    assert parts.tolist() == [2, 0, 1, 1, 0, 2]
    near, _ = split(SplitSpec(kind="leave_one_out"), users, times=[9, 1, 5, 7, 1, 7])
    assert near.tolist() == parts.tolist()


def test_zero_ratio_leaves_the_part_empty():
    parts, _ = split(SplitSpec(kind="random_user", ratios=(0.9, 0.0, 0.1)), [0] * 3 + [1])
    assert not (parts == 1).any() and (parts == 2).sum() == 1


def test_time_user_orders_by_time_not_by_row():
    parts, _ = split(SplitSpec(kind="time_user"), [0] * 10, times=range(10, 0, -1))
    assert parts.tolist() == [2, 1] + [0] * 8


def test_time_user_moves_a_boundary_to_the_nearer_edge_of_an_instant():
    def parts(times):
        return split(SplitSpec(kind="time_user", ratios=(0.5, 0.0, 0.5)), [0] * 6, times=times)[0].tolist()

    assert parts([1, 2, 3, 4, 5, 6]) == [0, 0, 0, 2, 2, 2]
    assert parts([1, 2, 3, 3, 3, 6]) == [0, 0, 2, 2, 2, 2]
    assert parts([1, 3, 3, 3, 5, 6]) == [0, 0, 0, 0, 2, 2]
    assert parts([3, 3, 3, 3, 3, 3]) == [0] * 6


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=60))
def test_time_user_never_tears_an_instant_and_never_looks_ahead(rows):
    users, times = np.array(rows).T
    parts, _ = split(SplitSpec(kind="time_user"), users, times=times)
    for user in np.unique(users):
        mine = users == user
        order = np.argsort(times[mine], kind="stable")
        assert (np.diff(parts[mine][order]) >= 0).all()
        assert (parts[mine] == 0).any()
        for instant in np.unique(times[mine]):
            assert len(set(parts[mine & (times == instant)])) == 1


def test_time_global():
    times = [5, 1, 2, 3, 4, 6, 7, 8, 9, 9]
    parts, statement = split(SplitSpec(kind="time_global"), range(10), times=times)
    assert parts.tolist() == [0] * 8 + [2, 2]
    assert "equal times stay together" in statement
    parts, _ = split(SplitSpec(kind="time_global"), range(10), times=range(10))
    assert parts.tolist() == [0] * 8 + [1, 2]
    with pytest.raises(UserError, match="no training row"):
        split(SplitSpec(kind="time_global"), range(10), times=[7] * 10)


def test_leave_one_out():
    users = [0, 0, 0, 0, 1, 1, 2]
    parts, statement = split(SplitSpec(kind="leave_one_out"), users, times=[4, 3, 2, 1, 1, 2, 1])
    assert parts.tolist() == [2, 1, 0, 0, 0, 0, 0]
    assert "2 users with fewer than 3 rows are all train" in statement
    parts, statement = split(SplitSpec(kind="leave_one_out"), users)
    assert parts.tolist() == [0, 0, 1, 2, 0, 0, 0] and "order of rows" in statement


@pytest.mark.parametrize(
    "values",
    [np.array([0, 1, 2, -1]), np.array([0.0, 1.0, 2.0, np.nan]), np.array(["train", " valid", "test", ""], object)],
)
def test_column(values):
    parts, statement = split(SplitSpec(kind="column", column="x_label"), [0] * 4, x_label=values)
    assert parts.tolist() == [0, 1, 2, -1]
    assert "in no part 1" in statement


def test_column_with_an_unknown_value():
    with pytest.raises(UserError, match="'dev'"):
        split(SplitSpec(kind="column", column="part"), [0], part=np.array(["dev"], object))


def test_new_items_holds_out_items_in_disjoint_folds():
    rng = np.random.default_rng(0)
    items = rng.integers(0, 100, 3000)
    present = np.arange(120) % 2 == 0
    tests = []
    for fold in range(5):
        spec = SplitSpec(kind="new_items", fold=fold, field="image")
        parts, statement = split(spec, np.zeros(3000), items, present=present, n_items=120)
        sets = [set(items[parts == part]) for part in range(3)]
        assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
        assert len(sets[2]) == 10 and len(sets[1]) == 5
        assert all(present[i] for i in sets[1] | sets[2])
        assert "of 50 items with image" in statement
        tests.append(sets[2])
    assert len(set.union(*tests)) == 50


@pytest.mark.parametrize("kind", ["time_user", "time_global"])
def test_time_split_without_times(kind):
    with pytest.raises(UserError, match="needs timestamps"):
        split(SplitSpec(kind=kind), [0, 0, 0])


@pytest.mark.parametrize(
    "settings_",
    [
        {"ratios": (0.5, 0.1, 0.1)},
        {"ratios": (0.0, 0.5, 0.5)},
        {"kind": "column"},
        {"kind": "new_items", "fold": 5},
        {"kind": "new_items", "share": 0.4},
        {"kind": "new_items", "together": "session"},
        {"kind": "column", "column": "fold", "together": "session"},
        {"kind": "by_moon"},
        {"seed": -1},
        {"ratio": (0.8, 0.1, 0.1)},
    ],
)
def test_impossible_settings(settings_):
    with pytest.raises(UserError):
        SplitSpec(**settings_)


def test_no_items_to_hold_out():
    with pytest.raises(UserError, match="too few"):
        split(SplitSpec(kind="new_items"), [0, 0], [0, 1])


def test_settings_name_only_what_matters():
    assert SplitSpec(kind="leave_one_out").settings() == {"kind": "leave_one_out"}
    assert set(SplitSpec(kind="new_items").settings()) == {"kind", "share", "fold", "folds", "seed"}


# ------------------------------------------------------------------------------------------------- lists kept together
MANY = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from(["a", "b", "c", "d", None])),
    min_size=1,
    max_size=50,
)


@settings(max_examples=150, deadline=None)
@given(MANY, st.sampled_from(["random_user", "time_user", "time_global", "leave_one_out"]), st.booleans())
def test_lists_are_never_torn_apart(rows, kind, timed):
    users, times, shown = (list(column) for column in zip(*rows, strict=True))
    if not timed and kind.startswith("time"):
        return
    spec = SplitSpec(kind=kind, together="shown", ratios=(0.5, 0.2, 0.3))
    try:
        parts, statement = split(spec, users, times=times if timed else None, shown=pa.array(shown, pa.string()))
    except UserError as error:
        assert kind == "time_global" and "no training row" in str(error)
        return
    assert "rows of a user with the same 'shown'" in statement
    found: dict[tuple[int, str], set[int]] = {}
    for user, name, part in zip(users, shown, parts.tolist(), strict=True):
        if name is not None:
            found.setdefault((user, name), set()).add(part)
    assert all(len(part) == 1 for part in found.values())
    if kind == "time_global":
        later = [time for time, part in zip(times, parts, strict=True) if part == 0]
        cut = int(np.sort(times)[round(0.5 * len(times))])
        assert max(later) < cut
        return
    for user in set(users):
        mine = [(time, part) for u, time, part in zip(users, times, parts.tolist(), strict=True) if u == user]
        assert any(part == 0 for _, part in mine)
        if timed and kind != "random_user":
            ordered = [part for _, part in sorted(mine)]
            assert ordered == sorted(ordered)


def test_lists_of_a_user_are_divided_like_rows():
    users = np.repeat(np.arange(30), 30)
    shown = np.tile(np.repeat(np.arange(10), 3), 30)  # ten lists of three rows; other users have the same numbers
    parts, statement = split(SplitSpec(kind="random_user", together="shown"), users, shown=shown)
    lists = parts.reshape(30, 10, 3)
    assert (lists == lists[:, :, :1]).all()
    assert all((np.bincount(user, minlength=3) == (8, 1, 1)).all() for user in lists[:, :, 0])
    assert len({tuple(user) for user in lists[:, :, 0].tolist()}) > 10
    assert "a user with 1 list has it in train" in statement
    parts, statement = split(SplitSpec(kind="leave_one_out", together="shown"), users, shown=shown)
    assert parts[:30].tolist() == [0] * 24 + [1] * 3 + [2] * 3
    assert "each user's last list is test" in statement


def test_lists_that_overlap_in_time_are_one():
    times, shown = [1, 2, 3, 4, 5, 6, 7, 8], ["a", "a", "b", "c", "b", "c", "d", "d"]
    parts, _ = split(SplitSpec(kind="leave_one_out", together="shown"), [0] * 8, times=times, shown=shown)
    assert parts.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    spec = SplitSpec(kind="time_user", together="shown", ratios=(0.5, 0.0, 0.5))
    parts, _ = split(spec, [0] * 8, times=times, shown=shown)
    assert parts.tolist() == [0, 0, 2, 2, 2, 2, 2, 2]


def test_rows_without_a_list_stand_alone():
    spec = SplitSpec(kind="leave_one_out", together="shown")
    assert split(spec, [0] * 4, shown=pa.array([None, "a", "a", None]))[0].tolist() == [0, 1, 1, 2]


def test_a_list_goes_by_its_last_row_under_global_time():
    spec = SplitSpec(kind="time_global", together="shown", ratios=(0.5, 0.25, 0.25))
    times = range(8)
    parts, statement = split(spec, [0, 0, 1, 1, 0, 1, 1, 0], times=times, shown=list("aabbbbbc"))
    assert parts.tolist() == [0, 0, 2, 2, 1, 2, 2, 2]
    assert "goes by its last row" in statement


# ------------------------------------------------------------------------------------------------------ histories only
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_histories_are_in_no_part_and_change_no_other(kind):
    chance = np.random.default_rng(0)
    users, times, items = chance.integers(0, 9, 200), chance.integers(0, 90, 200), chance.integers(0, 60, 200)
    fold, given_ = chance.integers(0, 3, 200), np.where(chance.random(200) < 0.3, 1.0, np.nan)
    spec = SplitSpec(kind=kind, column="fold", history="given")
    parts, statement = split(spec, users, items, times, n_items=60, fold=fold, given=given_)
    left = np.isnan(given_)
    alone, _ = split(
        spec.model_copy(update={"history": None}), users[left], items[left], times[left], n_items=60, fold=fold[left]
    )
    assert (parts[left] == alone).all() and (parts[~left] == -1).all()
    assert "rows with 'given' above 0 are in no part" in statement and f"in no part {(~left).sum()}" in statement


def test_histories_need_numbers_and_leave_something():
    with pytest.raises(UserError, match="holds string"):
        split(SplitSpec(kind="random_user", history="given"), [0], given=["yes"])
    with pytest.raises(UserError, match="nothing is left to divide"):
        split(SplitSpec(kind="random_user", history="given"), [0, 1], given=[1, 2])
