"""Networks of any library whose forward runs some layers one after the other, such as those of timm and open_clip."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from rawrec.config import FieldConfig
from rawrec.content.encoders.base import Kind
from rawrec.content.encoders.tried import Probe, TriedStack
from rawrec.content.encoders.views import answering, twin, view
from rawrec.errors import UserError


class SequenceStack(TriedStack):
    """The network's own `forward` runs every part of the way, in a view of the network: layers below the part hand on
    what they are given, the first one of it gets the states in its place, and behind the last one the forward is left.

    Layers are the outermost list of modules with the most parameters that `forward` calls in turn, each once, from one
    tensor to one, and that can be cut in its middle. A network
    without such a list is one layer. about: what `config_file` in a folder of it says.
    """

    config_file = "config.json"
    about: dict[str, Any]

    def __init__(self, model: nn.Module, kind: Kind, probe: Probe, description: str) -> None:
        super().__init__()
        self.model, self.kind, self.description = model.eval(), kind, description
        self._probe, self._mask = probe
        with torch.no_grad():
            self.width = self.whole(*probe).shape[-1]
            for layers in _sequences(model, lambda: self.whole(*probe)):
                self._list, self.depth, self.is_whole = layers, len(layers), False
                if self.can_split(self.depth // 2):
                    return
        self._list, self.depth, self.is_whole = [model], 1, True

    def whole(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The network's feature of an input, `[batch, width]`."""
        raise NotImplementedError

    def stand_in(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """An input in the place of the one that became the hidden states `x`."""
        raise NotImplementedError

    def _layers(self) -> list[nn.Module]:
        return self._list

    def run(self, x: Tensor, mask: Tensor | None, first: int, last: int) -> Tensor:
        def stop(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            raise _Reached(output)

        def start(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return x.clone(), *args[1:]  # a layer may change in place what it is given

        put: dict[nn.Module, nn.Module] = {
            layer: answering(layer, lambda x, *args, **kwargs: x) for layer in self._list[:first]
        }
        for k in {first, last - 1}:
            put[self._list[k]] = twin(self._list[k])
        if first:
            put[self._list[first]].register_forward_pre_hook(start)
        if last < self.depth:
            put[self._list[last - 1]].register_forward_hook(stop)
        part = view(self, put) if first or last < self.depth else self
        try:
            return part.whole(self.stand_in(x, mask) if first else x, mask)
        except _Reached as reached:
            return reached.states

    def can_split(self, boundary: int) -> bool:
        return not self.is_whole and super().can_split(boundary)

    def check(self, cfg: FieldConfig, name: str) -> None:
        """UserError where `cfg` wants to train some layers of a network of which none are known."""
        if self.is_whole and cfg.train not in ("none", "all", "side:1"):
            raise UserError(
                f"train={cfg.train}: the network of encoder {name} is no plain sequence of layers, of which some could "
                "be trained; use train=all, side:1 or none"
            )


class _Reached(Exception):
    """The end of a part of the way."""

    def __init__(self, states: Tensor) -> None:
        self.states = states


def _sequences(model: nn.Module, run: Callable[[], Any]) -> Iterator[list[nn.Module]]:
    """What may be the layers of `model`, the most parameters first. run: runs it."""
    lists = dict(_lists(model))
    outer = [layers for name, layers in lists.items() if not any(name.startswith(f"{n}.") for n in lists if n != name)]
    for layers in sorted(outer, key=_parameters, reverse=True):
        if _in_turn(layers, run):
            yield layers


def _lists(model: nn.Module) -> Iterator[tuple[str, list[nn.Module]]]:
    """Lists of two modules and more, and modules that are numbered side by side (`layer1`, `layer2` of a ResNet), by
    the path at which everything in them begins."""
    for name, module in model.named_modules():
        if name and isinstance(module, nn.Sequential | nn.ModuleList) and len(module) > 1:
            yield name, list(module)
        children = [(re.fullmatch(r"(\D+)\d+", key), key, child) for key, child in module.named_children()]
        for stem, some in groupby(children, lambda found: found[0] and found[0][1]):
            group = list(some)
            if stem and len(group) > 1:
                for _, key, _ in group:  # each hides the lists inside it
                    yield f"{name}.{key}".lstrip("."), [child for _, _, child in group]


def _parameters(layers: list[nn.Module]) -> int:
    return sum(parameter.numel() for layer in layers for parameter in layer.parameters())


def _in_turn(layers: list[nn.Module], run: Callable[[], Any]) -> bool:
    """Whether each is called once, in order, with a tensor, and gives one."""
    called: list[nn.Module] = []
    fits = True

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal fits
        called.append(module)
        fits &= bool(args) and isinstance(args[0], Tensor) and isinstance(output, Tensor)

    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return fits and [id(module) for module in called] == [id(layer) for layer in layers]
