"""Rows against dense tables, averages, norms, state; and the dense path against torch's own loop."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rawrec.config import TrainConfig
from rawrec.errors import UserError
from rawrec.models.ids import lookup, touch_by_rows
from rawrec.training.optimiser import Optimiser
from rawrec.training.rows import average_decay, kept

DECAYS = {"id": 3.0, "encoder": 0.0, "rest": 0.1}


def settings_of(kind: str = "adamw", clip: float | None = None, ema: float = 0.0, **more: Any) -> TrainConfig:
    given = {"optimizer": kind, "lr": 0.01, "encoder_lr": 0.02, "weight_decay": 0.1, "id_weight_decay": 3.0}
    return TrainConfig(**{**given, "clip": clip, "ema": ema, "warmup_steps": 0, **more})


touches = st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=12)


class Net(nn.Module):
    """A table `[6, 3]`, another `[6]`, and a dense layer over both."""

    def __init__(self, by_rows: bool, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.table = nn.Parameter(torch.randn(6, 3))
        self.bias = nn.Parameter(torch.randn(6))
        self.layer = nn.Linear(3, 1)
        if by_rows:
            touch_by_rows(self.table, self.bias)

    def loss(self, rows: Tensor, aim: float = 0.0) -> Tensor:
        out = self.layer(torch.tanh(lookup(self.table, rows)))[:, 0] + lookup(self.bias, rows)
        return (out - aim).square().sum()

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        named = dict(self.named_parameters())
        ids = [(name, named.pop(name)) for name in ("table", "bias")]
        return {"id": ids, "encoder": [], "rest": list(named.items())}


def step(net: Net, optimiser: Optimiser, number: int, rows: list[int], aim: float = 0.0) -> float:
    optimiser.zero_grad()
    if rows:
        net.loss(torch.tensor(rows), aim).backward()
    norm = float(optimiser.clip())
    optimiser.step(number, 0)
    return norm


def close(a: nn.Module, b: nn.Module) -> None:
    for name, value in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["adamw", "adam"])
@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
def test_rows_that_are_all_touched_are_updated_as_a_dense_table(kind: Any, clip: float | None) -> None:
    nets = Net(False), Net(True)
    train = settings_of(kind, clip, 0.9, warmup_steps=5)
    dense, rows = (Optimiser(net.groups(), train) for net in nets)
    everything = [0, 1, 2, 3, 4, 5, 5, 2]
    for number in range(30):
        norms = [step(net, o, number, everything, math.sin(number)) for net, o in zip(nets, (dense, rows), strict=True)]
        assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    close(*nets)
    with dense.averaged(), rows.averaged():
        close(*nets)
    assert rows.names == ["table", "bias", "layer.weight", "layer.bias"]


def test_rows_that_are_not_in_the_batch_stay_as_they_are() -> None:
    net = Net(True)
    optimiser = Optimiser(net.groups(), settings_of(ema=0.9))
    step(net, optimiser, 0, [1, 2, 3])
    before = net.table.detach().clone()
    step(net, optimiser, 1, [1, 4, 1])
    changed = (net.table != before).any(1)
    assert changed.tolist() == [False, True, False, False, True, False]


@given(touched=touches, ema=st.sampled_from([0.5, 0.9, 0.998]))
@settings(max_examples=30, deadline=None)
def test_averages_of_rows_are_those_of_every_step(touched: list[list[int]], ema: float) -> None:
    net = Net(True).double()
    optimiser = Optimiser(net.groups(), settings_of(ema=ema))
    expected = {name: p.detach().clone() for name, p in net.named_parameters()}
    for number, rows in enumerate(touched):
        step(net, optimiser, number, rows)
        decay = average_decay(ema, number + 1)
        for name, p in net.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach()
        if number % 4 == 3:  # looked at in between, which changes nothing
            with optimiser.averaged():
                torch.testing.assert_close(net.table.detach(), expected["table"], rtol=1e-9, atol=1e-9)
    own = copy.deepcopy(net.state_dict())
    with optimiser.averaged():
        for name, p in net.named_parameters():
            torch.testing.assert_close(p.detach(), expected[name], rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, own[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("ema", [0.3, 0.998, 0.99999])
def test_decays_of_steps_that_were_missed(ema: float) -> None:
    first = torch.tensor([0, 1, 6999, 7000])
    decays = torch.tensor([average_decay(ema, s) for s in range(1, 7001)], dtype=torch.float64)
    expected = torch.stack([decays[int(n) :].prod() for n in first])
    torch.testing.assert_close(kept(ema, first, 7000), expected, rtol=1e-8, atol=0)


@given(rows=st.lists(st.integers(0, 5), min_size=1, max_size=10), clip=st.sampled_from([0.01, 1.0, 100.0]))
@settings(max_examples=30, deadline=None)
def test_the_norm_is_that_of_dense_gradients(rows: list[int], clip: float) -> None:
    nets = Net(False), Net(True)
    norms = []
    for net in nets:
        optimiser = Optimiser(net.groups(), settings_of(clip=clip))
        optimiser.zero_grad()
        net.loss(torch.tensor(rows)).backward()
        norms.append(float(optimiser.clip()))
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    layers = [net.layer.weight.grad for net in nets]
    torch.testing.assert_close(layers[1], layers[0])


def walked(net: Net, optimiser: Optimiser, first: int, last: int) -> None:
    for number in range(first, last):
        step(net, optimiser, number, [number % 6, (number * number) % 5])


@pytest.mark.parametrize("kind", ["adamw", "adam"])
@pytest.mark.parametrize("looked", [False, True])
def test_a_state_goes_on_to_the_bit(kind: Any, looked: bool) -> None:
    train = settings_of(kind, 1.0, 0.99, warmup_steps=5)
    whole = Net(True)
    optimiser = Optimiser(whole.groups(), train)
    walked(whole, optimiser, 0, 7)
    if looked:
        with optimiser.averaged():
            pass
    weights, state = copy.deepcopy(whole.state_dict()), {k: v.clone() for k, v in optimiser.state().items()}
    walked(whole, optimiser, 7, 20)
    again = Net(True, seed=1)
    second = Optimiser(again.groups(), train)
    again.load_state_dict(weights)
    second.load_state(state)
    assert all(torch.equal(value, state[name]) for name, value in second.state().items())
    walked(again, second, 7, 20)
    assert state.keys() == second.state().keys()
    for one, other in ((whole.state_dict(), again.state_dict()), (optimiser.state(), second.state())):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_state_of_other_parameters_is_refused() -> None:
    net = Net(True)
    optimiser = Optimiser(net.groups(), settings_of(ema=0.9))
    step(net, optimiser, 0, [1])
    state = optimiser.state()
    wrong = [
        {name: value for name, value in state.items() if name != left_out}
        for left_out in ("optim.updates", "optim.table.exp_avg", "optim.layer.weight.step", "average.bias")
    ]
    wrong += [state | {"optim.other.exp_avg": torch.zeros(1)}, state | {"average.table": torch.zeros(7, 3)}]
    for one in wrong:
        with pytest.raises(UserError, match="the optimiser's state"):
            optimiser.load_state(one)
    optimiser.load_state(state)


@pytest.mark.parametrize(("between", "absence", "counted"), [(0, 8, 1), (40, 1, 1), (5, 8, 6), (40, 8, 8)])
def test_a_row_decays_for_the_steps_since_its_last_use_as_far_as_they_count(
    between: int, absence: int, counted: int
) -> None:
    """Used ten times with the same gradients, and not in the `between` steps before each: decay of `counted` steps."""
    table = nn.Parameter(torch.ones(600, 2))
    touch_by_rows(table)
    train = settings_of(lr=0.1, id_weight_decay=0.5, id_decay_steps=absence, ema=0.9)
    optimiser = Optimiser({"id": [("table", table)]}, train)
    number = 0
    for use in range(10):
        for rows in [*[[5]] * between, [0]]:
            optimiser.zero_grad()
            (lookup(table, torch.tensor(rows)) * torch.tensor([1.0, 1.0 - use])).sum().backward()
            optimiser.clip()
            optimiser.step(number, 0)
            number += 1
    small = nn.Parameter(torch.ones(1, 2))
    expected = torch.optim.AdamW([small], lr=0.1, weight_decay=(1 - (1 - 0.1 * 0.5) ** counted) / 0.1)
    for use in range(10):
        small.grad = torch.tensor([[1.0, 1.0 - use]])
        expected.step()
    torch.testing.assert_close(table[0], small[0])


def test_a_row_decays_as_that_of_a_dense_table_where_every_absence_counts() -> None:
    """Gradients of nothing move neither; the second row is used in every third step, by a gradient of 0."""
    nets = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))
    touch_by_rows(nets[1])
    train = settings_of(lr=0.1, id_weight_decay=0.5, warmup_steps=0)
    dense, rows = (Optimiser({"id": [("table", table)]}, train) for table in nets)
    for number in range(30):
        for table, optimiser in zip(nets, (dense, rows), strict=True):
            optimiser.zero_grad()
            used = torch.tensor([0, 1] if number % 3 == 2 else [0])
            (lookup(table, used) * torch.tensor([[math.sin(number)], [0.0]])[: len(used)]).sum().backward()
            optimiser.clip()
            optimiser.step(number, 0)
    torch.testing.assert_close(*nets)


# --------------------------------------------------------------------------------------------------- the dense path
@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_dense_parameters_are_updated_as_by_torch_to_the_bit(kind: Any) -> None:
    """A loop written out: warm-up, decay of the rate, clipping and averages, as training always had them."""
    ours, theirs = Net(False), Net(False)
    optimiser = Optimiser(ours.groups(), settings_of(kind, 0.5, 0.97, warmup_steps=4, lr_decay=0.9))
    parameters = [p for group in theirs.groups().values() for _, p in group]
    groups = [
        {"params": [p for _, p in group], "weight_decay": DECAYS[key]}
        for key, group in theirs.groups().items()
        if group
    ]
    if kind == "adamw":
        torchs: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=0.01)
    else:
        torchs = torch.optim.Adam(groups, lr=0.01, fused=True)
    average = [p.detach().clone() for p in parameters]
    for number in range(25):
        rows, epoch = torch.tensor([number % 6, 3]), number // 10
        optimiser.zero_grad()
        ours.loss(rows).backward()
        norm = optimiser.clip()
        optimiser.step(number, epoch)
        theirs.zero_grad()
        theirs.loss(rows).backward()
        assert torch.equal(nn.utils.clip_grad_norm_(parameters, 0.5), norm)
        for group in torchs.param_groups:
            group["lr"] = 0.01 * min(1.0, (number + 1) / 4) * 0.9 ** (epoch / 50)
        torchs.step()
        decay = min(0.97, (number + 1) / (number + 11))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
    for mine, other in zip(optimiser.parameters, parameters, strict=True):
        assert torch.equal(mine, other)
    with optimiser.averaged():
        assert all(torch.equal(mine, other) for mine, other in zip(optimiser.parameters, average, strict=True))
    assert all(torch.equal(mine, other) for mine, other in zip(optimiser.parameters, parameters, strict=True))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_tables_alone(ema: float) -> None:
    """A model without any dense parameter."""
    net = Net(True)
    optimiser = Optimiser({"rest": [("table", net.table)]}, settings_of("adam", ema=ema))
    before = net.table.detach().clone()
    for number in range(3):
        optimiser.zero_grad()
        lookup(net.table, torch.tensor([2])).square().sum().backward()
        assert optimiser.clip() > 0
        optimiser.step(number, 0)
    now = net.table.detach().clone()
    assert (now != before).any(1).tolist() == [False, False, True, False, False, False]
    with optimiser.averaged():
        assert torch.equal(net.table, now) == (not ema)
    assert torch.equal(net.table, now)
