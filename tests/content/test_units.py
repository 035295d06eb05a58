"""What the settings `content.*` make of a dataset's fields: which encoder reads which, whose networks are shared."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

import rawrec
from rawrec.config import Config, resolve
from rawrec.content.building import build_item_model
from rawrec.content.item_model import ItemModel
from rawrec.content.units import content_units, resolved
from rawrec.data.dataset import Fields
from rawrec.errors import UserError
from systems import config, system

FIELDS = Fields(image=["image", "back"], text=["title", "plot"], categorical=[], numeric=[], feature={})
RANDOM = {"content.image.encoder": "random:conv", "content.text.encoder": "random:bert", "content.image.size": 32}


def settings(**overrides: object) -> Config:
    return resolve("em3", {"paradigm": "end_to_end", **{k.replace("__", "."): v for k, v in overrides.items()}})


def made(**overrides: object) -> ItemModel:
    cfg = settings(**{k.replace(".", "__"): v for k, v in RANDOM.items()}, **overrides)
    return build_item_model(cfg, FIELDS, content_units(cfg, FIELDS))


def test_a_field_inherits_from_its_kind() -> None:
    cfg = config(content__back__train="all", content__back__max_images=2, content__title__use=False)
    units = content_units(cfg, FIELDS.model_copy(update={"text": ["title"]}))
    assert list(units) == ["image", "back"] and units["back"].reads == (("back",),)
    image, back = (units[name].settings for name in units)
    assert image.train == "top:1" and back.train == "all" and back.max_images == 2
    assert image.size == back.size == 32 and back.encoder == "random:conv"


@pytest.mark.parametrize("paradigm", ["frozen", "hybrid"])
def test_encoders_are_frozen_but_end_to_end(paradigm: str) -> None:
    assert {unit.settings.train for unit in content_units(config(paradigm=paradigm), FIELDS).values()} == {"none"}


def test_ready_made_features_alone_have_no_encoder_to_train_end_to_end() -> None:
    fields = Fields(feature={"image": 4})
    with pytest.raises(UserError, match=r"ready-made features \(image\): choose paradigm=hybrid"):
        content_units(resolve("em3", {"paradigm": "end_to_end"}), fields)
    assert content_units(resolve("em3", {"paradigm": "hybrid"}), fields) == {}


# -------------------------------------------------------------------------------------------------- one encoder for all
def test_without_item_every_trained_field_has_a_network_of_its_own() -> None:
    model = made(content__image__train="top:1", content__text__train="all")
    stacks = {name: encoder.stack for name, encoder in model.raw_encoders()}
    assert len({id(stack) for stack in stacks.values()}) == 4


def test_frozen_networks_are_held_once() -> None:
    model = made(content__text__train="none", content__plot__max_length=8)
    stacks = {name: encoder.stack for name, encoder in model.raw_encoders()}
    assert stacks["image"] is not stacks["back"] and stacks["title"] is not stacks["plot"]
    model = made(content__text__train="none")
    stacks = {name: encoder.stack for name, encoder in model.raw_encoders()}
    assert stacks["title"] is stacks["plot"]


@pytest.mark.parametrize("train", ["top:1", "all", "lora"])
def test_item_stands_for_all_fields_and_shares_its_networks(train: str) -> None:
    """Equation 2 of EM3: one network for all pictures, one for all texts."""
    model = made(content__item__train=train)
    encoders = dict(model.raw_encoders())
    assert encoders["image"].stack is encoders["back"].stack and encoders["title"].stack is encoders["plot"].stack
    assert encoders["image"].fingerprint == encoders["back"].fingerprint
    names = {name.split(".")[0] for name in model.trained_parameters()}
    assert names == {"image", "title"}, "what is shared is trained, and kept, once"
    own = made(**{f"content__{kind}__train": train for kind in ("image", "text")})
    assert encoders["image"].fingerprint == dict(own.raw_encoders())["image"].fingerprint, "one cache for both"
    for name, encoder in own.raw_encoders():
        assert {n for n, p in encoder.stack.named_parameters() if p.requires_grad} == {
            n for n, p in encoders[name].stack.named_parameters() if p.requires_grad
        }


def test_what_shared_networks_learned_is_put_back() -> None:
    model, other = made(content__item__train="all"), made(content__item__train="all")
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(1)
    other.load_trained_state(model.trained_state())
    for (_, a), (_, b) in zip(model.raw_encoders(), other.raw_encoders(), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    with pytest.raises(UserError, match="do not fit the encoders' settings"):
        other.load_trained_state(made(content__image__train="all", content__text__train="top:1").trained_state())


def test_a_field_may_say_little_beside_item() -> None:
    cfg = settings(content__item__train="top:1", content__back__use=False, content__image__max_images=2)
    units = content_units(cfg, FIELDS)
    assert list(units) == ["image", "title", "plot"] and units["image"].settings.max_images == 2
    with pytest.raises(
        UserError,
        match=r"content\.plot\.train=all: .* it shares a network with title, where train=top:1",
    ):
        content_units(settings(content__item__train="top:1", content__plot__train="all"), FIELDS)


def test_a_dataset_may_have_a_field_called_item() -> None:
    fields = Fields(image=[], text=["item"], categorical=[], numeric=[], feature={})
    units = content_units(settings(content__item__train="all"), fields)
    assert not units["item"].shared and units["item"].settings.train == "all"


def test_resolved_settings_make_the_same_units_again() -> None:
    cfg = settings(content__item__train="top:1", content__back__use=False, content__image__size=32)
    units = content_units(cfg, FIELDS)
    cfg.content.fields = resolved(cfg, FIELDS, units)
    assert content_units(cfg, FIELDS) == units
    assert resolved(cfg, FIELDS, units) == cfg.content.fields
    again = Config.model_validate(cfg.model_dump())  # as config.yaml holds it: complete
    assert content_units(again, FIELDS) == units


@pytest.mark.parametrize("model", ["em3", "vbpr"])
def test_a_run_with_shared_networks_is_resumed_and_loaded(shop: Path, tmp_path: Path, model: str) -> None:
    overrides = {
        "paradigm": "end_to_end",
        "content.item.train": "top:1",
        "train.epochs": 1,
        "bank.live_budget": 8,
        **RANDOM,
    }
    run = rawrec.train(model, shop, tmp_path / "run", overrides)
    rec = rawrec.Recommender.load(run.path)
    items = [scored.item for scored in rec.recommend(user="u1", k=3)]
    assert len(items) == 3 and [s.item for s in rawrec.Recommender.load(run.path).recommend(user="u1", k=3)] == items


def test_shared_networks_learn_from_every_field(shop: Path, tmp_path: Path) -> None:
    made = system(shop, tmp_path, content__item__train="all", content__image__max_images=1)
    assert made.item_model is not None and made.bank is not None
    rows = torch.arange(4)
    features = made.item_model.encode(made.bank, rows)
    (shared,) = {id(e.stack) for n, e in made.item_model.raw_encoders() if n in ("title", "description")}
    text = next(e for _, e in made.item_model.raw_encoders() if id(e.stack) == shared)
    sums = {name: values.sum() for name, values in features.items() if name in ("title", "description")}
    weight = text.trained_parameters()[0]
    one, two = (torch.autograd.grad(value, weight, retain_graph=True)[0] for value in sums.values())
    both = torch.autograd.grad(sum(sums.values(), torch.zeros(())), weight)[0]
    assert one.any() and two.any()
    torch.testing.assert_close(one + two, both, rtol=1e-4, atol=1e-6)


def test_a_feature_is_named_once() -> None:
    cfg = settings(content__features=["title", "back", "title"])
    with pytest.raises(UserError, match=r"content\.features: title is named 2 times"):
        content_units(cfg, FIELDS)


# ------------------------------------------------------------------------------------------------------ several pieces
def pictures(*colours: str) -> list[bytes]:
    result = []
    for colour in colours:
        out = io.BytesIO()
        Image.new("RGB", (40, 40), colour).save(out, "PNG")
        result.append(out.getvalue())
    return result


EACH = {
    "content__image__tokens": "each",
    "content__image__max_images": 3,
    "content__text__tokens": "each",
    "content__text__max_texts": 2,
    "content__back__use": False,
    "content__plot__use": False,
    "content__dim": 16,
}


def content_of(model: ItemModel, raw: dict[str, list]) -> torch.Tensor:
    return model.eval()(model.raw_columns(raw))


def test_each_piece_is_a_token_of_its_own() -> None:
    """With the network and the projection of its field; what is beyond the limit is counted, or joined."""
    model = made(**EACH, content__image__train="top:1", content__text__train="none")
    assert model.fields == ["image", "image[2]", "image[3]", "title", "title[2]"]
    assert list(model.proj) == ["image", "title"]
    stacks = {name: encoder.stack for name, encoder in model.raw_encoders()}
    assert stacks["image"] is stacks["image[2]"] is stacks["image[3]"]
    assert {name.partition(".")[0] for name in model.trained_parameters()} == {"image"}

    red, blue, green, black = pictures("red", "blue", "green", "black")
    raw = {"image": [[red, blue, green, black], [blue], []], "title": [["a", "b", "c"], [], ["d"]]}
    columns = model.raw_columns(raw)
    there = {name: (columns[model.column(name)].lengths > 0).tolist() for name in model.fields}
    assert there == {
        "image": [True, True, False],
        "image[2]": [True, False, False],
        "image[3]": [True, False, False],
        "title": [True, False, True],
        "title[2]": [True, False, False],
    }
    lost = {name: model.lower(name, model.by_kind(name, raw))[1] for name in ("image", "image[2]", "image[3]")}
    assert [lost[name]["cut_images"].tolist() for name in lost] == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    joined = {"image": raw["image"], "title": [["a", "b\nc"], [], ["d"]]}
    torch.testing.assert_close(content_of(model, joined), content_of(model, raw))


def test_a_token_of_the_mean_and_tokens_of_each() -> None:
    """One picture and one text: the same content. Two: another one, whatever their order."""
    one_each = {key: value for key, value in EACH.items() if "tokens" not in key and "max_texts" not in key}
    each, mean = made(**EACH), made(**one_each)
    mean.load_state_dict({k: v for k, v in each.state_dict().items() if "[" not in k})
    red, blue = pictures("red", "blue")
    one = {"image": [[red]], "title": [["a film"]]}
    torch.testing.assert_close(content_of(each, one), content_of(mean, one))
    two, turned = ({"image": [order], "title": [["a film"]]} for order in ([red, blue], [blue, red]))
    assert not content_of(each, two).allclose(content_of(mean, two))
    torch.testing.assert_close(content_of(each, two), content_of(each, turned))


def test_text_flow_holds_every_text() -> None:
    model = made(**EACH, content__fusion__kind="two_flow")
    assert model.fusion is not None and model.fusion.members == [[0, 1, 2], [3, 4]]
    named = made(**EACH, content__fusion__kind="two_flow", content__fusion__text_flow=["image"])
    assert named.fusion is not None and named.fusion.members == [[3, 4], [0, 1, 2]]
    with pytest.raises(UserError, match=r"content\.fusion\.text_flow: 'titel' is unknown; did you mean title"):
        made(**EACH, content__fusion__kind="two_flow", content__fusion__text_flow=["titel"])


def test_a_vector_of_the_field_is_added_to_its_tokens() -> None:
    model = made(**EACH, content__fusion__kind="sum", content__fusion__field_embedding=True)
    assert model.field_embedding is not None and model.field_embedding.shape == (2, 16)
    raw = {"image": [pictures("red", "blue")], "title": [["a"]]}
    with torch.no_grad():
        with_vectors = content_of(model, raw)
        vectors = model.field_embedding.clone()
        model.field_embedding.zero_()
        torch.testing.assert_close(with_vectors - content_of(model, raw), (2 * vectors[:1] + vectors[1:]) / 3)


def test_each_is_refused_where_there_is_one_feature() -> None:
    with pytest.raises(UserError, match=r"content\.image\.tokens=each: train=side:1"):
        made(**EACH, content__image__train="side:1")
    cfg = settings(content__item__encoder="random:vlmo", content__item__train="top:1", content__item__tokens="each")
    with pytest.raises(UserError, match=r"random:vlmo makes one feature"):
        build_item_model(cfg, FIELDS, content_units(cfg, FIELDS))
