"""Histories without leaks against a brute force, negatives, and the order of training."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawrec.data.dataset import Dataset, Fields
from rawrec.data.import_report import ImportReport
from rawrec.data.sampling import Histories, Samples
from rawrec.data.splits import SplitSpec
from rawrec.data.writer import DatasetWriter
from systems import small_dataset

N_USERS, N_ITEMS = 4, 6
rows_of = st.lists(
    st.tuples(st.integers(0, N_USERS - 1), st.integers(0, N_ITEMS - 1), st.integers(-5, 5)), min_size=0, max_size=40
)


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(rows, np.int64).reshape(-1, 3)
    return table[:, 0].astype(np.int32), table[:, 1].astype(np.int32), table[:, 2]


def padded(items: list[int], length: int) -> list[int]:
    kept = items[-length:] if length else []
    return [-1] * (length - len(kept)) + kept


# ------------------------------------------------------------------------------------------------------------ histories
@settings(max_examples=150, deadline=None)
@given(rows=rows_of, queries=rows_of, length=st.integers(0, 7))
def test_history_is_what_came_strictly_before(
    rows: list[tuple[int, int, int]], queries: list[tuple[int, int, int]], length: int
) -> None:
    users, items, times = columns(rows)
    asked_users, targets, asked_times = columns(queries)
    got = Histories(users, items, times, N_USERS).read(asked_users, targets, asked_times, length)
    assert got.shape == (len(queries), length) and got.dtype == np.int64
    order = sorted(range(len(rows)), key=lambda k: rows[k][2])  # stable: equal times keep their order
    for (user, _, time), line in zip(queries, got.tolist(), strict=True):
        before = [rows[k][1] for k in order if rows[k][0] == user and rows[k][2] < time]
        assert line == padded(before, length)


@settings(max_examples=100, deadline=None)
@given(rows=rows_of, queries=rows_of, length=st.integers(0, 7))
def test_without_time_the_target_is_left_out(
    rows: list[tuple[int, int, int]], queries: list[tuple[int, int, int]], length: int
) -> None:
    users, items, _ = columns(rows)
    asked_users, targets, _ = columns(queries)
    made = Histories(users, items, None, N_USERS)
    got = made.read(asked_users, targets, None, length)
    assert got.shape == (len(queries), length)
    for (user, target, _), line in zip(queries, got.tolist(), strict=True):
        own = [row[1] for row in rows if row[0] == user]
        window = own[-length - 1 :]
        expected = [item for item in window if item != target]
        assert target not in line
        assert line == padded(expected, length)
    everything = made.read(asked_users, None, None, length)
    for (user, _, _), line in zip(queries, everything.tolist(), strict=True):
        assert line == padded([row[1] for row in rows if row[0] == user], length)


@settings(max_examples=100, deadline=None)
@given(rows=rows_of, queries=rows_of, length=st.integers(0, 7))
def test_where_earlier_says_nothing_the_latest_others_are_read(
    rows: list[tuple[int, int, int]], queries: list[tuple[int, int, int]], length: int
) -> None:
    """A random split of data with times: whatever the order of the file."""
    users, items, times = columns(rows)
    asked_users, targets, asked_times = columns(queries)
    got = Histories(users, items, times, N_USERS, timeless=True).read(asked_users, targets, asked_times, length)
    order = sorted(range(len(rows)), key=lambda k: rows[k][2])
    for (user, target, _), line in zip(queries, got.tolist(), strict=True):
        window = [rows[k][1] for k in order if rows[k][0] == user][-length - 1 :]
        assert line == padded([item for item in window if item != target], length)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_histories_of_samples(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whole path: positives only, training reads training rows, evaluation all (rolling) or training rows (train)."""
    rows = data.draw(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.integers(0, 5),
                st.integers(0, 6),
                st.sampled_from([0.0, 1.0]),
                st.sampled_from(["train", "valid", "test"]),
            ),
            min_size=4,
            max_size=25,
        )
    )
    rows.append((0, 0, 0, 1.0, "train"))
    made = small_dataset(tmp_path_factory.mktemp("d") / "d", [r[:4] for r in rows], N_ITEMS, parts=[r[4] for r in rows])
    part_of = {"train": 0, "valid": 1, "test": 2}
    for mode in ("rolling", "train"):
        samples = Samples(made, "default", "label", 4, mode, 1)
        for name, part in part_of.items():
            batch = samples.impressions(samples.rows(part), part, np.random.default_rng(0))
            histories = samples.histories(batch, part)
            assert histories.shape == (len(batch.rows), 4)
            readable = [r for r in rows if r[3] > 0 and (r[4] == "train" or (mode == "rolling" and name != "train"))]
            for index, line in zip(batch.rows, histories.tolist(), strict=True):
                user, _, time = rows[index][:3]
                before = [r[1] for r in sorted(readable, key=lambda r: r[2]) if r[0] == user and r[2] < time]
                assert [f"i{k}" for k in before][-4:] == [made.item_ids[k] for k in line if k >= 0]


def test_random_split_reads_training_rows_but_the_target(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(u, int(i), t, 1.0) for u in range(5) for t, i in enumerate(rng.permutation(12)[:10])]
    made = small_dataset(tmp_path / "d", rows, 12, split=SplitSpec(kind="random_user", ratios=(0.6, 0.2, 0.2)))
    samples = Samples(made, "default", "label", 20, "rolling", 1)
    train = samples.part == 0
    for part in (0, 1, 2):
        batch = samples.impressions(samples.rows(part), part, np.random.default_rng(0))
        for row, line in zip(batch.rows, samples.histories(batch, part), strict=True):
            own = set(made.items[train & (made.users == made.users[row])].tolist()) - {int(made.items[row])}
            assert sorted(line[line >= 0].tolist()) == sorted(own)


@pytest.mark.parametrize("kind", ["time_user", "random_user", "new_items"])
def test_rows_that_make_histories_only(tmp_path: Path, kind: str) -> None:
    """They are no samples, and training reads them, but for items that are held out."""
    chance = np.random.default_rng(0)
    users, items, before = chance.integers(0, 5, 120), chance.integers(0, 30, 120), chance.random(120) < 0.4
    with DatasetWriter(
        tmp_path / "d", fields=Fields(), source="test", labels=["click"], extra={"given": pa.int8()}, has_time=True
    ) as writer:
        columns = {"user_id": [f"u{u}" for u in users], "item_id": [f"i{i}" for i in items]}
        times = np.where(before, np.arange(120), 1000 + np.arange(120))
        clicks = np.where(before, 1.0, chance.integers(0, 2, 120))
        writer.add_interactions(columns | {"timestamp": times, "click": clicks, "given": before.astype(np.int8)})
        made = writer.finish(SplitSpec(kind=kind, history="given"), ImportReport())
    parts = made.split()
    held_out = np.isin(made.items, made.items[parts > 0]) if kind == "new_items" else np.zeros(120, bool)
    assert (parts[before] == -1).all() and (parts[~before] >= 0).all()
    assert (made.history_rows() == before & ~held_out).all()
    assert (made.retrieval_split() == np.where(before & ~held_out, 0, parts)).all()
    samples = Samples(made, "default", "click", 120, "train", 0)
    batch = samples.impressions(samples.rows(0), 0, np.random.default_rng(0))
    readable = (clicks > 0) & ((parts == 0) | (before & ~held_out))
    for row, line in zip(batch.rows, samples.histories(batch, 0), strict=True):
        mine = readable & (made.users == made.users[row])
        if kind == "random_user":
            expected = made.items[mine & (made.items != made.items[row])]
        else:
            expected = made.items[mine & (times < times[row])]
        assert sorted(line[line >= 0].tolist()) == sorted(expected.tolist())
    assert samples.train_counts.sum() == (parts == 0).sum()


# ------------------------------------------------------------------------------------------------------------ negatives
def clicks(seed: int = 0) -> list[tuple[int, int, int, float]]:
    rng = np.random.default_rng(seed)
    return [(int(u), int(rng.integers(0, 4 + t)), t * 10, 1.0) for t in range(25) for u in rng.permutation(6)[:3]]


@pytest.mark.parametrize("has_launched", [True, False])
def test_negatives_were_there_and_are_no_positives(tmp_path: Path, has_launched: bool) -> None:
    launched = [max(0, (k - 4) * 10 - 3) for k in range(30)] if has_launched else None
    made = small_dataset(tmp_path / "d", clicks(), 30, labelled=False, launched=launched)
    assert made.positive_only
    samples = Samples(made, "default", "label", 5, "rolling", 7)
    assert samples.undrawn[0] > 0  # who comes first finds nothing else
    first = np.full(made.n_items, np.iinfo(np.int64).max)
    np.minimum.at(first, made.items, made.timestamps)
    there = np.array(launched) if launched is not None else first
    assert (samples.labels == 1).all()
    for part in (0, 1, 2):
        rows = samples.rows(part)
        batch = samples.impressions(rows, part, np.random.default_rng(1))
        assert batch.items.shape == batch.labels.shape == (len(rows), 8)
        assert (batch.items[:, 0] == made.items[rows]).all() and (batch.labels.sum(1) == 1).all()
        assert (batch.labels[:, 0] == 1).all()
        known = samples.part == 0 if part == 0 else np.ones(len(samples.part), bool)
        positives = {(int(u), int(i)) for u, i in zip(made.users[known], made.items[known], strict=True)}
        pool = samples.train_counts > 0 if part == 0 else np.ones(made.n_items, bool)
        for user, time, drawn in zip(batch.users, batch.times, batch.items[:, 1:], strict=True):
            assert (there[drawn] <= time).all() and pool[drawn].all()
            assert not any((int(user), int(i)) in positives for i in drawn)
        every = np.flatnonzero(samples.part == part)
        free = [
            any(
                (int(made.users[r]), int(i)) not in positives
                for i in np.flatnonzero(pool & (there <= made.timestamps[r]))
            )
            for r in every
        ]
        assert rows.tolist() == every[free].tolist() and samples.undrawn[part] == len(every) - sum(free)
        assert len(np.unique(batch.items[:, 1:])) > 8


@pytest.mark.parametrize("kind", ["new_items", "random_user", "time_user", "time_global", "leave_one_out"])
def test_training_meets_no_item_without_a_training_row(tmp_path: Path, kind: str) -> None:
    """Not as a negative either, else held-out items would be learnt to be taken by nobody; evaluation judges them."""
    rng = np.random.default_rng(0)
    rows = [(int(u), int(i), int(t), 1.0) for t in range(20) for u, i in enumerate(rng.permutation(60)[:15])]
    made = small_dataset(tmp_path / "d", rows, 70, labelled=False, split=SplitSpec.model_validate({"kind": kind}))
    samples = Samples(made, "default", "label", 5, "rolling", 20)
    batch = samples.impressions(samples.rows(0), 0, np.random.default_rng(0))
    assert (samples.train_counts[batch.items] > 0).all() and len(batch.rows) > 100
    if kind == "new_items":
        test = samples.impressions(samples.rows(2), 2, np.random.default_rng(0))
        cold = samples.train_counts[test.items] == 0
        assert cold[:, 0].all() and 0 < cold[:, 1:].mean() < 1


def test_rows_that_make_histories_only_are_known_positives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    users, items, before = rng.integers(0, 5, 200), rng.integers(0, 20, 200), rng.random(200) < 0.3
    with DatasetWriter(
        tmp_path / "d", fields=Fields(), source="test", labels=[], extra={"given": pa.int8()}, has_time=False
    ) as writer:
        columns = {"user_id": [f"u{u}" for u in users], "item_id": [f"i{i}" for i in items]}
        writer.add_interactions(columns | {"given": before.astype(np.int8)})
        made = writer.finish(SplitSpec(kind="random_user", history="given"), ImportReport())
    samples = Samples(made, "default", "label", 5, "rolling", 9)
    batch = samples.impressions(samples.rows(0), 0, np.random.default_rng(0))
    known = set(zip(made.users[before].tolist(), made.items[before].tolist(), strict=True))
    drawn = {(int(u), int(i)) for u, row in zip(batch.users, batch.items, strict=True) for i in row[1:]}
    assert known and len(drawn) > 20 and not known & drawn


def test_a_user_who_took_everything_gives_no_samples(tmp_path: Path) -> None:
    rows = [(0, i, i, 1.0) for i in range(8)] + [(1, i, 20 + i, 1.0) for i in range(4)]
    made = small_dataset(
        tmp_path / "d", rows, 8, labelled=False, parts=["train"] * 8 + ["train", "train", "valid", "test"]
    )
    samples = Samples(made, "default", "label", 5, "rolling", 3)
    assert samples.rows(0).tolist() == samples.order(0, 0)[np.argsort(samples.order(0, 0))].tolist() == [8, 9]
    assert samples.undrawn == [8, 0, 0] and samples.emptiness(0).startswith("no samples: none of its 8 positives")
    assert samples.undrawn_note().startswith("positives without a negative, left out: 8 of train.")
    batch = samples.impressions(samples.rows(0), 0, np.random.default_rng(0))
    assert set(batch.items[:, 1:].ravel().tolist()) <= {2, 3, 4, 5, 6, 7}  # training knows no more of user 1
    with pytest.raises(ValueError, match="no free item"):
        samples.impressions(np.array([0]), 0, np.random.default_rng(0))


def test_negatives_are_a_function_of_the_generator(tmp_path: Path) -> None:
    samples = Samples(small_dataset(tmp_path / "d", clicks(), 30, labelled=False), "default", "label", 5, "rolling", 3)
    rows = samples.rows(0)
    draws = [samples.impressions(rows, 0, np.random.default_rng(seed)).items for seed in (3, 3, 4)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])


def test_labels_are_zero_and_one(tmp_path: Path) -> None:
    rows = [(u, i, i, float(y)) for u in range(3) for i, y in enumerate((-1, 0, 0.3, 1, 5, 300))]
    samples = Samples(small_dataset(tmp_path / "d", rows, 6), "default", "label", 5, "rolling", 4)
    assert samples.labels.dtype == np.float32 and samples.labels.tolist() == [0, 0, 1, 1, 1, 1] * 3
    batch = samples.impressions(samples.rows(0), 0, np.random.default_rng(0))
    assert set(batch.labels.ravel().tolist()) == {0.0, 1.0} and samples.undrawn == [0, 0, 0]


def test_labelled_data_draw_none(shop: Path) -> None:
    samples = Samples(Dataset.open(shop), "default", "label", 5, "rolling", 4)
    batch = samples.impressions(samples.rows(1), 1, np.random.default_rng(0))
    assert batch.items.shape == (200, 1) and set(np.unique(batch.labels)) == {0.0, 1.0}


# ---------------------------------------------------------------------------------------------------------------- order
def test_order_is_a_function_of_seed_and_epoch(shop: Path) -> None:
    data = Dataset.open(shop)
    samples, again = (Samples(data, "default", "label", 5, "rolling", 4) for _ in range(2))
    order = samples.order(1, 2)
    np.random.default_rng(0).random(5)
    assert np.array_equal(order, again.order(1, 2))
    assert sorted(order) == samples.rows(0).tolist()
    for other in (samples.order(1, 3), samples.order(2, 2)):
        assert not np.array_equal(order, other) and sorted(other) == sorted(order)


def test_counts_are_of_training_rows(shop: Path) -> None:
    data = Dataset.open(shop)
    samples = Samples(data, "default", "label", 5, "rolling", 4)
    train = data.split() == 0
    assert samples.train_counts.tolist() == [int((data.items[train] == i).sum()) for i in range(60)]
    assert samples.train_users.tolist() == [int((data.users[train] == u).sum()) for u in range(40)]
    assert (samples.train_counts == 0).any()
