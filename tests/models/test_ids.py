import pytest
import torch
from torch import nn

from rawrec.models.ids import IdTable, is_touched_by_rows, lookup, touch_by_rows

KNOWN = torch.tensor([True, False, True, True])


def test_what_training_never_saw_shares_a_row() -> None:
    table = IdTable(KNOWN, 3)
    assert table.ids(torch.tensor([[0, 1], [3, -1]])).tolist() == [[1, 0], [4, 0]]
    assert table(torch.tensor([[0, 4]])).shape == (1, 2, 3)
    assert list(table.state_dict()) == ["weight"] and table.weight.shape == (5, 3)


def test_dropout_reads_the_shared_row_while_training_alone() -> None:
    table = IdTable(torch.ones(10, dtype=torch.bool), 2)
    rows = torch.arange(10).repeat(1000)
    torch.manual_seed(0)
    dropped = table.ids(rows, 0.3)
    assert 0.25 < float((dropped == 0).float().mean()) < 0.35
    assert torch.equal(dropped[dropped > 0], (rows + 1)[dropped > 0])
    assert torch.equal(table.eval().ids(rows, 0.3), rows + 1)


def test_first_values() -> None:
    torch.manual_seed(0)
    assert not IdTable(KNOWN, 2, std=0).weight.any()
    values = IdTable(torch.ones(4000, dtype=torch.bool), 8).weight.detach()
    assert abs(float(values.mean())) < 4e-4 and 0.0098 < float(values.std()) < 0.0102


@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 3)])
def test_the_gradient_is_of_the_rows_and_equals_the_dense_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    dense = nn.Parameter(torch.randn(shape))
    sparse = nn.Parameter(dense.detach().clone())
    touch_by_rows(sparse)
    assert is_touched_by_rows(sparse) and not is_touched_by_rows(dense)
    rows, more = torch.tensor([[4, 1, 4], [0, 4, 1]]), torch.tensor([6, 1])
    for table in (dense, sparse):
        first, second = lookup(table, rows), lookup(table, more)
        assert torch.equal(first, dense[rows]) and torch.equal(second, dense[more])
        (first.pow(3).sum() + second.exp().sum()).backward()
    assert dense.grad is not None and not dense.grad.is_sparse
    assert sparse.grad is not None and sparse.grad.is_sparse
    assert sparse.grad.coalesce().indices()[0].tolist() == [0, 1, 4, 6]
    torch.testing.assert_close(sparse.grad.to_dense(), dense.grad)


def test_the_mark_survives_a_move() -> None:
    table = IdTable(KNOWN, 3).double()
    assert is_touched_by_rows(table.weight) and table.weight.dtype == torch.float64
    assert lookup(table.weight, torch.tensor([1])).dtype == torch.float64
