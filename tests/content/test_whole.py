"""VLMo as encoders of whole items: three features, one network, the same wherever it is cut."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import rawrec
from rawrec.config import FieldConfig, resolve
from rawrec.content.encoders import Networks, make_encoder
from rawrec.content.encoders.base import Encoder
from rawrec.content.encoders.vlmo import Vlmo
from rawrec.content.encoders.whole import WHOLE, PairEncoder, VlmoStack
from rawrec.content.units import content_units, resolved
from rawrec.data.dataset import Dataset, Fields
from rawrec.errors import UserError
from rawrec.training.tasks.impressions import ImpressionTask


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((60, 50)).save(file, "PNG")
    return file.getvalue()


PICTURES = [[picture(1), picture(2)], [picture(3)], [], [picture(4)], []]
TEXTS = [["a red shoe"], ["a long blue coat with many buttons"], ["a hat"], [], []]
FIELDS = Fields(image=["image", "back"], text=["title"], categorical=[], numeric=[], feature={})


def made(train: str = "none", dtype: torch.dtype = torch.float32, **settings: object) -> dict[str, Encoder]:
    networks = Networks()
    cfg = FieldConfig.model_validate({"encoder": "random:vlmo", "train": train, **settings})
    return {kind: make_encoder(kind, cfg, 0, dtype, networks) for kind in WHOLE}


def raw(encoder: Encoder) -> list:
    return [{"image": PICTURES, "text": TEXTS}[kind] for kind in encoder.kinds]


def features(encoder: Encoder) -> Tensor:
    return encoder.upper(encoder.lower(encoder.prepare(*raw(encoder))[0]))


def net(encoder: Encoder) -> Vlmo:
    assert isinstance(encoder.stack, VlmoStack)
    return encoder.stack.net


def test_features_are_those_of_the_network() -> None:
    """Of a pair: the mean over the item's pictures, each with its text."""
    encoders = made()
    pair = encoders["image_text"]
    assert isinstance(pair, PairEncoder) and len({id(net(encoder)) for encoder in encoders.values()}) == 1
    pixels = encoders["image"].prepare(PICTURES)[0].values
    pixels = (pixels.float() - pair.mean) / pair.std
    tokens = encoders["text"].prepare(TEXTS)[0]
    ids = [tokens.values[tokens.ptr[i] : tokens.ptr[i + 1]].long()[None] for i in range(2)]
    with torch.no_grad():
        seen = [net(pair)(pixels[k : k + 1], ids[item]).features[0] for k, item in ((0, 0), (1, 0), (2, 1))]
    found = features(pair)
    torch.testing.assert_close(found[0], (seen[0] + seen[1]) / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], seen[2], rtol=1e-4, atol=1e-5)
    assert not found[2:].any(), "what lacks a picture or a text has no feature of both"
    alone = net(pair)(pixels[2:3]).features[0]
    torch.testing.assert_close(features(encoders["image"])[1], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features(encoders["text"])[0], net(pair)(ids=ids[0]).features[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train", ["top:1", "top:2", "top:3", "all", "lora"])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_cut_changes_nothing(kind: str, train: str) -> None:
    whole, cut = made()[kind], made(train)[kind]
    torch.testing.assert_close(features(cut), features(whole), rtol=1e-4, atol=1e-5)
    assert cut.lower_is_identity == (train in ("top:3", "all", "lora"))


@pytest.mark.parametrize("train", ["top:1", "all", "lora"])
def test_each_pass_trains_its_own_part_of_the_network(train: str) -> None:
    encoders = made(train)
    reached: dict[str, set[str]] = {}
    for kind, encoder in encoders.items():
        net(encoder).zero_grad(set_to_none=True)
        for _ in range(2):  # LoRA's first factor has a gradient once the second is not zero
            features(encoder).square().sum().backward()
            with torch.no_grad():
                for name, parameter in net(encoder).named_parameters():
                    if "lora_B" in name and parameter.grad is not None:
                        parameter.sub_(parameter.grad)
        named = net(encoder).named_parameters()
        reached[kind] = {name for name, parameter in named if parameter.grad is not None}
        assert reached[kind] <= {name for name, parameter in net(encoder).named_parameters() if parameter.requires_grad}
    trained = {name for name, parameter in net(encoders["image"]).named_parameters() if parameter.requires_grad}
    assert set.union(*reached.values()) == trained
    if train == "all":
        assert any("experts.vl" in name for name in reached["image_text"])
        assert not any("experts.vl" in name or "words" in name for name in reached["image"])


def test_fingerprints_are_of_the_weights_as_they_were_loaded() -> None:
    prints = {train: {kind: e.fingerprint for kind, e in made(train).items()} for train in ("none", "top:1", "lora")}
    assert len({p for each in prints.values() for p in each.values()}) == 9
    assert prints["lora"] == {kind: e.fingerprint for kind, e in made("lora").items()}
    other = {kind: make_encoder(kind, FieldConfig(encoder="random:vlmo"), 1, torch.float32) for kind in WHOLE}
    assert all(encoder.fingerprint != prints["none"][kind] for kind, encoder in other.items())


def test_what_is_stored_in_half_precision_keeps_its_mask() -> None:
    whole, cut = made()["image_text"], made("top:1", torch.float16)["image_text"]
    torch.testing.assert_close(features(cut), features(whole), rtol=2e-2, atol=2e-2)


# ------------------------------------------------------------------------------------------------------------- settings
def config(**overrides: object) -> rawrec.config.Config:
    given = {"content.item.encoder": "random:vlmo", **{k.replace("__", "."): v for k, v in overrides.items()}}
    return resolve("em3", {"paradigm": "hybrid", **given})


def test_an_item_has_three_features() -> None:
    units = content_units(config(), FIELDS)
    assert list(units) == ["image", "text", "image_text"]
    assert units["image_text"].reads == (("image", "back"), ("title",))
    units = content_units(config(content__image__size=64, content__text__max_length=9), FIELDS)
    assert {(unit.settings.size, unit.settings.max_length) for unit in units.values()} == {(64, 9)}
    assert list(content_units(config(content__title__use=False), FIELDS)) == ["image"]


def test_some_of_the_features_may_be_left_out() -> None:
    for chosen in (["image_text"], ["text"], ["text", "image"]):
        cfg = config(content__features=chosen)
        units = content_units(cfg, FIELDS)
        assert sorted(units) == sorted(chosen)
        cfg.content.fields = resolved(cfg, FIELDS, units)
        assert content_units(rawrec.config.Config.model_validate(cfg.model_dump()), FIELDS) == units


@pytest.mark.parametrize(
    ("overrides", "fields", "message"),
    [
        (
            {"content__features": ["image", "both"]},
            FIELDS,
            "no encoder makes 'both' here. Known: image, text, image_text",
        ),
        ({"content__image__use": False}, FIELDS, "reads pictures together with texts, and no image field is in use"),
        ({}, FIELDS.model_copy(update={"image": []}), "no image field is in use"),
        ({}, FIELDS.model_copy(update={"feature": {"image_text": 4}}), "ready-made feature 'image_text'"),
        ({"content__text__lora_rank": 3}, FIELDS, r"content\.text\.lora_rank=3: .* shares a network with image"),
    ],
)
def test_mistakes_are_named(overrides: dict, fields: Fields, message: str) -> None:
    if "lora_rank" in str(overrides):
        overrides = {**overrides, "paradigm": "end_to_end", "content__item__train": "lora"}
    with pytest.raises(UserError, match=message):
        content_units(config(**overrides), fields)


@pytest.mark.parametrize(("model", "train"), [("em3", "top:1"), ("vbpr", "top:1"), ("em3", "lora")])
def test_a_model_trains_it_end_to_end_and_scores_new_items(shop: Path, tmp_path: Path, model: str, train: str) -> None:
    overrides = {
        "paradigm": "end_to_end", "content.item.encoder": "random:vlmo", "content.item.train": train, "train.epochs": 1,
        "train.threads": 1, "train.checkpoint_share": 1,
    }  # fmt: skip
    run = rawrec.train(model, shop, tmp_path / "run", overrides)
    rec = rawrec.Recommender.load(run.path)
    assert len(rec.recommend(user="u1", k=3)) == 3
    if model == "em3":
        new = {"image": picture(7), "title": "a red shoe"}
        (both,), (less,) = (rec.score(user="u1", items=[item]) for item in (new, {"image": picture(7)}))
        assert both != less


def test_an_encoder_that_learns_nothing_is_named_by_its_setting(shop: Path, tmp_path: Path) -> None:
    """The feature's name is no field of the dataset: the setting is that of the encoder of all."""
    overrides = {"paradigm": "end_to_end", "content.item.encoder": "random:vlmo", "content.item.train": "top:1"}
    cfg = resolve("em3", {**overrides, "train.threads": 1})
    task = ImpressionTask(cfg, Dataset.open(shop), tmp_path)
    assert list(task.encoders()) == ["image", "text", "image_text"]
    assert {task.train_setting(name) for name in task.encoders()} == {"content.item.train=top:1"}
