"""What follows the network in a folder of the sentence-transformers library: pooling, dense layers, length 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rawrec.content.encoders.loading import ELSEWHERE, check_weights, read_json, settings
from rawrec.content.encoders.padding import mean
from rawrec.content.encoders.weight_files import read_weights
from rawrec.errors import UserError
from rawrec.shown import listed

POOLINGS = {
    "cls": "cls_token",
    "max": "max_tokens",
    "mean": "mean_tokens",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}
"""Names of the library, in its order, and the ends of the flags that older folders have for them."""
ACTIVATIONS = ("ELU", "GELU", "Identity", "LeakyReLU", "Mish", "ReLU", "SiLU", "Sigmoid", "Softplus", "Tanh")


class After(NamedTuple):
    """pooling: the names of one mode or several, whose vectors stand side by side. None: the folder says nothing of it.
    head: what the pooled vector goes through. said: all of it, in words."""

    pooling: tuple[str, ...] | None
    head: nn.Sequential
    said: str


class Dense(nn.Module):
    """A linear map and an activation; residual: what came in is added, through a map where widths differ."""

    def __init__(self, width: int, out: int, bias: bool, activation: str, residual: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out, bias=bias)
        self.activation: nn.Module = getattr(nn, activation)()
        self.adds = residual
        self.residual = nn.Linear(width, out, bias=False) if residual and width != out else None

    def forward(self, x: Tensor) -> Tensor:
        made = self.activation(self.linear(x))
        return made + (x if self.residual is None else self.residual(x)) if self.adds else made


class Normalize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=-1)


def after(folder: Path, name: str) -> After:
    """What modules.json of a folder says; without one, 1_Pooling alone. UserError for parts that are not known."""
    modules = read_json(folder / "modules.json")
    if modules is None:
        return After(_pooling(folder, "1_Pooling", name), nn.Sequential(), "")
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise UserError(f"{folder / 'modules.json'}: a list of modules is expected")
    pooling, head, said = None, nn.Sequential(), []
    for module in modules:
        kind, path = str(module.get("type", "")).rsplit(".", 1)[-1], str(module.get("path", ""))
        if kind not in ("Transformer", "Pooling", "Normalize", "Dense"):
            raise UserError(
                f"encoder {name}: its modules.json has a part {kind}, which is not known here; known are Transformer, "
                "Pooling, Dense and Normalize. Choose another encoder"
            )
        if kind == "Pooling":
            pooling = _pooling(folder, path, name)
        elif kind != "Transformer" and pooling is None:
            raise UserError(f"encoder {name}: its modules.json has {kind} before Pooling, which is not known here")
        elif kind == "Dense":
            layer, about = _dense(folder, path, name)
            head.append(layer)
            said.append(about)
        elif kind == "Normalize":
            head.append(Normalize())
            said.append(kind)
    return After(pooling, head, " ".join(said))


def pool(hidden: Tensor, mask: Tensor, modes: tuple[str, ...]) -> Tensor:
    """`[batch, tokens, width]` -> `[batch, modes * width]` over the tokens of `mask`, as the library pools."""
    return torch.cat([_pooled(hidden, mask, mode) for mode in modes], 1)


def _pooled(hidden: Tensor, mask: Tensor, mode: str) -> Tensor:
    if mode == "mean":
        return mean(hidden, mask)
    if mode == "max":
        return hidden.masked_fill(~mask[..., None], -torch.inf).amax(1)
    if mode == "mean_sqrt_len_tokens":
        return mean(hidden, mask) * mask.sum(1, keepdim=True).float().sqrt()
    if mode == "weightedmean":
        weights = mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)
        return (hidden.float() * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
    last = mask.sum(1) - 1 if mode == "lasttoken" else torch.zeros_like(mask[:, 0], dtype=torch.int64)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


def _pooling(folder: Path, path: str, name: str) -> tuple[str, ...] | None:
    said = settings(folder / path / "config.json")
    if not said:
        return None
    flags = [key.removeprefix("pooling_mode_") for key, on in said.items() if key.startswith("pooling_mode_") and on]
    named = {flag: mode for mode, flag in POOLINGS.items()}
    modes: Any = said.get("pooling_mode", [named.get(flag, flag) for flag in flags])
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not set(modes) <= set(POOLINGS):
        raise UserError(
            f"encoder {name}: {path}/config.json pools by {listed(modes or (), none='nothing')}; known are "
            f"{', '.join(POOLINGS)}. Choose another encoder"
        )
    if "pooling_mode" not in said:  # flags stand in any order
        modes = [mode for mode in POOLINGS if mode in modes]
    return tuple(modes)


def _dense(folder: Path, path: str, name: str) -> tuple[Dense, str]:
    said = settings(folder / path / "config.json")
    activation = str(said.get("activation_function", "torch.nn.modules.activation.Tanh"))
    library, _, function = activation.rpartition(".")
    inside = {said.get("module_input_name"), said.get("module_output_name")} - {None, "sentence_embedding"}
    if not library.startswith("torch.nn") or function not in ACTIVATIONS or inside:
        what = f"activation {activation}" if not inside else f"input or output {min(map(str, inside))}"
        raise UserError(
            f"encoder {name}: {path}/config.json has {what}, which is not known here; choose another encoder"
        )
    width, out = said.get("in_features"), said.get("out_features")
    if not isinstance(width, int) or not isinstance(out, int):
        raise UserError(f"encoder {name}: {path}/config.json does not say in_features and out_features")
    residual = bool(said.get("use_residual"))
    layer = Dense(width, out, bool(said.get("bias", True)), function, residual)
    if not (folder / ELSEWHERE).is_file():
        files = [folder / path / file for file in ("model.safetensors", "pytorch_model.bin")]
        state = read_weights(next((file for file in files if file.is_file()), files[0])).tensors
        check_weights(state, {key: value.shape for key, value in layer.state_dict().items()}, f"encoder {name}, {path}")
        layer.load_state_dict(state)
    return layer, f"Dense {width} {out} {function} {residual}"
