"""Matrix products of float32 on a CPU by oneDNN, where torch itself would call MKL.

Both round alike, but MKL keeps processors of other makers than Intel from AVX-512: there oneDNN takes half the time. On
Intel's own and on those without AVX-512, where it takes up to a quarter more, on other devices, with other types, and
without oneDNN these are torch's own products.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

M = TypeVar("M", bound=nn.Module)
LEAST = 1 << 22
"""Multiplications under which the way there costs more than it saves."""
_ONEDNN: Any = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()
    else None
)


def _of_intel() -> bool:
    """Whether the processor is one of Intel's, for whom MKL is made; as far as the system says it."""
    try:
        about = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        about = platform.processor()
    return "GenuineIntel" in about


SLOW_MKL = torch.backends.cpu.get_cpu_capability() == "AVX512" and not _of_intel()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, differentiable: x `[..., width]`, weight `[out, width]`, bias `[out]`."""
    if _wants_onednn(x, weight):
        return _Linear.apply(x, weight, bias)  # type: ignore[return-value]
    return nn.functional.linear(x, weight, bias)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b`, differentiable: a `[..., inner]`, b `[inner, columns]`."""
    return linear(a, b.T)


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`: the same parameters, beginnings and state."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def quicken(module: M) -> M:
    """`module`, its linear layers made `Linear` in place; parameters and state stay as they are."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = Linear
    return module


def _wants_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        SLOW_MKL
        and _ONEDNN is not None
        and torch.backends.mkldnn.enabled
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() * weight.shape[0] >= LEAST
        and not torch.is_autocast_enabled("cpu")
    )


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """`a @ b.T + bias`."""
    return _ONEDNN(_dense(a), _dense(b), bias, "none", [], "")


def _dense(x: Tensor) -> Tensor:
    """`x`, or a copy where it is a part of wider rows: for such oneDNN has a plain loop alone."""
    return x if x.is_contiguous() or (x.ndim == 2 and x.T.is_contiguous()) else x.contiguous()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        of_x = _product(grad, weight.T) if ctx.needs_input_grad[0] else None
        of_weight = _product(rows.T, x.flatten(0, -2).T) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, rows.sum(0) if ctx.biased and ctx.needs_input_grad[2] else None
