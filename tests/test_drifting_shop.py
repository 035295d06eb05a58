"""The shop of `make demo-online`: what is clicked is known, tastes move, products come."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
from drifting_shop import DriftingShop


@pytest.fixture(scope="module")
def made() -> DriftingShop:
    return DriftingShop(120, 40, seed=3)


def test_the_same_seed_is_the_same_shop(made: DriftingShop) -> None:
    again, other = DriftingShop(120, 40, seed=3), DriftingShop(120, 40, seed=4)
    assert np.array_equal(made.matrix(0.5), again.matrix(0.5)) and not np.array_equal(
        made.matrix(0.5), other.matrix(0.5)
    )
    assert made.fields(100) == again.fields(100) and made.shop.picture(100) == again.shop.picture(100)


def test_tastes_move_online_and_not_before(made: DriftingShop) -> None:
    user, item = np.divmod(np.arange(40 * 120), 120)
    before, online = (made.probability(user, item, np.full(len(user), time)).mean() for time in (0.0, made.at(0.0)))
    assert online == pytest.approx(before, abs=0.01)
    begin, end = made.matrix(0.0), made.matrix(1.0)
    best = np.argsort(-begin, 1)[:, :4]
    share = [np.take_along_axis(found, best, 1).sum() / np.sort(found, 1)[:, -4:].sum() for found in (begin, end)]
    assert share[0] == pytest.approx(1) and 0.4 < share[1] < 0.9


def test_the_dataset_has_what_was_there_before(made: DriftingShop, tmp_path: Path) -> None:
    data = made.write(tmp_path / "shop", 2000)
    assert data.n_items == made.first == 72 and data.n_users == 40 and len(data.items) == 2000
    assert [str(name) for name in data.item_ids] == [made.item_id(row) for row in range(72)]
    assert (made.launched[:72] < 0).all() and (made.launched[72:] >= 0).all() and made.launched.max() < 1
    rows = np.flatnonzero(data.users == list(data.user_ids).index("u7"))
    at = (data.timestamps[rows] - 1_767_225_600) / (90 * 86_400) if data.timestamps is not None else rows
    expected = made.probability(np.full(len(rows), 6), data.items[rows], at)
    np.testing.assert_allclose(data.column("probability")[rows], expected, atol=1e-4)
