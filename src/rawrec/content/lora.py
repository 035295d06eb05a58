"""LoRA: small trained matrices beside frozen ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

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
    """
    import peft

    inside = {id(module) for layer in layers for module in layer.modules()}
    names = {name: module for name, module in model.named_modules() if id(module) in inside}
    targets = [n for n, m in names.items() if isinstance(m, nn.Linear) and n.rsplit(".", 1)[-1] in QUERY_VALUE]
    read = {id(m.out_proj) for m in model.modules() if isinstance(m, nn.MultiheadAttention)}  # its weights, not called
    rest = {n: m for n, m in names.items() if id(m) not in read}
    targets = targets or [n for n, m in rest.items() if isinstance(m, nn.Linear) or _is_pointwise(m)]
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model)
    return adapters(model)


def adapters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the adapters that `model` has already; none where there are none."""
    return [p for name, p in model.named_parameters() if ".lora_" in name]


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1


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
