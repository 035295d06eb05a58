"""VLMo beyond its fixtures: lengths, masks, layers, losses, other picture sizes, gradients, folders."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rawrec.content.convert.vlmo import BIAS_TABLE, authors_key
from rawrec.content.encoders import positions, vlmo
from rawrec.content.encoders.vlmo import PRESETS, Vlmo, VlmoConfig, at_size, bare, load_vlmo
from rawrec.errors import UserError

SMALL: dict[str, Any] = {
    "width": 24, "depth": 3, "heads": 3, "hidden": 40, "patch": 4, "image_size": 12, "vl_layer": 2, "vocabulary": 30,
    "max_text": 7, "reach": 9,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "relative": {},
    "absolute": {"relative_bias": False, "image_positions": True, "layer_scale": None},
    "relative and picture positions": {"image_positions": True},
    "no positions of pictures": {"relative_bias": False},
}


def network(seed: int = 0, **changes: Any) -> Vlmo:
    """Small, every parameter random."""
    torch.manual_seed(seed)
    model = Vlmo(VlmoConfig(**SMALL | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def inputs(cfg: VlmoConfig, n: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, texts of different lengths, and which of their tokens are no padding."""
    rng = torch.Generator().manual_seed(5)
    pixels = torch.randn(n, 3, cfg.image_size, cfg.image_size, generator=rng)
    ids = torch.randint(1, cfg.vocabulary, (n, cfg.max_text), generator=rng)
    lengths = torch.tensor([cfg.max_text, 4, 2, 5, 3, 6])[:n]
    mask = torch.arange(cfg.max_text) < lengths[:, None]
    return pixels, ids * mask, mask


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str) -> None:
    """Neither how far texts are filled up, nor with what."""
    model = network(**KINDS[kind])
    pixels, ids, mask = inputs(model.cfg)
    ids, mask = ids[1:3], mask[1:3]
    others = torch.where(mask, ids, 7)
    for image in (None, pixels[1:3]):
        whole, short, filled = (
            model(image, ids, mask),
            model(image, ids[:, :4], mask[:, :4]),
            model(image, others, mask),
        )
        for seen in (short, filled):
            torch.testing.assert_close(seen.features, whole.features, rtol=1e-5, atol=1e-5)
        if image is not None:
            places = model.cfg.image_tokens
            torch.testing.assert_close(short.states[:, -places:], whole.states[:, -places:], rtol=1e-5, atol=1e-5)
            assert model.mlm_logits(short).shape == (2, 4, model.cfg.vocabulary)
            torch.testing.assert_close(
                model.mlm_logits(short)[mask[:, :4]], model.mlm_logits(whole)[mask], rtol=1e-4, atol=1e-4
            )
        else:
            torch.testing.assert_close(model.itc_vl(short), model.itc_vl(whole), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_layer_can_be_called_alone(kind: str) -> None:
    model = network(**KINDS[kind])
    pixels, ids, mask = inputs(model.cfg)
    for given in ((pixels, None), (None, ids), (pixels, ids)):
        whole = model(*given, mask)
        x, seen, name = model.embed(*given, mask)
        for number, block in enumerate(model.blocks):
            if number == model.cfg.vl_layer:
                assert torch.equal(x, whole.below)
            x = block(x, seen, name)
        assert torch.equal(x, whole.top)
        assert torch.equal(model.norm(x), whole.states)


def test_experts_see_what_is_theirs() -> None:
    """Which parameters a pass depends on, by layer."""
    model = network()
    pixels, ids, mask = inputs(model.cfg)

    def used(out: Tensor) -> set[str]:
        model.zero_grad()
        (out * torch.randn_like(out)).sum().backward()
        named = (n for n, p in model.named_parameters() if p.grad is not None and p.grad.any())
        return {".".join(n.split(".")[1:4:2]) for n in named if ".experts." in n}

    everywhere = {"0", "1", "2"}
    assert used(model(pixels).states) == {f"{n}.image" for n in everywhere}
    assert used(model(ids=ids, mask=mask).states) == {f"{n}.text" for n in everywhere}
    both = {f"{n}.{kind}" for n in "01" for kind in ("text", "image")} | {"2.vl"}
    assert used(model(pixels, ids, mask).states) == both
    assert used(model.itc_vl(model(pixels))) == {"0.image", "1.image", "2.vl"}
    assert used(model.itc_vl(model(ids=ids, mask=mask))) == {"0.text", "1.text", "2.vl"}


@pytest.mark.parametrize("vl_layer", [0, 3])
def test_all_or_no_layers_have_an_expert_of_both(vl_layer: int) -> None:
    model = network(vl_layer=vl_layer)
    pixels, ids, mask = inputs(model.cfg)
    seen, both = model(pixels), model(pixels, ids, mask)
    assert both.states.shape == (4, model.cfg.max_text + model.cfg.image_tokens, model.cfg.width)
    if vl_layer == 3:
        other = copy.deepcopy(model)
        other.itc_vl_heads = other.itc_heads
        assert torch.equal(other.itc_vl(seen), model.itc(seen))
    else:
        assert torch.equal(seen.below, model.embed_image(pixels))


def test_a_row_that_sees_nothing_makes_no_nan() -> None:
    model = network()
    _, ids, mask = inputs(model.cfg)
    mask[0] = False
    seen = model(ids=ids, mask=mask)
    assert seen.states.isfinite().all()
    model.itc(seen)[1:].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_scores_are_float32_under_autocast() -> None:
    """As in the published code."""
    model = network()
    pixels = inputs(model.cfg)[0]
    seen: list[torch.dtype] = []
    original = torch.Tensor.softmax

    def softmax(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(self.dtype)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(torch.Tensor, "softmax", softmax)
        model(pixels)
    assert seen == [torch.float32] * 3


# -------------------------------------------------------------------------------------------------------------- losses
def test_losses_by_hand() -> None:
    """Against plain sums over probabilities, in float64."""
    rng = torch.Generator().manual_seed(3)
    image, text = (
        torch.nn.functional.normalize(torch.randn(3, 5, generator=rng, dtype=torch.float64), dim=1) for _ in range(2)
    )
    scale = torch.tensor(1.7, dtype=torch.float64)
    odds = np.exp(np.exp(1.7) * image.numpy() @ text.numpy().T)
    rows, columns = np.diag(odds) / odds.sum(1), np.diag(odds) / odds.sum(0)
    expected = -(np.log(rows).mean() + np.log(columns).mean()) / 2
    assert vlmo.contrast(image, text, scale).item() == pytest.approx(expected, abs=1e-6)

    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.5, 0.0]])
    expected = -np.mean(
        [np.log(1 / (1 + np.exp(-2.0))), np.log(1 / (1 + np.exp(-1.0))), np.log(1 / (1 + np.exp(-0.5)))]
    )
    assert vlmo.itm_loss(logits).item() == pytest.approx(expected, abs=1e-6)

    words = torch.zeros(1, 2, 4)
    assert vlmo.mlm_loss(words, torch.tensor([[-100, 3]])).item() == pytest.approx(0.25 * np.log(4), abs=1e-6)


def test_hard_negatives_are_of_other_pairs_and_follow_similarity() -> None:
    rng = torch.Generator().manual_seed(0)
    image = torch.eye(4)
    text = torch.tensor([[1.0, 0, 0, 0], [0.9, 0.44, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    drawn = [vlmo.hard_negatives(image, text, torch.tensor(2.0), rng) for _ in range(60)]
    images, texts = (torch.stack(part) for part in zip(*drawn, strict=True))
    own = torch.arange(4)
    assert not (images == own).any() and not (texts == own).any()
    assert (images[:, 1] == 0).float().mean() > 0.8  # text 1 is most like picture 0
    assert (texts[:, 0] == 1).float().mean() > 0.8
    assert len(set(images[:, 3].tolist())) == 3  # all are alike to text 3


def test_pairs_come_in_the_order_of_their_labels() -> None:
    model = network()
    pixels, ids, mask = inputs(model.cfg, 3)
    false_image, false_text = torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])
    logits = vlmo.itm_pairs(model, pixels, ids, mask, false_image, false_text)
    for row in range(3):
        pair = slice(row, row + 1)
        for place, (image, text) in enumerate(((row, row), (int(false_image[row]), row), (row, int(false_text[row])))):
            alone = model.itm_logits(model(pixels[image : image + 1], ids[text : text + 1], mask[text : text + 1]))
            torch.testing.assert_close(logits[pair.start + 3 * place], alone[0], rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------------------------- pictures of another size
@pytest.mark.parametrize("how", ["geometric", "bicubic"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_sizes(kind: str, how: Any) -> None:
    model = network(**KINDS[kind])
    assert at_size(model, 12, how) is model
    for size in (4, 8, 20, 32):
        other = at_size(model, size, how)
        assert other.cfg == model.cfg.model_copy(update={"image_size": size}) and not other.training
        pixels, ids, mask = inputs(other.cfg)
        assert other(pixels).states.shape == (4, (size // 4) ** 2 + 1, 24)
        assert other(pixels, ids, mask).states.isfinite().all()
        assert torch.equal(other(ids=ids, mask=mask).states, model(ids=ids, mask=mask).states)
        back = {
            name: value for name, value in other.state_dict().items() if value.shape == model.state_dict()[name].shape
        }
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in back.items())
    with pytest.raises(UserError, match=r"image_size=14.*multiple"):
        at_size(model, 14)


def test_positions_stay_at_their_own_size_and_where_they_were() -> None:
    torch.manual_seed(0)
    places, table = torch.randn(1, 10, 4), torch.randn(5 * 5 + 23, 3)
    assert positions.interpolate_positions(places, 3) is places
    for how in ("geometric", "bicubic"):
        assert positions.interpolate_bias(table, 3, 3, how) is table
        larger = positions.interpolate_bias(table, 3, 6, how)
        assert larger.shape == (11 * 11 + 23, 3)
        assert torch.equal(larger[121:], table[25:])  # all that is not between patches
        middle = larger[:121].view(11, 11, 3)[5, 5]  # a patch and itself
        if how == "geometric":
            torch.testing.assert_close(middle, table[12], rtol=1e-5, atol=1e-5)
    larger = positions.interpolate_positions(places, 5)
    assert larger.shape == (1, 26, 4) and torch.equal(larger[:, 0], places[:, 0])
    torch.testing.assert_close(larger[:, 13], places[:, 5], rtol=1e-4, atol=1e-4)  # the middle of both squares


@pytest.mark.parametrize("old, new", [(5, 8), (14, 24), (3, 2)])
def test_geometric_biases_lie_on_the_surface_of_the_old(old: int, new: int) -> None:
    """A cubic surface, known at geometric distances, is found again at the distances of the new grid."""
    at = positions.geometric_distances(old, new)
    steps = at.diff()[old - 1 :]
    ratios = steps[1:] / steps[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))
    assert at[old - 1] == 0 and at[old] == 1 and torch.equal(at, -at.flip(0))
    assert at[-1] == pytest.approx(new - 1, abs=1e-3) or new <= old

    def surface(distance: Tensor) -> Tensor:
        x = distance / 20
        return (x - 0.5 * x**2 + 0.2 * x**3)[:, None] * (1 + x)[None] + x[None] ** 2

    table = surface(at).flatten()[:, None].float()
    found = positions._splines(table.T.unflatten(1, (2 * old - 1, -1)), old, new)[0]
    wanted = surface(torch.arange(1 - new, new).double()).float()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------------------------- folders
def folder_of(model: Vlmo, folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "vlmo", **model.cfg.model_dump()}))
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def test_a_folder_is_read(tmp_path: Path) -> None:
    model = network()
    found = load_vlmo(folder_of(model, tmp_path / "vlmo"))
    assert found.cfg == model.cfg and not found.training and all(p.requires_grad for p in found.parameters())
    pixels, ids, mask = inputs(model.cfg)
    assert torch.equal(found(pixels, ids, mask).states, model(pixels, ids, mask).states)
    assert load_vlmo(tmp_path / "vlmo", 20)(torch.zeros(1, 3, 20, 20)).states.shape == (1, 26, 24)


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    folder = folder_of(network(), tmp_path / "vlmo")
    weights, config = folder / "model.safetensors", folder / "config.json"
    state, about = load_file(weights), json.loads(config.read_text())

    def refused(match: str) -> None:
        with pytest.raises(UserError, match=match) as caught:
            load_vlmo(folder)
        assert str(tmp_path) in str(caught.value)

    save_file({k: v for k, v in state.items() if not k.startswith(("pooler", "itm."))}, weights)
    refused(r"4 missing \(pooler.weight, pooler.bias, itm.weight\)")
    save_file(state | {"further": torch.zeros(2)}, weights)
    refused(r"1 no part of it \(further\)")
    save_file(state | {"pooler.bias": torch.zeros(3)}, weights)
    refused(r"pooler.bias \[3\] in place of \[24\]")
    weights.write_bytes(b"none")
    refused("not whole")
    weights.unlink()
    refused("no model.safetensors")
    for changes, match in (
        ({"depht": 3}, "depht"),
        ({"heads": 5}, "width=24 is no multiple of heads=5"),
        ({"depth": "many"}, "depth"),
        ({"model_type": "bert"}, "model_type=bert"),
    ):
        config.write_text(json.dumps(about | changes))
        refused(match)
    config.unlink()
    refused("no config.json")


# ------------------------------------------------------------------------------------------------------------- presets
@pytest.mark.parametrize("name, parameters", [("base", 175), ("base_plus", 167), ("large", 562)])
def test_presets_are_the_published_ones(name: str, parameters: int) -> None:
    """Shapes by the published names of weights, and the published counts, which are without the heads."""
    cfg = PRESETS[name]
    model = bare(cfg)
    shapes = {authors_key(n): list(p.shape) for n, p in model.state_dict().items()}
    assert shapes["transformer.patch_embed.proj.weight"] == [cfg.width, 3, 16, 16]
    assert shapes["text_embeddings.word_embeddings.weight"] == [30522, cfg.width]
    if cfg.relative_bias:
        assert shapes[BIAS_TABLE] == [27**2 + 3 + 2 * 196 + 2, cfg.heads]
        assert "transformer.pos_embed" not in shapes
    else:
        assert shapes["transformer.pos_embed"] == [1, 197, 544]
        assert shapes["text_embeddings.position_embeddings.weight"] == [40, 544]
        assert not any("gamma" in key for key in shapes)
    first = cfg.vl_layer
    assert f"transformer.blocks.{first}.mlp_vl.fc1.weight" in shapes
    assert f"transformer.blocks.{first - 1}.mlp_vl.fc1.weight" not in shapes
    heads = ("pooler", "itm", "itc", "mlm", "logit")
    counted = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(heads))
    assert counted / 1e6 == pytest.approx(parameters, abs=0.6)
