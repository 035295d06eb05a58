"""Networks run in part without being touched: a view of a network has other modules in some places, and all else of it.

What several threads run at once must not be changed while it runs. A view copies the modules that lie on the way to
what is replaced, a few small objects; parameters, buffers and all other modules are the network's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
BESIDE = ("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs")


def view(module: M, put: Mapping[nn.Module, nn.Module]) -> M:
    """`module` with other modules in the places of the keys of `put`, which lie somewhere in it."""
    found = _view(module, put)
    assert isinstance(found, type(module))
    return found


def _view(module: nn.Module, put: Mapping[nn.Module, nn.Module]) -> nn.Module:
    if module in put:
        return put[module]
    children = module._modules
    seen = {name: child if child is None else _view(child, put) for name, child in children.items()}
    if all(seen[name] is child for name, child in children.items()):
        return module
    made = _copy(module)
    made.__dict__["_modules"] = seen
    return made


def twin(module: M) -> M:
    """A module with the same parameters, buffers and parts, whose hooks are its own: more can be added to it alone."""
    made = _copy(module)
    for name in HOOKS + BESIDE:
        made.__dict__[name] = module.__dict__[name].copy()
    return made


def _copy(module: M) -> M:
    made = module.__class__.__new__(module.__class__)
    made.__dict__.update(module.__dict__)
    return made


def noting(layer: M, found: list[Tensor], what: Callable[[Tensor], Tensor] = lambda hidden: hidden) -> M:
    """A twin that adds `what` of the hidden states it puts out to `found`."""

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        found.append(what(output if isinstance(output, Tensor) else output[0]))

    made = twin(layer)
    made.register_forward_hook(note)
    return made


def answering(module: M, forward: Callable[..., Any]) -> M:
    """A twin that does `forward` in the place of its own work."""
    made = twin(module)
    made.__dict__["forward"] = forward
    return made
