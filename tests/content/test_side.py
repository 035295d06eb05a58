"""A trained network beside a frozen one: what it reads, what it begins with, and that nothing else learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_encoders import ALL, make, raw, save_vision
from test_two_towers import CLASSES, save
from test_whole import made as whole_items
from torch import Tensor
from torch.nn import functional

from rawrec.config import resolve
from rawrec.config.finetune import finetune_config
from rawrec.content.building import build_item_model
from rawrec.content.encoders import Encoder
from rawrec.content.encoders.base import SideStack
from rawrec.content.encoders.side import SideNetwork, evenly
from rawrec.content.encoders.stacks import TransformerStack
from rawrec.content.item_model import ItemModel
from rawrec.content.units import content_units
from rawrec.data.dataset import Fields
from rawrec.errors import UserError

FIELDS = Fields(image=["image", "back"], text=["title", "plot"])


def stack(encoder: Encoder) -> SideStack:
    assert isinstance(encoder.stack, SideStack)
    return encoder.stack


def begins_as_the_frozen_feature(whole: Encoder, beside: Encoder, items: list[list]) -> None:
    prepared, _ = whole.prepare(*items)
    expected, found = (one.upper(one.lower(prepared)) for one in (whole, beside))
    assert expected.any() and torch.equal(found, expected)
    assert (beside.width, beside.pooled, beside.lower_is_identity) == (whole.width, True, False)
    rows = beside.lower(prepared)
    assert rows.lengths.tolist() == whole.lower(prepared).lengths.tolist()
    assert rows.values.shape[1] == stack(beside).width and not rows.values.requires_grad


# ---------------------------------------------------------------------------------------------------- the beginning
@pytest.mark.parametrize(("kind", "name"), ALL)
@pytest.mark.parametrize("train", ["side:1", "side:2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_it_begins_as_the_frozen_feature(kind: str, name: str, train: str, dtype: torch.dtype) -> None:
    begins_as_the_frozen_feature(make(kind, name, dtype=dtype), make(kind, name, train, dtype=dtype), [raw(kind)])


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("output", ["projected", "pooled"])
def test_of_clip_and_its_kin(family: str, output: str, tmp_path: Path) -> None:
    folder = str(save(tmp_path, family))
    for kind in ("image", "text"):
        settings = {"size": None, "output": output}
        begins_as_the_frozen_feature(
            make(kind, folder, **settings), make(kind, folder, "side:3", **settings), [raw(kind)]
        )


@pytest.mark.parametrize("family", ["swin", "convnext"])
def test_of_networks_whose_layers_differ_in_width(family: str, tmp_path: Path) -> None:
    save_vision(tmp_path, family)
    depth = 2 if family == "swin" else 3
    beside = make("image", str(tmp_path), f"side:{depth}", size=32)
    begins_as_the_frozen_feature(make("image", str(tmp_path), size=32), beside, [raw("image")])
    assert len(set(stack(beside).side.widths)) > 1 or family == "swin"


def test_of_whole_items() -> None:
    """The three passes have one frozen network, and each a network beside it."""
    frozen, beside = whole_items(), whole_items("side:2")
    for kind, encoder in beside.items():
        items = [raw(one) for one in encoder.kinds]
        begins_as_the_frozen_feature(frozen[kind], encoder, items)
    assert len({id(stack(encoder).inner.net) for encoder in beside.values()}) == 1
    assert len({id(encoder.side) for encoder in beside.values()}) == 3


# -------------------------------------------------------------------------------------------------- what it reads
def test_layers_stand_at_even_distances() -> None:
    assert evenly(1, 12) == [12] and evenly(3, 12) == [4, 8, 12] and evenly(12, 12) == list(range(1, 13))
    for depth in range(1, 25):
        for count in range(1, depth + 1):
            found = evenly(count, depth)
            steps = {b - a for a, b in zip([0, *found], found, strict=False)}
            assert found[-1] == depth and min(steps) >= 1 and max(steps) - min(steps) <= 1


def states(encoder: Encoder, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return stack(encoder).run(x, mask, 0, encoder.stack.depth).split(stack(encoder).side.widths, 1)


def own_states(encoder: Encoder, x: Tensor, mask: Tensor | None = None) -> Any:
    """What the class of transformers itself says of its layers: the one with embeddings first."""
    inner = stack(encoder).inner
    assert isinstance(inner, TransformerStack)
    model: Any = inner.model.get_submodule(inner._tower)
    inputs = {"pixel_values": x} if mask is None else {"input_ids": x, "attention_mask": mask.long()}
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True).hidden_states


IDS = torch.tensor([[4, 5, 6, 8], [4, 7, 8, 0]])
MASK = torch.tensor([[True] * 4, [True, True, True, False]])
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_texts_are_read_by_the_mean_over_tokens() -> None:
    encoder = make("text", "random:bert", "side:2")
    found, expected = states(encoder, IDS, MASK), own_states(encoder, IDS, MASK)
    weights = MASK[..., None] / MASK.sum(1)[:, None, None]
    for state, hidden in zip(found, expected[1:], strict=True):
        torch.testing.assert_close(state, (hidden * weights).sum(1))


def test_pictures_are_read_by_the_first_token() -> None:
    encoder = make("image", "random:vit", "side:2", size=32)
    torch.testing.assert_close(states(encoder, PIXELS)[0], own_states(encoder, PIXELS)[1][:, 0])


@pytest.mark.parametrize("family", CLASSES)
def test_clip_and_its_kin_are_read_where_their_features_are(family: str, tmp_path: Path) -> None:
    folder = str(save(tmp_path, family))
    image, text = make("image", folder, "side:3", size=None), make("text", folder, "side:3", size=None)
    hidden = own_states(image, PIXELS)
    for k in (0, 1):
        pooled = hidden[k + 1].mean(1) if family == "siglip" else hidden[k + 1][:, 0]
        torch.testing.assert_close(states(image, PIXELS)[k], pooled)
    mask = torch.ones_like(MASK) if family == "siglip" else MASK
    hidden = own_states(text, IDS, mask)
    last = mask.sum(1) - 1 if family != "chinese_clip" else torch.zeros(2, dtype=torch.int64)
    for k in (0, 1):
        torch.testing.assert_close(states(text, IDS, mask)[k], hidden[k + 1][torch.arange(2), last])


def test_convolutions_are_read_by_the_mean_over_the_picture() -> None:
    encoder = make("image", "random:conv", "side:4")
    assert stack(encoder).side.widths == [16, 32, 48, 64] and stack(encoder).at == [1, 2, 3]
    x = PIXELS
    for state, layer in zip(states(encoder, PIXELS), stack(encoder).inner.layers, strict=True):  # type: ignore[arg-type]
        x = layer(x)
        torch.testing.assert_close(state, x.mean((2, 3)).detach())


def test_of_several_pictures_the_mean() -> None:
    encoder = make("image", "random:conv", "side:3")
    one, two, both = (
        encoder.lower(encoder.prepare([pictures])[0]).values[0]
        for pictures in ([raw("image")[2][0]], [raw("image")[2][1]], raw("image")[2])
    )
    torch.testing.assert_close(both, (one + two) / 2)


# ------------------------------------------------------------------------------------------------------ the network
def test_the_network_is_what_it_says() -> None:
    torch.manual_seed(0)
    net = SideNetwork([5, 7, 6], 4)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(3, 18)
    assert net.gates is not None
    state = torch.zeros(3, 4)
    for k, part in enumerate(x.split([5, 7, 6], 1)):
        centred = part - part.mean(1, keepdim=True)
        own = net.down[k](centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt())
        gate = 1.0 if k == 0 else torch.sigmoid(10 * net.gates[k - 1])
        state = gate * own + (1 - gate) * state
        state = state + net.block[k](functional.gelu(state))
    torch.testing.assert_close(net(x), x[:, 12:] + net.out(functional.gelu(state)))


@pytest.mark.parametrize(("kind", "name"), [("text", "random:bert"), ("image", "random:conv"), ("image", "random:vit")])
@pytest.mark.parametrize("train", ["side:1", "side:2"])
def test_it_alone_learns_and_runs(kind: str, name: str, train: str) -> None:
    encoder = make(kind, name, train)
    trained = encoder.trained_parameters()
    assert {id(p) for p in trained} == {id(p) for p in stack(encoder).side.parameters()}
    assert set(encoder.trained_state()) == {f"side.{name}" for name, _ in stack(encoder).side.named_parameters()}
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    hidden = encoder.lower(encoder.prepare(raw(kind))[0])
    calls = []
    for module in stack(encoder).inner.modules():
        module.register_forward_hook(lambda *args: calls.append(1))
    optimizer = torch.optim.SGD(trained, 0.5)
    target = torch.randn(5, encoder.width, generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # what lies below the last map has a gradient once that has moved
        optimizer.zero_grad()
        (encoder.upper(hidden) * target).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
        optimizer.step()
    assert not calls, "the frozen network ran"
    changed = {key for key, value in encoder.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {f"stack.{name}" for name in encoder.trained_state()}
    other = make(kind, name, train)
    other.load_trained_state(encoder.trained_state())
    assert torch.equal(other.upper(hidden), encoder.upper(hidden))


def test_under_bf16() -> None:
    encoder = make("text", "random:bert", "side:2", dtype=torch.float16)
    x, _ = encoder.prepare(raw("text"))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = encoder.lower(x)
        found = encoder.upper(hidden)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], hidden.values[0, -32:].float(), rtol=0, atol=0)
    found.sum().backward()


@pytest.mark.parametrize("items", [[], [[], []]])
def test_no_items_and_only_empty_items(items: list) -> None:
    encoder = make("image", "random:conv", "side:2")
    hidden = encoder.lower(encoder.prepare(items)[0])
    assert hidden.values.shape == (0, stack(encoder).width)
    assert encoder.upper(hidden).shape == (len(items), encoder.width) and not encoder.upper(hidden).any()


# ------------------------------------------------------------------------------------------------- keys and sharing
def test_the_cache_is_of_the_layers_that_are_read() -> None:
    keys = [make("text", "random:bert", train).fingerprint for train in ("none", "side:1", "side:2", "top:1")]
    assert len(set(keys)) == 4
    assert make("text", "random:bert", "side:2", side_width=8).fingerprint == keys[2]
    digests = {make("text", "random:bert", train).stack.digest for train in ("none", "side:2")}
    assert len(digests) == 1, "of the network that was loaded"


def model(**overrides: Any) -> ItemModel:
    kinds = dict.fromkeys(FIELDS.image, "image") | dict.fromkeys(FIELDS.text, "text")
    given = {
        "content.image.encoder": "random:conv",
        "content.text.encoder": "random:bert",
        **{key.replace("__", "."): value for key, value in overrides.items()},
    }
    cfg = resolve("em3", {"paradigm": "end_to_end", **given}, kinds)
    return build_item_model(cfg, FIELDS, content_units(cfg, FIELDS))


def test_fields_share_the_frozen_network_and_by_item_what_learns_too() -> None:
    own = dict(model(content__image__train="none", content__text__train="side:2").raw_encoders())
    assert stack(own["title"]).inner is stack(own["plot"]).inner and own["title"].side is not own["plot"].side
    shared = model(content__item__train="side:2")
    encoders = dict(shared.raw_encoders())
    assert encoders["title"].stack is encoders["plot"].stack and encoders["image"].stack is encoders["back"].stack
    assert {name.split(".")[0] for name in shared.trained_parameters()} == {"image", "title"}
    assert encoders["title"].fingerprint == own["title"].fingerprint


def test_a_frozen_network_stays_where_it_is() -> None:
    """What training needs goes to the device; what only new items need does so when there are any."""
    made = model(content__image__train="none", content__text__train="side:2").to("meta")
    for name, encoder in made.raw_encoders():
        frozen = stack(encoder).inner if encoder.side is not None else encoder.stack
        assert {p.device.type for p in frozen.parameters()} == {"cpu"}, name
        assert encoder.device.type == "meta"
    text = dict(made.raw_encoders())["title"]
    assert {p.device.type for p in text.trained_parameters()} == {"meta"}
    cut = model(content__image__train="top:1", content__text__train="all").to("meta")
    assert {p.device.type for p in cut.parameters()} == {"meta"}


# ---------------------------------------------------------------------------------------------------------- mistakes
def test_mistakes_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train=side:5: the encoder random:conv has 4 layers; use at most side:4"):
        make("image", "random:conv", "side:5")
    with pytest.raises(UserError, match=r"train=side:4: the encoder random:vlmo has 3 layers"):
        whole_items("side:4")
    with pytest.raises(UserError, match="top:<n> or side:<n>"):
        resolve("em3", {"content.image.train": "side"})
    with pytest.raises(UserError, match=r"train=side:2: a network beside the layers is a part of a model"):
        finetune_config({"encoder": "pair:random:conv+random:bert", "train": "side:2"})
    with pytest.raises(UserError, match=r"side_width=8 would do nothing: .*use content.text.train=side:4"):
        resolve("em3", {"content.text.side_width": 8})
    resolve("em3", {"content.text.side_width": 8, "content.text.train": "side:4"})


def test_a_network_whose_layers_say_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from rawrec.content.encoders.stacks import ConvStack

    monkeypatch.setattr(ConvStack, "states", lambda self, x, mask, at: [x] * (len(at) + 1))
    with pytest.raises(
        UserError, match=r"what single layers of the encoder random:conv say cannot be read; use side:1"
    ):
        make("image", "random:conv", "side:2")
