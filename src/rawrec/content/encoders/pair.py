"""A dual stream of one's own: an encoder of pictures and one of texts, each with a linear map to one space.

`rawrec finetune --encoder pair:IMAGE+TEXT` trains one and writes its folder: config.json (which encoders, under which
settings), model.safetensors (all weights of both, the maps, the temperature), and, for encoders of the transformers
library, `image/` and `text/` with their config and tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rawrec.config import FieldConfig
from rawrec.content.encoders import loading
from rawrec.content.encoders.base import Kind, Stack
from rawrec.errors import UserError
from rawrec.onednn import Linear

MODEL_TYPE = "rawrec_pair"
PREFIX = "pair:"
LOG_SCALE = "log_scale"
Network = Callable[[Kind, str, FieldConfig], tuple[Stack, Any]]
"""Makes the network of a name, and says how its input is prepared."""


class ProjectedStack(Stack):
    """A network whose feature goes through a linear map, which is part of what lies above its last layer."""

    def __init__(self, inner: Stack, projection: nn.Linear) -> None:
        super().__init__()
        self.inner, self.projection = inner, projection
        self.width, self.depth = projection.out_features, inner.depth
        self.description = f"{inner.description} projected"

    def run(self, x: Tensor, mask: Tensor | None, first: int, last: int) -> Tensor:
        x = self.inner.run(x, mask, first, last)
        return x if last < self.depth else self._projected(x)

    def states(self, x: Tensor, mask: Tensor | None, at: Sequence[int]) -> list[Tensor]:
        *found, feature = self.inner.states(x, mask, at)
        return [*found, self._projected(feature)]

    def _projected(self, feature: Tensor) -> Tensor:
        with torch.autocast(feature.device.type, enabled=False):
            return self.projection(feature.float())

    def can_split(self, boundary: int) -> bool:
        return self.inner.can_split(boundary)

    def above(self, boundary: int | None) -> list[nn.Parameter]:
        return [*self.inner.above(boundary), *self.projection.parameters()]

    def below(self, boundary: int) -> list[nn.Parameter]:
        return self.inner.below(boundary)

    def layers_above(self, boundary: int) -> list[nn.Module]:
        return self.inner.layers_above(boundary)


class Tower(NamedTuple):
    """spec: what config.json says of it: its encoder and settings."""

    stack: Stack
    projection: nn.Linear
    reading: Any
    spec: dict[str, Any]


def names(name: str) -> dict[Kind, str]:
    """The two encoders of `pair:IMAGE+TEXT`."""
    parts = name.removeprefix(PREFIX).split("+")
    if len(parts) != 2 or not all(parts):
        raise UserError(f"encoder {name!r}: give an image and a text encoder, as pair:efficientnet_lite0+minilm")
    for part in parts:
        if part.startswith(PREFIX) or is_pair(part):
            raise UserError(f"encoder {name!r}: {part} is a pair itself; give encoders of one kind")
    return {"image": parts[0], "text": parts[1]}


def is_pair(name: str) -> bool:
    """Whether `name` is the folder of a trained pair."""
    return Path(name).is_dir() and loading.settings(Path(name) / "config.json").get("model_type") == MODEL_TYPE


def projection(width: int, dim: int) -> Linear:
    """The map from a feature to the space of both."""
    return Linear(width, dim)


@torch.no_grad()
def spread(mapped: nn.Linear, features: Tensor) -> None:
    """Let a new map take `features` `[n, width]` to points around zero: those of many networks lie in a narrow cone, in
    which all are alike, and a contrast takes long to leave it."""
    centre, deviation = features.mean(0), features.std(0, correction=0).square().mean().sqrt()
    mapped.weight.div_(deviation.clamp(min=1e-12))
    assert mapped.bias is not None
    mapped.bias.copy_(-(mapped.weight @ centre))


def tower(kind: Kind, folder: str, cfg: FieldConfig, network: Network) -> Tower:
    """One side of the pair in a folder. cfg: its size and max_length stand above those that the pair was trained with.

    UserError where the folder is not whole.
    """
    about = loading.settings(Path(folder) / "config.json")
    spec = about.get(kind)
    if not isinstance(spec, dict) or not isinstance(spec.get("encoder"), str) or not isinstance(about.get("dim"), int):
        raise UserError(f"{Path(folder) / 'config.json'}: it does not say which encoder reads {kind}s: tune it again")
    base = spec["encoder"]
    name = str(Path(folder) / base.removeprefix("./")) if base.startswith("./") else base
    chosen = {key: spec.get(key) for key in ("size", "max_length") if getattr(cfg, key) is None}
    own = cfg.model_copy(update={"encoder": name, "output": spec.get("output", "projected"), **chosen})
    stack, reading = network(kind, name, own)
    mapped = projection(stack.width, about["dim"])
    weights = _weights(Path(folder) / "model.safetensors", (f"{kind}.", f"{kind}_projection."))
    for module, prefix in ((stack, f"{kind}."), (mapped, f"{kind}_projection.")):
        state = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        expected = {key: value.shape for key, value in module.state_dict().items()}
        loading.check_weights(state, expected, f"{Path(folder) / 'model.safetensors'}, {prefix[:-1]}")
        module.load_state_dict(state)
    return Tower(stack, mapped, reading, spec)


def log_scale(folder: str) -> Tensor:
    """The logarithm of one over the temperature that the pair in a folder has learned."""
    path = Path(folder) / "model.safetensors"
    found = _weights(path, (LOG_SCALE,))
    if LOG_SCALE not in found:
        raise UserError(f"{path} has no {LOG_SCALE}: copy the folder whole, or tune it again")
    return found[LOG_SCALE]


def _weights(path: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: copy the folder whole, or tune it again") from None
    except SafetensorError as error:
        raise UserError(f"{path} is not whole: {loading.first_line(error)}") from None
