import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawrec.data import splits
from rawrec.data.splits import SplitSpec, make_split
from rawrec.errors import UserError


def split(spec, users, items=None, times=None, values=None, present=None, n_items=None):
    users = np.asarray(users, np.int32)
    items = np.zeros(len(users), np.int32) if items is None else np.asarray(items, np.int32)
    n_items = int(items.max(initial=0)) + 1 if n_items is None else n_items
    times = None if times is None else np.asarray(times, np.int64)
    return make_split(spec, users, items, times, values, present, n_items)


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


@pytest.mark.parametrize("kind", ["random_user", "time_user", "leave_one_out"])
def test_many_rows_are_divided_in_turns_to_the_same_end(kind, monkeypatch):
    chance = np.random.default_rng(0)
    users, times = chance.integers(0, 40, 500), chance.integers(0, 90, 500)
    whole = split(SplitSpec(kind=kind), users, times=times)
    monkeypatch.setattr(splits, "ROWS_AT_ONCE", 70)
    in_turns = split(SplitSpec(kind=kind), users, times=times)
    assert (whole[0] == in_turns[0]).all() and whole[1] == in_turns[1]


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
    parts, statement = split(SplitSpec(kind="column", column="x_label"), [0] * 4, values=values)
    assert parts.tolist() == [0, 1, 2, -1]
    assert "in no part 1" in statement


def test_column_with_an_unknown_value():
    with pytest.raises(UserError, match="'dev'"):
        split(SplitSpec(kind="column", column="part"), [0], values=np.array(["dev"], object))


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
