"""Layers that are computed again in the backward pass: the same gradients, and nothing kept but their inputs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_encoders import make, raw
from test_two_towers import save
from test_whole import PICTURES as WHOLE_PICTURES
from test_whole import TEXTS as WHOLE_TEXTS
from test_whole import made as whole_items
from torch import Tensor

from rawrec.content.encoders import Encoder


def gradients(encoder: Encoder, items: list[list], calls: list[str] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """The feature, and gradients of a loss of it; calls: gets a mark for every pass through a layer that learns."""
    hidden = encoder.lower(encoder.prepare(*items)[0])
    for layer in encoder.stack.layers_above(encoder.boundary):
        part = next(iter(layer.children()))  # hooks of the layer itself stand outside of what is computed again
        part.register_forward_hook(lambda *args: None if calls is None else calls.append("pass"))
    found = encoder.upper(hidden)
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    named = encoder.stack.named_parameters()
    return found.detach(), {name: p.grad for name, p in named if p.grad is not None}


def same(plain: Encoder, again: Encoder, items: list[list]) -> None:
    once: list[str] = []
    twice: list[str] = []
    expected, grads = gradients(plain, items, once)
    found, own = gradients(again, items, twice)
    assert torch.equal(found, expected)
    assert grads and own.keys() == grads.keys()
    assert all(torch.equal(own[name], grads[name]) for name in grads)
    assert len(once) > 0 and len(twice) == 2 * len(once), (len(once), len(twice))
    twice.clear()
    with torch.no_grad():
        again.upper(again.lower(again.prepare(*items)[0]))
    assert len(twice) == len(once), "without gradient there is nothing to compute again"


@pytest.mark.parametrize("train", ["all", "top:1", "lora"])
@pytest.mark.parametrize(("kind", "name"), [("text", "random:bert"), ("image", "random:vit"), ("image", "random:conv")])
def test_of_texts_and_pictures(kind: str, name: str, train: str) -> None:
    same(make(kind, name, train), make(kind, name, train, recompute=True), [raw(kind)])


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("kind", ["image", "text"])
def test_of_clip_and_its_kin(family: str, kind: str, tmp_path: Path) -> None:
    folder = str(save(tmp_path, family))
    given: dict[str, Any] = {"size": None}
    same(make(kind, folder, "all", **given), make(kind, folder, "all", recompute=True, **given), [raw(kind)])


@pytest.mark.parametrize("train", ["all", "top:1"])
@pytest.mark.parametrize("kind", ["image", "text", "image_text"])
def test_of_whole_items(kind: str, train: str) -> None:
    """Three encoders have one network: its layers are computed again once, not thrice."""
    plain, again = whole_items(train)[kind], whole_items(train, recompute=True)[kind]
    same(plain, again, [{"image": WHOLE_PICTURES, "text": WHOLE_TEXTS}[one] for one in plain.kinds])


def test_what_is_kept_is_what_enters_the_layers() -> None:
    """Sizes of all that autograd holds for the backward pass."""

    def kept(recompute: bool) -> int:
        encoder = make("image", "random:vit", "all", recompute=recompute)
        held = {}

        def pack(x: Tensor) -> Tensor:
            if not isinstance(x, torch.nn.Parameter):
                held[x.data_ptr()] = x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            encoder.upper(encoder.prepare(raw("image"))[0])
        return sum(held.values())

    assert kept(True) < 0.5 * kept(False)
