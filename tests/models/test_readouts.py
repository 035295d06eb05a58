"""Read-outs of the cosines with a history, where no fixture says what they are: padding, empty histories, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from rawrec.models.ranking.history import HistoryContent, TableHistory, attend
from rawrec.models.ranking.readouts import SimTier, descending, last, most_similar
from rawrec.models.ranking.sata import SATA

VALID = torch.tensor([[False, True, True, True], [True] * 4, [False] * 4])


def past(n_live: int = 0, length: int = 4) -> HistoryContent:
    """Three histories of `length` items of width 5, the third of them empty; some rows are live."""
    generator = torch.Generator().manual_seed(1)
    bank = torch.randn(3, length, 5, generator=generator)
    valid = VALID if length == 4 else torch.ones(3, length, dtype=torch.bool)
    if not n_live:
        return HistoryContent(bank, valid)
    position = torch.randint(-1, n_live, (3, length), generator=generator)
    live = torch.randn(n_live, 5, generator=generator).requires_grad_()
    return HistoryContent(bank, valid, position, live)


def plain(history: HistoryContent) -> torch.Tensor:
    """The rows, live ones in their places, padding as it is."""
    rows = history.bank
    if history.live is not None and history.position is not None:
        rows = torch.where((history.position >= 0)[..., None], history.live[history.position.clamp(min=0)], rows)
    return rows


@pytest.mark.parametrize("n_live", [0, 2, 20])
def test_cosines_are_those_of_the_rows_with_live_ones_in_their_places(n_live: int) -> None:
    history, candidate = past(n_live), torch.randn(3, 2, 5)
    rows = plain(history)
    expected = torch.cosine_similarity(candidate[:, :, None], rows[:, None], dim=3) * history.valid[:, None]
    found = history.cosines(candidate)
    torch.testing.assert_close(found, expected)
    if n_live:
        assert history.live is not None
        weights = torch.randn(3, 2, 4)
        (own,) = torch.autograd.grad((found * weights).sum(), history.live, retain_graph=True)
        (other,) = torch.autograd.grad((expected * weights).sum(), history.live)
        torch.testing.assert_close(own, other)


def test_a_vector_without_a_direction_is_similar_to_nothing() -> None:
    history = HistoryContent(torch.eye(5)[None, :2] * torch.tensor([0.0, 1.0])[:, None], torch.ones(1, 2).bool())
    candidate = torch.stack([torch.zeros(5), torch.ones(5)])[None].requires_grad_()
    found = history.cosines(candidate)
    torch.testing.assert_close(found, torch.tensor([[[0.0, 0.0], [0.0, 5**-0.5]]]))
    found.sum().backward()
    assert candidate.grad is not None and candidate.grad.isfinite().all()


def test_no_gradient_of_the_size_of_the_history_where_few_rows_are_live() -> None:
    """Of all tensors that are made with gradient, or in the backward pass, none is as large as the history."""
    length = 300
    history = past(n_live=3, length=length)
    assert history.split
    large: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for made in out if isinstance(out, tuple) else (out,):
                if isinstance(made, torch.Tensor) and made.numel() >= 3 * length * 5 and made.data_ptr() != bank:
                    large.append(str(function))
            return out

    bank, candidate = history.bank.data_ptr(), torch.randn(3, 1, 5, requires_grad=True)
    with Watch():
        cosines = history.cosines(candidate)
        (cosines.square().sum() + descending(cosines, history.valid[:, None])[..., :4].sum()).backward()
    assert large == [] and history.live is not None and history.live.grad is not None


def test_histories_as_rows_of_a_table_are_the_same() -> None:
    """All that is read of them, and the gradient of live rows, against histories with their rows side by side."""
    generator = torch.Generator().manual_seed(2)
    index = torch.randint(0, 6, (3, 4), generator=generator)
    table, candidate = torch.randn(6, 5, generator=generator), torch.randn(3, 2, 5, generator=generator)
    weights, place = torch.rand(3, 2, 4, generator=generator), torch.tensor([[[3, 1], [0, 2]]] * 3)
    found = []
    for kind in ("rows", "table"):
        live = torch.ones(2, 5).requires_grad_()
        whole = table.index_copy(0, torch.tensor([1, 4]), live)
        if kind == "rows":
            past: HistoryContent = HistoryContent(whole[index], VALID)
        else:
            past = TableHistory(whole, VALID, index=index)
        past.marks = index[..., None]
        picked, end = past.pick(place, torch.tensor([True, False])), past.last(2)
        values = [
            past.scores(candidate),
            past.mix(weights),
            past.rows(),
            past.lengths(),
            past.cosines(candidate),
            attend(past, candidate, 1),
            end.mix(weights[..., :2]),
            end.cosines(candidate),
            picked.rows(),
        ]
        assert torch.equal(end.marks, index[:, 2:, None]) and torch.equal(end.valid, VALID[:, 2:])
        sum(value.square().sum() for value in values).backward()
        found.append([*values, picked.valid, live.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_the_last_of_a_history_at_a_fixed_length() -> None:
    cosines = torch.arange(6.0).view(2, 1, 3)
    assert last(cosines, 2).tolist() == [[[1, 2]], [[4, 5]]]
    assert last(cosines, 4).tolist() == [[[0, 0, 1, 2]], [[0, 3, 4, 5]]]
    assert last(cosines[..., :0], 2).tolist() == [[[0, 0]], [[0, 0]]]


def test_the_sorted_vector_has_the_items_first() -> None:
    cosines = torch.tensor([[0.0, -0.5, 0.0, 0.9]])
    valid = torch.tensor([[False, True, True, True]])
    torch.testing.assert_close(descending(cosines, valid), torch.tensor([[0.9, 0.0, -0.5, 0.0]]))
    assert not descending(cosines, torch.zeros_like(valid)).any()


def test_an_item_of_cosine_0_is_no_padding() -> None:
    """The published search ranks it below every negative one."""
    cosines, valid = torch.tensor([[0.0, -0.5, 0.0, 0.9]]), torch.tensor([[False, True, True, True]])
    found, there = most_similar(cosines, valid, 3)
    assert found.tolist() == [[3, 2, 1]] and there.all()
    found, there = most_similar(cosines, valid, 9)
    assert found.shape == (1, 4) and there.tolist() == [[True, True, True, False]]
    assert most_similar(cosines[:, :0], valid[:, :0], 3)[0].shape == (1, 0)


def test_tiers_leave_padding_out() -> None:
    table = SimTier(0.5)
    cosines, valid = torch.tensor([[0.0, -0.2, 0.3, 1.0]]), torch.tensor([[False, True, True, True]])
    assert table.tiers == 6 and table.tier(cosines).tolist() == [[2, 2, 3, 4]]
    assert table.counts(cosines, valid).tolist() == [[0, 0, 1, 1, 1, 0]]
    assert table.counts(cosines).tolist() == [[0, 0, 2, 1, 1, 0]]
    assert not table(cosines, torch.zeros_like(valid)).any()
    with torch.no_grad():
        table.emb[:] = torch.arange(6.0)[:, None]
    expected = torch.arange(6.0) * torch.tensor([1.0, 1, 2, 2, 2, 1]).log()
    torch.testing.assert_close(table(cosines, valid)[0], expected)


def sata(**values: float) -> SATA:
    torch.manual_seed(0)
    made = SATA(5, [5])
    with torch.no_grad():
        for row, value in values.items():
            made.b[int(row[1:])] = value
    return made


def test_padding_never_wins_an_attention() -> None:
    """Whatever the signs of its cosines and of b are, which turn the published mask into its opposite."""
    for b in (1.0, -1.0):
        made, rows = sata(b0=b), past().bank
        cosines = torch.full((3, 4), -0.9)
        found = made(torch.ones(3, 5), rows, VALID, cosines)
        changed = made(torch.ones(3, 5), torch.where(VALID[..., None], rows, 7.0), VALID, cosines)
        torch.testing.assert_close(found, changed)
        assert not found[2].any() and found[:2].any(1).all()


def test_an_empty_sequence_is_nothing_to_attend_to() -> None:
    assert sata()(torch.ones(3, 5), torch.zeros(3, 0, 5), torch.zeros(3, 0).bool(), torch.zeros(3, 0)).eq(0).all()


def test_heads_that_are_wider_than_the_rows() -> None:
    made = SATA(4, [6, 3])
    assert made.heads == 1 and made.width == 3
    assert made(torch.ones(2, 4), torch.ones(2, 3, 4), torch.ones(2, 3).bool()).shape == (2, 3)
    assert SATA(8, [3]).width == 6
    assert isinstance(made.query[0], nn.Sequential)
