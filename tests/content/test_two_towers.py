"""Models of pictures and words, from folders: their features are those of the class, whatever is trained."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from rawrec.config import FieldConfig
from rawrec.content.encoders import make_encoder
from rawrec.content.encoders.siglip import without_punctuation
from rawrec.errors import UserError

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
WORDS = {"<bos>": 4, "<end>": 2, "<unk>": 3, "<pad>": 1, "a": 0, "film": 5, "robot": 6, "romance": 7}
CLASSES = {"clip": "CLIP", "metaclip_2": "MetaClip2", "siglip": "Siglip", "chinese_clip": "ChineseCLIP"}
PROCESSORS = {"siglip": "SiglipImageProcessorPil", "chinese_clip": "ChineseCLIPImageProcessorPil"}
TEXTS = [["A film"], [], ["a robot romance a film a robot"], ["<end> film"], ["robot"]]


def png(width: int, height: int, seed: int) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


PICTURES = [[png(40, 60, 0)], [], [png(97, 50, 1)], [png(32, 32, 2)], [png(60, 91, 3)]]


def save(folder: Path, kind: str, end: int = 8, text: dict[str, Any] | None = None) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(1)
    words = WORDS | {"<end>": end}
    more: dict[str, Any] = {} if kind == "siglip" else {"projection_dim": 16}
    own: dict[str, Any] = {"projection_size": 32} if kind == "siglip" else {}
    positions = 12
    config = getattr(transformers, f"{CLASSES[kind]}Config")(
        text_config={**TOWER, "vocab_size": 9, "max_position_embeddings": positions, **own}
        | ({} if kind == "chinese_clip" else {"bos_token_id": 4, "eos_token_id": end})
        | {"pad_token_id": 1}
        | (text or {}),
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        **more,
    )
    model = getattr(transformers, f"{CLASSES[kind]}Model")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template, special = ("$A <end>", []) if kind == "siglip" else ("<bos> $A <end>", [("<bos>", 4)])
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=[*special, ("<end>", end)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", pad_token="<pad>", unk_token="<unk>", model_max_length=positions
    ).save_pretrained(folder)
    return folder


def own_pixels(kind: str, given: dict[str, Any]) -> torch.Tensor:
    processor = getattr(transformers, PROCESSORS.get(kind, "CLIPImageProcessorPil"))(**given)
    return processor([Image.open(io.BytesIO(p[0])) for p in PICTURES if p], return_tensors="pt")["pixel_values"]


def make(folder: Path, field: Any, train: str = "none", **settings: Any) -> Any:
    return make_encoder(field, FieldConfig(encoder=str(folder), train=train, **settings), 0, torch.float32)


def sizes(kind: str, side: int = 32) -> dict[str, Any]:
    square = {"height": side, "width": side}
    return {"size": square} if kind == "siglip" else {"size": {"shortest_edge": side}, "crop_size": square}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("said", [False, True])
def test_pictures_are_those_of_the_class(tmp_path: Path, kind: str, said: bool) -> None:
    """Pixels by the family's own processor, features by its own method; with its file in the folder and without."""
    save(tmp_path, kind)
    given = sizes(kind) | (
        {"image_mean": [0.3, 0.4, 0.5], "image_std": [0.2, 0.25, 0.3], "resample": 2} if said else {}
    )
    if said:
        getattr(transformers, PROCESSORS.get(kind, "CLIPImageProcessorPil"))(**given).save_pretrained(tmp_path)
    pixels = own_pixels(kind, given)
    encoder = make(tmp_path, "image")
    prepared = encoder.prepare(PICTURES)[0].values
    assert (((prepared - encoder.mean) / encoder.std - pixels).abs() * encoder.std).max() < 0.01  # of 255
    model = getattr(transformers, f"{CLASSES[kind]}Model").from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=(prepared - encoder.mean) / encoder.std).pooler_output
    found = encoder.encode(PICTURES)
    assert not found[1].any()
    torch.testing.assert_close(found[[0, 2, 3, 4]], expected, rtol=1e-4, atol=1e-4)
    cuts(tmp_path, "image", PICTURES, found)


@pytest.mark.parametrize(("kind", "end"), [*((kind, 8) for kind in CLASSES), ("metaclip_2", 2)])
def test_texts_are_those_of_the_class(tmp_path: Path, kind: str, end: int) -> None:
    save(tmp_path, kind, end)
    model = getattr(transformers, f"{CLASSES[kind]}Model").from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [text[0].lower() if kind == "siglip" else text[0] for text in TEXTS if text]
    padding = "max_length" if kind == "siglip" else True
    inputs = tokenizer(texts, padding=padding, max_length=12, truncation=True, return_tensors="pt")
    mask = {} if kind == "siglip" else {"attention_mask": inputs["attention_mask"]}
    with torch.no_grad():
        expected = model.get_text_features(input_ids=inputs["input_ids"], **mask).pooler_output
    found = make(tmp_path, "text").encode(TEXTS)
    assert not found[1].any()
    torch.testing.assert_close(found[[0, 2, 3, 4]], expected, rtol=1e-4, atol=1e-4)
    cuts(tmp_path, "text", TEXTS, found)
    assert make(tmp_path, "image").width == found.shape[1]  # one space


def cuts(folder: Path, field: str, items: list, whole: torch.Tensor) -> None:
    """The same feature, and a gradient for all that is trained, wherever the encoder is cut."""
    head = {"visual_projection", "text_projection", "text_model.head", "vision_model.head"}
    for train in ("top:1", "all", "lora"):
        encoder = make(folder, field, train)
        assert encoder.boundary == {"top:1": 2, "all": 0, "lora": 0}[train]
        found = encoder.upper(encoder.lower(encoder.prepare(items)[0]))
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)
        (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
        trained = encoder.trained_state()
        assert trained and all(p.grad is not None for p in encoder.trained_parameters())
        assert any(part in name for part in head for name in trained) == (train != "lora")


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("field", ["image", "text"])
def test_before_the_projection(tmp_path: Path, kind: str, field: str) -> None:
    save(tmp_path, kind)
    items: Any = PICTURES if field == "image" else TEXTS
    model = getattr(transformers, f"{CLASSES[kind]}Model").from_pretrained(tmp_path).eval()
    pooled, projected = make(tmp_path, field, output="pooled"), make(tmp_path, field)
    assert pooled.width == 32 and pooled.fingerprint != projected.fingerprint
    found = pooled.encode(items)
    with torch.no_grad():
        if kind != "siglip":
            after = (model.visual_projection if field == "image" else model.text_projection)(found)
        elif field == "text":
            after = model.text_model.head(found)
        else:
            after = found + model.vision_model.head.mlp(model.vision_model.head.layernorm(found))
    torch.testing.assert_close(after[[0, 2, 3, 4]], projected.encode(items)[[0, 2, 3, 4]], rtol=1e-4, atol=1e-4)


def test_an_old_config_of_clip_ends_texts_by_the_highest_id(tmp_path: Path) -> None:
    save(tmp_path, "clip", text={"eos_token_id": 2})  # while the tokenizer's is 8
    model = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[4, 5, 6, 8, 1, 1]])
    with torch.no_grad():
        expected = model.get_text_features(input_ids=ids).pooler_output
    torch.testing.assert_close(make(tmp_path, "text").encode([["film robot"]]), expected, rtol=1e-4, atol=1e-4)
    cuts(tmp_path, "text", [["film robot"], ["a"]], make(tmp_path, "text").encode([["film robot"], ["a"]]))


def test_a_tokenizer_without_the_end_token_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "clip", text={"eos_token_id": 5})
    with pytest.raises(UserError, match="does not end texts with the end token"):
        make(tmp_path, "text")


def test_lengths_are_the_familys_own(tmp_path: Path) -> None:
    save(tmp_path, "siglip")
    encoder = make(tmp_path, "text")
    assert encoder.prepare([["a"], []])[0].lengths.tolist() == [12, 0]
    short, lost = make(tmp_path, "text", max_length=4).prepare([["a film a robot a film"]])
    assert short.values.tolist() == [0, 5, 0, 8, *[1] * 8] and lost["truncated"].tolist() == [1]
    with pytest.raises(UserError, match="at most 12"):
        make(tmp_path, "text", max_length=13)
    assert without_punctuation("A robot's  film, (2nd)!") == "a robots film 2nd"


def test_what_stands_after_an_end_token_is_counted(tmp_path: Path) -> None:
    tokens, lost = make(save(tmp_path, "clip"), "text").prepare([["a <end> film"], ["a film"]])
    assert tokens.lengths.tolist() == [3, 4] and lost["truncated"].tolist() == [1, 0]


def test_the_activation_is_the_configs_and_keys_the_cache(tmp_path: Path) -> None:
    """QuickGELU's weights run with GELU load without an error: config.json decides, and a cache of one is not read."""
    save(tmp_path, "clip")
    quick = make(tmp_path, "text")
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["hidden_act"] = "gelu"
    (tmp_path / "config.json").write_text(json.dumps(config))
    plain = make(tmp_path, "text")
    assert plain.fingerprint != quick.fingerprint
    assert (plain.encode(TEXTS) - quick.encode(TEXTS)).abs().max() > 1e-3


def test_preparation_keys_the_cache_and_size_scales_it(tmp_path: Path) -> None:
    save(tmp_path, "clip")
    usual = make(tmp_path, "image")
    large = make(tmp_path, "image", size=64)
    assert (large.framing.side, large.framing.edge) == (64, 64) and large.encode(PICTURES).shape == (5, 16)
    transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(tmp_path)
    other = make(tmp_path, "image")
    assert (other.framing.side, other.framing.edge) == (32, 40)
    assert make(tmp_path, "image", size=64).framing.edge == 80
    assert len({usual.fingerprint, large.fingerprint, other.fingerprint}) == 3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "siglip2"}, "NaFlex.*fixed size"),
        ({"model_type": "siglip2_vision_model"}, "NaFlex"),
        ({"model_type": "clip_vision_model"}, "one tower of CLIP"),
        ({"model_type": "blip", "text_config": {}, "vision_config": {}}, "blip.*not known.*SigLIP"),
    ],
)
@pytest.mark.parametrize("field", ["image", "text"])
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, config: dict, message: str, field: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        make(tmp_path, field)


def test_other_refusals(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(UserError, match="open_clip"):
        make(tmp_path, "image")
    folder = save(tmp_path / "clip", "clip")
    transformers.CLIPImageProcessorPil(do_center_crop=False, size={"shortest_edge": 32}).save_pretrained(folder)
    with pytest.raises(UserError, match="known are squares"):
        make(folder, "image")
    (folder / "processor_config.json").unlink(missing_ok=True)
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "EfficientNetImageProcessor"}')
    with pytest.raises(UserError, match=r"EfficientNetImageProcessorPil.*not known"):
        make(folder, "image")


def test_a_network_of_which_nothing_is_known_is_not_pooled(tmp_path: Path) -> None:
    save(tmp_path, "clip")
    transformers.GPT2Model(transformers.GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2)).save_pretrained(
        tmp_path
    )
    with pytest.raises(UserError, match="gpt2 makes one vector"):
        make(tmp_path, "text")


@pytest.mark.parametrize("mode", ["cls_token", "max_tokens", "lasttoken", "mean_tokens"])
def test_pooling_that_the_folder_names(tmp_path: Path, mode: str) -> None:
    save(tmp_path, "clip")
    config = transformers.BertConfig(vocab_size=9, max_position_embeddings=12, **TOWER)
    model = transformers.BertModel(config).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    with torch.no_grad():
        hidden = model(torch.tensor([[4, 5, 6, 8]])).last_hidden_state[0]
    expected = {
        "cls_token": hidden[0],
        "max_tokens": hidden.amax(0),
        "lasttoken": hidden[-1],
        "mean_tokens": hidden.mean(0),
    }
    found = make(tmp_path, "text").encode([["film robot"], ["a"]])
    torch.testing.assert_close(found[0], expected[mode], rtol=1e-4, atol=1e-4)


def test_shared_parameters_stay_frozen(tmp_path: Path) -> None:
    """MPNet's position bias is read by every layer: trained, it would move the cached hidden states."""
    save(tmp_path, "clip")
    config = transformers.MPNetConfig(vocab_size=9, max_position_embeddings=16, **TOWER)
    transformers.MPNetModel(config).save_pretrained(tmp_path)
    encoder = make(tmp_path, "text", "top:1")
    x = encoder.prepare(TEXTS)[0]
    before = encoder.lower(x).values
    with torch.no_grad():
        for parameter in encoder.trained_parameters():
            parameter.add_(1)
    assert encoder.trained_parameters() and encoder.boundary == 2
    assert torch.equal(encoder.lower(x).values, before)
    assert any("relative_attention_bias" in name for name in make(tmp_path, "text", "all").trained_state())


def test_attention_is_chosen_by_the_device_both_ways(tmp_path: Path) -> None:
    encoder = make(save(tmp_path, "clip"), "image", "top:1")
    config = encoder.stack.model.vision_model.config
    assert config._attn_implementation == "eager"
    encoder.stack.to("meta").run(torch.zeros(1, 3, 32, 32, device="meta"), None, 0, 1)
    assert config._attn_implementation == "sdpa"
    encoder.stack._attend("cpu")
    assert config._attn_implementation == "eager"


def test_a_tokenizer_in_python(tmp_path: Path) -> None:
    config = transformers.BertConfig(vocab_size=400, max_position_embeddings=64, **TOWER)
    transformers.BertModel(config).save_pretrained(tmp_path)
    transformers.ByT5Tokenizer(extra_ids=0).save_pretrained(tmp_path)
    tokens, lost = make(tmp_path, "text", max_length=5).prepare([["ab"], ["abcdefgh"]])
    assert tokens.values.tolist() == [100, 101, 1, 100, 101, 102, 103, 1] and lost["truncated"].tolist() == [0, 1]
