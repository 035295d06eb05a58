"""Tables that grow while they learn: what is there stays as it is, and what comes is as if it had always been there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rawrec.content.bank import Bank
from rawrec.content.overlay import Overlay
from rawrec.data.ragged import Ragged
from rawrec.models.ids import IdTable, lookup
from rawrec.models.losses import delayed_weights
from rawrec.models.ranking.columns import Categories, ItemColumns, Scale, TableColumns
from rawrec.training.rows import RowAdam

SEEN = torch.ones(4, dtype=torch.bool)


def steps(table: IdTable, adam: RowAdam, first: int) -> None:
    for step in range(first, first + 3):
        table.weight.grad = None
        rows = torch.tensor([0, step % 4 + 1])
        (lookup(table.weight, rows) ** 2).sum().backward()
        adam.collect()
        adam.step(0.1, step)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_table_that_grew_learns_as_one_that_was_as_large(ema: float) -> None:
    """Its rows behind begin at zero, as those of the larger one are made to."""
    small, large = IdTable(SEEN, 3), IdTable(torch.cat([SEEN, torch.zeros(3, dtype=torch.bool)]), 3)
    with torch.no_grad():
        large.weight[:5] = small.weight
        large.weight[5:] = 0
    adams = [RowAdam(table.weight, 0.01, True, ema, 8) for table in (small, large)]
    for table, adam in zip((small, large), adams, strict=True):
        steps(table, adam, 1)
    small.grow(7)
    adams[0].grow()
    for table in (small, large):
        table.admit(5)
    for table, adam in zip((small, large), adams, strict=True):
        steps(table, adam, 4)
        table.weight.grad = None
        lookup(table.weight, torch.tensor([6])).sum().backward()
        adam.collect()
        adam.step(0.1, 7)
        adam.catch_up(7)
    assert torch.equal(small.weight, large.weight) and torch.equal(small.known, large.known)
    for name, values in adams[1].state().items():
        assert torch.equal(adams[0].state()[name], values), name
    if ema:
        assert adams[0].average is not None and adams[1].average is not None
        assert torch.equal(adams[0].average[:5], adams[1].average[:5])


def test_an_admitted_id_begins_as_the_unknown_one() -> None:
    table = IdTable(SEEN, 3)
    table.grow(6)
    rows = torch.tensor([4, 5])
    assert table.ids(rows).tolist() == [0, 0]
    before = table(table.ids(rows))
    table.admit(5)
    assert table.ids(rows).tolist() == [0, 6]
    assert torch.equal(table(table.ids(rows)), before)


def test_rows_are_laid_over_a_column_and_behind_it() -> None:
    below = Ragged.from_lengths(torch.arange(6.0)[:, None], torch.tensor([1, 0, 3, 2]))
    column = Overlay(below)
    rows = torch.tensor([2, 0, 2, 1])
    assert torch.equal(column.select(rows).values, below.select(rows).values)
    column.put(5, torch.tensor([[7.0], [8.0]]))
    column.put(2, torch.tensor([[9.0]]))
    column.put(0, torch.zeros(0, 1))
    found = column.select(torch.tensor([3, 5, 4, 2, 0, 5]))
    assert found.lengths.tolist() == [2, 2, 0, 1, 0, 2]
    assert found.values[:, 0].tolist() == [4, 5, 7, 8, 9, 7, 8]
    again = Overlay(below)
    again.load_state(column.state())
    assert torch.equal(again.select(torch.arange(6)).values, column.select(torch.arange(6)).values)


def test_a_bank_that_grew_has_what_was_there_and_takes_what_comes() -> None:
    column = Ragged.from_lengths(torch.arange(3.0)[:, None], torch.tensor([1, 1, 1]))
    bank = Bank(3, 2, {"feature/x": column})
    bank.group({"cold": torch.tensor([True, False, True]), "warm": torch.tensor([False, True, False])})
    bank.write(torch.tensor([1]), torch.tensor([[1.0, 2.0]]), 4)
    bank.grow(6, "cold")
    assert len(bank) == 6 and bank.content[1].tolist() == [1, 2] and bank.written.tolist() == [-1, 4, -1, -1, -1, -1]
    assert bank.valid.tolist() == [True] * 3 + [False] * 3
    bank.put(4, {"feature/x": torch.tensor([[5.0]])})
    assert bank.valid[4] and bank.read("feature/x", torch.tensor([4, 5, 0])).lengths.tolist() == [1, 0, 1]
    bank.write(torch.tensor([4]), torch.tensor([[3.0, 3.0]]), 5)
    other = Bank(3, 2, {"feature/x": column})
    other.group({"cold": torch.tensor([True, False, True]), "warm": torch.tensor([False, True, False])})
    other.grow(6, "cold")
    other.load_put(bank.put_state())
    other.load_state(bank.state(health=True))
    assert torch.equal(other.content, bank.content) and torch.equal(other.valid, bank.valid)
    assert other.read("feature/x", torch.tensor([4])).values.tolist() == [[5.0]]
    bank.put(4, {"feature/x": torch.zeros(0, 1)})
    assert not bank.valid[4] and not bank.content[4].any() and bank.written[4] == -1


def columns() -> ItemColumns:
    kinds = Categories.of(["a", "b", "c"], np.array([True, True, False]), None)
    bags = {"kind": (torch.tensor([1, 2, 1]), torch.tensor([0, 2, 2, 3]), kinds.size)}
    numbers = torch.tensor([[0.5, 0], [-0.5, 0], [0.0, 1], [0.0, 1]])
    readers = {"kind": kinds, "price": Scale(np.float64(10.0), np.float64(2.0), 0)}
    return ItemColumns(bags, numbers, torch.tensor([[1.0], [2.0], [0.0]]), readers=readers)


def bags_of(found: TableColumns) -> list[list[int]]:
    codes, ptr, _ = found.bags["kind"]
    return [codes[a:b].tolist() for a, b in zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True)]


def test_values_of_an_item_are_replaced_by_name() -> None:
    made = columns()
    new = made.of_new([{"kind": ["b", "b", "a"], "price": 12.0}])
    both = made.replaced(0, new, ["kind", "price"])
    assert bags_of(both) == [[2, 2, 1], [], [1]] and both.numbers[0].tolist() == new.numbers[0].tolist()
    one = made.replaced(2, new, ["price"])
    assert bags_of(one) == bags_of(made) and one.numbers[2].tolist() == new.numbers[0].tolist()
    assert made.numbers[0].tolist() == [0.5, 0]


def test_users_of_whom_nothing_is_known_come_before_the_last_row() -> None:
    made = columns().with_users(2)
    assert made.users[:, 0].tolist() == [1, 2, 0, 0, 0]
    kinds = Categories.of(["a"], np.array([True]), None, missing=True)
    users = TableColumns(
        {"kind": (torch.tensor([1, 2, 2]), torch.tensor([0, 1, 2, 3]), kinds.size)}, torch.zeros(3, 0), readers={}
    ).with_unknown(2)
    assert bags_of(users) == [[1], [2], [2], [2], [2]] and len(users.numbers) == 5


def weights_of(f: float, r: float) -> tuple[float, float]:
    """Of a positive and of a negative."""
    found: Tensor = delayed_weights(torch.full((2,), f), torch.tensor([1.0, 0.0]), torch.full((2,), r))
    return float(found[0]), float(found[1])


def test_weights_of_late_labels() -> None:
    assert weights_of(0.3, 0.0) == (1.0, 1.0)
    assert weights_of(0.3, 1.0) == pytest.approx((1.3, 0.7 * 1.3))  # Ktena et al. 2019
    assert weights_of(0.3, 0.5) == pytest.approx((1.15, 1.15 * 0.7 / 0.85))  # Yang et al. 2021, d = r f
    assert all(np.isfinite(weights_of(1.0, 1.0)))


@pytest.mark.parametrize("late_share", [1.0, 0.4])
def test_weights_undo_what_fake_negatives_do(late_share: float) -> None:
    """Of a stream in which every impression is trained at once and late positives again, the weighted share of
    positives is the true one, where the model knows it."""
    truth = torch.tensor([0.05, 0.2, 0.6], dtype=torch.float64)
    positives, negatives = truth, 1 - truth + late_share * truth
    late = torch.full_like(truth, late_share)
    plus = positives * delayed_weights(truth, torch.ones(3), late)
    minus = negatives * delayed_weights(truth, torch.zeros(3), late)
    torch.testing.assert_close(plus / (plus + minus), truth)
