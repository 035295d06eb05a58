"""Interactions that are memory-mapped say what those in memory say, in tiny pieces; orders by windows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rawrec.data import flat, mapped
from rawrec.data.dataset import Dataset
from rawrec.data.flat import FlatStore
from rawrec.data.mapped import MappedDataset
from rawrec.data.mapped_samples import MappedSamples
from rawrec.data.order import WindowOrder
from rawrec.data.sampling import Samples
from rawrec.data.splits import SplitSpec
from systems import small_dataset


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "ROWS", 37)
    monkeypatch.setattr(flat, "BLOCK", 64)
    monkeypatch.setattr(mapped, "BUCKET", 29)


def rows_of(seed: int) -> list[tuple[int, int, int, float]]:
    rng = np.random.default_rng(seed)
    draw = zip(rng.integers(0, 17, 400), rng.integers(0, 40, 400), rng.integers(0, 90, 400), strict=True)
    return [(int(user), int(item), int(when), float(rng.random() < 0.5)) for user, item, when in draw]


def made(tmp_path: Path, **given: Any) -> Dataset:
    return small_dataset(tmp_path / "d", rows_of(0), 45, **given)


def pair(data: Dataset, mode: str, events: bool = False) -> tuple[Samples, MappedSamples]:
    given = ("default", "label", 6, mode, 3, (), False, events)
    return Samples(data, *given), MappedSamples(MappedDataset.of(data, [data.path / "cache"]), *given)


@pytest.mark.parametrize("mode", ["rolling", "train"])
@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "positive"])
@pytest.mark.parametrize("kind", ["time_user", "random_user", "timeless"])
def test_samples_are_those_in_memory(tmp_path: Path, kind: str, labelled: bool, mode: str) -> None:
    split = SplitSpec(kind="random_user" if kind == "timeless" else kind)  # type: ignore[arg-type]
    data = made(tmp_path, labelled=labelled, split=split, has_time=kind != "timeless")
    one, other = pair(data, mode, events=True)
    assert np.array_equal(one.train_counts, other.train_counts)
    assert np.array_equal(one.train_users, other.train_users)
    assert (one.undrawn, one.unlabelled, one.emptiness(0)) == (other.undrawn, other.unlabelled, other.emptiness(0))
    for part in range(3):
        rows = one.rows(part)
        assert len(rows) and np.array_equal(rows, other.rows(part))
        mine, theirs = (s.impressions(rows, part, np.random.default_rng(5)) for s in (one, other))
        for name in ("users", "items", "labels", "times"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name)), name
        assert np.array_equal(one.histories(mine, part), other.histories(theirs, part))
        asked = mine.users, mine.items[:, 0], mine.times, 6
        assert np.array_equal(one.source(part).events(*asked), other.source(part).events(*asked))
    for name in ("users", "items"):
        assert np.array_equal(getattr(data, name), getattr(other.data, name))
    assert np.array_equal(data.split(), other.part) and np.array_equal(data.label(), other.data.label())
    assert isinstance(other.train_histories.items.base, np.memmap)


def test_histories_that_come_alone_and_items_that_are_launched_later(tmp_path: Path) -> None:
    parts = np.random.default_rng(2).choice(["train", "valid", "test", ""], 400).tolist()
    spec = SplitSpec(kind="column", column="part", history="label")
    launched = [0 if k % 3 else 40 for k in range(45)]
    data = small_dataset(tmp_path / "d", rows_of(0), 45, parts=parts, split=spec, launched=launched)
    one, other = pair(data, "rolling")
    assert one.history_only.any() and np.array_equal(one.history_only, other.history_only)
    sample = one.impressions(one.rows(0), 0, np.random.default_rng(0))
    assert np.array_equal(one.histories(sample, 0), other.histories(sample, 0))
    assert np.array_equal(data.launched, other.data.launched)


def test_a_further_split_has_files_of_its_own(tmp_path: Path) -> None:
    data = made(tmp_path)
    data.add_split("other", SplitSpec(kind="random_user", seed=3))
    flats = MappedDataset.of(data, [data.path / "cache"])
    assert np.array_equal(flats.split("other"), data.split("other"))
    assert np.array_equal(flats.split(), data.split()) and not np.array_equal(flats.split(), flats.split("other"))
    mine, theirs = (MappedSamples(flats, name, "label", 4, "rolling", 1) for name in ("default", "other"))
    assert not np.array_equal(mine.rows(1), theirs.rows(1))


# --------------------------------------------------------------------------------------------------------------- files
def values() -> Iterator[np.ndarray]:
    return iter([np.arange(100), np.arange(100, 130)])


def test_an_array_is_made_once_and_is_not_to_be_written(tmp_path: Path) -> None:
    store = FlatStore(tmp_path / "cache")
    first = store.array("key", np.int64, values)
    again = store.array("key", np.int64, lambda: pytest.fail("made twice"))
    assert np.array_equal(first, again) and again.tolist() == list(range(130))
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 1
    assert store.array("other", np.int64, lambda: iter([np.arange(3)])).tolist() == [0, 1, 2]


@pytest.mark.parametrize("place", [3, flat.HEAD + 9, -2], ids=["head", "values", "sums"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, place: int) -> None:
    store = FlatStore(tmp_path / "cache")
    store.array("key", np.int64, values)
    (file,) = (tmp_path / "cache").glob("*.flat")
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.warns(UserWarning, match="is damaged"):
        assert store.array("key", np.int64, values).tolist() == list(range(130))
    file.write_bytes(bytes(data)[:-30])
    with pytest.warns(UserWarning, match="is damaged"):
        assert store.array("key", np.int64, values).tolist() == list(range(130))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = FlatStore(tmp_path / "file" / "cache", tmp_path / "run" / "cache")
    assert store.array("key", np.int64, values).tolist() == list(range(130))
    assert len(list((tmp_path / "run" / "cache").glob("*.flat"))) == 1
    with pytest.warns(UserWarning, match="mapped for this process alone"):
        assert FlatStore(tmp_path / "file" / "cache").array("key", np.int64, values)[129] == 129


def test_what_is_left_of_an_error_is_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield np.arange(9)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        FlatStore(tmp_path / "cache").array("key", np.int64, broken)
    assert not list((tmp_path / "cache").iterdir())


# -------------------------------------------------------------------------------------------------------------- orders
@pytest.mark.parametrize("count", [0, 1, 63, 1000])
@pytest.mark.parametrize("window", [1, 70, 128, 5000])
def test_an_order_by_windows_has_every_row_once(count: int, window: int) -> None:
    rows = np.arange(7, 7 + count) * 3
    order = WindowOrder(rows, 3, 1, window)
    whole = np.concatenate([order[start : start + 33] for start in range(0, count, 33)] or [rows])
    assert len(order) == count and sorted(whole.tolist()) == rows.tolist()
    assert np.array_equal(WindowOrder(rows, 3, 1, window)[count // 2 :], whole[count // 2 :])
    if count == 1000:
        assert not np.array_equal(whole, rows) and not np.array_equal(WindowOrder(rows, 3, 2, window)[:1000], whole)
        assert not np.array_equal(WindowOrder(rows, 4, 1, window)[:1000], whole)


def test_fewer_impressions_are_those_of_some_users(tmp_path: Path) -> None:
    one, other = pair(made(tmp_path), "rolling")
    every = one.rows(1)
    told = one.limit(15, 0)
    assert other.limit(15, 0) == told and f"valid by {len(one.rows(1))} of {len(every)}" in told
    assert np.array_equal(one.rows(1), other.rows(1)) and 0 < len(one.rows(1)) <= 15
    users = one.data.users
    assert np.array_equal(one.rows(1), every[np.isin(users[every], users[one.rows(1)])])
    assert one.limit(1000, 0) == ""
