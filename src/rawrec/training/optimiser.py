"""The one optimiser of all that is trained: groups and their rates, schedule, clipping, averaged weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rawrec.config import TrainConfig

DECAY_EPOCHS = 50  # the learning rate falls by train.lr_decay in so many
Groups = Mapping[str, Sequence[tuple[str, nn.Parameter]]]


class Optimiser:
    """Steps of the parameters of a task, in named groups.

    `encoder` learns at train.encoder_lr, every other group at train.lr. `id` decays by train.id_weight_decay, `plain`
    (biases, norms) and `encoder` (which stays near what it was) not at all, the others by train.weight_decay.
    """

    def __init__(self, groups: Groups, train: TrainConfig):
        self.cfg = train
        groups = {key: group for key, group in groups.items() if group}
        self.names = [name for group in groups.values() for name, _ in group]
        self.parameters: list[Tensor] = [p for group in groups.values() for _, p in group]
        self.rates = [train.encoder_lr if key == "encoder" else train.lr for key in groups]
        decays = {"id": train.id_weight_decay, "encoder": 0.0, "plain": 0.0}
        options = [
            {"params": [p for _, p in group], "lr": rate, "weight_decay": decays.get(key, train.weight_decay)}
            for (key, group), rate in zip(groups.items(), self.rates, strict=True)
        ]
        self.fused = train.optimizer == "adam"
        make = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
        self.torch = make(options, fused=self.fused or None)
        self.average = [p.detach().clone() for p in self.parameters] if train.ema else []

    def zero_grad(self) -> None:
        self.torch.zero_grad(set_to_none=True)

    def clip(self) -> Tensor:
        """The norm of the gradient, before it is cut to train.clip."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.cfg.clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.cfg.clip, norm)
        return norm

    def step(self, step: int, epoch: int) -> None:
        """Update the weights and their average. step: updates made before; epoch: epochs finished."""
        train = self.cfg
        warm = min(1.0, (step + 1) / train.warmup_steps) if train.warmup_steps else 1.0
        fallen = train.lr_decay ** (epoch / DECAY_EPOCHS)
        for group, rate in zip(self.torch.param_groups, self.rates, strict=True):
            group["lr"] = rate * warm * fallen
        self.torch.step()
        if self.average:
            decay = min(train.ema, (step + 1) / (step + 11))
            weights = [p.detach() for p in self.parameters]
            torch._foreach_lerp_(self.average, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters are their averages (train.ema), which are the weights evaluated and kept."""
        if not self.average:
            yield
            return
        own = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.average)  # pyright: ignore[reportPrivateImportUsage]
            try:
                yield
            finally:
                torch._foreach_copy_(self.parameters, own)  # pyright: ignore[reportPrivateImportUsage]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside the parameters: `optim.<name>.<key>` and `average.<name>`."""
        tensors = {}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            for key, value in self.torch.state.get(parameter, {}).items():
                tensors[f"optim.{name}.{key}"] = value
        return tensors | {f"average.{name}": value for name, value in zip(self.names, self.average, strict=False)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """The reverse of `state`, which it finds among `tensors`. Raises KeyError where something is missing."""
        for name, parameter in zip(self.names, self.parameters, strict=True):
            prefix = f"optim.{name}."
            found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if found:  # laid out in memory as the parameter is: fused Adam walks over both as they lie
                self.torch.state[parameter] = {
                    key: (value.to(parameter.device) if self.fused else value)
                    if key == "step"
                    else torch.empty_like(parameter).copy_(value)
                    for key, value in found.items()
                }
        for name, value in zip(self.names, self.average, strict=False):
            value.copy_(tensors[f"average.{name}"])
