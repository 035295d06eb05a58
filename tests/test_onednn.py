"""Products by oneDNN are torch's own products, with the same gradients, whatever the layout of what is multiplied."""

import pytest
import torch
from torch import Tensor, nn

from rawrec import onednn
from rawrec.onednn import Linear, linear, matmul, quicken


@pytest.fixture(autouse=True)
def as_where_mkl_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "SLOW_MKL", True)


def _of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LAYOUTS = {
    "plain": lambda: (_of(700, 96), _of(72, 96, seed=1)),
    "transposed": lambda: (_of(96, 700).T, _of(96, 72, seed=1).T),
    "parts of wider rows": lambda: (_of(700, 130)[:, 3:99], _of(72, 110, seed=1)[:, 5:101]),
    "three dimensions": lambda: (_of(7, 100, 96), _of(72, 96, seed=1)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("biased", [True, False])
def test_linear_and_gradients(layout: str, biased: bool) -> None:
    results = []
    for function in (linear, nn.functional.linear):
        x, weight = (t.requires_grad_() for t in LAYOUTS[layout]())
        bias = _of(72, seed=2).requires_grad_() if biased else None
        y = function(x, weight, bias)
        inputs = [t for t in (x, weight, bias) if t is not None]
        results.append([y, *torch.autograd.grad((y * _of(*y.shape, seed=3)).sum(), inputs)])
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-4)


def test_matmul() -> None:
    torch.testing.assert_close(matmul(_of(900, 80), _of(80, 70)), _of(900, 80) @ _of(80, 70), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(onednn._ONEDNN is None, reason="this torch has no oneDNN beside MKL")
def test_large_float32_products_alone_go_to_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, product = [], onednn._ONEDNN
    monkeypatch.setattr(onednn, "_ONEDNN", lambda *args: calls.append(args[0].shape) or product(*args))
    large, weight = _of(onednn.LEAST // 64, 64), _of(1, 64)
    linear(large, weight)
    assert calls == [large.shape]
    linear(large[1:], weight)
    linear(large.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(large, weight).dtype == torch.bfloat16
    monkeypatch.setattr(onednn, "SLOW_MKL", False)
    linear(large, weight)
    assert len(calls) == 1


@pytest.mark.parametrize(("maker", "of_intel"), [("GenuineIntel", True), ("AuthenticAMD", False)])
def test_the_maker_is_read_from_the_system(monkeypatch: pytest.MonkeyPatch, maker: str, of_intel: bool) -> None:
    monkeypatch.setattr("pathlib.Path.read_text", lambda path, **options: f"vendor_id : {maker}\n")
    assert onednn._of_intel() is of_intel


def test_quicken_keeps_state_and_results() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Sequential(nn.Linear(256, 8)))
    x = _of(100, 256)
    before, state = module(x), {name: value.clone() for name, value in module.state_dict().items()}
    assert quicken(module) is module
    assert [type(part) for part in module.modules() if isinstance(part, nn.Linear)] == [Linear, Linear]
    torch.testing.assert_close(module(x), before, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_quicken_leaves_subclasses_alone() -> None:
    attention = nn.MultiheadAttention(8, 2)
    kind = type(attention.out_proj)
    assert kind is not nn.Linear
    assert type(quicken(attention).out_proj) is kind
