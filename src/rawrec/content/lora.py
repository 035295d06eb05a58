"""LoRA: small trained matrices beside frozen ones: inside encoders (by peft), and on projections and fusion (eq. 9)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from rawrec.errors import UserError
from rawrec.onednn import Linear, linear
from rawrec.randomness import seeded

QUERY_VALUE = (
    "query",
    "value",
    "q_proj",
    "v_proj",
    "q_lin",
    "v_lin",
    "query_proj",
    "value_proj",
    "qkv",
    "Wqkv",
    "c_attn",
)


def inject(model: nn.Module, layers: Sequence[nn.Module], rank: int, seed: int) -> list[nn.Parameter]:
    """Put adapters of `rank` into `layers` (parts of `model`), in place; the new parameters are returned.

    Adapted are the query and value projections of attention, or, in a network without attention, the 1x1 convolutions
    and linear layers. The adapters' scale is 2 (alpha = 2 rank) and they start at zero: the output is unchanged.
    UserError for a rank above the width of all of them; narrower ones among wider ones have the same rank.
    """
    import peft

    inside = {id(module) for layer in layers for module in layer.modules()}
    names = {name: module for name, module in model.named_modules() if id(module) in inside}
    targets = [n for n, m in names.items() if isinstance(m, nn.Linear) and n.rsplit(".", 1)[-1] in QUERY_VALUE]
    read = {id(m.out_proj) for m in model.modules() if isinstance(m, nn.MultiheadAttention)}  # its weights, not called
    rest = {n: m for n, m in names.items() if id(m) not in read}
    targets = targets or [n for n, m in rest.items() if isinstance(m, nn.Linear) or _is_pointwise(m)]
    widest = max((min(_sizes(names[target])) for target in targets), default=rank)
    if rank > widest:
        raise UserError(
            f"lora_rank={rank}: none of the encoder's matrices that LoRA adapts is wider than {widest}, and LoRA of a "
            f"higher rank is no smaller; use at most {widest}, or train=all"
        )
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets)
    with seeded(seed):
        peft.inject_adapter_in_model(config, model)
    return adapters(model)


def adapters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the adapters that `model` has already; none where there are none."""
    return [p for name, p in model.named_parameters() if ".lora_" in name]


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1


def _sizes(layer: nn.Module) -> tuple[int, int]:
    """What a linear layer or a 1x1 convolution reads and makes."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer.weight.shape[0], layer.weight.shape[1]


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of `model` as if it had no adapters, what they add being part of the weights."""
    from peft.tuners.lora.layer import LoraLayer

    state: dict[str, torch.Tensor] = dict(model.state_dict())
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        prefix = f"{name}." if name else ""
        base = f"{prefix}base_layer."
        inner = {key.removeprefix(base): value for key, value in state.items() if key.startswith(base)}
        state = {key: value for key, value in state.items() if not key.startswith(prefix)}
        delta: torch.Tensor = module.get_delta_weight("default")  # type: ignore[operator]
        inner["weight"] = inner["weight"] + delta.to(inner["weight"].dtype)
        state |= {prefix + key: value for key, value in inner.items()}
    return state


# -------------------------------------------------------------------------------------- projections and fusion, eq. 9
class LowRankLinear(Linear):
    """`sg(W x) + W_b (W_a x) + bias` (EM3 eq. 9), W being frozen; `W x` passes no gradient to x either.

    lora_a `[rank, in]`, lora_b `[out, rank]`, which starts at zero, so that the output does not change at first.
    stop_gradient false: LoRA as it is usual, with the gradient of x through W.
    """

    lora_a: nn.Parameter
    lora_b: nn.Parameter
    stop_gradient: bool

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_gradient):
            frozen = linear(x, self.weight)
        return linear(linear(x, self.lora_a), self.lora_b, self.bias).add_(frozen)


def check_rank(layers: Iterable[tuple[str, nn.Linear]], rank: int) -> None:
    """UserError where a matrix is narrower than `rank`."""
    for name, layer in layers:
        if rank > (least := min(layer.weight.shape)):
            raise UserError(
                f"content.lora.rank={rank}: the matrix {name} makes {layer.out_features} numbers of "
                f"{layer.in_features}, and LoRA of a higher rank than {least} is no smaller; use at most {least}"
            )


def adapt(layers: Iterable[Linear], rank: int, stop_gradient: bool, seed: int) -> None:
    """Make the layers `LowRankLinear` in place, their matrices frozen; biases go on learning."""
    with seeded(seed):
        for layer in layers:
            a = torch.empty(rank, layer.in_features)
            nn.init.kaiming_uniform_(a, math.sqrt(5))
            layer.__class__ = LowRankLinear
            layer.register_parameter("lora_a", nn.Parameter(a.to(layer.weight)))
            layer.register_parameter("lora_b", nn.Parameter(layer.weight.new_zeros(layer.out_features, rank)))
            layer.stop_gradient = stop_gradient  # pyright: ignore[reportArgumentType]
            layer.weight.requires_grad_(False)


def release(layers: Iterable[Linear]) -> None:
    """The reverse of `adapt`; what the low-rank matrices learned is lost."""
    for layer in layers:
        layer.__class__ = Linear
        del layer.lora_a, layer.lora_b
        layer.weight.requires_grad_(True)
