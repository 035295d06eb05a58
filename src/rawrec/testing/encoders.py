"""What every encoder must do: the same feature wherever it is cut, and only what shall learn learns."""

from __future__ import annotations

import io

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from rawrec.config import FieldConfig
from rawrec.content.encoders import Encoder, make_encoder
from rawrec.content.encoders.base import Kind

Raw = list[list[bytes]] | list[list[str]]


def check_encoder(name: str, kind: Kind, trains: tuple[str, ...] = ("all", "top:1", "side:1"), **settings: int) -> None:
    """That an encoder gives one feature per item, zeros where there is nothing, the same whether it is cached or not,
    alone or among others, today or tomorrow; and that with `train` it learns, and what it learned can be stored.

    kind: image or text. trains: the values of `content.<field>.train` that it is made for; empty: it cannot be trained.
    settings: of its field, as size=32. Raises AssertionError that says what failed.
    """
    raw = _raw(kind)
    whole = _features(_made(name, kind, "none", settings), raw)
    gives_a_feature_per_item(_made(name, kind, "none", settings), whole)
    is_the_same_every_time(name, kind, settings, raw)
    for train in trains:
        encoder = _made(name, kind, train, settings)
        cut = _features(encoder, raw).detach()
        assert torch.allclose(cut, whole, rtol=1e-4, atol=1e-4), (
            f"train={train} gives other features than train=none: what `run` does must not depend on where it is cut"
        )
        if train.startswith("side:"):
            begins_frozen(cut, whole, train)
        learns(encoder, raw, train)
        other = _made(name, kind, train, settings)
        other.load_trained_state(encoder.trained_state())
        same = torch.equal(_features(other, raw), _features(encoder, raw))
        assert same, f"train={train}: what was learned is not all in trained_state(): see Stack.above"


def _made(name: str, kind: Kind, train: str, settings: dict[str, int], seed: int = 0) -> Encoder:
    cfg = FieldConfig.model_validate({"encoder": name, "train": train, **settings})
    return make_encoder(kind, cfg, seed, torch.float32)


def _features(encoder: Encoder, raw: Raw) -> Tensor:
    prepared, _ = encoder.prepare(raw)
    return encoder.upper(encoder.lower(prepared))


def gives_a_feature_per_item(encoder: Encoder, found: Tensor) -> None:
    """found: of `_raw`, whose second item has nothing."""
    expected = (4, encoder.width)
    assert found.shape == expected, f"features must be {list(expected)}: {list(found.shape)}"
    assert found.dtype == torch.float32 and found.isfinite().all(), "features must be finite and float32"
    assert not found[1].any(), "an item that has nothing must have zeros"
    assert found[[0, 2, 3]].abs().sum(1).all(), "an item that has something must not have zeros"
    assert not torch.equal(found[0], found[3]), "two different items have the same feature"


def is_the_same_every_time(name: str, kind: Kind, settings: dict[str, int], raw: Raw) -> None:
    state = torch.random.get_rng_state()
    first, again = (_made(name, kind, "none", settings) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state), "making it changes torch's random state"
    assert torch.equal(_features(first, raw), _features(again, raw)), "made twice with one seed it gives other features"
    assert first.fingerprint == again.fingerprint, "made twice with one seed it has another fingerprint"
    alone = torch.cat([_features(first, [item]) for item in raw])  # pyright: ignore[reportArgumentType]
    close = torch.allclose(alone, _features(first, raw), rtol=1e-4, atol=1e-4)
    assert close, "an item has another feature alone than among others"


def begins_frozen(found: Tensor, whole: Tensor, train: str) -> None:
    """A network beside the layers adds nothing before the first step."""
    assert torch.allclose(found, whole, rtol=1e-6, atol=1e-6), (
        f"train={train} begins with other features than train=none: see Stack.states, whose last one is the feature"
    )


def learns(encoder: Encoder, raw: Raw, train: str) -> None:
    """Trained parameters get gradient and move, nothing else does."""
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    trained = encoder.trained_parameters()
    assert trained, f"train={train} trains no parameter: see Stack.above"
    optimizer = torch.optim.SGD(trained, 0.5)
    for _ in range(2):
        optimizer.zero_grad()
        found = _features(encoder, raw)
        (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
        optimizer.step()
    changed = {key for key, value in encoder.state_dict().items() if not torch.equal(value, before[key])}
    allowed = {"stack." + key for key in encoder.trained_state()}
    assert changed, f"train={train}: no parameter moved: no gradient reaches the layers"
    assert changed <= allowed, f"train={train} changes what is frozen: {', '.join(sorted(changed - allowed))}"


def _raw(kind: Kind) -> Raw:
    """Pictures or texts of four items, of which the second has none and the third two."""
    if kind == "text":
        return [["A film about a robot"], [], ["A much longer text, for another length.", "And a second."], ["romance"]]
    red, blue, green = (_picture(*what) for what in (("ellipse", "red"), ("rectangle", "blue"), ("ellipse", "green")))
    return [[red], [], [blue, green], [blue]]


def _picture(shape: str, colour: str) -> bytes:
    image = Image.new("RGB", (96, 96), "white")
    getattr(ImageDraw.Draw(image), shape)((16, 16, 80, 80), fill=colour)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
